"""The exposures of a meta store: headers and WCS, where they are, which cover a place."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpgpu.errors import NotInStoreError, RegionError, StoreError
from fpgpu.stores.disk import read_errors, read_regular
from fpgpu.stores.metadata.entries import MetaEntry
from fpgpu.stores.metadata.gwcs import GwcsFile, gwcs_from_bytes, gwcs_to_bytes
from fpgpu.stores.metadata.headers import parse_header, serialize, with_size
from fpgpu.stores.metadata.lazy import LazyTable
from fpgpu.stores.metadata.outlines import Outlines, wcs_errors
from fpgpu.stores.metadata.skyrecords import Float, Key, SkyColumns, StoredRecords
from fpgpu.stores.metadata.source import Source
from fpgpu.stores.names import each_band

if TYPE_CHECKING:
    from astropy.io.fits import Header

    from fpgpu.sky.footprints import FootprintIndex
    from fpgpu.sky.regions import Region
    from fpgpu.sky.sip import SipFit
    from fpgpu.sky.wcs import SkyWCS

__all__ = ["ExposureCatalog"]


class ExposureCatalog:
    """Headers, WCS, gWCS and footprints of exposures, each made when it is first asked for.

    What depends on a header, a WCS or a gWCS is forgotten when that is replaced, so that everything
    here always fits together.

    Parameters
    ----------
    source : Source or None
        What was opened; None for an empty store.
    use_gwcs : bool or None
        Whether WCS are the stored gWCS instead of those of the headers.
    """

    def __init__(self, source: Source | None, *, use_gwcs: bool | None) -> None:
        self._lock = threading.RLock()  # held while anything is made or changed
        self._use_gwcs = use_gwcs
        self._headers: LazyTable[Header] = LazyTable(
            "header", self._load_header, self._header_changed, self._lock
        )
        self._wcs: LazyTable[Any] = LazyTable("WCS", self._load_wcs, self._wcs_changed, self._lock)
        self._tree: LazyTable[Any] = LazyTable(
            "gWCS", self._load_gwcs, self._gwcs_changed, self._lock
        )
        self._outlines = Outlines(
            self._place,
            self._text,
            self._gwcs,
            StoredRecords({}, SkyColumns.of([])) if source is None else source.records,
        )
        self._new_texts: dict[Key, str] = {}
        self._replaced_wcs: set[Key] = set()
        self._sky: dict[Key, SkyWCS] = {}
        self._indexes: dict[tuple[str, ...], tuple[FootprintIndex, list[Key]]] = {}
        self._changes = 0
        # gWCS that did not come with the source, as ASDF or in another file.
        self._new_gwcs: dict[Key, bytes | GwcsFile] = {}
        self._changed_gwcs: set[Key] = set()
        self._source = source
        # An ASDF file takes long to read, so its names are only taken when they are needed.
        self._tree_read = not self.has_gwcs
        if source is not None:
            for band, expIDs in source.names.items():
                self._headers.declare(band, expIDs)
                self._wcs.declare(band, expIDs)

    @property
    def headers(self) -> "LazyTable[Header]":
        """``headers[band][expID]``, in the store's order; entries may be changed and replaced."""
        return self._headers

    @property
    def bands(self) -> list[str]:
        """Bands in the store's order."""
        return list(self.headers)

    def exposures(self, band: str) -> list[str]:
        """List the exposures of a band.

        Parameters
        ----------
        band : str
            The band.

        Returns
        -------
        list of str
            Their expIDs in the store's order.

        Raises
        ------
        NotInStoreError
            If the store has no such band.
        """
        return list(self.headers[band])

    @property
    def nexp(self) -> int:
        """Number of exposures."""
        return sum(len(exposures) for exposures in self.headers.values())

    def __len__(self) -> int:
        return self.nexp

    def __iter__(self) -> Iterator[Key]:
        """Iterate over (band, expID)."""
        for band, exposures in self.headers.items():
            for expID in exposures:
                yield band, expID

    def __contains__(self, key: object) -> bool:
        """Tell whether (band, expID) is in the store."""
        match key:
            case (str(band), str(expID)):
                return band in self.headers and expID in self.headers[band]
        return False

    @property
    def wcs(self) -> LazyTable[Any]:
        """``wcs[band][expID]``: celestial WCS of the kind asked for; entries may be replaced."""
        return self._wcs

    @property
    def tree(self) -> LazyTable[Any]:
        """``tree[band][expID]``: the gWCS objects, whether they are used or not."""
        with self._lock:
            if not self._tree_read and self._source is not None:
                self._declare_tree(self._source.gwcs_keys)
            return self._tree

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """Pixels along x and y of exposures whose headers do not say, as primary headers of FITS
        files with extensions: those of the pixel store, to be set by who knows it."""
        return self._outlines.image_shape

    @image_shape.setter
    def image_shape(self, shape: tuple[int, int] | None) -> None:
        with self._lock:
            if shape != self._outlines.image_shape:
                self._outlines.image_shape = shape
                for key in self._outlines.sized:
                    self._outlines.forget_header(key)
                    self._forget_wcs(key)
                self._outlines.sized.clear()

    @property
    def changes(self) -> int:
        """How often a header or WCS was replaced: what was worked out of it before is stale."""
        return self._changes

    @property
    def use_gwcs(self) -> bool | None:
        """Whether positions come from the gWCS; None: where an exposure has one."""
        return self._use_gwcs

    @property
    def wcs_kinds(self) -> str:
        """Where positions come from, in words."""
        n_gwcs = self.use_gwcs is not False and self.nexp - len(self.without_gwcs())
        if self.use_gwcs or (n_gwcs and n_gwcs == self.nexp):
            return "gWCS"
        return f"gWCS of {n_gwcs}, FITS WCS of the others" if n_gwcs else "FITS WCS"

    @property
    def has_gwcs(self) -> bool:
        """Whether there may be gWCS beside the FITS WCS of the headers."""
        return self._source is not None and self._source.has_asdf

    def without_gwcs(self) -> list[Key]:
        """List the exposures that have no gWCS.

        Returns
        -------
        list of (band, expID)
            In the store's order.
        """
        return [key for key in self if not self._has_gwcs(key)]

    def wcs_kind(self, band: str, expID: str) -> str:
        """Tell the best kind of WCS that is stored of an exposure.

        Parameters
        ----------
        band, expID : str
            The exposure.

        Returns
        -------
        str
            ``"gwcs"``, or ``"fits"`` where there is only the header's.

        Raises
        ------
        NotInStoreError
            If there is no such exposure.
        """
        return "gwcs" if self._has_gwcs(self._required(band, expID)) else "fits"

    def sky_wcs(self, band: str, expID: str) -> "SkyWCS":
        """Give the WCS of an exposure, of the kind asked for.

        Parameters
        ----------
        band, expID : str
            The exposure.

        Returns
        -------
        SkyWCS
            Around the object in `wcs`.

        Raises
        ------
        NotInStoreError
            If there is no such exposure, or it has no gWCS and that was asked for.
        WCSError
            If the WCS cannot be used.
        """
        from fpgpu.sky.wcs import SkyWCS

        key = self._required(band, expID)
        with self._lock:
            native = self.wcs[band][expID]
            if key not in self._sky:
                with wcs_errors(self._place(key)):
                    self._sky[key] = SkyWCS.from_native(native, self.shape(*key))
            return self._sky[key]

    def shape(self, band: str, expID: str) -> tuple[int, int]:
        """Give the size of an exposure by its header, or `image_shape`.

        Parameters
        ----------
        band, expID : str
            The exposure.

        Returns
        -------
        (int, int)
            Pixels along x and y.

        Raises
        ------
        NotInStoreError
            If there is no such exposure.
        WCSError
            If neither its header nor `image_shape` says.
        """
        return self._outlines.record(self._required(band, expID)).shape

    def sip_fit(self, band: str, expID: str) -> "SipFit | None":
        """Give the SIP refit of the gWCS that was stored with an exposure.

        Parameters
        ----------
        band, expID : str
            The exposure.

        Returns
        -------
        SipFit or None
            None where none is remembered; `fpgpu.sky.sip.fit_sip` makes one.

        Raises
        ------
        NotInStoreError
            If there is no such exposure.
        """
        return self._outlines.record(self._required(band, expID)).sip

    def footprint(self, band: str, expID: str) -> Float:
        """Give the outline of an exposure on the sky.

        Parameters
        ----------
        band, expID : str
            The exposure.

        Returns
        -------
        ndarray of float64, shape (n, 2)
            Right ascension and declination in degrees, along the outer edges of the pixels.

        Raises
        ------
        NotInStoreError
            If there is no such exposure, or it has no gWCS and that was asked for.
        WCSError
            If its header has no usable WCS.
        """
        key = self._required(band, expID)
        with self._lock:
            if key not in self._replaced_wcs:
                return self._outlines.outline(key, self._kind(key))
            with wcs_errors(self._place(key)):
                return self.sky_wcs(*key).footprint()

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
        with self._lock:
            key = self._required(band, expID)
            text, has_gwcs = self._text(key), self._has_gwcs(key)
            record = self._outlines.complete(key, text, has_gwcs=has_gwcs)
            return MetaEntry(key, text, self._gwcs_bytes(key) if has_gwcs else None, record)

    # --- queries -----------------------------------------------------------------------------

    def find_exposures(
        self, sky: Sequence[float], bandlist: Iterable[str]
    ) -> tuple[list[str], list[str]]:
        """Find the exposures that cover a position.

        Parameters
        ----------
        sky : sequence of two floats
            Right ascension and declination, degrees.
        bandlist : iterable of str
            The bands to look in, or one.

        Returns
        -------
        expIDs, bands : list of str
            Name and band of each exposure found, in the order of `bandlist` and then of the store.

        Raises
        ------
        RegionError
            If `sky` is no position.
        NotInStoreError
            If the store does not have a band.
        WCSError
            If an exposure of these bands has no usable WCS.
        """
        try:
            ra, dec = (float(value) for value in sky)
        except (TypeError, ValueError) as exc:
            raise RegionError(f"sky is {sky!r}; expected ra and dec in degrees") from exc
        index, keys = self._index(bandlist)
        found = [keys[number] for number in index.containing(ra, dec).tolist()]
        return [expID for _, expID in found], [band for band, _ in found]

    def exposures_touching(
        self, region: "Region", bandlist: Iterable[str] | None = None
    ) -> list[Key]:
        """Find the exposures that have any point in common with a region.

        Parameters
        ----------
        region : CircularRegion, RectangularRegion or PolygonRegion
            The region of sky.
        bandlist : iterable of str, optional
            The bands to look in, or one; by default all.

        Returns
        -------
        list of (band, expID)
            In the order of `bandlist` and then of the store.

        Raises
        ------
        RegionError
            If `region` is none.
        NotInStoreError
            If the store does not have a band.
        WCSError
            If an exposure of these bands has no usable WCS.
        """
        from fpgpu.sky.regions import Region

        if not isinstance(region, Region):
            raise RegionError(
                f"region is {region!r}; expected a CircularRegion, RectangularRegion or "
                "PolygonRegion (find_exposures takes a position)"
            )
        index, keys = self._index(bandlist)
        return [keys[number] for number in index.touching(region).tolist()]

    def exposures_within(
        self, centre: Float, radius: float, bandlist: Iterable[str] | None = None
    ) -> list[Key]:
        """Find the exposures that reach into a circle: a unit vector, shape (3,), and radians."""
        index, keys = self._index(bandlist)
        return [keys[number] for number in index.within(centre, radius).tolist()]

    # --- pieces ------------------------------------------------------------------------------

    def _place(self, key: Key) -> str:
        """Name an exposure for messages."""
        name = f"exposure {key[0]}/{key[1]}"
        return name if self._source is None else f"{self._source.paths.json}: {name}"

    def _required(self, band: str, expID: str) -> Key:
        """Return the key of an exposure, refusing one that is not here."""
        if expID not in self.headers[band]:
            raise NotInStoreError(f"{self._place((band, expID))}: not in the meta store")
        return band, expID

    def _text(self, key: Key) -> str:
        """Return the header of an exposure, as it is now, as text."""
        header = self._headers.made(*key)
        if header is not None:
            return serialize(header, self._place(key))
        if key in self._new_texts:
            return self._new_texts[key]
        if self._source is None:
            raise StoreError(f"{self._place(key)}: its header is neither in a file nor in memory")
        return self._source.text(key)

    def _has_gwcs(self, key: Key) -> bool:
        """Tell whether an exposure has a gWCS."""
        return key[1] in self.tree.get(key[0], {})

    def _kind(self, key: Key) -> str:
        """Tell which WCS of an exposure is asked for, "gwcs" or "fits"."""
        use_gwcs = self._has_gwcs(key) if self.use_gwcs is None else self.use_gwcs
        return "gwcs" if use_gwcs else "fits"

    def _gwcs(self, key: Key) -> Any:
        """Return the gWCS of an exposure."""
        if not self._has_gwcs(key):
            raise NotInStoreError(
                f"{self._place(key)}: has no gWCS; open the store without use_gwcs to take the "
                "FITS WCS of its header, or see without_gwcs() for all such exposures"
            )
        return self.tree[key[0]][key[1]]

    def _index(self, bandlist: Iterable[str] | None) -> tuple["FootprintIndex", list[Key]]:
        """Return the index over the footprints of some bands, and the exposures in its order."""
        from fpgpu.sky.footprints import FootprintIndex

        # Asked once: another thread may clear the indexes meanwhile.
        if isinstance(bandlist, tuple) and (found := self._indexes.get(bandlist)):
            return found
        bands = tuple(self.bands if bandlist is None else each_band(bandlist, self.headers))
        with self._lock:
            if bands not in self._indexes:
                keys = [(band, expID) for band in bands for expID in self.headers[band]]
                kinds = {self._kind(key) for key in keys}
                stacked = None
                if len(kinds) == 1 and not self._replaced_wcs.intersection(keys):
                    stacked = self._outlines.stacked(keys, kinds.pop())
                index = (
                    FootprintIndex([self.footprint(*key) for key in keys])
                    if stacked is None
                    else FootprintIndex.from_arrays(stacked)
                )
                self._indexes[bands] = index, keys
            return self._indexes[bands]

    # --- changes -----------------------------------------------------------------------------

    def _add(self, entry: MetaEntry) -> None:
        """Add or replace an exposure."""
        key, gwcs = entry.key, entry.gwcs
        band, expID = key
        with self._lock:
            if isinstance(gwcs, bytes):
                self.tree.declare(band, [expID])
                self._gwcs_changed(band, expID)
                self._new_gwcs[key] = gwcs
            elif gwcs is not None:
                self.tree.put(band, expID, gwcs)
            elif self._has_gwcs(key):
                del self.tree[band][expID]
            self._headers.declare(band, [expID])
            self._header_changed(band, expID)
            self._new_texts[key] = entry.text
            self._outlines.put(key, entry.record)
            self._changes += 1

    def _read_tree_from(self, path: Path) -> None:
        """Take the gWCS of another file instead of those there were."""
        with read_errors(path, "no such file of gWCS"):
            source = GwcsFile(read_regular(path)[0], path)
        with self._lock:
            for band in list(self.tree):
                del self._tree[band]
            self._declare_tree(source.keys)
            self._changed_gwcs.update(source.keys)
            self._new_gwcs.clear()
            self._new_gwcs.update(dict.fromkeys(source.keys, source))
            self._use_gwcs = True
            for key in self:
                self._forget_wcs(key)
                self._outlines.forget_gwcs(key)

    # --- what is written of it ---------------------------------------------------------------

    def _is_as_opened(self, key: Key) -> bool:
        """Tell whether nothing of an exposure was touched since it was opened."""
        band, expID = key
        return (
            self._source is not None
            and expID in self._source.names.get(band, ())
            and self._headers.made(band, expID) is None
            and key not in self._new_texts
            and key not in self._changed_gwcs
        )

    def _gwcs_bytes(self, key: Key) -> bytes:
        """Return the gWCS that an exposure has as ASDF, from the opened store if it is there."""
        if self._source is not None and key not in self._changed_gwcs:
            return self._source.gwcs_bytes(key)
        found = self._new_gwcs.get(key)
        if not isinstance(found, bytes):
            found = gwcs_to_bytes(self.tree[key[0]][key[1]], self._place(key))
            self._new_gwcs[key] = found
        return found

    # --- how pieces are made, and forgotten --------------------------------------------------

    def _declare_tree(self, keys: Iterable[Key]) -> None:
        """Take over which exposures have a gWCS."""
        self._tree_read = True
        for band, expID in keys:
            self._tree.declare(band, [expID])

    def _load_header(self, band: str, expID: str) -> "Header":
        key = band, expID
        return parse_header(self._text(key), self._place(key))

    def _load_gwcs(self, band: str, expID: str) -> Any:
        key = band, expID
        found = self._new_gwcs.get(key)
        if isinstance(found, GwcsFile):
            return found.get(key)
        if found is not None:
            return gwcs_from_bytes(found, self._place(key))
        if self._source is None:
            raise NotInStoreError(f"{self._place(key)}: has no gWCS")
        return self._source.gwcs(key)

    def _load_wcs(self, band: str, expID: str) -> Any:
        from fpgpu.sky.wcs import SkyWCS

        key = band, expID
        if self._kind(key) == "gwcs":
            return self._gwcs(key)
        header = with_size(self.headers[band][expID], self.shape(*key))
        with wcs_errors(self._place(key)):
            self._sky[key] = SkyWCS.from_header(header)
        return self._sky[key].native

    def _header_changed(self, band: str, expID: str) -> None:
        key = band, expID
        with self._lock:
            self._new_texts.pop(key, None)
            self._outlines.forget_header(key)
            self._forget_wcs(key)
            if expID not in self.headers.get(band, {}):
                self._wcs.discard(band, expID)
                if self._has_gwcs(key):
                    del self.tree[band][expID]

    def _gwcs_changed(self, band: str, expID: str) -> None:
        key = band, expID
        with self._lock:
            self._changed_gwcs.add(key)
            self._new_gwcs.pop(key, None)
            self._outlines.forget_gwcs(key)
            if self.use_gwcs is not False and expID in self.headers.get(band, {}):
                self._forget_wcs(key)

    def _wcs_changed(self, band: str, expID: str) -> None:
        key = band, expID
        with self._lock:
            self._sky.pop(key, None)
            self._indexes.clear()
            self._changes += 1
            if expID in self.wcs.get(band, {}):
                self._replaced_wcs.add(key)
            elif expID in self.headers.get(band, {}):
                self._forget_wcs(key)

    def _forget_wcs(self, key: Key) -> None:
        """Make the WCS of an exposure anew when it is next asked for."""
        self._wcs.declare(key[0], [key[1]])
        self._replaced_wcs.discard(key)
        self._sky.pop(key, None)
        self._indexes.clear()
        self._changes += 1
