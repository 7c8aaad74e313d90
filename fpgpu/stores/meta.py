"""The meta store: headers and WCS of every exposure, in forcepho's files."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fpgpu.errors import (
    MissingStoreError,
    NotInStoreError,
    StoreConflictError,
    StoreWriteError,
)
from fpgpu.stores.commit import Change, commit, holding
from fpgpu.stores.disk import StrPath, signature, write_beside
from fpgpu.stores.index import Entry
from fpgpu.stores.metadata.catalog import ExposureCatalog
from fpgpu.stores.metadata.entries import MetaEntry, new_entry
from fpgpu.stores.metadata.gwcs import joined
from fpgpu.stores.metadata.skyrecords import Key, text_digest
from fpgpu.stores.metadata.source import FileSource, IndexSource, MetaPaths, Source
from fpgpu.stores.metadata.table import exposure_table, write_table
from fpgpu.stores.metafiles import are_known, json_text, new_entries, state_beside
from fpgpu.stores.names import NameTree, check_no_collision, some
from fpgpu.stores.state import State
from fpgpu.stores.views import write_views

if TYPE_CHECKING:
    from astropy.io.fits import Header
    from astropy.table import Table

__all__ = ["MetaStore"]


class MetaStore(ExposureCatalog):
    """Headers and WCS of exposures, in forcepho's files.

    Headers, WCS and footprints are made when they are asked for, and all belong to the moment of
    opening, whatever others write later. ``meta.json`` beside a ``pixels.h5`` that fpgpu wrote is a
    view for forcepho: the store is then read from the commit itself, unless somebody has changed
    the file.

    Parameters
    ----------
    metastorefile : path, optional
        The JSON file, ``meta.json``; None makes an empty store in memory.
    use_gwcs : bool or None, optional
        Whether positions come from the gWCS of the ASDF file beside it (``meta.asdf``) instead of
        the FITS WCS of the headers; with None they do where an exposure has one.
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

    Examples
    --------
    >>> meta = MetaStore("stores/meta.json")
    >>> meta.bands
    ['F200W', 'F444W']
    >>> near = meta.exposures_touching(fpgpu.CircularRegion(53.16, -27.79, 1 * u.arcsec), ["F200W"])
    >>> meta.headers["F200W"][near[0][1]]["FILTER"]
    'F200W'
    """

    def __init__(
        self,
        metastorefile: StrPath | None = None,
        use_gwcs: bool | None = False,
        load_all: bool = False,
    ) -> None:
        paths = None if metastorefile is None else MetaPaths.of(metastorefile)
        self._open(None if paths is None else _source(paths), use_gwcs=use_gwcs)
        if load_all:
            self.populate_wcs()

    @classmethod
    def of_state(cls, state: State, *, use_gwcs: bool | None = False) -> Self:
        """Open the metadata of a state of a pixel store, so that both are of one commit.

        Parameters
        ----------
        state : State
            `PixelStore.state` of a store with an index.
        use_gwcs : bool or None, optional
            As for the class.

        Returns
        -------
        MetaStore
            Of this state.
        """
        store = cls.__new__(cls)
        paths = MetaPaths.of(state.folder / "meta.json")
        store._open(IndexSource(state, paths), use_gwcs=use_gwcs)
        return store

    def _open(self, source: Source | None, *, use_gwcs: bool | None) -> None:
        """Take over what was opened."""
        super().__init__(source, use_gwcs=use_gwcs)
        # The file this store stands for, as it was when we last read or wrote it.
        self._path = None if source is None else source.paths.json
        self._known = source.seen if isinstance(source, FileSource) else None
        self.gwcs_file: str | None = None
        if use_gwcs and source is not None and not source.has_asdf:
            raise MissingStoreError(
                f"{source.paths.asdf}: no such file, so {source.paths.json.name} has no gWCS; "
                "open it without use_gwcs to take the FITS WCS of the headers"
            )
        if use_gwcs is not False and source is not None and source.has_asdf:
            self.gwcs_file = str(source.paths.asdf)

    @property
    def state(self) -> State | None:
        """The commit that this was opened from; None for one of files, or in memory."""
        return self._source.state if isinstance(self._source, IndexSource) else None

    def pixel_id(self, band: str, expID: str) -> str:
        """Return which pixels the metadata of an exposure belong to.

        Parameters
        ----------
        band, expID : str
            The exposure.

        Returns
        -------
        str
            As `PixelStore.pixel_id`; empty where that is not known.
        """
        row = self.state.index.rows.get((band, expID)) if self.state is not None else None
        return "" if row is None else row.id

    def __repr__(self) -> str:
        bands = ", ".join(f"{band} {len(exps)}" for band, exps in self.headers.items())
        name = "in memory" if self._source is None else str(self._source.paths.json)
        return (
            f"<MetaStore {name}: {self.nexp} exposures ({bands or 'no bands'}), {self.wcs_kinds}>"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        # As forcepho's, a copy holds everything itself, with what was changed and not written.
        entries = [self.entry(*key) for key in self]
        replaced_wcs = {key: self.wcs[key[0]][key[1]] for key in self._replaced_wcs}
        state = (self.gwcs_file, self._path, self._known, self.image_shape)
        return _unpickled, (entries, self.use_gwcs, replaced_wcs, state)

    def close(self) -> None:
        """Do nothing: no file is held open."""

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
            self._read_tree_from(Path(gwcs_file))
            self.gwcs_file = str(gwcs_file)
        if self.use_gwcs and (lacking := self.without_gwcs()):
            raise NotInStoreError(
                f"{self.gwcs_file or 'the store in memory'}: no gWCS of {len(lacking)} exposures: "
                f"{some(['/'.join(key) for key in lacking])}; open the store without use_gwcs to "
                "take the FITS WCS"
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
            self._add(entry)

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
            self._required(*key)
        for band, expID in dict.fromkeys(keys):
            del self.headers[band][expID]
            if not self.headers[band]:
                del self.headers[band]

    def write_to_file(self, filename: StrPath) -> None:
        """Write the store: JSON, and ASDF when there are gWCS.

        Beside a ``pixels.h5`` that fpgpu wrote, ``meta.json`` is a view of that: then the metadata
        of its exposures become these, by a commit, and both files are written anew. A gWCS that was
        changed in place counts as new when it is assigned again.

        Parameters
        ----------
        filename : path
            The JSON file to create or replace; its name ends in ``.json``.

        Raises
        ------
        StoreWriteError
            If the files cannot be written; each is as it was or as it is to be.
        StoreConflictError
            If `filename` is what this store was opened from, and somebody else has changed it
            since: what they wrote would be lost.
        UnusableExposureError
            If a header was given a value that FITS cannot hold.
        """
        paths = MetaPaths.of(filename)
        if not paths.json.name.endswith(".json") or paths.json.name == ".json":
            raise StoreWriteError(
                f"{paths.json}: the name of a meta store must end in '.json'; the file beside it "
                "is named after it"
            )
        with self._lock:
            beside = state_beside(paths.json)
            if beside is not None:
                with holding(beside.store):
                    state = commit(beside.store, self._change)
                    write_views(beside.store)
                if self.state is not None or self._source is None:
                    self._source = IndexSource(state, paths)
            else:
                self._write_files(paths)
                if self._source is not None and self._source.paths == paths:
                    self._source = FileSource(paths)
            if paths.json == self._path or self._path is None:
                self._path, self._known = paths.json, signature(paths.json)

    def _change(self, state: State) -> Change:
        """Say what a commit has to change for its metadata to be these."""
        index = state.index
        mine = self.state if self.state is not None and self.state.store == state.store else None
        opened = {} if mine is None else mine.index.rows
        keys = [
            key
            for key in self
            if (mine is None or not self._is_as_opened(key)) and not self._is_stored(state, key)
        ]
        before = opened if mine is not None else index.rows
        gone = [key for key, row in before.items() if row.meta is not None and key not in self]
        for key in (*keys, *gone):
            now, then = index.rows.get(key), opened.get(key)
            if mine is not None and (now and now.meta) != (then and then.meta):
                raise StoreConflictError(
                    f"{state.place(key)}: its metadata were changed by somebody else since they "
                    "were read; open the store again and repeat the change"
                )
        put = new_entries(state, index, self, keys)
        left = [index.rows[key] for key in gone if key in index.rows]
        put |= {
            row.key: Entry(row._replace(meta=None), None, index.calibration(row.key))
            for row in left
            if row.file
        }
        return Change(put, [row.key for row in left if not row.file])

    def _is_stored(self, state: State, key: Key) -> bool:
        """Whether a commit has the same header and gWCS of an exposure."""
        old = state.index.sky(key) if key in state.index.rows else None
        has_gwcs = self._has_gwcs(key)
        if old is None or old.digest != text_digest(self._text(key)):
            return False
        if not (has_gwcs or old.has_gwcs):
            return True
        return has_gwcs and old.has_gwcs and state.record(key).gwcs == self._gwcs_bytes(key)

    def _write_files(self, paths: MetaPaths) -> None:
        """Replace the two files of a store that stands for itself."""

        def is_current() -> bool:
            if paths.json != self._path or self._known is None:
                return True
            with suppress(MissingStoreError):
                return signature(paths.json) == self._known
            return False

        if not is_current():
            raise StoreConflictError(
                f"{paths.json}: was changed by somebody else since it was read; open the store "
                "again and repeat the change"
            )
        texts = [(key, self._text(key)) for key in self]
        is_own = self._source is not None and self._source.paths == paths
        if self._changed_gwcs or not is_own:
            with_gwcs = [key for key in self if self._has_gwcs(key)]
            if with_gwcs:
                content = joined((key, self._gwcs_bytes(key)) for key in with_gwcs)
                with write_beside(paths.asdf) as draft:
                    draft.write_bytes(content)
            else:
                paths.asdf.unlink(missing_ok=True)
        with write_beside(paths.json, is_current) as draft:
            draft.write_text(json_text(texts), encoding="ascii")

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
    entries: list[MetaEntry], use_gwcs: bool | None, replaced_wcs: Mapping[Any, Any], state: Any
) -> MetaStore:
    """Make a store in memory of what was pickled of one."""
    store = MetaStore()
    store._use_gwcs = use_gwcs
    store.add_prepared(*entries)
    for (band, expID), wcs in replaced_wcs.items():
        store.wcs[band][expID] = wcs
    store.gwcs_file, store._path, store._known, store.image_shape = state
    return store


def _source(paths: MetaPaths) -> Source:
    """Open the commit that a meta file is a view of, or the file itself."""
    state = state_beside(paths.json)
    if state is not None and are_known(state, paths):
        return IndexSource(state, paths)
    return FileSource(paths)
