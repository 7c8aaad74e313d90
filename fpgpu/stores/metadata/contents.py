"""What a meta store holds of every exposure, each piece made when it is first asked for."""

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpgpu.errors import MissingStoreError, NotInStoreError, StoreError
from fpgpu.stores.disk import read_regular
from fpgpu.stores.metadata.entries import MetaEntry
from fpgpu.stores.metadata.gwcs import GwcsFile, gwcs_from_bytes, gwcs_to_bytes
from fpgpu.stores.metadata.headers import parse_header, serialize, with_size
from fpgpu.stores.metadata.lazy import LazyTable
from fpgpu.stores.metadata.outlines import Outlines, Sources, wcs_errors
from fpgpu.stores.metadata.records import Float, Key, SkyRecord
from fpgpu.stores.metadata.source import Source

if TYPE_CHECKING:
    from astropy.io.fits import Header

    from fpgpu.sky.footprints import FootprintIndex
    from fpgpu.sky.sip import SipFit
    from fpgpu.sky.wcs import SkyWCS

__all__ = ["MetaContents"]


class MetaContents:
    """Headers, WCS, gWCS and footprints of exposures.

    What depends on a header, a WCS or a gWCS is forgotten when that is replaced, so that everything
    here always fits together.

    Parameters
    ----------
    source : Source or None
        What was opened; None for an empty store.
    use_gwcs : bool or None
        Whether WCS are the stored gWCS instead of those of the headers.

    Attributes
    ----------
    headers, wcs : LazyTable
        By band and expID.
    source : Source or None
        As given.
    lock : threading.RLock
        Held while anything is made or changed.
    """

    def __init__(self, source: Source | None, *, use_gwcs: bool | None) -> None:
        self.lock = threading.RLock()
        self.use_gwcs = use_gwcs
        self.headers: LazyTable[Header] = LazyTable(
            "header", self._load_header, self._header_changed, self.lock
        )
        self.wcs: LazyTable[Any] = LazyTable("WCS", self._load_wcs, self._wcs_changed, self.lock)
        self._tree: LazyTable[Any] = LazyTable(
            "gWCS", self._load_gwcs, self._gwcs_changed, self.lock
        )
        self._outlines = Outlines(Sources(self.place, self.text, self.gwcs))
        self._new_texts: dict[Key, str] = {}
        self._replaced_wcs: set[Key] = set()
        self._sky: dict[Key, SkyWCS] = {}
        self._indexes: dict[str, tuple[FootprintIndex, list[str]]] = {}
        self._new_gwcs: dict[Key, bytes] = {}
        self._changed_gwcs: set[Key] = set()
        self._foreign_gwcs: GwcsFile | None = None
        self.source = source
        # An ASDF file takes long to read, so its names are only taken when they are needed.
        self._tree_read = not self.has_asdf
        if source is not None:
            for band, expIDs in source.names.items():
                self.headers.declare(band, expIDs)
                self.wcs.declare(band, expIDs)
            self._outlines.adopt(source.records)

    @property
    def has_asdf(self) -> bool:
        """Whether the opened store may have gWCS."""
        return self.source is not None and self.source.has_asdf

    # --- pieces ------------------------------------------------------------------------------

    def place(self, key: Key) -> str:
        """Name an exposure for messages."""
        name = f"exposure {key[0]}/{key[1]}"
        return name if self.source is None else f"{self.source.paths.json}: {name}"

    def require(self, key: Key) -> None:
        """Refuse an exposure that is not here."""
        if key[1] not in self.headers[key[0]]:
            raise NotInStoreError(f"{self.place(key)}: not in the meta store")

    def text(self, key: Key) -> str:
        """Return the header of an exposure, as it is now, as text."""
        header = self.headers.made(*key)
        if header is not None:
            return serialize(header, self.place(key))
        if key in self._new_texts:
            return self._new_texts[key]
        if self.source is None:
            raise StoreError(f"{self.place(key)}: its header is neither in a file nor in memory")
        return self.source.text(key)

    @property
    def tree(self) -> LazyTable[Any]:
        """The gWCS objects by band and expID."""
        with self.lock:
            if not self._tree_read and self.source is not None:
                self._declare_tree(self.source.gwcs_keys)
            return self._tree

    def has_gwcs(self, key: Key) -> bool:
        """Tell whether an exposure has a gWCS."""
        return key[1] in self.tree.get(key[0], {})

    def kind(self, key: Key) -> str:
        """Tell which WCS of an exposure is asked for, "gwcs" or "fits"."""
        use_gwcs = self.has_gwcs(key) if self.use_gwcs is None else self.use_gwcs
        return "gwcs" if use_gwcs else "fits"

    def gwcs(self, key: Key) -> Any:
        """Return the gWCS of an exposure, None when it has none."""
        return self.tree[key[0]][key[1]] if self.has_gwcs(key) else None

    def sip(self, key: Key) -> "SipFit | None":
        """Return the refit that is remembered of an exposure's gWCS."""
        return self._outlines.sip(key)

    def shape(self, key: Key) -> tuple[int, int]:
        """Return the number of pixels (nx, ny) of an exposure."""
        return self._outlines.shape(key)

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """Pixels along x and y of images whose headers do not say."""
        return self._outlines.image_shape

    @image_shape.setter
    def image_shape(self, shape: tuple[int, int] | None) -> None:
        with self.lock:
            if shape != self._outlines.image_shape:
                self._outlines.image_shape = shape
                for key in self._outlines.sized:
                    self._outlines.forget_header(key)
                    self._forget_wcs(key)
                self._outlines.sized.clear()

    @property
    def replaced_wcs(self) -> dict[Key, Any]:
        """The WCS that were put in place of those of headers and gWCS."""
        return {key: self.wcs[key[0]][key[1]] for key in self._replaced_wcs}

    def sky_wcs(self, key: Key) -> "SkyWCS":
        """Return the WCS of an exposure as the rest of fpgpu sees it."""
        from fpgpu.sky.wcs import SkyWCS

        with self.lock:
            native = self.wcs[key[0]][key[1]]
            if key not in self._sky:
                with wcs_errors(self.place(key)):
                    self._sky[key] = SkyWCS.from_native(native, self.shape(key))
            return self._sky[key]

    def outline(self, key: Key) -> Float:
        """Return the footprint of an exposure."""
        with self.lock:
            if key not in self._replaced_wcs:
                return self._outlines.outline(key, self.kind(key))
            with wcs_errors(self.place(key)):
                return self.sky_wcs(key).footprint()

    def index(self, band: str) -> tuple["FootprintIndex", list[str]]:
        """Return the index over the footprints of a band, and the expIDs in its order."""
        from fpgpu.sky.footprints import FootprintIndex

        with self.lock:
            if band not in self._indexes:
                expIDs = list(self.headers[band])
                keys = [(band, expID) for expID in expIDs]
                kinds = {self.kind(key) for key in keys}
                stacked = None
                if len(kinds) == 1 and not self._replaced_wcs.intersection(keys):
                    stacked = self._outlines.stacked(keys, kinds.pop())
                index = (
                    FootprintIndex([self.outline(key) for key in keys])
                    if stacked is None
                    else FootprintIndex.from_arrays(stacked)
                )
                self._indexes[band] = index, expIDs
            return self._indexes[band]

    # --- changes -----------------------------------------------------------------------------

    def add(self, key: Key, text: str, gwcs: Any, record: SkyRecord) -> None:
        """Add or replace an exposure."""
        band, expID = key
        with self.lock:
            if isinstance(gwcs, bytes):
                self.tree.declare(band, [expID])
                self._gwcs_changed(band, expID)
                self._new_gwcs[key] = gwcs
            elif gwcs is not None:
                self.tree.put(band, expID, gwcs)
            elif self.has_gwcs(key):
                del self.tree[band][expID]
            self.headers.declare(band, [expID])
            self._header_changed(band, expID)
            self._new_texts[key] = text
            self._outlines.put(key, record)

    def entry(self, key: Key) -> MetaEntry:
        """Return all that is stored of an exposure."""
        with self.lock:
            self.require(key)
            text = self.text(key)
            has_gwcs = self.has_gwcs(key)
            record = self._outlines.complete(key, text, has_gwcs=has_gwcs)
            return MetaEntry(key, text, self.gwcs_bytes(key) if has_gwcs else None, record)

    def entry_without_gwcs(self, key: Key) -> MetaEntry:
        """Return what is stored of an exposure but for its gWCS."""
        with self.lock:
            self.require(key)
            text = self.text(key)
            return MetaEntry(key, text, None, self._outlines.complete(key, text, has_gwcs=False))

    def read_tree_from(self, path: Path) -> None:
        """Take the gWCS of another file instead of those there were."""
        try:
            source = GwcsFile(read_regular(path)[0], path)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise MissingStoreError(f"{path}: no such file of gWCS") from exc
        except IsADirectoryError as exc:
            raise StoreError(f"{path}: is a directory; expected an ASDF file of gWCS") from exc
        except OSError as exc:
            reason = f"cannot be read: {exc.strerror}; expected an ASDF file of gWCS"
            raise StoreError(f"{path}: {reason}") from exc
        with self.lock:
            stored = self.tree.keys()
            for band in list(stored):
                del self._tree[band]
            self._declare_tree(source.keys)
            self._foreign_gwcs = source
            self._new_gwcs.clear()
            self.use_gwcs = True
            for key in [(band, expID) for band in self.headers for expID in self.headers[band]]:
                self._forget_wcs(key)
                self._outlines.forget_gwcs(key)

    # --- what is written of it ---------------------------------------------------------------

    def is_as_opened(self, key: Key) -> bool:
        """Tell whether nothing of an exposure was touched since it was opened."""
        band, expID = key
        return (
            self.source is not None
            and expID in self.source.names.get(band, ())
            and self.headers.made(band, expID) is None
            and key not in self._new_texts
            and key not in self._changed_gwcs
            and self._foreign_gwcs is None
        )

    @property
    def gwcs_as_opened(self) -> bool:
        """Whether the gWCS are those that were opened."""
        return self._foreign_gwcs is None and not self._changed_gwcs

    def gwcs_bytes(self, key: Key) -> bytes:
        """Return the gWCS that an exposure has as ASDF, from the opened store if it is there."""
        if self._foreign_gwcs is None and key not in self._changed_gwcs and self.source is not None:
            return self.source.gwcs_bytes(key)
        if key not in self._new_gwcs:
            self._new_gwcs[key] = gwcs_to_bytes(self.tree[key[0]][key[1]], self.place(key))
        return self._new_gwcs[key]

    # --- how pieces are made, and forgotten --------------------------------------------------

    def _declare_tree(self, keys: Iterable[Key]) -> None:
        """Take over which exposures have a gWCS."""
        self._tree_read = True
        found: dict[str, list[str]] = {}
        for band, expID in keys:
            found.setdefault(band, []).append(expID)
        for band, expIDs in found.items():
            self._tree.declare(band, expIDs)

    def _load_header(self, band: str, expID: str) -> "Header":
        key = band, expID
        return parse_header(self.text(key), self.place(key))

    def _load_gwcs(self, band: str, expID: str) -> Any:
        key = band, expID
        if key in self._new_gwcs:
            return gwcs_from_bytes(self._new_gwcs[key], self.place(key))
        if self._foreign_gwcs is not None:
            return self._foreign_gwcs.get(key)
        if self.source is None:
            raise NotInStoreError(f"{self.place(key)}: has no gWCS")
        return self.source.gwcs(key)

    def _load_wcs(self, band: str, expID: str) -> Any:
        from fpgpu.sky.wcs import SkyWCS

        key = band, expID
        if self.kind(key) == "gwcs":
            gwcs = self.gwcs(key)
            if gwcs is None:
                raise NotInStoreError(
                    f"{self.place(key)}: has no gWCS; open the store without use_gwcs to take the "
                    "FITS WCS of its header, or see without_gwcs() for all such exposures"
                )
            return gwcs
        header = with_size(self.headers[band][expID], self.shape(key))
        with wcs_errors(self.place(key)):
            self._sky[key] = SkyWCS.from_header(header)
        return self._sky[key].native

    def _header_changed(self, band: str, expID: str) -> None:
        key = band, expID
        with self.lock:
            self._new_texts.pop(key, None)
            self._outlines.forget_header(key)
            self._forget_wcs(key)
            if expID not in self.headers.get(band, {}):
                self.wcs.discard(band, expID)
                if self.has_gwcs(key):
                    del self.tree[band][expID]

    def _gwcs_changed(self, band: str, expID: str) -> None:
        key = band, expID
        with self.lock:
            self._changed_gwcs.add(key)
            self._new_gwcs.pop(key, None)
            self._outlines.forget_gwcs(key)
            if self.use_gwcs is not False and expID in self.headers.get(band, {}):
                self._forget_wcs(key)

    def _wcs_changed(self, band: str, expID: str) -> None:
        key = band, expID
        with self.lock:
            self._sky.pop(key, None)
            self._indexes.pop(band, None)
            if expID in self.wcs.get(band, {}):
                self._replaced_wcs.add(key)
            elif expID in self.headers.get(band, {}):
                self._forget_wcs(key)

    def _forget_wcs(self, key: Key) -> None:
        """Make the WCS of an exposure anew when it is next asked for."""
        self.wcs.declare(key[0], [key[1]])
        self._replaced_wcs.discard(key)
        self._sky.pop(key, None)
        self._indexes.pop(key[0], None)
