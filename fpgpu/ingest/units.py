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
from typing import Any

from fpgpu.errors import UnusableExposureError

__all__ = ["electrons_per_second", "settle_units"]

_COUNTS = re.compile(r"(ELECTRONS?|E-?|COUNTS?|DN)((/S|/SEC|/SECOND|S-1)?)", re.IGNORECASE)
_RATE = re.compile(r"CPS|EPS", re.IGNORECASE)

# PHOTFLAM of these is per electron, and so a count is worth as many as the gain says.
_PER_ELECTRON = ("ACS", "WFC3")


def settle_units(header: Any, where: str, solid_angle: float | None = None) -> str | None:
    """Work out ABMAG of an image that has none.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Gets ABMAG when BUNIT is a flux density, a surface brightness or counts with PHOTFLAM and
        PHOTPLAM. Unchanged when it has ABMAG, or BUNIT is MJy/sr and it has PIXAR_SR.
    where : str
        The file, for messages.
    solid_angle : float, optional
        Steradians of a pixel, for surface brightnesses without PIXAR_SR.

    Returns
    -------
    str or None
        What a user should know.

    Raises
    ------
    UnusableExposureError
        When a keyword that is needed makes no sense.
    """
    if "ABMAG" in header:
        return None
    text = str(header.get("BUNIT", "")).strip()
    compact = text.replace(" ", "")
    if compact.lower() == "mjy/sr" and "PIXAR_SR" in header:
        return None
    counts = _COUNTS.fullmatch(compact)
    if counts or _RATE.fullmatch(compact):
        is_rate = counts is None or bool(counts[2])
        return _settle_counts(header, where, text, is_rate)
    jansky, per_pixel = _in_jansky(text)
    if jansky is None:
        return f"BUNIT is {text or 'missing'} and there is no ABMAG; fluxes stay in this unit"
    if per_pixel:
        _set(header, jansky)
        return None
    area = header.get("PIXAR_SR", solid_angle)
    if not _positive(area):
        raise UnusableExposureError(
            f"{where}: BUNIT is {text}, a surface brightness, but the solid angle of a pixel is "
            f"{area!r}; give PIXAR_SR in steradian in the header"
        )
    _set(header, jansky * area)
    return None if "PIXAR_SR" in header else f"no PIXAR_SR: a pixel has {area:.6g} sr by the WCS"


def electrons_per_second(header: Any) -> float | None:
    """Give the electrons per second that one unit of an image is.

    Parameters
    ----------
    header : astropy.io.fits.Header
        With BUNIT, and EXPTIME where that is no rate.

    Returns
    -------
    float or None
        None when the image is in other units.
    """
    compact = str(header.get("BUNIT", "")).replace(" ", "").upper()
    if compact in ("ELECTRONS/S", "ELECTRON/S", "E-/S", "E/S", "EPS", "ELECTRONS/SEC"):
        return 1.0
    exposure = header.get("EXPTIME")
    if compact in ("ELECTRONS", "ELECTRON", "E-") and _positive(exposure):
        return 1.0 / float(exposure)
    return None


def _settle_counts(header: Any, where: str, unit: str, is_rate: bool) -> str | None:
    """Set ABMAG of counts or of a count rate."""
    if "PHOTFLAM" not in header and "PHOTPLAM" not in header:
        return f"BUNIT is {unit}, but there is no ABMAG nor PHOTFLAM; fluxes stay in this unit"
    photflam, pivot = (_need(header, key, where, unit) for key in ("PHOTFLAM", "PHOTPLAM"))
    # c in Angstrom / s; 1 Jy is 1e-23 erg / s / cm2 / Hz.
    jansky = photflam * pivot**2 / 2.99792458e18 / 1e-23
    note = None
    if not is_rate:
        jansky /= _need(header, "EXPTIME", where, unit)
    electrons = unit.upper().startswith(("E", "CPS"))
    instrument = str(header.get("INSTRUME", "")).strip().upper()
    if not electrons and instrument in _PER_ELECTRON:
        gain = _gain(header, where, unit)
        jansky *= gain
        note = f"BUNIT is {unit}: a count is {gain:g} electrons"
    _set(header, jansky)
    return note


def _gain(header: Any, where: str, unit: str) -> float:
    """Electrons per count: the mean of the amplifiers' measured gains, or the commanded one."""
    measured = [header.get(f"ATODGN{amplifier}") for amplifier in "ABCD"]
    known = [float(value) for value in measured if _positive(value)]
    return sum(known) / len(known) if known else _need(header, "CCDGAIN", where, unit)


def _in_jansky(text: str) -> tuple[float | None, bool]:
    """Give a unit in Jy or, for surface brightnesses, Jy/sr, and whether it is per pixel."""
    from astropy import units as u

    try:
        unit = u.Unit(re.sub(r"/(pix|pixel|beam)$", "", text.strip(), flags=re.IGNORECASE))
    # astropy raises ValueError for what it cannot parse, TypeError for nothing at all.
    except (ValueError, TypeError):
        return None, True
    for target, per_pixel in ((u.Jy, True), (u.Jy / u.sr, False)):
        if unit.is_equivalent(target):
            return float(unit.to(target)), per_pixel
    return None, True


def _need(header: Any, keyword: str, where: str, unit: str) -> float:
    """Read a keyword that must be a positive number."""
    value = header.get(keyword)
    if not _positive(value):
        raise UnusableExposureError(
            f"{where}: BUNIT is {unit} and {keyword} is {value!r}; expected a positive number, "
            "which is needed to turn the image into nJy (give ABMAG, or keep its unit with "
            "--no-fluxcal)"
        )
    return float(value)


def _positive(value: Any) -> bool:
    """Whether a header value is a positive, finite number."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value > 0
    )


def _set(header: Any, jansky: float) -> None:
    """Write ABMAG such that `flux_calibration` gives the factor back."""
    header["ABMAG"] = (8.9 - 2.5 * math.log10(jansky), "[mag] AB magnitude of 1 BUNIT a pixel")
