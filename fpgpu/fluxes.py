"""From the values of an image to nanojansky: what a header says of it."""

import logging
import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from fpgpu.errors import UnusableExposureError

__all__ = ["flux_calibration"]

logger = logging.getLogger(__name__)


def flux_calibration(hdr: Mapping[str, Any]) -> tuple[float, str]:
    """Find the factor from the values of an image to fluxes in nJy per pixel.

    With ABMAG, the AB magnitude of one count (per second): ``1e9 * 10**(0.4 * (8.9 - ABMAG))``,
    as forcepho has it. Else, for an image in MJy/sr with PIXAR_SR, the nominal area of a pixel in
    steradian: ``1e15 * PIXAR_SR``, as there are 1e15 nJy in a MJy.

    Parameters
    ----------
    hdr : mapping
        FITS header of the exposure.

    Returns
    -------
    factor : float
        nJy per unit of the image, or 1 when the header has no calibration.
    units : str
        ``"nJy"``, or ``"counts"`` when the header has no calibration.

    Raises
    ------
    UnusableExposureError
        If ABMAG or PIXAR_SR is no number, or out of any reasonable range.
    """
    if "ABMAG" in hdr:
        zero_point = _number(hdr, "ABMAG")
        if abs(zero_point) > 60:  # beyond, the factor or its reciprocal leaves float32
            raise UnusableExposureError(f"ABMAG = {zero_point!r} is no AB magnitude of a count")
        return 1e9 * 10 ** (0.4 * (8.9 - zero_point)), "nJy"
    in_surface_brightness = str(hdr.get("BUNIT", "")).replace(" ", "").lower() == "mjy/sr"
    if in_surface_brightness and "PIXAR_SR" in hdr:
        area = _number(hdr, "PIXAR_SR")
        if not 0 < area < 4 * math.pi:
            raise UnusableExposureError(f"PIXAR_SR = {area!r} is no area of a pixel in steradian")
        return 1e15 * area, "nJy"
    logger.warning("no flux calibration: neither ABMAG, nor BUNIT = MJy/sr with PIXAR_SR")
    return 1.0, "counts"


def _number(hdr: Mapping[str, Any], key: str) -> float:
    """Return a header value that must be a finite number."""
    value = hdr[key]
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise UnusableExposureError(f"{key} = {value!r} in the header; expected a finite number")
    return float(value)
