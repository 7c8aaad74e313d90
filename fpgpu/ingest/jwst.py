"""JWST images: stage 2 (``cal``, ``crf``, ``tweakregstep``) and the mosaics of stage 3 (``i2d``).

SCI and ERR are surface brightnesses in MJy/sr. A pixel's flux is the surface brightness times its
solid angle, which is PIXAR_SR (the nominal pixel) times AREA (relative to the nominal one): in
nanojansky ``SCI * 1e15 * PIXAR_SR * AREA``. A mosaic is resampled to pixels of one area and has
no DQ: pixels without data are NaN or have no weight (WHT).

The band is the narrowest filter in the light path. NIRCam has narrow filters in its pupil wheel,
behind a wide one in the filter wheel; NIRISS spreads its filters over both wheels.
"""

import math
import re
from collections.abc import Iterator

from fpgpu.errors import UnusableExposureError
from fpgpu.fluxes import flux_unit, is_positive
from fpgpu.ingest.assemble import assemble
from fpgpu.ingest.exposure import Exposure
from fpgpu.ingest.fitsfile import FitsFile
from fpgpu.ingest.flags import JWST
from fpgpu.ingest.frame import Frame
from fpgpu.ingest.inputs import ReadOptions

__all__ = ["SURFACE_BRIGHTNESS", "is_jwst", "read_jwst"]

SURFACE_BRIGHTNESS = "MJy/sr"
"""The unit of calibrated JWST images."""

_FILTER = re.compile(r"F\d{3,4}[A-Z]\d?")

# Parts of EXP_TYPE of what disperses light, and of series of integrations.
_NO_IMAGE = re.compile(
    r"GRISM|WFSS|SOSS|LRS|MRS|IFU|FIXEDSLIT|BRIGHTOBJ|MSASPEC|AUTOWAVE|DARK|FLAT|LED|LAMP"
)


def is_jwst(file: FitsFile) -> bool:
    """Tell whether TELESCOP of a file is JWST and it has a SCI or a spectrum extension."""
    telescope = str(file.primary("TELESCOP")).strip().upper()
    return telescope == "JWST" and bool({"SCI", "EXTRACT1D"} & set(file.names()))


def read_jwst(
    file: FitsFile, options: ReadOptions, companions: dict[str, FitsFile]
) -> Iterator[Exposure]:
    """Read a JWST image, in MJy/sr with the area map; DO_NOT_USE is bad, unless bits are named."""
    kind = str(file.primary("EXP_TYPE") or "").strip().upper()
    if _NO_IMAGE.search(kind) or "EXTRACT1D" in file.names():
        raise UnusableExposureError(
            f"{file.path}: EXP_TYPE is {kind or 'missing'} (extensions {', '.join(file.names())}): "
            "no image of the sky"
        )
    frame = Frame.find(file, options, companions)
    if options.do_fluxcal and options.abmag is None:
        _check_units(frame)
    _settle_band(frame)
    if "mask" not in frame.layers and ("wht" in frame.layers or _is_resampled(file)):
        frame.area_tolerance = 1.05
        if "wht" not in frame.layers:
            frame.notes.append(
                "no WHT extension: pixels without data are those that are NaN or have a useless ERR"
            )
    else:
        frame.require_mask("JWST")
        frame.bitmask = JWST.parse("DO_NOT_USE")
        # Stage 2 was divided by PIXAR_SR, which is right whatever the WCS says; a mosaic has
        # pixels of its own, of one area.
        frame.area_tolerance = math.inf
        if "area" not in frame.layers:
            frame.notes.append("no AREA extension; every pixel is taken to have the nominal area")
    if "ASDF" not in file.names():
        frame.notes.append("no ASDF extension and so no gWCS; the FITS WCS is used")
    yield from assemble(frame)


def _is_resampled(file: FitsFile) -> bool:
    """Tell a mosaic, whole or stripped of its weights, from an exposure."""
    is_named = file.path.name.partition(".")[0].endswith(("_i2d", "_s2d"))
    return is_named or "CON" in file.names() or file.primary("S_RESAMP") == "COMPLETE"


def _settle_band(frame: Frame) -> None:
    """Make FILTER the narrowest filter in the light path."""
    wide, narrow = (str(frame.header.get(key, "")).strip().upper() for key in ("FILTER", "PUPIL"))
    if _FILTER.fullmatch(narrow) and narrow != wide:
        frame.header["FILTER"] = narrow
        if _FILTER.fullmatch(wide):
            frame.notes.append(f"behind FILTER {wide} is PUPIL {narrow}: the band is {narrow}")


def _check_units(frame: Frame) -> None:
    """Refuse units that have no way to nanojansky."""
    header = frame.header
    if "ABMAG" in header:
        return
    light = flux_unit(header)
    if light is None:
        raise UnusableExposureError(
            f"{frame.path}: BUNIT is {str(header.get('BUNIT', '')).strip() or 'missing'}, expected "
            f"{SURFACE_BRIGHTNESS}; give a flux-calibrated stage-2 product (cal or crf), or keep "
            "its unit with --no-fluxcal"
        )
    area = header.get("PIXAR_SR")
    if light.per != "pixel" and frame.options.pixel_area != "wcs" and not is_positive(area):
        raise UnusableExposureError(
            f"{frame.path}: PIXAR_SR is {area!r}, expected the solid angle of a pixel in "
            f"steradians; it is needed to turn {header['BUNIT']} into nJy (--pixel-area wcs takes "
            "that of the WCS)"
        )
