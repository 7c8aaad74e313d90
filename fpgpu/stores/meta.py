"""The meta store: headers and WCS of every exposure, in forcepho's files."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from fpgpu.errors import MissingStoreError, NotInStoreError
from fpgpu.stores.files.publish import Signature, Together, signature
from fpgpu.stores.files.sync import StrPath
from fpgpu.stores.metadata.catalog import ExposureCatalog
from fpgpu.stores.metadata.contents import MetaContents
from fpgpu.stores.metadata.entries import MetaEntry, new_entry
from fpgpu.stores.metadata.store_files import MetaPaths
from fpgpu.stores.metadata.table import exposure_table, write_table
from fpgpu.stores.metadata.writing import write_meta_files
from fpgpu.stores.names import NameTree, check_no_collision

if TYPE_CHECKING:
    from astropy.io.fits import Header
    from astropy.table import Table

__all__ = ["MetaStore"]

# Exposures that a message names before it counts the rest.
LISTED = 5


class MetaStore(ExposureCatalog):
    """Headers and WCS of exposures, in forcepho's files.

    Only names are read when a store is opened; headers, WCS and footprints are made when they are
    asked for. The files are held open until `close`, so that everything read belongs to the moment
    of opening, whatever others write later.

    Parameters
    ----------
    metastorefile : path, optional
        The JSON file, ``meta.json``; None makes an empty store in memory.
    use_gwcs : bool, optional
        Whether positions come from the gWCS of the ASDF file beside it (``meta.asdf``) instead of
        the FITS WCS of the headers.
    load_all : bool, optional
        Whether all WCS are made at once.

    Attributes
    ----------
    gwcs_file : str or None
        The ASDF file that `wcs` comes from; None when it comes from the headers.

    Raises
    ------
    MissingStoreError
        If there is no such file, or `use_gwcs` and no ASDF file beside it.
    StoreFormatError
        If the file is no meta store.
    """

    def __init__(
        self,
        metastorefile: StrPath | None = None,
        use_gwcs: bool = False,
        load_all: bool = False,
    ) -> None:
        paths = None if metastorefile is None else MetaPaths.of(metastorefile)
        super().__init__(MetaContents(paths, use_gwcs=bool(use_gwcs)))
        # The file this store stands for, as it was when we last read or wrote it.
        files = self._contents.files
        self._path = None if files is None else files.paths.json
        self._known: Signature | None = None if files is None else files.json_signature
        self.gwcs_file: str | None = None
        if use_gwcs and paths is not None:
            if not self._contents.has_asdf:
                raise MissingStoreError(
                    f"{paths.asdf}: no such file, so {paths.json.name} has no gWCS; open it "
                    "without use_gwcs to take the FITS WCS of the headers"
                )
            self.gwcs_file = str(paths.asdf)
        if load_all:
            self.populate_wcs()

    def __repr__(self) -> str:
        bands = ", ".join(f"{band} {len(exps)}" for band, exps in self.headers.items())
        kind = "gWCS" if self.use_gwcs else "FITS WCS"
        files = self._contents.files
        name = "in memory" if files is None else str(files.paths.json)
        return f"<MetaStore {name}: {self.nexp} exposures ({bands or 'no bands'}), {kind}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        # As forcepho's, a copy holds everything itself, with what was changed and not written.
        contents = self._contents
        entries = [self.entry(*key) for key in self]
        state = (self.gwcs_file, self._path, self._known, contents.image_shape)
        return _unpickled, (entries, contents.use_gwcs, contents.replaced_wcs, state)

    def close(self) -> None:
        """Close the files; headers and WCS that were not made before cannot be made any more."""
        self._contents.close()

    def populate_wcs(self, gwcs_file: StrPath | None = None) -> None:
        """Make all WCS now.

        Parameters
        ----------
        gwcs_file : path, optional
            An ASDF file with the tree ``{band: {expID: gwcs}}``, whose gWCS are used from now on.

        Raises
        ------
        NotInStoreError
            If gWCS are asked for and exposures have none; the message lists them.
        MissingStoreError, StoreFormatError
            If there is no such file, or it is no file of gWCS.
        """
        if gwcs_file is not None:
            self._contents.read_tree_from(Path(gwcs_file))
            self.gwcs_file = str(gwcs_file)
        if self.use_gwcs and (lacking := self.without_gwcs()):
            listing = ", ".join(f"{band}/{expID}" for band, expID in lacking[:LISTED])
            more = f" and {len(lacking) - LISTED} more" if len(lacking) > LISTED else ""
            raise NotInStoreError(
                f"{self.gwcs_file or 'the store in memory'}: no gWCS of {len(lacking)} exposures: "
                f"{listing}{more}; open the store without use_gwcs to take the FITS WCS"
            )
        for band, expID in self:
            self.wcs[band][expID]

    def add_exposure(self, imset: Any) -> None:
        """Add or replace the header of an exposure, and its gWCS if it has one.

        Nothing is written until `write_to_file`.

        Parameters
        ----------
        imset : ImageSet, Exposure or similar
            With attributes `hdr` (a header with FILTER and a celestial WCS; it is copied), `band`,
            `expID`, and optionally `gwcs` (a gWCS) and `sip` (its `SipFit`). The size of the image
            is that in NAXIS1 and NAXIS2; without them that of `im`, if there is one, else what
            `image_shape` says.

        Raises
        ------
        ExposureNameError, UnusableExposureError, WCSError
            As `prepare`.
        """
        self.add_prepared(self.prepare(imset))

    def prepare(self, imset: Any) -> MetaEntry:
        """Check an exposure and work out all that would be stored of it, without adding it.

        Parameters
        ----------
        imset : ImageSet, Exposure or similar
            As for `add_exposure`.

        Returns
        -------
        MetaEntry
            For `add_prepared`, which then has no more reason to refuse it.

        Raises
        ------
        ExposureNameError
            If band or expID cannot be stored or collide with another exposure.
        UnusableExposureError
            If the header lacks a keyword or cannot be written.
        WCSError
            If the WCS of the header or the gWCS is missing or gives no footprint.
        """
        entry = new_entry(imset)
        band, expID = entry.key
        check_no_collision(expID, self.headers.get(band, {}))
        return entry

    def add_prepared(self, *entries: MetaEntry) -> None:
        """Add or replace exposures that were prepared, all or none.

        Parameters
        ----------
        *entries : MetaEntry
            From `prepare`, or from `fpgpu.stores.metadata.entries.new_entry` in any process.

        Raises
        ------
        ExposureNameError
            If an expID collides with another exposure.
        """
        names: dict[str, NameTree] = {}
        for band, expID in (entry.key for entry in entries):
            if band not in names:
                names[band] = NameTree(self.headers.get(band, {}))
            names[band].add(expID)
        for entry in entries:
            self._contents.add(*entry)

    def remove(self, *keys: tuple[str, str]) -> None:
        """Remove exposures, all or none; a band without any is removed, too.

        Nothing is written until `write_to_file`.

        Parameters
        ----------
        *keys : (band, expID)
            The exposures.

        Raises
        ------
        NotInStoreError
            If one of them is not here.
        """
        for key in keys:
            self._contents.require(key)
        for band, expID in dict.fromkeys(keys):
            del self.headers[band][expID]
            if not self.headers[band]:
                del self.headers[band]

    def entry(self, band: str, expID: str) -> MetaEntry:
        """Return all that is stored of an exposure.

        Parameters
        ----------
        band, expID : str
            The exposure.

        Returns
        -------
        MetaEntry
            For `add_prepared` of another store.

        Raises
        ------
        NotInStoreError
            If there is no such exposure.
        """
        return self._contents.entry((band, expID))

    def sidecar_fault(self) -> str | None:
        """Tell why the sidecar could not be used.

        Returns
        -------
        str or None
            None when it could, or there was none.
        """
        files = self._contents.files
        return None if files is None else files.sidecar_fault()

    def write_to_file(self, filename: StrPath, together: Together | None = None) -> None:
        """Write the store: JSON, ASDF when there are gWCS, and a sidecar, all at once.

        Headers and gWCS that are in the opened files already are copied as the text they are
        there; only what is new or was replaced is written anew. A gWCS that was changed in place
        counts as new when it is assigned again.

        Parameters
        ----------
        filename : path
            The JSON file to create or replace; its name ends in ``.json``.
        together : Together, optional
            Other files of the same folder that are replaced in the same instant.

        Raises
        ------
        StoreWriteError
            If the files cannot be written; the old ones are as they were.
        StoreConflictError
            If `filename` is the file that this store was opened from, and somebody else has
            changed it since: what they added would be lost.
        UnusableExposureError
            If a header was given a value that FITS cannot hold.
        """
        paths = MetaPaths.of(filename)
        with self._contents.lock:
            is_ours = paths.json == self._path
            write_meta_files(self._contents, paths, self._known if is_ours else None, together)
            if is_ours or self._contents.files is None:
                self._path, self._known = paths.json, signature(paths.json)

    def read_from_file(self, filename: StrPath) -> "dict[str, dict[str, Header]]":
        """Read the headers of a JSON file, without changing this store.

        Parameters
        ----------
        filename : path
            A meta store.

        Returns
        -------
        dict of str to dict of str to astropy.io.fits.Header
            By band and expID.

        Raises
        ------
        MissingStoreError, StoreFormatError
            If there is no such file, or it is no meta store.
        """
        with MetaStore(filename) as other:
            return {band: dict(exposures) for band, exposures in other.headers.items()}

    def as_table(self, info: Mapping[str, Any] | None = None) -> "Table":
        """Give the key header fields of all exposures.

        Parameters
        ----------
        info : mapping of str to value, optional
            Goes into the table's `meta`.

        Returns
        -------
        astropy.table.Table
            A row an exposure, in the store's order; values that a header lacks are masked. `ra`
            and `dec` are of the middle of the detector, degrees.

        Raises
        ------
        WCSError
            If an exposure has no usable WCS.
        """
        return exposure_table(self, info)

    def to_table(
        self, tablename: StrPath, info: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Write the key header fields of all exposures as a FITS binary table.

        Parameters
        ----------
        tablename : path
            The file.
        info : mapping of str to value, optional
            Keywords for the header of the table.
        **kwargs
            For `astropy.io.fits.HDUList.writeto`, such as ``overwrite=True``.

        Raises
        ------
        StoreWriteError
            If the file exists and is not to be overwritten, or cannot be written.
        WCSError
            If an exposure has no usable WCS.
        """
        write_table(self.as_table(info), tablename, **kwargs)


def _unpickled(
    entries: list[MetaEntry], use_gwcs: bool, replaced_wcs: Mapping[Any, Any], state: Any
) -> MetaStore:
    """Make a store in memory of what was pickled of one."""
    store = MetaStore()
    store._contents.use_gwcs = use_gwcs
    store.add_prepared(*entries)
    for (band, expID), wcs in replaced_wcs.items():
        store.wcs[band][expID] = wcs
    store.gwcs_file, store._path, store._known, store._contents.image_shape = state
    return store
