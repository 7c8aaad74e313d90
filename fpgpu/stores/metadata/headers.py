"""FITS headers as text in JSON: ``{band: {expID: Header.tostring()}}``."""

import json
import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpgpu.errors import StoreFormatError, UnusableExposureError

if TYPE_CHECKING:
    from astropy.io.fits import Header

__all__ = [
    "Texts",
    "as_json",
    "header_text",
    "parse_header",
    "parse_wcs",
    "read_texts",
    "serialize",
    "with_size",
]

Texts = dict[str, dict[str, str]]

CARD_LENGTH = 80
REQUIRED = ("FILTER",)


def read_texts(content: bytes, path: Path) -> Texts:
    """Read the header texts of a meta store.

    Parameters
    ----------
    content : bytes
        The JSON file.
    path : pathlib.Path
        Where it came from, for messages.

    Returns
    -------
    dict of str to dict of str to str
        Header texts by band and expID, in the file's order; their content is not looked at.

    Raises
    ------
    StoreFormatError
        If this is no JSON or has another structure.
    """
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise StoreFormatError(
            f"{path}: cannot be read as JSON ({exc}); expected the headers of a meta store"
        ) from exc
    _require_dict(tree, path, "the top level", "exposures by band")
    for band, exposures in tree.items():
        _require_dict(exposures, path, f"band {band!r}", "headers by expID")
        for expID, text in exposures.items():
            if not isinstance(text, str):
                raise StoreFormatError(
                    f"{path}: exposure {band}/{expID}: expected the text of a FITS header, found "
                    f"{type(text).__name__}"
                )
    texts: Texts = tree
    return texts


def as_json(text: str) -> bytes:
    """Return a header's text as it stands in the JSON file that forcepho writes."""
    return json.dumps(text).encode("ascii")


def parse_header(text: str, place: str) -> "Header":
    """Make a header from its text.

    Parameters
    ----------
    text : str
        Cards of 80 characters, closed by END.
    place : str
        File and exposure, for messages.

    Returns
    -------
    astropy.io.fits.Header
        Its cards are interpreted one by one, when they are asked for.

    Raises
    ------
    StoreFormatError
        If the text is no sequence of FITS cards.
    """
    from astropy.io.fits import Header

    _require_cards(text, place)
    return Header.fromstring(text)


@lru_cache(maxsize=1)
def parse_wcs(text: str, place: str) -> "Header":
    """Make a header of those cards only that its WCS is made of, which is quicker.

    Parameters
    ----------
    text : str
        Cards of 80 characters, closed by END.
    place : str
        File and exposure, for messages.

    Returns
    -------
    astropy.io.fits.Header
        For `fpgpu.sky.wcs.SkyWCS.from_header`; not to be changed, for the latest is remembered:
        the size and the footprint of an exposure are asked for one after the other.

    Raises
    ------
    StoreFormatError
        If the text is no sequence of FITS cards.
    """
    from astropy.io.fits import Header

    from fpgpu.sky.celestial import wcs_text

    _require_cards(text, place)
    return Header.fromstring(wcs_text(text))


def header_text(header: Any, place: str) -> str:
    """Return the text of a header that is to be stored.

    Parameters
    ----------
    header : astropy.io.fits.Header
        With FILTER.
    place : str
        The exposure, for messages.

    Returns
    -------
    str
        Its cards as ``Header.tostring()`` gives them.

    Raises
    ------
    UnusableExposureError
        If it is no header, lacks one of these keywords, or has values that FITS cannot hold.
    """
    if not hasattr(header, "tostring"):
        raise UnusableExposureError(
            f"{place}: the header is a {type(header).__name__}; expected an astropy.io.fits.Header"
        )
    missing = [keyword for keyword in REQUIRED if keyword not in header]
    if missing:
        raise UnusableExposureError(
            f"{place}: the header lacks {', '.join(missing)}; a stored exposure needs "
            f"{', '.join(REQUIRED)}"
        )
    return serialize(header, place)


def serialize(header: "Header", place: str) -> str:
    """Return the text of any header.

    Raises
    ------
    UnusableExposureError
        If it has values that FITS cannot hold.
    """
    from astropy.io.fits import VerifyError
    from astropy.io.fits.verify import VerifyWarning

    try:
        with warnings.catch_warnings():
            # What does not fit is the end of a comment.
            warnings.filterwarnings("ignore", "Card is too long, comment", VerifyWarning)
            text: str = header.tostring()
    except (VerifyError, ValueError, AttributeError, TypeError) as exc:
        raise UnusableExposureError(f"{place}: the header cannot be written: {exc}") from exc
    return text


def with_size(header: "Header", shape: tuple[int, int] | None) -> "Header":
    """Return a header that gives the size of its image, if only the store knows it.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Not changed. Primary headers of files with extensions have no NAXIS1.
    shape : (int, int) or None
        Pixels along x and y; None where it is not known.

    Returns
    -------
    astropy.io.fits.Header
        The same one where it has a size, or none is known.
    """
    if shape is None or "NAXIS1" in header or "NAXIS2" in header:
        return header
    sized = header.copy()
    sized["NAXIS1"], sized["NAXIS2"] = shape
    return sized


def _require_dict(value: object, path: Path, where: str, content: str) -> None:
    """Refuse a JSON value of another kind."""
    if not isinstance(value, dict):
        raise StoreFormatError(
            f"{path}: {where}: expected a JSON object of {content}, found {type(value).__name__}"
        )


def _require_cards(text: str, place: str) -> None:
    """Refuse what is no text of a header."""
    cards = text.rstrip()
    if not (text.isascii() and text.isprintable()):
        bad = next(c for c in text if not (c.isascii() and c.isprintable()))
        raise StoreFormatError(
            f"{place}: the header holds {bad!r} at character {text.index(bad)}; "
            "expected printable ASCII"
        )
    if not cards.endswith("END") or len(cards) % CARD_LENGTH != len("END"):
        raise StoreFormatError(
            f"{place}: the header of {len(text)} characters does not close with an END card; "
            f"expected cards of {CARD_LENGTH} characters, as Header.tostring() gives"
        )
