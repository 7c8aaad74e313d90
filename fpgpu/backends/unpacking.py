"""Unpacking super-pixels in host memory at the speed of memory: every value is written once."""

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from itertools import accumulate, groupby
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from fpgpu.backends.arguments import StagedExposure

__all__ = [
    "Coordinates",
    "Piece",
    "batches",
    "count",
    "first_not_finite",
    "runs",
    "unpack_values",
]

Pixels = npt.NDArray[np.float32]

_WORTH_A_THREAD = 1 << 22
"""Pixels from which on a thread is quicker than to fill their coordinates oneself."""


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


class Piece(NamedTuple):
    """Super-pixels ``start:stop`` of a patch, all of one exposure."""

    exposure: int
    start: int
    stop: int


def runs(exposures: Sequence[StagedExposure]) -> Iterator[tuple[bool, list[Piece]]]:
    """Part exposures into runs of those that are to be read and those that are there.

    Parameters
    ----------
    exposures : sequence of StagedExposure
        In the order of the patch.

    Yields
    ------
    is_read : bool
        Whether they are to be read.
    pieces : list of Piece
        Whole exposures; those without super-pixels are left out.
    """
    stops = accumulate(exposure.count for exposure in exposures)
    pieces = [
        Piece(number, stop - exposure.count, stop)
        for number, (exposure, stop) in enumerate(zip(exposures, stops, strict=True))
        if exposure.count
    ]
    for is_read, group in groupby(pieces, lambda piece: exposures[piece[0]].superpixels is None):
        yield is_read, list(group)


def count(pieces: Iterable[Piece]) -> int:
    """Count the super-pixels of pieces.

    Parameters
    ----------
    pieces : iterable of Piece
        Any.

    Returns
    -------
    int
        Their sum.
    """
    return sum(stop - start for _, start, stop in pieces)


def batches(pieces: Iterable[Piece], at_most: int, enough: int) -> Iterator[list[Piece]]:
    """Gather pieces into batches of `enough` super-pixels, or of one piece of at most `at_most`.

    An exposure is only cut where it is more than `at_most`: what is read of it at once is of one
    state of the store.

    Parameters
    ----------
    pieces : iterable of Piece
        In order.
    at_most, enough : int
        Super-pixels.

    Yields
    ------
    list of Piece
        What is read at once.
    """
    enough = min(enough, at_most)
    batch: list[Piece] = []
    room = 0
    for exposure, begin, end in pieces:
        for start in range(begin, end, at_most):
            stop = min(end, start + at_most)
            if batch and stop - start > room:
                yield batch
                batch = []
            room = (room if batch else enough) - (stop - start)
            batch.append(Piece(exposure, start, stop))
    if batch:
        yield batch


class Coordinates:
    """Coordinates of all pixels, filled by another core where that pays, or else at the end.

    To be used in a ``with`` block, after which nothing is written any more.

    Parameters
    ----------
    places : ndarray of int32, shape (n, 2)
        Index along x and y of each super-pixel in its exposure, checked.
    size : int
        Pixels along each side of a super-pixel.
    xpix, ypix : ndarray of float32, shape (n * size**2,)
        Out.
    """

    def __init__(
        self, places: npt.NDArray[np.int32], size: int, xpix: Pixels, ypix: Pixels
    ) -> None:
        self._arguments = places, size, xpix, ypix
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Start the thread; where there can be none it is done without."""
        n_pixels = self._arguments[2].size
        if n_pixels >= _WORTH_A_THREAD and len(os.sched_getaffinity(0)) > 1:
            thread = threading.Thread(target=self._fill, name="fpgpu coordinates", daemon=True)
            with suppress(RuntimeError):
                thread.start()
                self._thread = thread
        return self

    def finish(self) -> None:
        """Wait until they are filled, and raise what went wrong."""
        if self._thread is None:
            _fill_coordinates(*self._arguments)
        else:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread is not None:
            self._thread.join()

    def _fill(self) -> None:
        try:
            _fill_coordinates(*self._arguments)
        except BaseException as error:  # noqa: BLE001 - for whoever waits
            self._error = error


def unpack_values(
    data: Pixels,
    ierr: Pixels,
    superpixels: Pixels,
    background: float,
    size: int,
    max_snr: float,
) -> None:
    """Write fluxes and inverse uncertainties, as `fpgpu.backends.reference.unpack` defines.

    Parameters
    ----------
    data, ierr : ndarray of float32, shape (n * size**2,)
        Out, C-contiguous.
    superpixels : ndarray of float32, shape (n, 2 * size**2)
        Fluxes, then inverse uncertainties, of each super-pixel.
    background : float
        Subtracted from all fluxes.
    size : int
        Pixels along each side of a super-pixel.
    max_snr : float
        Where ``ierr > 0`` and ``data * ierr`` is larger, ierr becomes ``max_snr / data``; 0 for no
        such limit.
    """
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
