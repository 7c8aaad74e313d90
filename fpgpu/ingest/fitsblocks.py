"""The skeleton of a FITS file: where each extension begins and ends.

Walked before astropy sees the file. A damaged header may declare more bytes than there are, or
fewer than none, and astropy then allocates what is declared or reads the same extension for ever.

The structure is that of the FITS standard 4.0, sections 3 and 4.4: blocks of 2880 bytes, cards of
80; an extension's data are ``|BITPIX| / 8 * GCOUNT * (PCOUNT + NAXIS1 * NAXIS2 * ...)`` bytes.
"""

import io
import math
import re
from typing import IO

from fpgpu.errors import UnusableExposureError

__all__ = ["check_blocks"]

_BLOCK = 2880
_CARD = 80
_MAX_AXES = 999
_TEXT = re.compile(rb"[ -~]*")
_INTEGER = re.compile(rb"= +([+-]?\d+) *(/.*)?")


def check_blocks(stream: IO[bytes], where: str) -> None:
    """Refuse a file whose extensions do not end where the file does.

    Parameters
    ----------
    stream : binary file
        Open for reading; left at its beginning.
    where : str
        The file, for messages.

    Raises
    ------
    UnusableExposureError
        When a header is malformed or unfinished, or data end beyond the file.
    """
    length = stream.seek(0, io.SEEK_END)
    offset = number = 0
    while offset < length:
        place = f"{where} cannot be read as FITS: extension {number}, at byte {offset},"
        header = _read_header(stream, offset, place)
        expected = b"XTENSION=" if number else b"SIMPLE  ="
        if not header.startswith(expected):
            raise UnusableExposureError(
                f"{place} begins with {header[:9]!r}, expected {expected.decode()!r}; the file is "
                "damaged or something else"
            )
        end = offset + len(header) + _data_size(header, place)
        if end > length:
            raise UnusableExposureError(
                f"{place} should end at byte {end}, but the file ends at {length}; it is truncated "
                "or its header is damaged; fetch it again"
            )
        offset, number = end + -end % _BLOCK, number + 1
    if number == 0:
        raise UnusableExposureError(f"{where} cannot be read as FITS: the file is empty")
    stream.seek(0)


def _read_header(stream: IO[bytes], offset: int, place: str) -> bytes:
    """Read the blocks up to the END card."""
    stream.seek(offset)
    header = b""
    while block := stream.read(_BLOCK):
        if len(block) < _BLOCK or not _TEXT.fullmatch(block):
            raise UnusableExposureError(f"{place} has no complete text header; the file is damaged")
        header += block
        cards = (block[start : start + 8] for start in range(0, _BLOCK, _CARD))
        if any(card == b"END     " for card in cards):
            return header
    raise UnusableExposureError(f"{place} has a header without END; the file is truncated")


def _data_size(header: bytes, place: str) -> int:
    """Compute how many bytes of data a header declares, without padding."""
    n_axes = _integer(header, "NAXIS", place, maximum=_MAX_AXES)
    sides = [_integer(header, f"NAXIS{axis}", place) for axis in range(1, n_axes + 1)]
    bytes_per_value = abs(_integer(header, "BITPIX", place, minimum=-64)) // 8
    if not sides:
        return 0
    if sides[0] == 0 and _card(header, "GROUPS"):
        sides = sides[1:]
    parameters = _integer(header, "PCOUNT", place, default=0)
    groups = _integer(header, "GCOUNT", place, default=1)
    return bytes_per_value * groups * (parameters + math.prod(sides))


def _card(header: bytes, keyword: str) -> bytes | None:
    """Find the first card of a keyword; None when there is none."""
    name = keyword.encode().ljust(8)
    starts = range(0, len(header), _CARD)
    return next((header[at : at + _CARD] for at in starts if header[at : at + 8] == name), None)


def _integer(
    header: bytes,
    keyword: str,
    place: str,
    default: int | None = None,
    minimum: int = 0,
    maximum: int | None = None,
) -> int:
    """Read an integer that the structure depends on."""
    card = _card(header, keyword)
    if card is None and default is not None:
        return default
    found = None if card is None else _INTEGER.fullmatch(card[8:])
    value = None if found is None else int(found[1])
    if value is None or value < minimum or (maximum is not None and value > maximum):
        text = "missing" if card is None else card[8:].decode().strip()
        raise UnusableExposureError(f"{place} has {keyword} {text}; its header is damaged")
    return value
