"""The arrays of one exposure, checked against each other and not copied."""

from collections.abc import Callable
from operator import index
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fpgpu.errors import LayoutError

__all__ = ["Image", "Planes", "as_real_image", "working_dtype"]

Image = npt.NDArray[Any]


class Planes(NamedTuple):
    """The arrays of an exposure, all of one shape ``[x, y]``, none copied unless it must be."""

    im: Image
    ierr: Image
    flags: Image | None
    """Unsigned integers; a pixel is bad when they share a bit with `bad_bits`."""
    bkg: Image | None
    area: Image | None
    bad_bits: Any

    @classmethod
    def checked(
        cls,
        im: npt.ArrayLike,
        ierr: npt.ArrayLike,
        mask: npt.ArrayLike | None,
        bkg: npt.ArrayLike | None,
        area: npt.ArrayLike | None,
        bitmask: int | None,
    ) -> "Planes":
        """Take the arrays if their shapes and dtypes fit together."""
        arrays = {"im": as_real_image("im", im), "ierr": as_real_image("ierr", ierr)}
        if mask is not None:
            arrays["mask"] = _as_array("mask", mask, "biu", "bool or integers")
        if bkg is not None:
            arrays["bkg"] = as_real_image("bkg", bkg)
        if area is not None:
            arrays["area"] = _as_float32(as_real_image("area", area))
        shape = arrays["im"].shape
        if len(shape) != 2:
            raise LayoutError(f"im has shape {shape}; expected two axes (x, y)")
        for name, array in arrays.items():
            if array.shape != shape:
                raise LayoutError(f"{name} has shape {array.shape}, but im has {shape}")
        flags, bad_bits = _as_bits(arrays.get("mask"), bitmask)
        return cls(
            arrays["im"], arrays["ierr"], flags, arrays.get("bkg"), arrays.get("area"), bad_bits
        )

    def map(self, function: Callable[[Image], Image]) -> "Planes":
        """Apply a function to every array there is."""
        return Planes(
            function(self.im),
            function(self.ierr),
            None if self.flags is None else function(self.flags),
            None if self.bkg is None else function(self.bkg),
            None if self.area is None else function(self.area),
            self.bad_bits,
        )


def _as_bits(mask: Image | None, bitmask: int | None) -> tuple[Image | None, Any]:
    """View a mask as unsigned integers, beside the bits that make a pixel bad.

    The bits are put in the mask's byte order, rather than a big-endian mask in the machine's.
    """
    if mask is None:
        return None, None
    if mask.dtype.kind == "b":
        return mask.view(np.uint8), np.uint8(1)
    unsigned = np.dtype(f"u{mask.itemsize}")
    every_bit = 2 ** (8 * mask.itemsize) - 1
    bad_bits = np.array(index(bitmask) & every_bit if bitmask else every_bit, unsigned)
    bad_bits = bad_bits.astype(unsigned.newbyteorder(mask.dtype.byteorder))
    return mask.view(unsigned), bad_bits.view(unsigned)[()]


def working_dtype(image: Image) -> np.dtype[np.floating[Any]]:
    """Return the dtype to compute an image in: float32 where that holds all its values."""
    return np.dtype(np.float32 if np.can_cast(image.dtype, np.float32) else np.float64)


def as_real_image(name: str, image: npt.ArrayLike) -> Image:
    """Return an image as an array without copying it, if its values are real numbers."""
    return _as_array(name, image, "iuf", "real numbers")


def _as_array(name: str, values: npt.ArrayLike, kinds: str, expected: str) -> Image:
    """Return values as an array without copying them, if they are of a kind that makes sense."""
    if isinstance(values, np.ma.MaskedArray):
        raise LayoutError(
            f"{name} is a masked array, whose own mask would be lost; pass {name}.data, and "
            "the masked pixels in the exposure's mask"
        )
    array = np.asarray(values)
    if array.dtype.kind not in kinds:
        raise LayoutError(f"{name} has dtype {array.dtype}; expected {expected}")
    return array


def _as_float32(image: Image) -> Image:
    """Round to float32 unless it is that already, in either byte order."""
    if image.dtype.kind == "f" and image.itemsize == 4:
        return image
    with np.errstate(over="ignore"):
        return image.astype(np.float32)
