"""What the data-movement kernels do, in plain NumPy: the definition that every backend must match.

Results have the same bits on every backend. Super-pixel order and calibration have their references
in `fpgpu.superpixels` and `fpgpu.calibration`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.layout import PATCH_ARRAYS, PATCH_DTYPE, SEEN_DTYPE

__all__ = ["check_layout", "unpack"]

Pixels = npt.NDArray[np.float32]


def unpack(
    superpixels: Pixels,
    places: npt.NDArray[np.int32],
    counts: Sequence[int],
    backgrounds: Sequence[float],
    size: int,
    max_snr: float = 0.0,
) -> tuple[Pixels, Pixels, Pixels, Pixels]:
    """Turn super-pixels in disk order into the pixel arrays of a patch.

    Parameters
    ----------
    superpixels : ndarray of float32, shape (n, 2 * size**2)
        Fluxes, then inverse uncertainties, of each super-pixel of the patch, in order of exposure.
    places : ndarray of int32, shape (n, 2)
        Index of each super-pixel along x and y in its exposure.
    counts : sequence of int, length n_exp
        Super-pixels of each exposure; their sum is n.
    backgrounds : sequence of float, length n_exp
        Subtracted from all fluxes of an exposure, in their unit.
    size : int
        Pixels along each side of a super-pixel.
    max_snr : float
        Where ``ierr > 0`` and ``data * ierr`` is larger, ierr becomes ``max_snr / data``; 0 for
        no such limit.

    Returns
    -------
    data, ierr : ndarray of float32, shape (n * size**2,)
        Flux and inverse uncertainty. A flux that is NaN keeps its bits.
    xpix, ypix : ndarray of float32, shape (n * size**2,)
        Zero-based pixel coordinates.
    """
    n = len(superpixels)
    planes = superpixels.reshape(n, 2, size, size)
    ierr = planes[:, 1].copy()
    background = np.repeat(np.asarray(backgrounds, np.float32), counts)[:, None, None]
    with np.errstate(all="ignore"):
        data = np.where(np.isnan(planes[:, 0]), planes[:, 0], planes[:, 0] - background)
        if max_snr:
            limit = np.float32(max_snr)
            too_sure = (ierr > 0) & (data * ierr > limit)
            ierr[too_sure] = limit / data[too_sure]

    xpix, ypix = np.empty((2, n, size, size), np.float32)
    xpix[...] = (places[:, 0, None] * size + np.arange(size))[:, :, None]
    ypix[...] = (places[:, 1, None] * size + np.arange(size))[:, None, :]
    return data.ravel(), ierr.ravel(), xpix.ravel(), ypix.ravel()


def check_layout(
    patch: npt.NDArray[Any], arrays: Mapping[str, npt.NDArray[Any] | None]
) -> npt.NDArray[Any]:
    """Say what a kernel must see in a patch that was laid out right.

    Parameters
    ----------
    patch : ndarray of PATCH_DTYPE, shape ()
        The struct.
    arrays : mapping of str to ndarray
        The array behind each pointer, or None for a null pointer.

    Returns
    -------
    ndarray of SEEN_DTYPE, shape (20,)
        For each field in the order of the struct: its value, and number of elements, checksum,
        first and last word of its array.
    """
    seen = np.zeros(len(PATCH_DTYPE.names or ()), SEEN_DTYPE)
    for entry, name in zip(seen, PATCH_DTYPE.names or (), strict=True):
        entry["value"] = patch[name]
        array = arrays.get(name) if name in PATCH_ARRAYS else patch[name]
        if array is None or array.size == 0:
            continue
        words = _words(array)
        weights = 2 * np.arange(words.size, dtype=np.uint64) + np.uint64(1)
        entry["count"] = array.size
        entry["checksum"] = np.sum(words.astype(np.uint64) * weights, dtype=np.uint64)
        entry["first"], entry["last"] = words[0], words[-1]
    return seen


def _words(array: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """Give the bits of an array as 32-bit words, 16-bit elements one a word."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype.itemsize == 2:
        return flat.view(np.uint16).astype(np.uint32)
    return flat.view(np.uint32)
