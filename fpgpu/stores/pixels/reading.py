"""Reading the exposures of a pixel store."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fpgpu.backends.base import Backend
from fpgpu.backends.filling import fill_rows
from fpgpu.backends.memory import Array
from fpgpu.errors import IntegrityError, LayoutError
from fpgpu.stores.hdf5 import extents
from fpgpu.stores.hdf5.extents import PLAIN, Selection
from fpgpu.stores.metadata.records import Key
from fpgpu.stores.pixels.records import update_checksum
from fpgpu.stores.state import State
from fpgpu.superpixels import Window

__all__ = ["ExposureReader", "Verification"]

_STRIP_BYTES = 4 << 20


class Verification(NamedTuple):
    """Which exposures were checked: ``(band, expID)`` each.

    Attributes
    ----------
    verified : list
        Their bytes have the checksum that was stored with them.
    unchecked : list
        They have none, as those that forcepho wrote, so nothing is known.
    """

    verified: list[Key]
    unchecked: list[Key]


class ExposureReader:
    """Reads exposures of one state of a store.

    Parameters
    ----------
    state : State
        The state.
    dtype : numpy.dtype
        Of the values to return.
    """

    def __init__(self, state: State, dtype: np.dtype[Any]) -> None:
        self.state = state
        self.dtype = dtype
        self._listing: dict[str, list[str]] | None = None

    @property
    def path(self) -> Path:
        """Real path of the store's file."""
        return self.state.store

    def listing(self) -> dict[str, list[str]]:
        """Return the expIDs of every band, both in the order of their names."""
        if self._listing is None:
            found: dict[str, list[str]] = {}
            for row in self.state.index.rows.values():
                if row.file:
                    found.setdefault(row.band, []).append(row.expID)
            self._listing = {band: sorted(found[band]) for band in sorted(found)}
        return self._listing

    def holds(self, band: str, expID: str) -> bool:
        """Whether there is such an exposure."""
        row = self.state.index.rows.get((band, expID))
        return row is not None and bool(row.file)

    def first_missing(self, keys: Iterable[Key]) -> Key | None:
        """Return the first of several exposures that is not there, None if all are."""
        return next((key for key in keys if not self.holds(*key)), None)

    def identity(self, band: str, expID: str) -> extents.Extent | None:
        """Return what tells the pixels of an exposure from any other; None where only HDF5 can."""
        extent = self.state.extent((band, expID))
        return extent if extent.offset >= 0 else None

    def read_window(
        self, band: str, expID: str, window: Window, out: npt.NDArray[Any] | None
    ) -> npt.NDArray[Any]:
        """Read a window of super-pixels: `PixelStore.read_window`."""
        geometry = self.state.index.geometry
        window = window.checked(geometry.grid)
        out = extents.checked_out(out, (*window.shape, geometry.n_values), self.dtype)
        self._read((band, expID), window, out)
        return out

    def read_superpixels(
        self, band: str, expID: str, places: npt.ArrayLike, out: npt.NDArray[Any] | None
    ) -> npt.NDArray[Any]:
        """Read a list of super-pixels: `PixelStore.read_superpixels`."""
        geometry = self.state.index.geometry
        places = _checked_places(places, geometry.grid)
        out = extents.checked_out(out, (len(places), geometry.n_values), self.dtype)
        self._read((band, expID), places, out)
        return out

    def read_on(
        self,
        band: str,
        expID: str,
        selection: Window | npt.NDArray[np.integer[Any]],
        backend: Backend,
        out: Array | None,
    ) -> Array:
        """Read a window or a list of super-pixels into a backend's memory.

        Raises
        ------
        LayoutError
            If `out` does not fit, or the store was not opened with float32.
        """
        if self.dtype != np.float32:
            raise LayoutError(
                f"a backend holds float32, but the store was opened with {self.dtype}"
            )
        geometry = self.state.index.geometry
        fresh = out is None
        if isinstance(selection, Window):
            window = selection.checked(geometry.grid)
            shape: tuple[int, ...] = (*window.shape, geometry.n_values)

            def read(start: int, stop: int, to: npt.NDArray[np.float32]) -> None:
                rows = Window(window.x0 + start, window.x0 + stop, window.y0, window.y1)
                self.read_window(band, expID, rows, to)
        else:
            places = selection
            shape = (len(places), geometry.n_values)

            def read(start: int, stop: int, to: npt.NDArray[np.float32]) -> None:
                self.read_superpixels(band, expID, places[start:stop], to)

        if out is None:
            out = backend.empty(shape, np.float32)
        reason = backend.why_foreign(out)
        if reason or out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
            found = reason or f"it has dtype {out.dtype} and shape {out.shape}"
            raise LayoutError(
                f"super-pixels cannot be read into out: {found}; expected C-contiguous float32 "
                f"{shape}"
            )
        fill_rows(backend, out, read, fresh=fresh)
        return out

    def read_lists(
        self,
        lists: Sequence[tuple[str, str, npt.NDArray[np.integer[Any]]]],
        out: npt.NDArray[Any],
    ) -> None:
        """Read lists of super-pixels of several exposures, one after the other.

        Parameters
        ----------
        lists : sequence of (band, expID, ndarray of int, shape (n, 2))
            As for `PixelStore.read_superpixels`, whose errors it raises.
        out : ndarray, shape (sum of n, 2 * size**2)
            Where to put them, C-contiguous.
        """
        known = [self.state.extent((band, expID)) for band, expID, _ in lists]
        if known and self.dtype == PLAIN and all(extent.offset >= 0 for extent in known):
            geometry = self.state.index.geometry
            places = np.concatenate([places for _, _, places in lists])
            counts = [len(places) for _, _, places in lists]
            extents.checked_out(out, (len(places), geometry.n_values), self.dtype)
            if _first_outside(places, geometry.grid) is None:
                extents.read_lists(known, counts, places, out)
                return
        start = 0
        for band, expID, places in lists:
            self.read_superpixels(band, expID, places, out[start : start + len(places)])
            start += len(places)

    def _read(self, key: Key, selection: Selection, out: npt.NDArray[Any]) -> None:
        """Read from the place that is known, or through HDF5."""
        extent = self.state.extent(key)
        if extent.offset >= 0 and self.dtype == PLAIN:
            extents.read_selection(extent, selection, out)
            return
        with self.state.dataset(key) as dataset:
            extents.read_through_hdf5(dataset, selection, out)

    def verify(self, band: str | None, expID: str | None) -> Verification:
        """Recompute checksums: `PixelStore.verify`."""
        verified, unchecked, damaged = [], [], []
        for key in self._selected(band, expID):
            stated, found = self.checksums(*key)
            if stated is None:
                unchecked.append(key)
            elif stated == found:
                verified.append(key)
            else:
                damaged.append(key)
        if damaged:
            listing = ", ".join("/".join(key) for key in damaged)
            raise IntegrityError(
                f"{self.path}: {len(damaged)} of {len(damaged) + len(verified)} exposures do not "
                f"match their checksum: {listing}; add them again"
            )
        return Verification(verified, unchecked)

    def checksums(self, band: str, expID: str) -> tuple[str | None, str | None]:
        """Return the checksum that is stated of an exposure and that of its bytes, if one is."""
        stated = self.state.calibration((band, expID)).checksum
        return stated, None if stated is None else self.bytes_checksum(band, expID)

    def bytes_checksum(self, band: str, expID: str) -> str:
        """Return the checksum of the bytes of an exposure, as they are stored."""
        checksum = update_checksum(b"")
        for strip in self.strips(band, expID):
            checksum = update_checksum(strip, checksum)
        return checksum

    def strips(self, band: str, expID: str) -> Iterator[npt.NDArray[Any]]:
        """Yield the super-pixels of an exposure as they are stored, a few columns at a time."""
        key = band, expID
        extent = self.state.extent(key)
        nsx, nsy, n_values = extent.shape
        if extent.offset >= 0:
            for window in _windows(nsx, nsy, n_values * PLAIN.itemsize):
                strip = np.empty((*window.shape, n_values), PLAIN)
                extents.read_selection(extent, window, strip)
                yield strip
            return
        with self.state.dataset(key) as dataset:
            for window in _windows(nsx, nsy, n_values * dataset.dtype.itemsize):
                strip = np.empty((*window.shape, n_values), dataset.dtype)
                extents.read_through_hdf5(dataset, window, strip)
                yield strip

    def _selected(self, band: str | None, expID: str | None) -> Iterator[Key]:
        """Yield all exposures, those of a band, or one."""
        if band is not None and expID is not None:
            yield band, expID
            return
        listing = self.listing()
        if band is not None and band not in listing:
            raise self.state.missing(band)
        for name in listing if band is None else [band]:
            yield from ((name, exposure) for exposure in listing[name])


def _windows(nsx: int, nsy: int, n_bytes: int) -> Iterator[Window]:
    """Yield columns of super-pixels, a few at a time."""
    n_rows = max(1, _STRIP_BYTES // (nsy * n_bytes))
    for x0 in range(0, nsx, n_rows):
        yield Window(x0, min(x0 + n_rows, nsx), 0, nsy)


def _checked_places(places: npt.ArrayLike, grid: tuple[int, int]) -> npt.NDArray[Any]:
    """Return places as an array, if they are indices of super-pixels in the grid."""
    places = np.asarray(places)
    if places.ndim != 2 or places.shape[1] != 2 or places.dtype.kind not in "iu":
        raise LayoutError(
            f"places have shape {places.shape} and dtype {places.dtype}; expected integers (n, 2), "
            "the indices of super-pixels along x and y"
        )
    outside = _first_outside(places, grid)
    if outside is not None:
        raise LayoutError(
            f"place {outside} is {tuple(places[outside].tolist())}, outside the grid of "
            f"{grid[0]} x {grid[1]} super-pixels"
        )
    return places


def _first_outside(places: npt.NDArray[Any], grid: tuple[int, int]) -> int | None:
    """Return the number of the first place outside the grid."""
    if places.size == 0 or all(
        along.min() >= 0 and along.max() < n for along, n in zip(places.T, grid, strict=True)
    ):
        return None
    return int(np.argmax(((places < 0) | (places >= np.array(grid))).any(axis=1)))
