"""Unpacking compiled by Numba: every value is read once and written once; slow to import."""

from typing import Any

import numpy as np
from numba import types

from fpgpu.jit import compiled

__all__ = ["unpack"]

INFINITE = 0x7F800000
"""Bits of an infinite float32; those of a NaN, without their sign, are more."""


# Memory that may not be written to would be another type: one signature is compiled for both.
_IN, _BITS, _PLACES = (
    types.Array(kind, 2, "C", readonly=True) for kind in (types.float32, types.int32, types.int32)
)
_OUT = types.Array(types.float32, 2, "C")
_SIGNATURE = types.int64(
    _IN, _BITS, _PLACES, types.float32, types.int64, types.float32, _OUT, _OUT, _OUT, _OUT
)


# Nothing may be reordered or fused: the bits are those of `fpgpu.backends.reference.unpack`.
@compiled(signature=_SIGNATURE)
def unpack(
    superpixels: Any,
    bits: Any,
    places: Any,
    background: Any,
    size: int,
    max_snr: Any,
    data: Any,
    ierr: Any,
    xpix: Any,
    ypix: Any,
) -> int:
    """Unpack super-pixels of one exposure; return the first that is not finite, or -1.

    Parameters
    ----------
    superpixels, bits : ndarray of float32 and its view as int32, shape (n, 2 * size**2)
        Fluxes, then inverse uncertainties, of each super-pixel.
    places : ndarray of int32, shape (n, 2)
        Index of each super-pixel along x and y in its exposure.
    background, max_snr : float32
        As `fpgpu.backends.reference.unpack` defines them.
    size : int
        Pixels along each side of a super-pixel.
    data, ierr, xpix, ypix : ndarray of float32, shape (n, size**2)
        Out.
    """
    n_pixels = size * size
    first = -1
    for i in range(len(superpixels)):
        largest = np.int32(0)
        for k in range(2 * n_pixels):
            largest = max(largest, np.int32(bits[i, k] & 0x7FFFFFFF))
        if largest >= INFINITE and first < 0:
            first = i
        for k in range(n_pixels):
            flux = superpixels[i, k]
            # A NaN keeps its bits.
            data[i, k] = flux if np.isnan(flux) else flux - background
            ierr[i, k] = superpixels[i, n_pixels + k]
        if max_snr != 0:
            for k in range(n_pixels):
                if ierr[i, k] > 0 and data[i, k] * ierr[i, k] > max_snr:
                    ierr[i, k] = max_snr / data[i, k]
        x, y = places[i, 0] * size, places[i, 1] * size
        for column in range(size):
            for row in range(size):
                xpix[i, column * size + row] = np.float32(x + column)
                ypix[i, column * size + row] = np.float32(y + row)
    return first
