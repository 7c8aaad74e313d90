"""An image inside a FITS file, read as a whole or in part."""

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fpgpu.errors import UnusableExposureError
from fpgpu.ingest.cards import STRUCTURE, refuse_contradictions
from fpgpu.ingest.tiles import Box

if TYPE_CHECKING:
    from fpgpu.ingest.fitsfile import FitsFile

__all__ = ["FitsImage"]

_DTYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
"""Of values in the file by BITPIX (FITS standard 4.0, table 8)."""

_ROWS = 256

# No detector has a longer side; a file of a few bytes must not fill the memory.
_LONGEST_CONSTANT = 1 << 14


class FitsImage:
    """A 2-dimensional image of an opened file; nothing is read before `read`.

    Further axes of length 1, as radio images have for frequency and polarisation, are left out.

    Parameters
    ----------
    file : FitsFile
        The file, which must stay open.
    index : int
        Number of the extension.

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
        When the extension is no 2-dimensional image.
    """

    def __init__(self, file: "FitsFile", index: int) -> None:
        from astropy.io.fits import Header

        self.file = file
        self.index = index
        self.where = f"{file.path}: extension {file.label(index)}"
        with file.guarded(self.where):
            header = file.hdus[index].header
            refuse_contradictions(header, self.where, STRUCTURE)
            # Written and read once, so that what is malformed is mended or fails here.
            self.header = Header.fromstring(header.tostring())
        declared = self._declared_shape()
        if declared is None or len(declared) != 2 or 0 in declared:
            raise UnusableExposureError(
                f"{self.where} is no 2-dimensional image (found {declared or 'no image'}, as "
                "NAXIS1, NAXIS2, ...)"
            )
        self.shape = declared[0], declared[1]
        # astropy leaves undefined pixels of unsigned images as they are.
        self._undefined: int | float | None = None
        scaling = self.header.get("BLANK"), self.header.get("BZERO", 0)
        if all(isinstance(value, int | float) for value in scaling):
            self._undefined = sum(scaling)

    def require_shape(self, shape: tuple[int, int]) -> "FitsImage":
        """Give this image; refuse it when its size is not (nx, ny), that of the science image."""
        if self.shape != shape:
            raise UnusableExposureError(
                f"{self.where} has {self.shape[0]} x {self.shape[1]} pixels, but the science image "
                f"has {shape[0]} x {shape[1]}"
            )
        return self

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
        hdu = self.file.hdus[self.index]
        with self.file.guarded(self.where):
            if not hdu.shape and (constant := _constant(hdu.header)):
                return np.full(box.shape[::-1], *constant).T
            first = (0,) * (len(hdu.shape) - 2)
            if x1 - x0 == self.shape[0] or hasattr(hdu, "compressed_data"):
                return self._defined(hdu.section[*first, y0:y1, x0:x1]).T
            # Many rows at a time, as astropy takes long for each part of a row.
            ends = [*range(y0, y1, _ROWS), y1]
            parts = (hdu.section[*first, y:end, :][:, x0:x1].copy() for y, end in pairwise(ends))
            return self._defined(np.concatenate([*parts])).T

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

    def _defined(self, data: npt.ArrayLike) -> npt.NDArray[Any]:
        """Make undefined pixels of integers NaN."""
        data = np.asarray(data)
        if self._undefined is None or data.dtype.kind == "f":
            return data
        numbers = data.astype(np.float32 if data.dtype.itemsize <= 2 else np.float64)
        numbers[data == self._undefined] = np.nan
        return numbers

    def _declared_shape(self) -> tuple[int, ...] | None:
        """Give (NAXIS1, NAXIS2, ...) of an image extension, without further axes of length 1.

        None for anything else.
        """
        hdu = self.file.hdus[self.index]
        if not getattr(hdu, "is_image", False):
            return None
        if not hdu.shape and _constant(hdu.header) is not None:
            return int(hdu.header["NPIX1"]), int(hdu.header["NPIX2"])
        sides = [int(side) for side in reversed(hdu.shape)]
        while len(sides) > 2 and sides[-1] == 1:
            sides.pop()
        return tuple(sides)


def _constant(header: Any) -> tuple[float, str] | None:
    """Give value and dtype of an image that stands for one value, by STScI's convention; or None.

    Such an extension has NAXIS = 0, and NPIX1, NPIX2 and PIXVALUE.
    """
    sides, value = (header.get("NPIX1"), header.get("NPIX2")), header.get("PIXVALUE")
    if not all(type(side) is int and 0 < side <= _LONGEST_CONSTANT for side in sides):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    bits = header["BITPIX"]
    if bits < 0:
        return value, _DTYPES[bits]
    return value, ">f4" if isinstance(value, float) else ">i4"
