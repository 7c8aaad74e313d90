"""Unpacking super-pixels in host memory: what is read at once, and what is done with it."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fpgpu.backends import reference
from fpgpu.backends.arguments import PatchPixels, StagedExposure
from fpgpu.jit import compiled_module

__all__ = [
    "Piece",
    "batches",
    "count",
    "runs",
    "unpack_piece",
]

Pixels = npt.NDArray[np.float32]


class Piece(NamedTuple):
    """Super-pixels ``start:stop`` of a patch, all of one exposure."""

    exposure: int
    start: int
    stop: int


def runs(exposures: Sequence[StagedExposure]) -> Iterator[tuple[bool, list[Piece]]]:
    """Part exposures into runs of those that are to be read and those that are there."""
    stops = accumulate(exposure.count for exposure in exposures)
    pieces = [
        Piece(number, stop - exposure.count, stop)
        for number, (exposure, stop) in enumerate(zip(exposures, stops, strict=True))
        if exposure.count
    ]
    for is_read, group in groupby(pieces, lambda piece: exposures[piece[0]].superpixels is None):
        yield is_read, list(group)


def count(pieces: Iterable[Piece]) -> int:
    """Count the super-pixels of pieces."""
    return sum(stop - start for _, start, stop in pieces)


def batches(pieces: Iterable[Piece], at_most: int, enough: int) -> Iterator[list[Piece]]:
    """Gather pieces into batches of `enough` super-pixels, or of one piece of at most `at_most`.

    An exposure is only cut where it is more than `at_most`: what is read of it at once is of one
    state of the store.
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


def unpack_piece(
    superpixels: Pixels,
    places: npt.NDArray[np.int32],
    background: float,
    size: int,
    max_snr: float,
    out: PatchPixels,
) -> int:
    """Unpack super-pixels of one exposure, as `fpgpu.backends.reference.unpack` defines.

    Parameters
    ----------
    superpixels : ndarray of float32, shape (n, 2 * size**2)
        Fluxes, then inverse uncertainties, of each super-pixel.
    places : ndarray of int32, shape (n, 2)
        Index of each super-pixel along x and y in its exposure.
    background : float
        Subtracted from all fluxes.
    size : int
        Pixels along each side of a super-pixel.
    max_snr : float
        The largest ratio of flux to uncertainty, 0 for no such limit.
    out : PatchPixels
        Arrays of ``n * size**2`` float32.

    Returns
    -------
    int
        The first super-pixel with a value that is not finite, -1 where all are.
    """
    if kernel := compiled_module("fpgpu.backends.compiled", "pixels are unpacked by NumPy, slowly"):
        limits = np.float32(background), size, np.float32(max_snr)
        planes = (array.reshape(-1, size * size) for array in out)
        values, where = np.ascontiguousarray(superpixels), np.ascontiguousarray(places)
        return int(kernel.unpack(values, values.view(np.int32), where, *limits, *planes))
    arrays = reference.unpack(superpixels, places, [len(places)], [background], size, max_snr)
    for to, array in zip(out, arrays, strict=True):
        to[...] = array
    bad = ~np.isfinite(superpixels).all(axis=1)
    return int(np.argmax(bad)) if bad.any() else -1
