"""Unpacking super-pixels in host memory at the speed of memory: every value is written once."""

import os
import threading
from contextlib import suppress
from functools import cache
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from fpgpu.backends.arguments import PatchPixels, check_pixels
from fpgpu.backends.checks import Owner, require_apart, require_array, require_indices
from fpgpu.errors import LayoutError

__all__ = ["Unpacker", "first_not_finite", "unpack_into"]

Pixels = npt.NDArray[np.float32]

_VALUE = np.dtype(np.float32)

_WORTH_A_THREAD = 1 << 22
"""Pixels from which on a thread is quicker than to fill their coordinates oneself."""


def unpack_into(
    out: PatchPixels,
    superpixels: Pixels,
    places: npt.NDArray[np.int32],
    background: float,
    size: int,
    max_snr: float = 0.0,
) -> None:
    """Turn super-pixels of one exposure into pixels, as `fpgpu.backends.reference.unpack` defines.

    Parameters
    ----------
    out : PatchPixels
        C-contiguous arrays of n * size**2 float32.
    superpixels : ndarray of float32, shape (n, 2 * size**2)
        Fluxes, then inverse uncertainties, of each super-pixel.
    places : ndarray of int32, shape (n, 2)
        Index of each super-pixel along x and y.
    background : float
        Subtracted from all fluxes.
    size : int
        Pixels along each side of a super-pixel.
    max_snr : float, optional
        Where ``ierr > 0`` and ``data * ierr`` is larger, ierr becomes ``max_snr / data``; 0 for no
        such limit.
    """
    _unpack_values(out.data, out.ierr, superpixels, background, size, max_snr)
    _fill_coordinates(places, size, out.xpix, out.ypix)


def first_not_finite(superpixels: Pixels) -> int | None:
    """Find a value that is not finite, at the price of reading what is in the caches once more.

    Parameters
    ----------
    superpixels : ndarray of float32, shape (n, k)
        C-contiguous.

    Returns
    -------
    int or None
        The first super-pixel with one; None where there is none.
    """
    values = superpixels.reshape(-1)
    with np.errstate(all="ignore"):
        # The quickest way to read them all: the sum of squares is finite unless a value is not,
        # or is so large that one has to look closer.
        if np.isfinite(np.dot(values, values)):
            return None
    bad = ~np.isfinite(superpixels).all(axis=1)
    return int(np.argmax(bad)) if bad.any() else None


class Unpacker:
    """Unpacks super-pixels of many exposures in turn, through memory that is used again.

    What was just read is then still in the caches of the processor. What all parts have in common
    is checked once, so that parts can be small; and coordinates, which need no pixels, are filled
    by another core meanwhile. To be used in a ``with`` block.

    Parameters
    ----------
    owner : Owner
        A backend whose arrays are NumPy's.
    places : ndarray of int32, shape (n, 2)
        Index along x and y of each super-pixel in its exposure, for all parts.
    out : PatchPixels
        Arrays of n * size**2 float32.
    size : int
        Pixels along each side of a super-pixel.
    grid : (int, int)
        Super-pixels of every exposure along x and y.
    max_snr : float, optional
        As for `unpack_into`.

    Attributes
    ----------
    first_bad : int or None
        Number of the first super-pixel that came with a value that is not finite.

    Raises
    ------
    LayoutError, KernelLaunchError
        When an argument does not fit.
    """

    def __init__(
        self,
        owner: Owner,
        places: npt.NDArray[np.int32],
        out: PatchPixels,
        size: int,
        *,
        grid: tuple[int, int],
        max_snr: float = 0.0,
    ) -> None:
        # Pixel coordinates are float32, which holds whole numbers exactly below 2**24.
        within = np.minimum(grid, 2**24 // size)
        places = require_indices("places", places, (None, 2), within)
        check_pixels(owner, out, len(places), size, max_snr)
        require_apart(owner, out._asdict(), {})
        self._owner = owner
        self._out = out
        self._size = size
        self._max_snr = max_snr
        self._n_left = len(places)
        self.first_bad: int | None = None
        self._coordinates = _Coordinates(places, size, out.xpix, out.ypix)

    def add(self, superpixels: Pixels, background: float = 0.0) -> None:
        """Unpack the next super-pixels.

        Parameters
        ----------
        superpixels : ndarray of float32, shape (n, 2 * size**2)
            Fluxes, then inverse uncertainties, of each; not in memory that is unpacked into.
        background : float, optional
            Subtracted from every flux.

        Raises
        ------
        LayoutError
            When they have another shape, or are more than there are places left.
        """
        words = self._size**2
        require_array(self._owner, "superpixels", superpixels, _VALUE, (None, 2 * words))
        if len(superpixels) > self._n_left:
            raise LayoutError(f"{len(superpixels)} super-pixels came where {self._n_left} are left")
        if self.first_bad is None and (bad := first_not_finite(superpixels)) is not None:
            self.first_bad = self._out.data.size // words - self._n_left + bad
        data, ierr = (array[array.size - self._n_left * words :] for array in self._out[:2])
        self._n_left -= len(superpixels)
        some = slice(0, len(superpixels) * words)
        _unpack_values(data[some], ierr[some], superpixels, background, self._size, self._max_snr)

    def finish(self) -> None:
        """Wait until all is done.

        Raises
        ------
        LayoutError
            When super-pixels are missing.
        """
        if self._n_left:
            raise LayoutError(f"{self._n_left} super-pixels that there are places of did not come")
        self._coordinates.finish()

    def __enter__(self) -> Self:
        self._coordinates.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._coordinates.wait()


class _Coordinates:
    """Coordinates of all pixels, filled by a thread where that pays, or else at the end."""

    def __init__(
        self, places: npt.NDArray[np.int32], size: int, xpix: Pixels, ypix: Pixels
    ) -> None:
        self._arguments = places, size, xpix, ypix
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start the thread; where there can be none it is done without."""
        n_pixels = self._arguments[2].size
        if n_pixels < _WORTH_A_THREAD or len(os.sched_getaffinity(0)) == 1:
            return
        thread = threading.Thread(target=self._fill, name="fpgpu coordinates", daemon=True)
        with suppress(RuntimeError):
            thread.start()
            self._thread = thread

    def wait(self) -> None:
        """Wait until nothing is written any more."""
        if self._thread is not None:
            self._thread.join()

    def finish(self) -> None:
        """Wait until they are filled, and raise what went wrong."""
        if self._thread is None:
            _fill_coordinates(*self._arguments)
        self.wait()
        if self._error is not None:
            raise self._error

    def _fill(self) -> None:
        try:
            _fill_coordinates(*self._arguments)
        except BaseException as error:  # noqa: BLE001 - for whoever waits
            self._error = error


def _unpack_values(
    data: Pixels,
    ierr: Pixels,
    superpixels: Pixels,
    background: float,
    size: int,
    max_snr: float,
) -> None:
    """Write the fluxes and inverse uncertainties of super-pixels of one exposure."""
    shape = len(superpixels), size * size
    data, ierr = data.reshape(shape), ierr.reshape(shape)
    flux = superpixels[:, : size * size]
    ierr[...] = superpixels[:, size * size :]
    if background:
        _subtract(flux, np.float32(background), data)
    else:
        data[...] = flux
    if max_snr:
        _limit(data, ierr, np.float32(max_snr))


def _subtract(flux: Pixels, background: np.float32, data: Pixels) -> None:
    """Subtract a background; a flux that is NaN keeps its bits."""
    with np.errstate(all="ignore"):
        np.subtract(flux, background, out=data)
    lost = np.isnan(flux)
    if lost.any():
        data.view(np.uint32)[lost] = flux[lost].view(np.uint32)


def _limit(data: Pixels, ierr: Pixels, limit: np.float32) -> None:
    """Cap the ratio of flux to uncertainty."""
    with np.errstate(all="ignore"):
        too_sure = (ierr > 0) & (data * ierr > limit)
        ierr[too_sure] = limit / data[too_sure]


def _fill_coordinates(places: npt.NDArray[np.int32], size: int, xpix: Pixels, ypix: Pixels) -> None:
    """Write both coordinates of every pixel of super-pixels."""
    shape = len(places), size * size
    for axis, coordinate in enumerate((xpix, ypix)):
        offsets = _offsets(size)[axis]
        _fill_coordinate(places[:, axis], offsets, size, coordinate.reshape(shape))


def _fill_coordinate(
    indices: npt.NDArray[np.int32], offsets: Pixels, size: int, out: Pixels
) -> None:
    """Write one coordinate of every pixel; whole numbers below 2**24 are exact in float32."""
    if not len(indices):
        return
    low, high = int(indices.min()), int(indices.max())
    if high - low < len(indices):
        # Few different rows: twenty times as quick as sums with short inner loops.
        rows = np.arange(low, high + 1, dtype=np.float32)[:, None] * size + offsets
        np.take(rows, indices - low, axis=0, out=out, mode="clip")
    else:
        np.add((indices * size).astype(np.float32)[:, None], offsets, out=out)


@cache
def _offsets(size: int) -> tuple[Pixels, Pixels]:
    """x and y of the pixels of a super-pixel from its corner, in its order."""
    x, y = np.indices((size, size), np.float32).reshape(2, -1)
    return x, y
