"""What cards of a header decide about an exposure, and from which header they may come."""

import re
from typing import Any

from fpgpu.errors import UnusableExposureError, WCSError
from fpgpu.ingest.wcscards import is_place
from fpgpu.sky.cards import WCS_CARD, refuse_duplicates

__all__ = ["STRUCTURE", "inherits", "is_decisive", "refuse_contradictions"]

STRUCTURE = re.compile(r"BITPIX|NAXIS\d*|BSCALE|BZERO|BLANK")
"""Keywords that the numbers in an image depend on."""

# Cards that say what the values of an image mean; those of its unit are never completed.
_UNIT = re.compile(r"BUNIT|ABMAG|MAG_?ZP.*|MAGZERO.*|ZERO_?P.*|ZP_?.*|FLUXMAG.*|PHOTZP.*")
_CALIBRATION = re.compile(_UNIT.pattern + r"|PHOT.*|PIXAR_.*|BMAJ|BMIN|BPA|FLUXCONV|IDCSCALE")
# HST's extensions have these and inherit what a count is.
_BESIDE = {"BUNIT", "IDCSCALE"}

# Cards that say how an exposure was taken, whatever an extension says of inheriting.
_EXPOSURE = re.compile(
    r"TELESCOP|OBSERVAT|INSTRUME|DETECTOR|CHANNEL|MODULE|FILTER\d?|FILTNAM\d|PUPIL|BAND|EXP_TYPE"
    r"|OBSTYPE|EXPTIME|EXPSTART|EXPEND|DATE-OBS|TIME-OBS|MJD-OBS|CCDGAIN|ATODGN[A-D]|GAIN|ROOTNAME"
    r"|FILENAME|PROGRAM|PROPOSID|TARGNAME|OBJECT"
)

# Cards that decide about an exposure, of which there must not be two that differ.
_DECISIVE = re.compile(
    rf"{_CALIBRATION.pattern}|{_EXPOSURE.pattern}|{STRUCTURE.pattern}|{WCS_CARD.pattern}|INHERIT"
)

# Of these any text will do.
_FREE_TEXT = re.compile(r"OBJECT|TARGNAME|PROGRAM|PROPOSID|ROOTNAME|FILENAME|WCSNAME|CNAME\d+")


def is_decisive(keyword: str) -> bool:
    """Tell whether an exposure depends on what a card says, letter by letter.

    Parameters
    ----------
    keyword : str
        Of the card.

    Returns
    -------
    bool
    """
    return bool(_DECISIVE.fullmatch(keyword)) and not _FREE_TEXT.fullmatch(keyword)


def inherits(keyword: str, own: set[str], inherit: Any, *, primary_is_empty: bool) -> bool:
    """Tell whether an extension takes a card of the primary header.

    Where an image is on the sky and what its values mean is said by one header as a whole: a
    primary header never completes the WCS or the calibration of an extension. It gives them where
    the extension has none: the calibration unless INHERIT forbids it, the WCS only where INHERIT
    asks for it and the primary header is not that of another image.

    Parameters
    ----------
    keyword : str
        Of a card that the extension lacks.
    own : set of str
        Keywords of the extension.
    inherit : bool or None
        Its INHERIT.
    primary_is_empty : bool
        Whether the primary header is without an image.

    Returns
    -------
    bool
    """
    if is_place(keyword):
        return inherit is True and primary_is_empty and not any(map(is_place, own))
    if _CALIBRATION.fullmatch(keyword):
        rest = own if inherit is not True or _UNIT.fullmatch(keyword) else own - _BESIDE
        return inherit is not False and not any(map(_CALIBRATION.fullmatch, rest))
    return inherit is not False or bool(_EXPOSURE.fullmatch(keyword))


def refuse_contradictions(header: Any, where: str, pattern: re.Pattern[str] = _DECISIVE) -> None:
    """Refuse a card that matters and is there twice: some readers take the first, some the last.

    Parameters
    ----------
    header : astropy.io.fits.Header
    where : str
        File and extension, for the message.
    pattern : re.Pattern, optional
        Of the keywords that matter.

    Raises
    ------
    UnusableExposureError
        With the values found.
    """
    try:
        refuse_duplicates(header, pattern)
    except WCSError as error:
        raise UnusableExposureError(f"{where}: {error}") from error
