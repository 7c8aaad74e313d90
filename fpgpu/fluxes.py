"""From the values of an image to nanojansky: what a header says of it.

The one place that reads units. Spellings are those of the FITS standard and of astropy, in which
m is milli and M is mega; to them come the words that telescopes write for counts, and nanomaggies
(1 maggy is an AB magnitude of 0).
"""

import logging
import math
import re
import warnings
from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from fpgpu.errors import UnusableExposureError

if TYPE_CHECKING:
    from astropy.units import UnitBase

__all__ = ["FluxUnit", "beam_area", "flux_calibration", "flux_unit", "image_unit", "is_positive"]

logger = logging.getLogger(__name__)

_COUNTS = re.compile(
    r"(?:(?P<electron>ELECTRONS?|E-?)|(?P<ct>COUNTS?|CTS?)|(?P<DN>DN)|(?P<adu>ADUS?))"
    r"(?P<rate>/S|/SEC|/SECOND|S-1|S\^-1|S\*\*-1)?",
    re.I,
)
_RATES = {"CPS": "ct/s", "EPS": "electron/s"}

# What u.Unit does not read, though it says magnitudes; not the start of "maggies".
_MAGNITUDES = re.compile(r"(?<![A-Z])(AB|ST|VEGA)?[ _]?MAG(S|NITUDES?)?(?![A-Z])", re.I)

_SPELLINGS = (
    (re.compile(r"\b(?:nano|n)(?:maggy|maggies|[mM]gy)\b"), "nmgy"),
    (re.compile(r"\b(?:maggies|Mgy)\b"), "mgy"),
    (re.compile(r"\bnanoJy\b"), "nJy"),
    (re.compile(r"\bmicroJy\b"), "uJy"),
    (re.compile(r"\bmilliJy\b"), "mJy"),
)


class FluxUnit(NamedTuple):
    """A unit that light comes in.

    Attributes
    ----------
    nanojansky : float
        What one of it is.
    per : str
        ``"pixel"``, ``"sr"`` or ``"beam"``: where that much light is.
    """

    nanojansky: float
    per: str


def flux_calibration(hdr: Mapping[str, Any]) -> tuple[float, str]:
    """Find the factor from the values of an image to fluxes in nJy per pixel.

    With ABMAG, the AB magnitude of one count (per second): ``1e9 * 10**(0.4 * (8.9 - ABMAG))``,
    as forcepho has it. Else by BUNIT: a flux density; or a surface brightness, times PIXAR_SR, the
    nominal area of a pixel in steradian.

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
        If ABMAG, PIXAR_SR or the beam is no number, or out of any reasonable range; if BUNIT is
        misspelled or logarithmic.
    """
    if "ABMAG" in hdr:
        zero_point = _number(hdr, "ABMAG")
        if abs(zero_point) > 60:  # beyond, the factor or its reciprocal leaves float32
            raise UnusableExposureError(f"ABMAG = {zero_point!r} is no AB magnitude of a count")
        return 1e9 * 10 ** (0.4 * (8.9 - zero_point)), "nJy"
    unit = flux_unit(hdr)
    if unit is not None and unit.per == "pixel":
        return unit.nanojansky, "nJy"
    if unit is not None and "PIXAR_SR" in hdr:
        area = _number(hdr, "PIXAR_SR")
        if not 0 < area < 4 * math.pi:
            raise UnusableExposureError(f"PIXAR_SR = {area!r} is no area of a pixel in steradian")
        return unit.nanojansky * (area if unit.per == "sr" else area / beam_area(hdr)), "nJy"
    logger.warning(
        "no flux calibration: neither ABMAG, nor a flux density in BUNIT, nor a surface brightness"
        " with PIXAR_SR"
    )
    return 1.0, "counts"


def image_unit(text: object) -> "UnitBase | None":
    """Read the unit of an image.

    Parameters
    ----------
    text : object
        BUNIT.

    Returns
    -------
    astropy.units.UnitBase or None
        Maggies as their flux density; None for what is no unit.

    Raises
    ------
    UnusableExposureError
        When it is a flux density, but not spelled as units are, or a kind of magnitude that
        astropy does not read.
    """
    from astropy import units as u

    text = str(text or "").strip()
    compact = text.replace(" ", "")
    counts = _COUNTS.fullmatch(compact)
    if counts:
        kind = next(name for name, word in counts.groupdict().items() if word)
        return u.Unit(f"{kind}/s" if counts["rate"] else kind)
    spelled = _RATES.get(compact.upper(), text)
    for pattern, usual in _SPELLINGS:
        spelled = pattern.sub(usual, spelled)
    try:
        with warnings.catch_warnings():
            # Several slashes, and old names, mean what they say.
            warnings.simplefilter("ignore", u.UnitsWarning)
            unit = u.Unit(spelled)
        if isinstance(unit, u.UnitBase) and u.mgy in unit.decompose().bases:
            unit = unit / u.mgy * u.AB
    # astropy raises ValueError for what it cannot parse, TypeError for what is none.
    except (ValueError, TypeError, ArithmeticError) as error:
        if re.search("jy|jansk", text, re.IGNORECASE):
            raise UnusableExposureError(
                f"BUNIT is {text!r}, a flux density that is not spelled as in the FITS standard: "
                "upper and lower case differ (mJy is milli-, MJy megajansky; MJy/sr, Jy/beam); "
                "correct the header, or give the AB magnitude of one unit: --abmag"
            ) from error
        if _MAGNITUDES.search(text):
            raise _logarithmic(text) from error
        return None
    return unit


def flux_unit(hdr: Mapping[str, Any]) -> FluxUnit | None:
    """Find out what light BUNIT says that a value is.

    Parameters
    ----------
    hdr : mapping
        FITS header of the image; with PHOTPLAM, the pivot wavelength in Angstrom, flux densities
        may be per wavelength.

    Returns
    -------
    FluxUnit or None
        None for counts and whatever else is no light.

    Raises
    ------
    UnusableExposureError
        When BUNIT is misspelled, logarithmic, or no positive number of a unit.
    """
    from astropy import units as u

    unit = image_unit(hdr.get("BUNIT"))
    if unit is None:
        return None
    if isinstance(unit, u.FunctionUnitBase) or u.dex in unit.decompose().bases:
        raise _logarithmic(hdr["BUNIT"])
    pivot = hdr.get("PHOTPLAM")
    by_wavelength = u.spectral_density(float(pivot) * u.AA) if is_positive(pivot) else []
    for times, per in (
        (u.dimensionless_unscaled, "pixel"), (u.pix, "pixel"), (u.sr, "sr"), (u.beam, "beam"),
    ):  # fmt: skip
        if (unit * times).is_equivalent(u.nJy, by_wavelength):
            value = float((unit * times).to(u.nJy, equivalencies=by_wavelength))
            if not is_positive(value):
                raise UnusableExposureError(f"BUNIT is {hdr['BUNIT']}: {value} nJy are no unit")
            return FluxUnit(value, per)
    return None


def beam_area(hdr: Mapping[str, Any]) -> float:
    """Give the area of the beam that a value per beam is for.

    Parameters
    ----------
    hdr : mapping
        FITS header with BMAJ and BMIN, its full widths at half maximum in degrees.

    Returns
    -------
    float
        Steradian: of a Gaussian, ``pi * BMAJ * BMIN / (4 * ln 2)``.

    Raises
    ------
    UnusableExposureError
        When they are not there, or no positive numbers.
    """
    major, minor = hdr.get("BMAJ"), hdr.get("BMIN")
    if not (is_positive(major) and is_positive(minor)):
        raise UnusableExposureError(
            f"BUNIT is {hdr.get('BUNIT')}, but BMAJ and BMIN are {major!r} and {minor!r}; expected "
            "the full widths of the beam in degrees (or give the AB magnitude of one unit in a "
            "pixel: --abmag)"
        )
    return math.pi * math.radians(major) * math.radians(minor) / math.log(16)


def is_positive(value: object) -> TypeGuard[float]:
    """Tell whether a header value is a positive, finite number.

    Parameters
    ----------
    value : object
        The value.

    Returns
    -------
    bool
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return math.isfinite(value) and float(value) > 0


def _logarithmic(text: object) -> UnusableExposureError:
    """Say that values are logarithmic."""
    return UnusableExposureError(
        f"BUNIT is {text}: logarithmic values, which no factor makes fluxes; give an image of "
        "fluxes"
    )


def _number(hdr: Mapping[str, Any], key: str) -> float:
    """Return a header value that must be a finite number."""
    value = hdr[key]
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise UnusableExposureError(f"{key} = {value!r} in the header; expected a finite number")
    return float(value)
