"""Reading the exposures of a pixel store."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import h5py
import numpy as np
import numpy.typing as npt

from fpgpu.errors import (
    IntegrityError,
    LayoutError,
    MissingStoreError,
    NotInStoreError,
    StoreBusyError,
    StoreFormatError,
)
from fpgpu.stores.files.publish import Signature, signature
from fpgpu.stores.hdf5 import extents
from fpgpu.stores.hdf5.extents import Extent
from fpgpu.stores.hdf5.guard import opened_guarded
from fpgpu.stores.hdf5.handles import StoreFile
from fpgpu.stores.pixels import tree
from fpgpu.stores.pixels.geometry import Geometry
from fpgpu.stores.pixels.records import CalibrationRecord, update_checksum
from fpgpu.superpixels import Window

__all__ = ["ExposureReader", "Verification", "strips"]

_STRIP_BYTES = 4 << 20

Key = tuple[str, str]
Result = TypeVar("Result")


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
    """Finds and reads exposures, remembering where they are for as long as the file is the same.

    Parameters
    ----------
    file : StoreFile
        The store's file.
    geometry : Geometry
        Of every image in it.
    dtype : numpy.dtype
        Of the values to return.
    timeout : float
        Seconds to wait for a writer.
    """

    def __init__(
        self, file: StoreFile, geometry: Geometry, dtype: np.dtype[Any], timeout: float
    ) -> None:
        self._file = file
        self._geometry = geometry
        self._dtype = dtype
        self._timeout = timeout
        self._extents: dict[Key, tuple[Signature, Extent]] = {}
        self._listing: tuple[Signature, dict[str, list[str]]] | None = None
        self._present: tuple[Signature | None, set[Key]] = None, set()

    @property
    def path(self) -> Path:
        """Real path of the file."""
        return self._file.path

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values returned."""
        return self._dtype

    @property
    def n_values(self) -> int:
        """Values of a super-pixel."""
        return self._geometry.n_values

    def listing(self) -> dict[str, list[str]]:
        """Return the expIDs of every band; not to be changed by the caller."""
        found = signature(self.path)
        if self._listing is None or self._listing[0] != found:
            with self._file.reading(self._timeout) as h5:
                self._listing = signature(self.path), tree.list_exposures(h5)
        return self._listing[1]

    def bands(self) -> list[str]:
        """Return the bands that have exposures, without listing all of these."""
        if self._listing is not None and self._listing[0] == signature(self.path):
            return list(self._listing[1])
        with self._file.reading(self._timeout) as h5:
            return tree.list_bands(h5)

    def holds(self, band: str, expID: str) -> bool:
        """Whether there is such an exposure, without listing the others."""
        found = signature(self.path)
        if self._present[0] != found:
            self._present = found, set()
        present = self._present[1]
        if (band, expID) not in present:
            with (
                self._file.reading(self._timeout) as h5,
                tree.opened_dataset(h5, band, expID) as dataset,
            ):
                if dataset is None:
                    return False
            present.add((band, expID))
        return True

    def first_missing(self, keys: Iterable[Key]) -> Key | None:
        """Return the first of several exposures that is not there, None if all are."""
        known = self._present[1] if self._present[0] == signature(self.path) else set()
        return next((key for key in keys if key not in known and not self.holds(*key)), None)

    def read_window(
        self, band: str, expID: str, window: Window, out: npt.NDArray[Any] | None
    ) -> npt.NDArray[Any]:
        """Read a window of super-pixels: `PixelStore.read_window`."""
        window = window.checked(self._geometry.grid)
        out = extents.checked_out(out, (*window.shape, self._geometry.n_values), self._dtype)
        self._read(band, expID, window, out)
        return out

    def read_superpixels(
        self, band: str, expID: str, places: npt.ArrayLike, out: npt.NDArray[Any] | None
    ) -> npt.NDArray[Any]:
        """Read a list of super-pixels: `PixelStore.read_superpixels`."""
        places = _checked_places(places, self._geometry.grid)
        out = extents.checked_out(out, (len(places), self._geometry.n_values), self._dtype)
        self._read(band, expID, places, out)
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
        known = self._known_extents([(band, expID) for band, expID, _ in lists])
        found = [extent for extent in known if extent is not None]
        if found and len(found) == len(lists):
            places = np.concatenate([places for _, _, places in lists])
            counts = [len(places) for _, _, places in lists]
            extents.checked_out(out, (len(places), self._geometry.n_values), self._dtype)
            is_inside = _first_outside(places, self._geometry.grid) is None
            if is_inside and extents.read_lists(found, counts, places, out):
                return
        start = 0
        for band, expID, places in lists:
            self.read_superpixels(band, expID, places, out[start : start + len(places)])
            start += len(places)

    def _read(
        self, band: str, expID: str, selection: extents.Selection, out: npt.NDArray[Any]
    ) -> None:
        """Read from the place that is known, or else look it up."""
        (known,) = self._known_extents([(band, expID)])
        if known is not None and extents.read_selection(known, selection, out):
            return

        def read(dataset: h5py.Dataset, extent: Extent) -> None:
            if extent.offset is None or self._dtype != extents.PLAIN:
                extents.read_through_hdf5(dataset, selection, out)
                return
            self._extents[band, expID] = signature(self.path), extent
            _read_held(extent, selection, out)

        self.visit(band, expID, read)

    def files_of(self, band: str, expID: str) -> dict[Path, Signature]:
        """Return the files that the values of an exposure depend on, to know when they change.

        None are given where the values are not plain float32 in one place: HDF5 alone knows then.
        """

        def files(_: h5py.Dataset, extent: Extent) -> dict[Path, Signature]:
            if extent.offset is None:
                return {}
            return {self.path: signature(self.path), Path(extent.filename): extent.signature}

        return self.visit(band, expID, files)

    def record(self, band: str, expID: str) -> CalibrationRecord:
        """Return the calibration record of an exposure."""
        return self.visit(band, expID, lambda *found: _record_of((band, expID), *found))

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

        def compare(dataset: h5py.Dataset, extent: Extent) -> tuple[str | None, str | None]:
            stated = _record_of((band, expID), dataset, extent).checksum
            return stated, None if stated is None else _checksum(dataset, extent)

        return self.visit(band, expID, compare)

    def bytes_checksum(self, band: str, expID: str) -> str:
        """Return the checksum of the bytes of an exposure."""
        return self.visit(band, expID, _checksum)

    def missing(self, band: str, expID: str | None = None) -> NotInStoreError:
        """Make the error for a band or an exposure that is not there."""
        return tree.not_in_store(self.path, self.listing(), band, expID)

    def _selected(self, band: str | None, expID: str | None) -> Iterator[Key]:
        """Yield all exposures, those of a band, or one."""
        if band is not None and expID is not None:
            yield band, expID
            return
        listing = self.listing()
        if band is not None and band not in listing:
            raise self.missing(band)
        for name in listing if band is None else [band]:
            yield from ((name, exposure) for exposure in listing[name])

    def _known_extents(self, keys: Sequence[Key]) -> list[Extent | None]:
        """Return where exposures lie, of those that were looked up if that still holds."""
        known = [self._extents.get(key, (None, None)) for key in keys]
        # Of the file that holds the pixels the read itself tells whether it has changed.
        here = str(self.path)
        if all(extent is None or extent.filename == here for _, extent in known):
            return [extent for _, extent in known]
        now = signature(self.path)
        return [
            extent if extent and (extent.filename == here or seen == now) else None
            for seen, extent in known
        ]

    def visit(
        self, band: str, expID: str, work: Callable[[h5py.Dataset, Extent], Result]
    ) -> Result:
        """Do something with the dataset of an exposure, told where its bytes are.

        HDF5 can read it, whatever it is compressed with.

        Where the store was replaced meanwhile, and a shard that it does not need any more removed,
        it is done again with the new state.
        """
        while True:
            seen = signature(self.path)
            try:
                with (
                    self._file.reading(self._timeout) as h5,
                    tree.opened_dataset(h5, band, expID) as dataset,
                ):
                    if dataset is None:
                        raise tree.not_in_store(self.path, tree.list_exposures(h5), band, expID)
                    return work(dataset, self._extent_of(dataset, band, expID))
            except (MissingStoreError, StoreFormatError):
                if signature(self.path) == seen:
                    raise

    def _extent_of(self, dataset: h5py.Dataset, band: str, expID: str) -> Extent:
        """Return where the bytes of an exposure are, if they have the store's shape."""
        extent = extents.locate(dataset)
        expected = (*self._geometry.grid, self._geometry.n_values)
        if extent.shape != expected:
            raise StoreFormatError(
                f"{self.path}: {band}/{expID} has shape {extent.shape}; images of "
                f"{self._geometry.shape} pixels need {expected}"
            )
        return extent


def _record_of(key: Key, dataset: h5py.Dataset, extent: Extent) -> CalibrationRecord:
    """Read the record of a dataset, its attributes through the guard."""
    with opened_guarded(extent.filename) as h5:
        return CalibrationRecord.from_dataset(*key, h5[dataset.name])


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


def _read_held(extent: Extent, selection: extents.Selection, out: npt.NDArray[Any]) -> None:
    """Read from a file that is held, so that only one who takes no locks can change it."""
    if not extents.read_selection(extent, selection, out):
        raise StoreBusyError(
            f"{extent.filename}: changes while it is read, by a program that takes no locks; "
            "try again when it is done"
        )


def strips(dataset: h5py.Dataset, extent: Extent) -> Iterator[npt.NDArray[Any]]:
    """Yield the super-pixels of an exposure as they are stored, a few columns at a time."""
    nsx, nsy, n_values = extent.shape
    n_rows = max(1, _STRIP_BYTES // (nsy * n_values * dataset.dtype.itemsize))
    for x0 in range(0, nsx, n_rows):
        window = Window(x0, min(x0 + n_rows, nsx), 0, nsy)
        strip = np.empty((*window.shape, n_values), dataset.dtype)
        if extent.offset is None:
            extents.read_through_hdf5(dataset, window, strip)
        else:
            _read_held(extent, window, strip)
        yield strip


def _checksum(dataset: h5py.Dataset, extent: Extent) -> str:
    """Compute the checksum of a dataset as it is stored."""
    checksum = update_checksum(b"")
    for strip in strips(dataset, extent):
        checksum = update_checksum(strip, checksum)
    return checksum
