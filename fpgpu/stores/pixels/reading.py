"""Reading the exposures of a pixel store."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
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
from fpgpu.stores.metadata.skyrecords import Key
from fpgpu.stores.pixels.records import update_checksum
from fpgpu.stores.state import State
from fpgpu.superpixels import Window

__all__ = ["ExposureReader", "Verification", "bytes_checksum", "strips"]

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

    def read(
        self,
        band: str,
        expID: str,
        selection: Window | npt.ArrayLike,
        out: Array | None,
        backend: Backend | None = None,
    ) -> Array:
        """Read a rectangle or a list of super-pixels: `PixelStore.read_window` and others."""
        geometry = self.state.index.geometry
        if isinstance(selection, Window):
            selection = selection.checked(geometry.grid)
            shape: tuple[int, ...] = (*selection.shape, geometry.n_values)
        else:
            selection = _checked_places(selection, geometry.grid)
            shape = (len(selection), geometry.n_values)
        if backend is not None:
            return self._read_on((band, expID), selection, shape, out, backend)
        out = extents.checked_out(out, shape, self.dtype)
        self._read((band, expID), selection, out)
        return out

    def _read_on(
        self, key: Key, selection: Selection, shape: tuple[int, ...], out: Array, backend: Backend
    ) -> Array:
        """Read into a backend's memory."""
        if self.dtype != np.float32:
            raise LayoutError(
                f"a backend holds float32, but the store was opened with {self.dtype}"
            )
        fresh = out is None
        if out is None:
            out = backend.empty(shape, np.float32)
        reason = backend.why_foreign(out)
        if reason or out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
            found = reason or f"it has dtype {out.dtype} and shape {out.shape}"
            raise LayoutError(
                f"super-pixels cannot be read into out: {found}; expected C-contiguous float32 "
                f"{shape}"
            )

        def read(start: int, stop: int, to: npt.NDArray[np.float32]) -> None:
            if isinstance(selection, Window):
                x0, _, y0, y1 = selection
                self._read(key, Window(x0 + start, x0 + stop, y0, y1), to)
            else:
                self._read(key, selection[start:stop], to)

        fill_rows(backend, out, read, fresh=fresh)
        return out

    def list_reader(
        self, keys: Sequence[Key], counts: Sequence[int], places: npt.NDArray[np.integer[Any]]
    ) -> Callable[[int, int, npt.NDArray[Any]], None]:
        """Prepare to read lists of super-pixels of several exposures, one after the other.

        Parameters
        ----------
        keys : sequence of (band, expID)
            The exposures.
        counts : sequence of int
            How many super-pixels of each.
        places : ndarray of int, shape (n, 2)
            Indices of all of them along x and y.

        Returns
        -------
        callable
            ``read(start, stop, out)`` reads some of them, numbered as `places`, into a C-contiguous
            array of shape (stop - start, 2 * size**2).

        Raises
        ------
        LayoutError, NotInStoreError
            As `PixelStore.read_superpixels`, whose other errors reading raises.
        """
        known = [self.state.extent(key) for key in keys]
        geometry = self.state.index.geometry
        stops = np.cumsum(counts)
        if _first_outside(places, geometry.grid) is not None:
            for stop, count in zip(stops, counts, strict=True):
                _checked_places(places[stop - count : stop], geometry.grid)
        is_plain = self.dtype == PLAIN and all(extent.offset >= 0 for extent in known)
        lists = extents.SuperpixelLists(known, counts, places) if known and is_plain else None

        def read(start: int, stop: int, out: npt.NDArray[Any]) -> None:
            extents.checked_out(out, (stop - start, geometry.n_values), self.dtype)
            if lists is not None:
                lists.read(start, stop, out)
                return
            for key, end, count in zip(keys, stops.tolist(), counts, strict=True):
                begin, end = max(end - count, start), min(end, stop)
                if begin < end:
                    self.read(*key, places[begin:end], out[begin - start : end - start])

        return read

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
            stated = self.state.calibration(key).checksum
            if stated is None:
                unchecked.append(key)
            elif stated == bytes_checksum(self.state, key):
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


def bytes_checksum(state: State, key: Key) -> str:
    """Return the checksum of the bytes of an exposure, as they are stored."""
    checksum = update_checksum(b"")
    for strip in strips(state, key):
        checksum = update_checksum(strip, checksum)
    return checksum


def strips(state: State, key: Key) -> Iterator[npt.NDArray[Any]]:
    """Yield the super-pixels of an exposure as they are stored, a few columns at a time."""
    extent = state.extent(key)
    nsx, nsy, n_values = extent.shape
    with nullcontext() if extent.offset >= 0 else state.dataset(key) as dataset:
        dtype = PLAIN if dataset is None else dataset.dtype
        n_rows = max(1, _STRIP_BYTES // (nsy * n_values * dtype.itemsize))
        for x0 in range(0, nsx, n_rows):
            window = Window(x0, min(x0 + n_rows, nsx), 0, nsy)
            strip = np.empty((*window.shape, n_values), dtype)
            if dataset is None:
                extents.read_selection(extent, window, strip)
            else:
                extents.read_through_hdf5(dataset, window, strip)
            yield strip


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
