"""Whole exposures kept in a backend's memory, for patches that lie in the same ones."""

import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from fpgpu.backends.base import Backend
from fpgpu.backends.filling import fill_rows
from fpgpu.backends.memory import Array, Memory
from fpgpu.errors import DeviceMemoryError, LayoutError
from fpgpu.stores.hdf5.extents import Extent
from fpgpu.stores.pixel import PixelStore
from fpgpu.superpixels import grid_shape

__all__ = ["ResidentExposures"]


@dataclass(eq=False)
class _Resident:
    """One exposure in the backend's memory.

    Attributes
    ----------
    users : int
        How many patches are being built from it.
    leaving : bool
        Whether its memory is given back when the last of them is done.
    """

    memory: Memory
    array: Array | None
    users: int = 0
    leaving: bool = False


class ResidentExposures:
    """A limited number of exposures in a backend's memory; those not used for longest go first.

    A patch takes a few per cent of an exposure, and the first one reads all of it: this pays where
    many patches lie in the same exposures, and there is memory that patches do not need. What is
    here counts as used when a patch is planned.

    Threads may share one; while one of them loads an exposure the others wait. It can be used again
    after `free`, which the end of its ``with`` block calls.

    Parameters
    ----------
    backend : Backend
        Where the exposures, and the patches made from them, live.
    limit_bytes : int
        Most memory to hold.

    Attributes
    ----------
    hits, misses : int
        How often an exposure was asked for that was here, and that was not.

    Raises
    ------
    LayoutError
        When the limit is negative.
    """

    def __init__(self, backend: Backend, limit_bytes: int) -> None:
        if limit_bytes < 0:
            raise LayoutError(f"resident exposures cannot be limited to {limit_bytes} bytes")
        self.backend = backend
        self.limit_bytes = limit_bytes
        self.hits = 0
        self.misses = 0
        self._nbytes = 0
        self._exposures: dict[Extent, _Resident] = {}  # least recently used first
        self._lock = threading.RLock()

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._nbytes

    def __len__(self) -> int:
        return len(self._exposures)

    def __repr__(self) -> str:
        return (
            f"<ResidentExposures: {len(self)} of {self.nbytes:,} bytes, at most"
            f" {self.limit_bytes:,}, on {self.backend.description}; {self.hits} hits,"
            f" {self.misses} misses>"
        )

    def get(self, pixels: PixelStore, band: str, expID: str) -> Array | None:
        """Return a whole exposure, loaded if it is not here.

        Parameters
        ----------
        pixels : PixelStore
            Where it is stored; of ``pix_dtype`` float32.
        band, expID : str
            The exposure.

        Returns
        -------
        array of float32, shape (nsx, nsy, 2 * size**2), or None
            Of the backend, not to be written to; its memory lives as long as it does. None for an
            exposure that has to be read otherwise, as `lent` says.

        Raises
        ------
        NotInStoreError, MissingStoreError, StoreFormatError, StoreBusyError
            When it is gone, damaged or being changed.
        StagingError, StagingBusyError
            When staging memory cannot serve.
        """
        with self.lent(pixels, [(band, expID)]) as (array,):
            return array

    @contextmanager
    def lent(
        self, pixels: PixelStore, exposures: Sequence[tuple[str, str]]
    ) -> Iterator[list[Array | None]]:
        """Keep exposures in place for a ``with`` block."""
        held: dict[int, _Resident] = {}
        try:
            # Those that are here are taken first, so that loading the others cannot drop them.
            for load in (False, True):
                for number, (band, expID) in enumerate(exposures):
                    if number not in held:
                        with self._lock:
                            exposure = self._taken(pixels, band, expID, load)
                            if exposure is not None:
                                held[number] = exposure
            yield [
                held[number].array if number in held else None for number in range(len(exposures))
            ]
        finally:
            with self._lock:
                for exposure in held.values():
                    exposure.users -= 1
                    if exposure.leaving:
                        self._free_unused(exposure)

    def free(self) -> None:
        """Give the memory back, that of exposures in use when they no longer are."""
        with self._lock:
            for key in list(self._exposures):
                self._drop(key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.free()

    def _taken(self, pixels: PixelStore, band: str, expID: str, load: bool) -> _Resident | None:
        """Find an exposure, or load it, and count one more user."""
        # Where its pixels are in which file: another state of a store has other ones there.
        key = pixels.reader.identity(band, expID)
        if key is None:
            return None
        exposure = self._exposures.get(key)
        if exposure is not None:
            self.hits += 1
            self._exposures[key] = self._exposures.pop(key)
        elif load:
            self.misses += 1
            exposure = self._load(pixels, band, expID)
            if exposure is not None:
                self._exposures[key] = exposure
                self._nbytes += exposure.memory.nbytes
        if exposure is not None:
            exposure.users += 1
        return exposure

    def _load(self, pixels: PixelStore, band: str, expID: str) -> _Resident | None:
        """Read a whole exposure into new memory, None where that cannot be."""
        size = pixels.super_pixel_size
        shape = (*grid_shape(pixels.shape, size), 2 * size * size)
        n_bytes = int(np.prod(shape, dtype=np.int64)) * 4
        if not self._make_room(n_bytes):
            return None
        try:
            memory = self.backend.allocate(n_bytes)
        except DeviceMemoryError:
            self._drop_unused()  # the patch needs memory more than the next ones
            return None

        def read(start: int, stop: int, to: npt.NDArray[np.float32]) -> None:
            pixels.read_window(band, expID, (start, stop, 0, shape[1]), out=to)

        try:
            fill_rows(self.backend, memory.view(shape, np.float32), read, fresh=True)
        except BaseException as error:
            memory.free()
            # Whoever keeps the error must not keep, by the frames it passed, views of the memory.
            traceback.clear_frames(error.__traceback__)
            raise
        return _Resident(memory, memory.view(shape, np.float32))

    def _make_room(self, n_bytes: int) -> bool:
        """Drop exposures that are not in use until so many bytes are within the limit."""
        unused = [key for key, exposure in self._exposures.items() if not exposure.users]
        droppable = sum(self._exposures[key].memory.nbytes for key in unused)
        if self._nbytes - droppable + n_bytes > self.limit_bytes:
            return False
        for key in unused:
            if self._nbytes + n_bytes <= self.limit_bytes:
                break
            self._drop(key)
        return True

    def _drop_unused(self) -> None:
        """Drop all exposures that are not in use."""
        for key in [key for key, exposure in self._exposures.items() if not exposure.users]:
            self._drop(key)

    def _drop(self, key: Extent) -> None:
        """Forget an exposure, and give its memory back when it is not in use."""
        exposure = self._exposures.pop(key)
        exposure.leaving = True
        self._free_unused(exposure)

    def _free_unused(self, exposure: _Resident) -> None:
        """Give the memory of an exposure back, unless it is in use."""
        if not exposure.users:
            self._nbytes -= exposure.memory.nbytes
            exposure.array = None
            exposure.memory.free()
