"""An image inside a FITS file, read as a whole or in part."""

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fpgpu.errors import UnusableExposureError
from fpgpu.ingest.tiles import Box

if TYPE_CHECKING:
    from fpgpu.ingest.fitsfile import FitsFile

__all__ = ["FitsImage"]

_DTYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
"""Of values in the file by BITPIX (FITS standard 4.0, table 8)."""

_SCALING = ("BSCALE", "BZERO", "BLANK")
_ROWS = 256


class FitsImage:
    """A 2-dimensional image of an opened file; nothing is read before `read`.

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
    shape : tuple of int
        (nx, ny).

    Raises
    ------
    UnusableExposureError
        When the extension is no 2-dimensional image.
    """

    def __init__(self, file: "FitsFile", index: int) -> None:
        self.file = file
        self.index = index
        self.where = f"{file.path}: extension {file.label(index)}"
        declared = self._declared_shape()
        if declared is None or len(declared) != 2 or 0 in declared:
            raise UnusableExposureError(
                f"{self.where} is no 2-dimensional image (found {declared or 'no image'}, as "
                "NAXIS1, NAXIS2, ...)"
            )
        self.shape = declared[0], declared[1]

    def require_shape(self, shape: tuple[int, int]) -> "FitsImage":
        """Refuse an image of another size than the science image.

        Parameters
        ----------
        shape : tuple of int
            (nx, ny) of the science image.

        Returns
        -------
        FitsImage
            This one.

        Raises
        ------
        UnusableExposureError
            When the size is another.
        """
        if self.shape != shape:
            raise UnusableExposureError(
                f"{self.where} has {self.shape[0]} x {self.shape[1]} pixels, but the science image "
                f"has {shape[0]} x {shape[1]}"
            )
        return self

    def read(self, box: Box | None = None) -> npt.NDArray[Any]:
        """Read pixels.

        Parameters
        ----------
        box : Box, optional
            The part to read; all by default.

        Returns
        -------
        ndarray, shape (nx, ny)
            Indexed ``[x, y]``: a transposed FITS array, unsigned where the file says so.

        Raises
        ------
        UnusableExposureError
            When they cannot be read.
        """
        box = box or Box.whole(self.shape)
        x0, x1, y0, y1 = box
        hdu, descriptor = self.file.hdus[self.index], self.file.descriptor
        with self.file.guarded(self.where):
            if x1 - x0 == self.shape[0] or hasattr(hdu, "compressed_data"):
                return np.asarray(hdu.section[y0:y1, x0:x1]).T
            if descriptor is not None and not any(key in hdu.header for key in _SCALING):
                return self._read_rows(box, descriptor).T
            # Many rows at a time, as astropy takes long for each part of a row.
            starts = range(y0, y1, _ROWS)
            parts = [hdu.section[y : min(y + _ROWS, y1), :][:, x0:x1] for y in starts]
            return np.concatenate(parts).T

    def read_numbers(self, box: Box | None = None) -> npt.NDArray[Any]:
        """Read pixels that must be real numbers.

        Parameters
        ----------
        box : Box, optional
            The part to read; all by default.

        Returns
        -------
        ndarray of integers or floats, shape (nx, ny)
            As `read`.

        Raises
        ------
        UnusableExposureError
            When they cannot be read or are something else.
        """
        data = self.read(box)
        if data.dtype.kind not in "iuf":
            raise UnusableExposureError(
                f"{self.where} has dtype {data.dtype}; expected real numbers"
            )
        return data

    def _read_rows(self, box: Box, descriptor: int) -> npt.NDArray[Any]:
        """Read parts of rows as they are in the file, shape (ny, nx), one system call each."""
        hdu = self.file.hdus[self.index]
        nx, ny = box.shape
        data = np.empty((ny, nx), _DTYPES[hdu.header["BITPIX"]])
        start = hdu.fileinfo()["datLoc"]
        for row, y in zip(data, range(box.y0, box.y1), strict=True):
            at = start + (y * self.shape[0] + box.x0) * data.itemsize
            if os.preadv(descriptor, [row.view(np.uint8).data], at) != row.nbytes:
                raise OSError("the file ends within the image; it was changed while it was read")
        return data

    def _declared_shape(self) -> tuple[int, ...] | None:
        """Give (NAXIS1, NAXIS2, ...) of an image extension; None for anything else."""
        hdu = self.file.hdus[self.index]
        if not getattr(hdu, "is_image", False):
            return None
        return tuple(int(side) for side in reversed(hdu.shape))
