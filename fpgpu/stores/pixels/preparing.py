"""What is stored of an exposure's pixels: checked, calibrated, in super-pixel order."""

import logging
from operator import index
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.backends.base import Backend
from fpgpu.backends.images import calibrate_on
from fpgpu.calibration import MaskCounts, calibrate_images
from fpgpu.errors import LayoutError, UnusableExposureError
from fpgpu.fluxes import flux_calibration
from fpgpu.stores.names import check_band, check_expID
from fpgpu.stores.pixels.geometry import Geometry
from fpgpu.stores.pixels.records import CalibrationRecord, names_of, update_checksum
from fpgpu.superpixels import superpixelize

__all__ = ["prepared", "require_image_set"]

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.floating[Any]]

_ATTRIBUTES = ("im", "ierr", "mask", "bkg", "hdr", "band", "expID", "names")


def require_image_set(imset: object) -> None:
    """Refuse what is no image set, naming what it lacks."""
    lacking = [name for name in _ATTRIBUTES if not hasattr(imset, name)]
    if lacking:
        raise UnusableExposureError(
            f"a {type(imset).__name__} cannot be stored: it has no {', '.join(lacking)}; expected "
            "an ImageSet, an Exposure, or an object with their attributes"
        )


def checked_bitmask(bitmask: object) -> int | None:
    """Return a bitmask as a Python integer; None for none, and for 0, as in forcepho."""
    if bitmask is None:
        return None
    try:
        bits = index(bitmask)  # type: ignore[arg-type]  # whatever the caller gave
    except TypeError:
        raise LayoutError(
            f"bitmask is {bitmask!r}; expected an integer (fpgpu.ingest.flags gives the bits of "
            "names)"
        ) from None
    if bits < 0:
        raise LayoutError(
            f"bitmask is {bits}; expected bits that are 0 or 1, so no negative number"
        )
    return bits or None


def calibrated(
    imset: Any,
    bitmask: int | None,
    factor: float,
    size: int,
    dtype: np.dtype[Any],
    backend: Backend | None,
) -> tuple[FloatArray, MaskCounts]:
    """Calibrate an exposure into super-pixels.

    Parameters
    ----------
    imset : ImageSet, Exposure or any object with their attributes
        The exposure; not changed.
    bitmask : int or None
        Bits of its mask that make a pixel unusable; None for all.
    factor : float
        What to multiply the image by.
    size : int
        Pixels along each side of a super-pixel.
    dtype : numpy.dtype
        Of the result.
    backend : Backend or None
        Where to compute; None for this processor, as float64 results always are.

    Returns
    -------
    superpixels : ndarray, shape (nsx, nsy, 2 * size**2)
        Fluxes, then inverse uncertainties.
    masked : MaskCounts
        How many pixels have no weight, and why; a warning is logged when none has any.
    """
    # forcepho's documentation allows False for what is absent.
    mask, bkg = (None if a is None or a is False else a for a in (imset.mask, imset.bkg))
    area = getattr(imset, "area", None)
    superpixels: FloatArray
    if dtype == np.float32:
        superpixels, masked = calibrate_on(
            backend,
            imset.im,
            imset.ierr,
            mask,
            bkg,
            bitmask=bitmask,
            factor=factor,
            area=area,
            size=size,
        )
    else:
        im, ierr, masked = calibrate_images(
            imset.im, imset.ierr, mask, bkg, bitmask=bitmask, factor=factor, area=area
        )
        superpixels = superpixelize(im, ierr, size, dtype)
    if not any(row[:, size**2 :].any() for row in superpixels):
        logger.warning(
            "%s/%s: is stored with zero weight, as no pixel has any: %s, all others an inverse "
            "uncertainty of 0; check its uncertainties, its mask and the bitmask",
            imset.band,
            imset.expID,
            masked,
        )
    return superpixels, masked


def prepared(
    imset: Any,
    geometry: Geometry,
    bitmask: object,
    do_fluxcal: bool,
    dtype: np.dtype[Any],
    backend: Backend | None,
    holder: str,
) -> tuple[CalibrationRecord, FloatArray]:
    """Check and calibrate an exposure for a store.

    Parameters
    ----------
    imset : ImageSet, Exposure or any object with their attributes
        The exposure; not changed.
    geometry : Geometry
        Of the store.
    bitmask : int or None
        Bits of the mask that make a pixel unusable; None for all.
    do_fluxcal : bool
        Multiply by the header's flux calibration.
    dtype : numpy.dtype
        Of the values to store.
    backend : Backend or None
        Where to compute; None for this processor.
    holder : str
        The store, for messages.

    Returns
    -------
    record : CalibrationRecord
        What was done.
    superpixels : ndarray, shape (nsx, nsy, 2 * size**2)
        Fluxes, then inverse uncertainties.

    Raises
    ------
    ExposureNameError
        If a name is not allowed.
    LayoutError
        If the image has another size than the store's, or arrays do not fit each other.
    UnusableExposureError
        If the image set lacks something.
    """
    require_image_set(imset)
    bits = checked_bitmask(bitmask)
    band, expID = check_band(imset.band), check_expID(imset.expID)
    shape = np.shape(imset.im)
    if shape != geometry.shape:
        raise LayoutError(
            f"{band}/{expID}: its image has shape {shape}, but {holder} holds images of "
            f"{geometry.shape}; all images of a store have one size"
        )
    if do_fluxcal and imset.hdr is None:
        raise UnusableExposureError(f"{band}/{expID}: has no header to calibrate its flux by")
    factor, units = flux_calibration(imset.hdr) if do_fluxcal else (1.0, "image")
    pixels, masked = calibrated(imset, bits, factor, geometry.size, dtype, backend)
    record = CalibrationRecord(
        band,
        expID,
        factor,
        units,
        bitmask_applied=bits,
        names=names_of(imset.names),
        masked=masked,
        checksum=update_checksum(pixels),
        provenance=dict(getattr(imset, "provenance", None) or {}),
    )
    return record, pixels
