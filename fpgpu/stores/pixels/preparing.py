"""What is stored of an exposure's pixels: checked, calibrated, in super-pixel order."""

import logging
from operator import index
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.backends.base import Backend
from fpgpu.backends.images import calibrate_on
from fpgpu.calibration import calibrate_images
from fpgpu.errors import LayoutError, UnusableExposureError
from fpgpu.fluxes import flux_calibration
from fpgpu.stores.names import check_band, check_expID
from fpgpu.stores.pixels.geometry import Geometry
from fpgpu.stores.pixels.records import CalibrationRecord, names_of
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


def prepared(
    imset: Any,
    geometry: Geometry,
    bitmask: object,
    do_fluxcal: bool,
    dtype: np.dtype[Any],
    backend: Backend | None,
    holder: str,
) -> tuple[CalibrationRecord, FloatArray]:
    """Check and calibrate an exposure for a store, which messages name as `holder`.

    The super-pixels have shape (nsx, nsy, 2 * size**2): fluxes, then inverse uncertainties. Their
    checksum is not worked out yet.
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
    # forcepho's documentation allows False for what is absent.
    mask, bkg = (None if a is None or a is False else a for a in (imset.mask, imset.bkg))
    images = imset.im, imset.ierr, mask, bkg
    how: Any = {"bitmask": bits, "factor": factor, "area": getattr(imset, "area", None)}
    pixels: FloatArray
    if dtype == np.float32:
        pixels, masked = calibrate_on(backend, *images, **how, size=geometry.size)
    else:
        im, ierr, masked = calibrate_images(*images, **how)
        pixels = superpixelize(im, ierr, geometry.size, dtype)
    if not any(row[:, geometry.size**2 :].any() for row in pixels):
        logger.warning(
            "%s/%s: is stored with zero weight, as no pixel has any: %s, all others an inverse "
            "uncertainty of 0; check its uncertainties, its mask and the bitmask",
            band, expID, masked,
        )  # fmt: skip
    record = CalibrationRecord(
        band,
        expID,
        factor,
        units,
        bitmask_applied=bits,
        names=names_of(imset.names),
        masked=masked,
        provenance=dict(getattr(imset, "provenance", None) or {}),
    )
    return record, pixels
