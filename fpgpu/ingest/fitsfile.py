"""FITS files as readers see them: opened, measured and read without trusting what they declare.

The only place where exposure files meet `astropy.io.fits`. Damage that astropy merely warns of (a
file cut short, an extension that cannot be parsed) is an error here: a data-quality extension
that silently is not there would let bad pixels into a fit.
"""

import io
import logging
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from fpgpu.errors import FpgpuError, UnusableExposureError
from fpgpu.ingest.cards import inherits, is_decisive, refuse_contradictions
from fpgpu.ingest.fitsimage import FitsImage
from fpgpu.ingest.fitsstream import allowed_size, open_stream

__all__ = ["FitsFile"]

_log = logging.getLogger(__name__)

# What astropy says when bytes are missing or an extension cannot be parsed.
_DAMAGE = re.compile(r"truncated|Error validating header|corrupt|not multiple of 2880", re.I)

# Cards that describe the bytes of one extension, not the exposure.
_STRUCTURE = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|NEXTEND|PCOUNT|GCOUNT|GROUPS|BSCALE|BZERO|BLANK"
    r"|EXTNAME|EXTVER|EXTLEVEL|CHECKSUM|DATASUM|INHERIT|COMMENT|HISTORY|END|"
)

# A keyword and a value, or a commentary card.
_CARD = re.compile(r"(?=[A-Z0-9_-]* *=).{8}= |(COMMENT|HISTORY|CONTINUE|HIERARCH|        )")

_CARD_LENGTH = 80
_TEXT = re.compile(rb"[ -~]*")
_TEXT_BYTES = frozenset(range(0x20, 0x7F))
_PRINTABLE = bytes(byte if byte in _TEXT_BYTES else b"? "[byte < 0x80] for byte in range(256))


class FitsFile:
    """An exposure file opened as FITS, compressed as a whole or not, whatever it is called.

    Parameters
    ----------
    path : str or Path
        The file.

    Attributes
    ----------
    notes : list of str
        What a user should know of its headers.

    Raises
    ------
    MissingFileError
        When there is no such file.
    UnusableExposureError
        When it cannot be read, is no FITS file, or ends before its last extension does.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.notes: list[str] = []
        self._stream: Any = open_stream(self.path)
        try:
            self.hdus = self._open()
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> "FitsFile":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; images and headers that were read stay valid."""
        self.hdus.close()
        self._stream.close()

    def names(self) -> list[str]:
        """Name the extensions in file order: EXTNAME in upper case, or ``"PRIMARY"``, or ``""``."""
        return list(self._names)

    def primary(self, keyword: str) -> Any:
        """Read a value of the primary header; None when there is no such card."""
        with self.guarded(f"{self.path}: {keyword} of the primary header"):
            return self.hdus[0].header.get(keyword)

    def label(self, index: int) -> str:
        """Name an extension for messages, with its version where several have the name."""
        name = self._names[index] or str(index)
        return f"{name},{self._versions[index]}" if self._names.count(name) > 1 else name

    def versions(self, name: str) -> list[int]:
        """Give EXTVER of the extensions of a name, in file order; 1 where none is given."""
        return [self._versions[i] for i, own in enumerate(self._names) if own == name]

    def images(self) -> list[int]:
        """Give the numbers of the extensions that hold an image, in file order."""
        return [
            number
            for number, hdu in enumerate(self.hdus)
            if getattr(hdu, "is_image", False) and not self.is_empty(number)
        ]

    def find(self, name: str | int, version: int | None = None) -> int | None:
        """Find the number of the one extension of a name, or number; None when there is none.

        Raises
        ------
        UnusableExposureError
            When several have this name, and the same version where one is given.
        """
        if isinstance(name, int):
            return name if 0 <= name < len(self._names) else None
        found = [
            index
            for index, own in enumerate(self._names)
            if own == name and version in (None, self._versions[index])
        ]
        if len(found) > 1:
            raise UnusableExposureError(
                f"{self.path}: {len(found)} extensions are called {name}"
                f"{'' if version is None else f' and have EXTVER {version}'}; expected one exposure"
                " of one detector in a file; split it into one file per detector"
            )
        return found[0] if found else None

    def sides(self, name: str) -> tuple[int, ...] | None:
        """Give (NAXIS1, NAXIS2, ...) of the first image of a name; None when there is none."""
        if name not in self._names:
            return None
        hdu = self.hdus[self._names.index(name)]
        return tuple(reversed(hdu.shape)) if getattr(hdu, "is_image", False) else None

    def is_empty(self, index: int) -> bool:
        """Tell whether an extension is an image without data."""
        hdu = self.hdus[index]
        return getattr(hdu, "is_image", False) and not hdu.shape and "PIXVALUE" not in hdu.header

    def content(self) -> str:
        """List the extensions for messages, with a note on those that hold nothing."""
        return ", ".join(
            f"{index} {name or 'unnamed'}"
            f"{' (without data)' if index and self.is_empty(index) else ''}"
            for index, name in enumerate(self._names)
        )

    def layer(
        self, name: str | int, shape: tuple[int, int] | None = None, version: int | None = None
    ) -> FitsImage | None:
        """Find an image, of (nx, ny) pixels, without reading it; None when there is none.

        Raises
        ------
        UnusableExposureError
            When it is no 2-dimensional image, or of another shape.
        """
        index = self.find(name, version)
        if index is None:
            return None
        image = FitsImage(self, index)
        return image if shape is None else image.require_shape(shape)

    def image(self, name: str, shape: tuple[int, int] | None = None) -> npt.NDArray[Any] | None:
        """Read an image, of (nx, ny) pixels, as `FitsImage.read` does; None when there is none."""
        layer = self.layer(name, shape)
        return None if layer is None else layer.read()

    def table_bytes(self, name: str) -> bytes | None:
        """Read the bytes of an extension, without padding; None when there is none."""
        index = self.find(name)
        if index is None:
            return None
        with self.guarded(f"{self.path}: extension {name}"):
            return np.asarray(self.hdus[index].data).tobytes()

    def merged_header(self, name: str | int, version: int | None = None) -> Any:
        """Copy the header of an image and add what only the primary header says of the exposure.

        The image's cards come first, unchanged and in order; then those of the primary header that
        it lacks and `fpgpu.ingest.cards.inherits`, without commentary and without those that
        describe bytes.

        Raises
        ------
        UnusableExposureError
            When a card is malformed, or one that matters is there twice with different values.
        """
        from astropy.io import fits

        index = self.find(name, version)
        where = f"{self.path}: header of {name}"
        with self.guarded(where):
            header = self.hdus[index].header.copy()
            own, is_empty = set(header.keys()), not self.hdus[0].shape
            for card in self.hdus[0].header.cards if index else ():
                if (
                    card.keyword not in own
                    and not _STRUCTURE.fullmatch(card.keyword)
                    and inherits(
                        card.keyword, own, header.get("INHERIT"), primary_is_empty=is_empty
                    )
                ):
                    header.append(fits.Card(card.keyword, card.value, card.comment), end=True)
            refuse_contradictions(header, where)
            # Written and read once, so that what is malformed is mended or fails here.
            header = fits.Header.fromstring(header.tostring())
            for number, text in _malformed_cards(header, where):
                header.insert(number, ("COMMENT", text[:72]))
                del header[number + 1]
                note = f"header of {name}: {text!r} has no '= ' in columns 9 and 10: a comment now"
                if note not in self.notes:
                    self.notes.append(note)
            for card in header.cards:
                _ = card.value
        return header

    def _open(self) -> Any:
        """Let astropy parse all headers, and those that FITS does not allow once they are clean."""
        hdus = self._walk()
        with self.guarded(str(self.path)):
            unclean = self._clean_headers(hdus)
        if unclean:
            hdus = self._walk()
        with self.guarded(str(self.path)):
            self._names = [hdu.name.strip().upper() for hdu in hdus]
            self._versions = [int(hdu.ver) for hdu in hdus]
        return hdus

    def _walk(self) -> Any:
        """Read the headers one after the other, without following one that leads back."""
        from astropy.io import fits

        self._stream.seek(0)
        with self.guarded(str(self.path)):
            hdus = fits.open(self._stream, memmap=False, lazy_load_hdus=True)
        number = end = 0
        while True:
            place = f"{self.path}: extension {number}, at byte {end},"
            with self.guarded(place):
                try:
                    hdu = hdus[number]
                except IndexError:
                    break
                start, n_bytes = (hdu.fileinfo()[key] for key in ("datLoc", "datSpan"))
                if n_bytes < 0 or type(hdu).__name__.startswith("_"):
                    raise UnusableExposureError(
                        f"{place} cannot be read as FITS: its header is damaged: it has {n_bytes} "
                        f"bytes of data and begins with {str(hdu.header.cards[0]).rstrip()!r}"
                    )
                self._check_compression(hdu, n_bytes)
            number, end = number + 1, start + n_bytes
        return hdus

    def _clean_headers(self, hdus: Any) -> bool:
        """Take what FITS does not allow in a header for blanks and question marks, as astropy does.

        Characters beyond ASCII become question marks, TAB and other control characters blanks.
        """
        patches: dict[int, bytes] = {}
        for number, hdu in enumerate(hdus):
            info, found = hdu.fileinfo(), list[str]()
            self._stream.seek(info["hdrLoc"])
            header = self._stream.read(info["datLoc"] - info["hdrLoc"])
            place = f"header of {hdu.name or number}"
            for at in range(0, len(header), _CARD_LENGTH):
                card = header[at : at + _CARD_LENGTH]
                if card.rstrip(b" \0") == b"END":
                    break
                if not _TEXT.fullmatch(card):
                    patches[info["hdrLoc"] + at] = text = card.translate(_PRINTABLE)
                    found.append(f"{text.decode().rstrip()!r} has {_foreign(card)}")
                    if _is_needed(card, text):
                        raise UnusableExposureError(
                            f"{self.path}: {place}: card {found[-1]}, in what an exposure depends "
                            "on; correct the card, or the file is damaged"
                        )
            if found:
                more = f" and {len(found) - 3} more" if len(found) > 3 else ""
                self.notes.append(
                    f"{place}: characters that FITS does not allow are read as shown: "
                    f"{', '.join(found[:3])}{more}"
                )
        if patches:
            self._stream = _Patched(self._stream, patches)
        return bool(patches)

    def _check_compression(self, hdu: Any, n_bytes: int) -> None:
        """Refuse an image that claims to have been compressed beyond reason."""
        if hasattr(hdu, "compressed_data"):
            expanded = math.prod(hdu.shape) * abs(hdu.header["BITPIX"]) // 8
            if expanded > allowed_size(n_bytes):
                raise UnusableExposureError(
                    f"{self.path}: extension {hdu.name} declares {expanded} bytes of pixels in "
                    f"{n_bytes} compressed bytes; its header is damaged"
                )

    @contextmanager
    def guarded(self, where: str) -> Iterator[None]:
        """Turn whatever astropy raises, and its warnings of damage, into one clear error."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                yield
            except FpgpuError:
                raise
            # Damaged headers make astropy raise almost anything, from KeyError to MemoryError.
            except Exception as error:
                text = str(error).strip() or "no further reason given"
                before = "".join(f"{found}; " for found in _texts(caught) if _DAMAGE.search(found))
                raise UnusableExposureError(
                    f"{where} cannot be read as FITS: {before}{text} "
                    f"({type(error).__name__}); it is damaged or something else"
                ) from error
        for text in _texts(caught):
            if _DAMAGE.search(text):
                raise UnusableExposureError(f"{where} cannot be read as FITS: {text}")
            _log.info("%s: %s", where, text)


def _foreign(card: bytes) -> str:
    """Name the characters of a card that FITS does not allow."""
    found = sorted({byte for byte in card if byte not in _TEXT_BYTES})
    return ", ".join("TAB" if byte == 9 else f"byte 0x{byte:02x}" for byte in found)


def _is_needed(card: bytes, text: bytes) -> bool:
    """Whether what FITS does not allow is in a keyword, or in a value that matters."""
    from astropy.io import fits

    if not _TEXT.fullmatch(card[:8]):
        return True
    if not is_decisive(card[:8].decode().rstrip()):
        return False
    clean = fits.Card.fromstring(text)
    clean.verify("silentfix")
    first = next(at for at, byte in enumerate(card) if byte not in _TEXT_BYTES)
    is_in_comment = first >= len(text.rstrip()) - len(clean.comment)
    # A TAB before a number is a blank to astropy, too.
    return not (is_in_comment or (isinstance(clean.value, int | float) and b"?" not in text))


def _malformed_cards(header: Any, where: str) -> list[tuple[int, str]]:
    """Find cards without a value; refuse those that matter: a damaged CRPIX1 would become 0."""
    found = []
    for number, card in enumerate(header.cards):
        text = str(card).rstrip()
        if _CARD.match(str(card)):
            continue
        word = re.match(r"[A-Z0-9_-]*", text.upper())
        if text[8:10] == "= " or (word is not None and is_decisive(word[0])):
            expected = "letters, digits, - and _ as keyword, then '= ' in columns 9 and 10"
            raise UnusableExposureError(
                f"{where} has a malformed card: {text!r}; expected {expected}; the file is "
                "damaged, or the card must be repaired"
            )
        found.append((number, " ".join(text.split())))
    return found


def _texts(caught: list[warnings.WarningMessage]) -> list[str]:
    """What was warned of, each in a line and once."""
    return list(dict.fromkeys(" ".join(str(warning.message).split()) for warning in caught))


class _Patched(io.RawIOBase):
    """A file of which some bytes are read as others."""

    def __init__(self, stream: IO[bytes], patches: Mapping[int, bytes]) -> None:
        self._stream = stream
        self._patches = patches

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def read(self, size: int = -1) -> bytes:
        start = self._stream.tell()
        data = bytearray(self._stream.read(size))
        for at, patch in self._patches.items():
            first, last = max(at, start), min(at + len(patch), start + len(data))
            if first < last:
                data[first - start : last - start] = patch[first - at : last - at]
        return bytes(data)

    def close(self) -> None:
        self._stream.close()
        super().close()
