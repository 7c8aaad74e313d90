"""The cards of a header: what FITS does not allow in them, which decide about an exposure, which
may come from another header, and those of its WCS, replaced or moved to a part of the image.
"""

import re
from typing import Any

from fpgpu.errors import UnusableExposureError, WCSError
from fpgpu.sky.cards import WCS_CARD, refuse_duplicates
from fpgpu.sky.sip import SipFit
from fpgpu.sky.wcs import SkyWCS

__all__ = [
    "STRUCTURE",
    "clean_cards",
    "drop_wcs",
    "inherits",
    "malformed_cards",
    "move_header",
    "move_wcs",
    "refuse_contradictions",
    "replace_wcs",
]

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

# A keyword and a value, or a commentary card.
_CARD = re.compile(r"(?=[A-Z0-9_-]* *=).{8}= |(COMMENT|HISTORY|CONTINUE|HIERARCH|        )")

_CARD_LENGTH = 80
_TEXT = re.compile(rb"[ -~]*")
_TEXT_BYTES = frozenset(range(0x20, 0x7F))
_PRINTABLE = bytes(byte if byte in _TEXT_BYTES else b"? "[byte < 0x80] for byte in range(256))

# Of these any text will do.
_FREE_TEXT = re.compile(r"OBJECT|TARGNAME|PROGRAM|PROPOSID|ROOTNAME|FILENAME|WCSNAME|CNAME\d+")

_TABLE_CARD = re.compile(r"(CPDIS|CPERR|D2IMDIS|D2IMERR)\d|(DP|D2IM)\d(\..*)?|D2IMEXT|NPOLEXT")

# Descriptions of the same place that do not follow when the first pixel becomes another one.
_ALTERNATE_CARD = re.compile(
    r"(WCSAXES|WCSNAME|LONPOLE|LATPOLE|RADESYS|EQUINOX)[A-Z]"
    r"|(CRPIX|CRVAL|CTYPE|CUNIT|CDELT|CROTA)\d[A-Z]|(CD|PC|PV)\d+_\d+[A-Z]"
    r"|S_REGION|LTV\d|LTM\d_\d"
)


def _is_decisive(keyword: str) -> bool:
    """Tell whether an exposure depends on what a card of a keyword says, letter by letter."""
    return bool(_DECISIVE.fullmatch(keyword)) and not _FREE_TEXT.fullmatch(keyword)


def clean_cards(header: bytes, where: str) -> tuple[dict[int, bytes], list[str]]:
    """Find what FITS does not allow in a header, and what to read in its place, as astropy does.

    Characters beyond ASCII become question marks, TAB and other control characters blanks. Gives
    the new cards by their place, and what to say of each.
    """
    cards, found = dict[int, bytes](), list[str]()
    for at in range(0, len(header), _CARD_LENGTH):
        card = header[at : at + _CARD_LENGTH]
        if card.rstrip(b" \0") == b"END":
            break
        if not _TEXT.fullmatch(card):
            cards[at] = text = card.translate(_PRINTABLE)
            found.append(f"{text.decode().rstrip()!r} has {_foreign(card)}")
            if _is_needed(card, text):
                raise UnusableExposureError(
                    f"{where}: card {found[-1]}, in what an exposure depends on; correct the card, "
                    "or the file is damaged"
                )
    return cards, found


def malformed_cards(header: Any, where: str) -> list[tuple[int, str]]:
    """Find cards without a value; refuse those that matter: a damaged CRPIX1 would become 0."""
    found = []
    for number, card in enumerate(header.cards):
        text = str(card).rstrip()
        if _CARD.match(str(card)):
            continue
        word = re.match(r"[A-Z0-9_-]*", text.upper())
        if text[8:10] == "= " or (word is not None and _is_decisive(word[0])):
            expected = "letters, digits, - and _ as keyword, then '= ' in columns 9 and 10"
            raise UnusableExposureError(
                f"{where} has a malformed card: {text!r}; expected {expected}; the file is "
                "damaged, or the card must be repaired"
            )
        found.append((number, " ".join(text.split())))
    return found


def inherits(keyword: str, own: set[str], inherit: Any, *, primary_is_empty: bool) -> bool:
    """Tell whether an extension takes a card of the primary header that it lacks.

    Where an image is on the sky and what its values mean is said by one header as a whole: a
    primary header never completes the WCS or the calibration of an extension. It gives them where
    the extension has none: the calibration unless INHERIT forbids it, the WCS only where INHERIT
    asks for it and the primary header is not that of another image.
    """
    if _is_place(keyword):
        return inherit is True and primary_is_empty and not any(map(_is_place, own))
    if _CALIBRATION.fullmatch(keyword):
        rest = own if inherit is not True or _UNIT.fullmatch(keyword) else own - _BESIDE
        return inherit is not False and not any(map(_CALIBRATION.fullmatch, rest))
    return inherit is not False or bool(_EXPOSURE.fullmatch(keyword))


def refuse_contradictions(header: Any, where: str, pattern: re.Pattern[str] = _DECISIVE) -> None:
    """Refuse a card that matters and is there twice: some readers take the first, some the last."""
    try:
        refuse_duplicates(header, pattern)
    except WCSError as error:
        raise UnusableExposureError(f"{where}: {error}") from error


def replace_wcs(header: Any, sip: SipFit) -> None:
    """Put a SIP WCS in ICRS in place of whatever celestial WCS a header has."""
    drop_wcs(header)
    for card in sip.to_header().cards:
        header.append(card, end=True)


def drop_wcs(header: Any, *, tables_only: bool = False) -> None:
    """Remove the celestial WCS of a header, or only its look-up tables; alternative WCS stay."""
    pattern = _TABLE_CARD if tables_only else WCS_CARD
    for keyword in {key for key in header if pattern.fullmatch(key)}:
        header.remove(keyword, remove_all=True, ignore_missing=True)


def _is_place(keyword: str) -> bool:
    """Whether a keyword says where an image is on the sky, in its WCS or an alternative one."""
    return bool(WCS_CARD.fullmatch(keyword) or _ALTERNATE_CARD.fullmatch(keyword))


def move_header(header: Any, x0: int, y0: int) -> None:
    """Make the WCS of an image that of a part, which begins at pixel (x0, y0) from zero, in place.

    SIP polynomials are relative to CRPIX and need no change. Alternative WCS and S_REGION are
    removed.
    """
    for keyword in {key for key in header if _ALTERNATE_CARD.fullmatch(key)}:
        header.remove(keyword, remove_all=True, ignore_missing=True)
    for keyword, shift in (("CRPIX1", x0), ("CRPIX2", y0)):
        header[keyword] = float(header.get(keyword, 0.0)) - shift


def move_wcs(gwcs: Any, x0: int, y0: int, shape: tuple[int, int]) -> Any:
    """Make a gWCS that of a part of its image: (nx, ny) pixels from (x0, y0) on, counted from zero.

    In one step, with the inverse that the other has, and valid all over the part.
    """
    from astropy import units as u
    from astropy.modeling.models import Shift
    from gwcs import WCS

    transform = gwcs.forward_transform
    unit = u.pix if transform.uses_quantity else 1
    moved = WCS(
        forward_transform=(Shift(x0 * unit) & Shift(y0 * unit)) | transform,
        input_frame=gwcs.input_frame,
        output_frame=gwcs.output_frame,
    )
    if SkyWCS.from_gwcs(gwcs).bounding_box is not None:
        moved.bounding_box = tuple((-0.5 * unit, (n - 0.5) * unit) for n in shape)
    return moved


def _foreign(card: bytes) -> str:
    """Name the characters of a card that FITS does not allow."""
    found = sorted({byte for byte in card if byte not in _TEXT_BYTES})
    return ", ".join("TAB" if byte == 9 else f"byte 0x{byte:02x}" for byte in found)


def _is_needed(card: bytes, text: bytes) -> bool:
    """Whether what FITS does not allow is in a keyword, or in a value that matters."""
    from astropy.io import fits

    if not _TEXT.fullmatch(card[:8]):
        return True
    if not _is_decisive(card[:8].decode().rstrip()):
        return False
    clean = fits.Card.fromstring(text)
    clean.verify("silentfix")
    first = next(at for at, byte in enumerate(card) if byte not in _TEXT_BYTES)
    is_in_comment = first >= len(text.rstrip()) - len(clean.comment)
    # A TAB before a number is a blank to astropy, too.
    return not (is_in_comment or (isinstance(clean.value, int | float) and b"?" not in text))
