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
    "header_text",
    "parse_header",
    "parse_wcs",
    "read_texts",
    "serialize",
    "with_size",
]

Texts = dict[str, dict[str, str]]

CARD_LENGTH = 80


def read_texts(content: bytes, path: Path) -> Texts:
    """Read the header texts of a meta store, by band and expID; their content is not looked at."""
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


def parse_header(text: str, place: str) -> "Header":
    """Make a header from its text."""
    from astropy.io.fits import Header

    _require_cards(text, place)
    return Header.fromstring(text)


@lru_cache(maxsize=1)
def parse_wcs(text: str, place: str) -> "Header":
    """Make a header of those cards only that its WCS is made of, which is quicker.

    It is not to be changed: the latest is remembered, as size and footprint are asked for one after
    the other.
    """
    from astropy.io.fits import Header

    from fpgpu.sky.cards import wcs_text

    _require_cards(text, place)
    return Header.fromstring(wcs_text(text))


def header_text(header: Any, place: str) -> str:
    """Return the text of a header that is to be stored, if it has what that needs."""
    if not hasattr(header, "tostring"):
        raise UnusableExposureError(
            f"{place}: the header is a {type(header).__name__}; expected an astropy.io.fits.Header"
        )
    if "FILTER" not in header:
        raise UnusableExposureError(
            f"{place}: the header lacks FILTER; a stored exposure needs FILTER"
        )
    return serialize(header, place)


def serialize(header: "Header", place: str) -> str:
    """Return the text of any header."""
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

    Primary headers of files with extensions do not.
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
