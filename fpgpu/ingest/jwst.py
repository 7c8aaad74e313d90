"""JWST stage-2 imaging products: ``cal`` and ``crf``.

SCI and ERR are surface brightnesses in MJy/sr. A pixel's flux is the surface brightness times its
solid angle, which is PIXAR_SR (the nominal pixel) times AREA (relative to the nominal one): in
nanojansky ``SCI * 1e15 * PIXAR_SR * AREA``.
"""

import math

from fpgpu.errors import UnusableExposureError
from fpgpu.ingest.assemble import assemble
from fpgpu.ingest.exposure import Exposure
from fpgpu.ingest.fitsfile import FitsFile
from fpgpu.ingest.flags import JWST
from fpgpu.ingest.inputs import ReadOptions

__all__ = ["SURFACE_BRIGHTNESS", "is_jwst", "read_jwst"]

SURFACE_BRIGHTNESS = "MJy/sr"
"""The unit of calibrated JWST images."""


def is_jwst(file: FitsFile) -> bool:
    """Tell whether a file is a calibrated image of JWST.

    Parameters
    ----------
    file : FitsFile
        The opened file.

    Returns
    -------
    bool
        Whether TELESCOP is JWST and there is a SCI extension.
    """
    telescope = str(file.primary("TELESCOP")).strip().upper()
    return telescope == "JWST" and "SCI" in file.names()


def read_jwst(file: FitsFile, options: ReadOptions) -> Exposure:
    """Read a JWST stage-2 image.

    Parameters
    ----------
    file : FitsFile
        The opened file.
    options : ReadOptions
        How to read.

    Returns
    -------
    Exposure
        Pixel values in MJy/sr with the area map; DO_NOT_USE is bad unless the user names bits.

    Raises
    ------
    UnusableExposureError
        When an image is missing or cannot be used, or the units are not those of a calibrated
        image.
    WCSError
        When there is no usable WCS.
    """
    exposure = assemble(file, "SCI", options)
    _check_units(file, exposure)
    if exposure.mask is None:
        raise UnusableExposureError(
            f"{file.path}: has no extension DQ (found {', '.join(file.names())}); a calibrated "
            "JWST image always has one, so the file is incomplete"
        )
    exposure.bitmask = JWST.parse("DO_NOT_USE")
    if exposure.area is None:
        exposure.notes.append("no AREA extension; every pixel is taken to have the nominal area")
    if "ASDF" not in file.names():
        exposure.notes.append("no ASDF extension and so no gWCS; the FITS WCS is used")
    return exposure


def _check_units(file: FitsFile, exposure: Exposure) -> None:
    """Refuse units that have no way to nanojansky."""
    header = exposure.hdr
    if "ABMAG" in header:
        return
    unit = str(header.get("BUNIT", "")).strip()
    if unit.replace(" ", "").lower() != SURFACE_BRIGHTNESS.lower():
        raise UnusableExposureError(
            f"{file.path}: BUNIT is {unit or 'missing'}, expected {SURFACE_BRIGHTNESS}; "
            "give a flux-calibrated stage-2 product (cal or crf)"
        )
    solid_angle = header.get("PIXAR_SR")
    if (
        isinstance(solid_angle, bool)
        or not isinstance(solid_angle, int | float)
        or not math.isfinite(solid_angle)
        or solid_angle <= 0
    ):
        raise UnusableExposureError(
            f"{file.path}: PIXAR_SR is {solid_angle!r}, expected the solid angle of a pixel in "
            "steradians; it is needed to turn MJy/sr into nJy"
        )
