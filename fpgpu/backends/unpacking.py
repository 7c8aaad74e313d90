"""Unpacking super-pixels in host memory at the speed of memory: every value is written once."""

from functools import cache

import numpy as np
import numpy.typing as npt

from fpgpu.backends.arguments import PatchPixels

__all__ = ["unpack_into"]

Pixels = npt.NDArray[np.float32]


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
    shape = len(places), size * size
    data, ierr, xpix, ypix = (array.reshape(shape) for array in out)
    flux = superpixels[:, : size * size]
    ierr[...] = superpixels[:, size * size :]
    if background:
        _subtract(flux, np.float32(background), data)
    else:
        data[...] = flux
    if max_snr:
        _limit(data, ierr, np.float32(max_snr))
    for axis, coordinate in enumerate((xpix, ypix)):
        _fill_coordinate(places[:, axis], _offsets(size)[axis], size, coordinate)


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
