"""From the unit of an image to nanojansky, written into the header as ABMAG.

ABMAG is the AB magnitude of one unit of the image; it is what stores and forcepho go by. An AB
magnitude of 8.9 is one jansky, as forcepho has it (the 3631 Jy of the definition make it 8.90007);
here the same number is used both ways, so that it drops out.

HST counts: PHOTFLAM is the flux density per unit wavelength, in erg / s / cm2 / Angstrom, of one
count (electron) per second, PHOTPLAM the pivot wavelength in Angstrom, so that the flux density
per unit frequency is ``PHOTFLAM * PHOTPLAM**2 / c`` (Bohlin et al. 2011, AJ 141, 173, appendix;
ACS Data Handbook, section 5.1).
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from fpgpu.errors import UnusableExposureError, WCSError
from fpgpu.fluxes import beam_area, flux_calibration, flux_unit, image_unit, is_positive
from fpgpu.ingest.fitsfile import FitsImage

if TYPE_CHECKING:
    from astropy.units import UnitBase

__all__ = [
    "electrons_per_second", "factor_between", "is_time", "settle_units", "zero_point_conflict",
]  # fmt: skip

T = TypeVar("T")

# PHOTFLAM of these is per electron, and so a count is worth as many as the gain says.
_PER_ELECTRON = ("ACS", "WFC3")

# Relative differences that are no news: pixels of one mosaic differ as much.
_SAME_AREA = 0.01
_SAME_ZERO_POINT = 1e-3

_SECONDS = re.compile(r"s|secs?|seconds?", re.I)

_WAY_ON = "; fluxes stay in this unit (--abmag gives the AB magnitude of one unit)"


def settle_units(
    header: Any,
    where: str,
    wcs_area: Callable[[], float],
    *,
    pixel_area: str = "auto",
    tolerance: float = 1.5,
) -> list[str]:
    """Work out ABMAG of an image that has none."""
    text = str(header.get("BUNIT", "")).strip()
    if "ABMAG" in header:
        conflict = zero_point_conflict(header)
        return [] if conflict is None else [f"{conflict}; ABMAG is taken"]
    unit = image_unit(text)
    if unit is not None and _is_count(unit):
        return _settle_counts(header, where, text, unit)
    light = flux_unit(header)
    if light is None:
        lacks = "ABMAG"
        if unit is not None and flux_unit({"BUNIT": text, "PHOTPLAM": 1.0}) is not None:
            lacks = "PHOTPLAM (the pivot wavelength in Angstrom) nor ABMAG"
        return [f"BUNIT is {text or 'missing'} and there is no {lacks}{_WAY_ON}"]
    if light.per == "pixel":
        _set(header, light.nanojansky)
        return []
    notes = _settle_area(header, where, wcs_area, pixel_area, tolerance)
    if text.replace(" ", "") != "MJy/sr":
        area = header["PIXAR_SR"]
        _set(header, light.nanojansky * (area if light.per == "sr" else area / beam_area(header)))
    return notes


def zero_point_conflict(header: Any) -> str | None:
    """Say how ABMAG of a header differs from a flux density in BUNIT; None where it does not."""
    light = _or_none(flux_unit, header) if "ABMAG" in header else None
    if light is None or light.per != "pixel":
        return None
    factor = flux_calibration(header)[0]
    if abs(factor / light.nanojansky - 1) < _SAME_ZERO_POINT:
        return None
    return f"BUNIT is {header['BUNIT']}, but by ABMAG one of it is {factor:.6g} nJy"


def factor_between(layer: FitsImage, header: Any, power: int = 1, stated: object = None) -> float:
    """Give what brings the values of an image's companion into the unit of the image."""
    text, image_text = (str(hdr.get("BUNIT", "")).strip() for hdr in (layer.header, header))
    zero_point = layer.header.get("ABMAG")
    is_news = zero_point not in (None, stated, header.get("ABMAG"))
    if is_news and ("ABMAG" in header or _or_none(flux_unit, header) is not None):
        return _ratio(layer, {"ABMAG": zero_point}, header) ** power
    if text == image_text:
        return 1.0
    own, wanted = _unit_of(layer, text), _unit_or_none(image_text)
    if own is None or own.is_unity():
        return 1.0
    if wanted is not None and own.is_equivalent(wanted**power):
        return float(own.to(wanted**power))
    if "ABMAG" in header:
        light = {"BUNIT": (own ** (1 / power)).to_string(), "PHOTPLAM": header.get("PHOTPLAM")}
        unit = flux_unit(light)
        if unit is not None and unit.per == "pixel":
            return _ratio(layer, light, header) ** power
    if power == -2 or wanted is None or wanted.is_unity():
        return 1.0
    raise UnusableExposureError(
        f"{layer.where} is in {text}, but the image in {image_text}; convert it, or correct its "
        "BUNIT"
    )


def is_time(layer: FitsImage) -> bool:
    """Tell whether the values of an image are times."""
    from astropy import units as u

    text = str(layer.header.get("BUNIT", "")).strip()
    if _SECONDS.fullmatch(text):
        return True
    unit = _unit_or_none(text)
    return unit is not None and unit.is_equivalent(u.s)


def electrons_per_second(header: Any) -> float | None:
    """Give the electrons per second that one unit of an image is; None for other units."""
    from astropy import units as u

    unit = _or_none(image_unit, header.get("BUNIT"))
    if unit is None:  # or a flux density, however it is spelled
        return None
    if unit.is_equivalent(u.electron / u.s):
        return float(unit.to(u.electron / u.s))
    exposure = header.get("EXPTIME")
    if unit.is_equivalent(u.electron) and is_positive(exposure):
        return float(unit.to(u.electron)) / float(exposure)
    return None


def _unit_of(layer: FitsImage, text: str) -> "UnitBase | None":
    """Read the unit of a companion; None for what is no unit."""
    from astropy import units as u

    try:
        flux_unit({"BUNIT": text})  # refuses magnitudes
        unit = image_unit(text)
    except UnusableExposureError as error:
        fault = re.split(r"; | [(]", str(error))[0]
        raise UnusableExposureError(
            f"{layer.where}: {fault}; correct it, or take it out where its values are in the unit "
            "of the image"
        ) from error
    return unit if isinstance(unit, u.UnitBase) else None


def _or_none(read: Callable[[Any], T], given: Any) -> T | None:
    """Read a unit, or what a header says of it, where there need not be any."""
    try:
        return read(given)
    except UnusableExposureError:
        return None


def _unit_or_none(text: str) -> "UnitBase | None":
    """Read a unit that need not be one, nor without a logarithm."""
    from astropy import units as u

    unit = _or_none(image_unit, text)
    return unit if isinstance(unit, u.UnitBase) else None


def _ratio(layer: FitsImage, own: Mapping[str, Any], header: Any) -> float:
    """Give the nanojansky of a companion's unit in those of the image's; 1 when they agree."""
    try:
        nanojansky = flux_calibration(own)[0]
    except UnusableExposureError as error:
        raise UnusableExposureError(f"{layer.where}: {error}") from error
    factor, units = flux_calibration(header)
    if units != "nJy" or abs(nanojansky / factor - 1) < _SAME_ZERO_POINT:
        return 1.0
    return nanojansky / factor


def _settle_area(
    header: Any, where: str, wcs_area: Callable[[], float], choice: str, tolerance: float
) -> list[str]:
    """Make PIXAR_SR what was chosen; refuse it where it contradicts the WCS."""
    stated = header.get("PIXAR_SR")
    is_enough = choice == "header" or (choice == "auto" and tolerance == math.inf and stated)
    try:
        by_wcs = None if is_enough else wcs_area()
    except WCSError:
        by_wcs = None
    if by_wcs is not None and (choice == "wcs" or "PIXAR_SR" not in header):
        header["PIXAR_SR"] = (by_wcs, "[sr] solid angle of a pixel, by the WCS")
        reason = "no PIXAR_SR" if stated is None else f"PIXAR_SR is {stated} and was not taken"
        return [f"{reason}: a pixel has {by_wcs:.6g} sr by the WCS"]
    if not is_positive(stated):
        raise UnusableExposureError(
            f"{where}: BUNIT is {header['BUNIT']}, a surface brightness, but the solid angle of a "
            f"pixel is {stated!r}; give PIXAR_SR in steradian in the header, or a WCS (--pixel-area"
            " wcs)"
        )
    if by_wcs is None:
        return []
    ratio = stated / by_wcs
    found = (
        f"PIXAR_SR is {stated:.6g} sr, but by the WCS a pixel has {by_wcs:.6g} sr: fluxes differ "
        f"by a factor of {ratio:.4g}"
    )
    if not 1 / tolerance <= ratio <= tolerance:
        raise UnusableExposureError(
            f"{where}: {found}; say which is right with --pixel-area header or --pixel-area wcs, "
            "or correct the header"
        )
    if abs(ratio - 1) < _SAME_AREA:
        return []
    return [f"{found}; PIXAR_SR is taken (--pixel-area wcs takes the other)"]


def _is_count(unit: Any) -> bool:
    """Whether a unit is a number of counts of any kind, or of counts per time."""
    from astropy import units as u

    kinds = (u.electron, u.ct, u.DN, u.adu)
    return any(unit.is_equivalent(kind) or unit.is_equivalent(kind / u.s) for kind in kinds)


def _settle_counts(header: Any, where: str, text: str, unit: Any) -> list[str]:
    """Set ABMAG of counts or of a count rate."""
    from astropy import units as u

    if "PHOTFLAM" not in header and "PHOTPLAM" not in header:
        return [f"BUNIT is {text}, but there is no ABMAG nor PHOTFLAM{_WAY_ON}"]
    photflam, pivot = (_need(header, key, where, text) for key in ("PHOTFLAM", "PHOTPLAM"))
    # c in Angstrom / s; 1 nJy is 1e-32 erg / s / cm2 / Hz.
    nanojansky = photflam * pivot**2 / 2.99792458e18 / 1e-32 * float(unit.decompose().scale)
    notes = []
    if u.s not in unit.decompose().bases:
        nanojansky /= _need(header, "EXPTIME", where, text)
    # CPS is what drizzled images of electrons had.
    electrons = u.electron in unit.decompose().bases or text.upper() == "CPS"
    instrument = str(header.get("INSTRUME", "")).strip().upper()
    if not electrons and instrument in _PER_ELECTRON:
        gain = _gain(header, where, text)
        nanojansky *= gain
        notes.append(f"BUNIT is {text}: a count is {gain:g} electrons")
    _set(header, nanojansky)
    return notes


def _gain(header: Any, where: str, unit: str) -> float:
    """Electrons per count: the mean of the amplifiers' measured gains, or the commanded one."""
    measured = [header.get(f"ATODGN{amplifier}") for amplifier in "ABCD"]
    known = [float(value) for value in measured if is_positive(value)]
    return sum(known) / len(known) if known else _need(header, "CCDGAIN", where, unit)


def _need(header: Any, keyword: str, where: str, unit: str) -> float:
    """Read a keyword that must be a positive number."""
    value = header.get(keyword)
    if not is_positive(value):
        raise UnusableExposureError(
            f"{where}: BUNIT is {unit} and {keyword} is {value!r}; expected a positive number, "
            "which is needed to turn the image into nJy (give ABMAG, or keep its unit with "
            "--no-fluxcal, do_fluxcal=False in Python)"
        )
    return float(value)


def _set(header: Any, nanojansky: float) -> None:
    """Write ABMAG such that `flux_calibration` gives the factor back."""
    header["ABMAG"] = (8.9 - 2.5 * math.log10(nanojansky / 1e9), "[mag] AB magnitude of 1 BUNIT")
