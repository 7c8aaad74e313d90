"""FITS files and their images as readers see them, read without trusting what they declare.

The only place where exposure files meet `astropy.io.fits`. Damage that astropy merely warns of (a
file cut short, an extension that cannot be parsed) is an error here: a data-quality extension
that silently is not there would let bad pixels into a fit.
"""

import logging
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.errors import FpgpuError, UnusableExposureError
from fpgpu.ingest.cards import (
    STRUCTURE,
    clean_cards,
    inherits,
    malformed_cards,
    refuse_contradictions,
)
from fpgpu.ingest.fitsstream import allowed_size, open_stream, patched
from fpgpu.ingest.tiles import Box

__all__ = ["FitsFile", "FitsImage"]

_log = logging.getLogger(__name__)

# What astropy says when bytes are missing or an extension cannot be parsed.
_DAMAGE = re.compile(r"truncated|Error validating header|corrupt|not multiple of 2880", re.I)

# Cards that describe the bytes of one extension, not the exposure.
_OF_BYTES = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|NEXTEND|PCOUNT|GCOUNT|GROUPS|BSCALE|BZERO|BLANK"
    r"|EXTNAME|EXTVER|EXTLEVEL|CHECKSUM|DATASUM|INHERIT|COMMENT|HISTORY|END|"
)

# Rows that are read at a time for a part of an image.
_ROWS = 256

# No detector has a longer side; a file of a few bytes must not fill the memory.
_LONGEST_CONSTANT = 1 << 14


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
        numbers = range(len(self.hdus))
        return [n for n in numbers if self.hdus[n].is_image and not self.is_empty(n)]

    def find(self, name: str | int, version: int | None = None) -> int | None:
        """Find the number of the one extension of a name, or number; None when there is none."""
        found = [
            index
            for index, own in enumerate(self._names)
            if index == name or (own == name and version in (None, self._versions[index]))
        ]
        if len(found) > 1:
            raise UnusableExposureError(
                f"{self.path}: {len(found)} extensions are called {name} (found {self.content()}); "
                "expected one exposure of one detector in a file; split it into one file per "
                "detector"
            )
        return found[0] if found else None

    def is_empty(self, index: int) -> bool:
        """Tell whether an extension is an image without data."""
        hdu = self.hdus[index]
        return hdu.is_image and not hdu.shape and "PIXVALUE" not in hdu.header

    def content(self) -> str:
        """List the extensions for messages, with a note on those that hold nothing."""
        return ", ".join(
            f"{index} {name or 'unnamed'}"
            f"{' (without data)' if index and self.is_empty(index) else ''}"
            for index, name in enumerate(self._names)
        )

    def layer(
        self, name: str | int, shape: tuple[int, int] | None = None, version: int | None = None
    ) -> "FitsImage | None":
        """Find an image, of (nx, ny) pixels, without reading it; None when there is none."""
        index = self.find(name, version)
        return None if index is None else FitsImage(self, index, shape)

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
                    and not _OF_BYTES.fullmatch(card.keyword)
                    and inherits(
                        card.keyword, own, header.get("INHERIT"), primary_is_empty=is_empty
                    )
                ):
                    header.append(fits.Card(card.keyword, card.value, card.comment), end=True)
            refuse_contradictions(header, where)
            header = _mended(header)
            for number, text in malformed_cards(header, where):
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
            patches = self._patches(hdus)
            if patches:
                self._stream = patched(self._stream, patches)
        if patches:
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

    def _patches(self, hdus: Any) -> dict[int, bytes]:
        """Find what FITS does not allow in headers, and what to read in its place."""
        patches: dict[int, bytes] = {}
        for number, hdu in enumerate(hdus):
            info = hdu.fileinfo()
            self._stream.seek(info["hdrLoc"])
            header = self._stream.read(info["datLoc"] - info["hdrLoc"])
            place = f"header of {hdu.name or number}"
            cards, found = clean_cards(header, f"{self.path}: {place}")
            patches |= {info["hdrLoc"] + at: card for at, card in cards.items()}
            if found:
                more = f" and {len(found) - 3} more" if len(found) > 3 else ""
                self.notes.append(
                    f"{place}: characters that FITS does not allow are read as shown: "
                    f"{', '.join(found[:3])}{more}"
                )
        return patches

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


class FitsImage:
    """A 2-dimensional image of an opened file; nothing is read before `read`.

    Further axes of length 1, as radio images have for frequency and polarisation, are left out. An
    image of one value may have but that (PIXVALUE, NPIX1, NPIX2, STScI's convention).

    Parameters
    ----------
    file : FitsFile
        The file, which must stay open.
    index : int
        Number of the extension.
    shape : tuple of int, optional
        The (nx, ny) that it must have, those of the science image.

    Attributes
    ----------
    where : str
        File and extension, for messages.
    header : astropy.io.fits.Header
        Of the extension; not to be changed.
    shape : tuple of int
        (nx, ny).

    Raises
    ------
    UnusableExposureError
        When the extension is no 2-dimensional image, or of another size.
    """

    def __init__(self, file: FitsFile, index: int, shape: tuple[int, int] | None = None) -> None:
        self.file = file
        self.where = f"{file.path}: extension {file.label(index)}"
        self._hdu = file.hdus[index]
        with file.guarded(self.where):
            refuse_contradictions(self._hdu.header, self.where, STRUCTURE)
            self.header = _mended(self._hdu.header)
        axes = self._hdu.shape if self._hdu.is_image else None
        self._constant = _constant(self.header) if axes == () else None
        sides = [int(side) for side in reversed(axes or ())]
        while len(sides) > 2 and sides[-1] == 1:
            sides.pop()
        if self._constant is not None:
            sides = [self.header["NPIX1"], self.header["NPIX2"]]
        if len(sides) != 2 or 0 in sides:
            raise UnusableExposureError(
                f"{self.where} is no 2-dimensional image (found {' x '.join(map(str, sides))} "
                "pixels); of a cube or a spectrum, give the image of the whole exposure"
            )
        self.shape = sides[0], sides[1]
        if shape is not None and self.shape != shape:
            raise UnusableExposureError(
                f"{self.where} has {self.shape[0]} x {self.shape[1]} pixels, but the science image "
                f"has {shape[0]} x {shape[1]}"
            )
        # astropy leaves undefined pixels of unsigned images as they are.
        self._undefined: int | float | None = None
        scaling = self.header.get("BLANK"), self.header.get("BZERO", 0)
        if all(isinstance(value, int | float) for value in scaling):
            self._undefined = sum(scaling)

    def read(self, box: Box | None = None) -> npt.NDArray[Any]:
        """Read pixels, of a part of the image or of all.

        Returns
        -------
        ndarray, shape (nx, ny)
            Indexed ``[x, y]``: a transposed FITS array, unsigned where the file says so; NaN where
            an image of integers says that it is undefined (BLANK).
        """
        box = box or Box.whole(self.shape)
        x0, x1, y0, y1 = box
        if self._constant is not None:
            return np.full(box.shape[::-1], *self._constant).T
        with self.file.guarded(self.where):
            section, first = self._hdu.section, (0,) * (len(self._hdu.shape) - 2)
            if x1 - x0 == self.shape[0] or hasattr(self._hdu, "compressed_data"):
                data = section[*first, y0:y1, x0:x1]
            else:
                # Many rows at a time, as astropy takes long for each part of a row.
                ends = [*range(y0, y1, _ROWS), y1]
                parts = [section[*first, y:end, :][:, x0:x1].copy() for y, end in pairwise(ends)]
                data = np.concatenate(parts)
        data = np.asarray(data)
        if self._undefined is not None and data.dtype.kind != "f":
            numbers = data.astype(np.float32 if data.dtype.itemsize <= 2 else np.float64)
            numbers[data == self._undefined] = np.nan
            data = numbers
        return np.transpose(data)

    def read_flags(self, box: Box | None = None) -> npt.NDArray[Any]:
        """Read pixels that may be flags: integers stay integers, and what is undefined has all
        flags.
        """
        data = self.read(box)
        if self._undefined is None or data.dtype.kind != "f":
            return data
        flags = np.where(np.isnan(data), np.float64(0xFFFFFFFF), data)
        return flags.astype(np.int64).astype(np.uint32)

    def read_numbers(self, box: Box | None = None) -> npt.NDArray[Any]:
        """Read pixels that must be real numbers, as `read` does."""
        data = self.read(box)
        if data.dtype.kind not in "iuf":
            raise UnusableExposureError(
                f"{self.where} has dtype {data.dtype}; expected real numbers"
            )
        return data


def _mended(header: Any) -> Any:
    """Write a header and read it, so that what is malformed is mended or fails here."""
    from astropy.io.fits import Header

    # Not of its own class: astropy's header of a compressed image cannot be made so before 7.0.
    return Header.fromstring(header.tostring())


def _constant(header: Any) -> tuple[float, str] | None:
    """Give value and dtype of an image that stands for one value; None for any other."""
    sides, value = (header.get("NPIX1"), header.get("NPIX2")), header.get("PIXVALUE")
    if not all(type(side) is int and 0 < side <= _LONGEST_CONSTANT for side in sides):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    whole = ">i4" if isinstance(value, int) else ">f4"
    return value, {-32: ">f4", -64: ">f8"}.get(header["BITPIX"], whole)


def _texts(caught: list[warnings.WarningMessage]) -> list[str]:
    """What was warned of, each in a line and once."""
    return list(dict.fromkeys(" ".join(str(warning.message).split()) for warning in caught))
