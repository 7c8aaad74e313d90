"""Images in host memory through the operations of a backend, as stores use them.

A device computes in float32. What needs more (images of float64 or wide integers, masks of 8 bytes)
is computed by NumPy in host memory whatever the backend, because the bits must be the same.
"""

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.backends.arguments import ExposurePlanes
from fpgpu.backends.base import Backend
from fpgpu.calibration import MaskCounts, calibrated_superpixels
from fpgpu.layout import ImageFlag
from fpgpu.superpixels import SUPER_PIXEL_SIZE, superpixelize

__all__ = ["calibrate_on", "superpixelize_on"]

logger = logging.getLogger(__name__)

_SWAPS = {
    "image": ImageFlag.SWAP_IMAGE,
    "error": ImageFlag.SWAP_ERROR,
    "mask": ImageFlag.SWAP_MASK,
    "background": ImageFlag.SWAP_BACKGROUND,
    "area": ImageFlag.SWAP_AREA,
}


def superpixelize_on(
    backend: Backend | None,
    im: npt.ArrayLike,
    ierr: npt.ArrayLike,
    size: int = SUPER_PIXEL_SIZE,
    dtype: npt.DTypeLike = np.float32,
) -> npt.NDArray[Any]:
    """Put an image in super-pixel order with a backend.

    Parameters
    ----------
    backend : Backend or None
        Where to do it; None for NumPy.
    im, ierr : array_like, shape (nx, ny)
        Fluxes and inverse uncertainties ``[x, y]``.
    size : int, optional
        Pixels along each side of a super-pixel.
    dtype : dtype, optional
        Of the result.

    Returns
    -------
    ndarray, shape (nx // size, ny // size, 2 * size**2)
        As `fpgpu.superpixels.superpixelize` gives it, bit for bit; in host memory.

    Raises
    ------
    LayoutError
        When the images have an unfit shape or dtype.
    """
    planes = {"image": np.asarray(im), "error": np.asarray(ierr)}
    if backend is None or np.dtype(dtype) != np.float32 or not _fits_a_device(backend, planes):
        return superpixelize(im, ierr, size, dtype)
    there, flags = _upload(backend, planes)
    return backend.download(
        backend.superpixelize(there["image"], there["error"], size, flags=flags)
    )


def calibrate_on(
    backend: Backend | None,
    im: npt.ArrayLike,
    ierr: npt.ArrayLike,
    mask: npt.ArrayLike | None = None,
    bkg: npt.ArrayLike | None = None,
    *,
    bitmask: int | None = None,
    factor: float = 1.0,
    area: npt.ArrayLike | None = None,
    size: int = SUPER_PIXEL_SIZE,
) -> tuple[npt.NDArray[np.float32], MaskCounts]:
    """Calibrate an exposure into super-pixel order with a backend.

    Parameters
    ----------
    backend : Backend or None
        Where to do it; None for NumPy.
    im, ierr, mask, bkg : array_like, shape (nx, ny)
        Image, inverse uncertainties, flags and background ``[x, y]``.
    bitmask : int, optional
        The bits of `mask` that make a pixel bad.
    factor : float, optional
        Flux per unit of the image.
    area : array_like, shape (nx, ny), optional
        Area of each pixel, relative to the one in `factor`.
    size : int, optional
        Pixels along each side of a super-pixel.

    Returns
    -------
    superpixels : ndarray of float32, shape (nx // size, ny // size, 2 * size**2)
        As `fpgpu.calibration.calibrated_superpixels` gives it, bit for bit; in host memory.
    counts : MaskCounts
        How many pixels were masked, and why.

    Raises
    ------
    LayoutError
        When the arrays have an unfit shape or dtype.
    UnusableExposureError
        When `factor` or any resulting value is out of the range of float32.
    """
    given = {"image": im, "error": ierr, "mask": mask, "background": bkg, "area": area}
    planes = {name: np.asarray(plane) for name, plane in given.items() if plane is not None}
    if "area" in planes and planes["area"].dtype.kind in "fiu":
        planes["area"] = planes["area"].astype(np.float32, copy=False)
    if backend is None or not _fits_a_device(backend, planes):
        return calibrated_superpixels(
            im, ierr, mask, bkg, bitmask=bitmask, factor=factor, area=area, size=size
        )
    there, flags = _upload(backend, planes)
    exposure = ExposurePlanes(**there, factor=factor)
    superpixels, (counts,) = backend.calibrate([exposure], size, bitmask=bitmask, flags=flags)
    return backend.download(superpixels)[0], counts


def _fits_a_device(backend: Backend, planes: dict[str, npt.NDArray[Any]]) -> bool:
    """Tell whether a device other than the host can do it with the same bits."""
    if backend.name == "cpu":
        return False
    shape = planes["image"].shape
    for name, plane in planes.items():
        if name == "mask":
            exact = plane.dtype.kind in "biu" and plane.dtype.itemsize <= 4
        else:
            exact = plane.dtype.kind in "fiu" and np.can_cast(plane.dtype, np.float32)
        if not exact or plane.shape != shape:
            logger.info("%s of %s is left to the host", name, plane.dtype)
            return False
    return True


def _upload(
    backend: Backend, planes: dict[str, npt.NDArray[Any]]
) -> tuple[dict[str, Any], ImageFlag]:
    """Send images ``[x, y]`` in the order and byte order in which they lie in memory."""
    image = planes["image"]
    flags = ImageFlag(0)
    if image.ndim == 2 and image.strides[0] < image.strides[1]:
        flags = ImageFlag.FITS_ORDER
    there = {}
    for name, plane in planes.items():
        stored = plane.T if flags & ImageFlag.FITS_ORDER else plane
        if name != "mask" and stored.dtype.newbyteorder("=") != np.float32:
            stored = stored.astype(np.float32)  # small integers and float16, exactly
        if not stored.dtype.isnative:
            flags |= _SWAPS[name]
        there[name] = backend.upload(stored)
    return there, flags
