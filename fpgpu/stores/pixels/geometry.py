"""The one size of all images of a pixel store: its root attributes, and what follows from them."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu import superpixels
from fpgpu.backends.base import Backend
from fpgpu.backends.images import superpixelize_on
from fpgpu.errors import LayoutError, StoreConflictError, StoreFormatError
from fpgpu.superpixels import SUPER_PIXEL_SIZE, grid_shape

__all__ = ["Geometry", "ImageGrid"]

DEFAULT_NSIDE = 2048
# Far above any detector; a damaged attribute must not make anybody allocate terabytes.
_LARGEST_SIDE = 1 << 20


@dataclass(frozen=True, slots=True)
class Geometry:
    """Size of images and of super-pixels.

    Attributes
    ----------
    shape : (int, int)
        Pixels along x and y.
    size : int
        Pixels along each side of a super-pixel.
    """

    shape: tuple[int, int]
    size: int

    def __post_init__(self) -> None:
        if self.size < 1 or max(self.shape) > _LARGEST_SIDE:
            raise LayoutError(f"images of {self.shape} pixels in super-pixels of {self.size}")
        grid_shape(self.shape, self.size)

    def __str__(self) -> str:
        return f"images of {self.shape[0]} x {self.shape[1]} in super-pixels of {self.size}"

    @property
    def grid(self) -> tuple[int, int]:
        """Super-pixels along x and y."""
        return grid_shape(self.shape, self.size)

    @property
    def n_values(self) -> int:
        """Values in a super-pixel: fluxes and inverse uncertainties."""
        return 2 * self.size**2

    @classmethod
    def of_arguments(cls, nside_full: Any, super_pixel_size: Any) -> "Geometry":
        """Make the geometry that a user asked for, with forcepho's defaults for None."""
        nside = DEFAULT_NSIDE if nside_full is None else nside_full
        size = SUPER_PIXEL_SIZE if super_pixel_size is None else super_pixel_size
        return cls(_as_shape(nside), _as_integer(size, "super_pixel_size"))

    @classmethod
    def of_store(cls, path: object, attributes: Mapping[str, Any]) -> "Geometry":
        """Make the geometry that a store's root attributes state."""
        try:
            nside, size = attributes["nside_full"], attributes["super_pixel_size"]
        except KeyError as exc:
            raise StoreFormatError(
                f"{path}: has no root attribute nside_full or super_pixel_size of numbers, so it "
                "is no pixel store"
            ) from exc
        try:
            return cls(_as_shape(nside), _as_integer(size, "super_pixel_size"))
        except LayoutError as exc:
            raise StoreFormatError(
                f"{path}: root attributes nside_full={nside!r}, super_pixel_size={size!r} "
                f"make no sense: {exc}"
            ) from exc

    def attributes(self) -> dict[str, npt.NDArray[np.int64] | np.int64]:
        """Return the root attributes of a file: both sides, of which forcepho reads one or two."""
        nside = np.array(self.shape, np.int64)
        return {"nside_full": nside, "super_pixel_size": np.int64(self.size)}

    def refuse_conflict(self, path: object, nside_full: Any, super_pixel_size: Any) -> None:
        """Refuse arguments that differ from what the store holds; None was not given."""
        nx, ny = self.shape
        if nside_full is not None and _as_shape(nside_full) != self.shape:
            raise StoreConflictError(
                f"{path}: holds images of {nx} x {ny} pixels, but nside_full={nside_full!r} was "
                "asked for; leave nside_full out or use another file"
            )
        if super_pixel_size is not None and super_pixel_size != self.size:
            raise StoreConflictError(
                f"{path}: holds super-pixels of {self.size} pixels a side, but super_pixel_size="
                f"{super_pixel_size!r} was asked for; leave it out or use another file"
            )


class ImageGrid:
    """Geometry as forcepho's `PixelStore` offers it: attributes and methods of its names.

    Parameters
    ----------
    geometry : Geometry
        Of every image.
    pix_dtype : numpy.dtype
        Of super-pixels.
    """

    def __init__(self, geometry: Geometry, pix_dtype: np.dtype[Any]) -> None:
        self._geometry = geometry
        self.pix_dtype = pix_dtype

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels of every image along x and y."""
        return self._geometry.shape

    @property
    def super_pixel_size(self) -> int:
        """Pixels along each side of a super-pixel."""
        return self._geometry.size

    @property
    def nside_full(self) -> int | npt.NDArray[np.int64]:
        """Pixels along each side of an image, or along x and y when they differ."""
        return _side_or_sides(self.shape)

    @property
    def nside_super(self) -> int | npt.NDArray[np.int64]:
        """Super-pixels along each side of an image, or along x and y when they differ."""
        return _side_or_sides(self._geometry.grid)

    @property
    def xpix(self) -> npt.NDArray[np.signedinteger[Any]]:
        """Zero-based x of every pixel, in super-pixel order, ``(nsx, nsy, size**2)``."""
        return self._coordinates[0]

    @property
    def ypix(self) -> npt.NDArray[np.signedinteger[Any]]:
        """Zero-based y of every pixel, in super-pixel order, ``(nsx, nsy, size**2)``."""
        return self._coordinates[1]

    @functools.cached_property
    def _coordinates(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        return self.pixel_coordinates()

    def pixel_coordinates(
        self, imsize: Sequence[int] | None = None
    ) -> tuple[npt.NDArray[np.signedinteger[Any]], npt.NDArray[np.signedinteger[Any]]]:
        """Give the coordinates of every pixel: `fpgpu.superpixels.pixel_coordinates`.

        Parameters
        ----------
        imsize : (int, int), optional
            Pixels along x and y, if not those of the store's images.

        Returns
        -------
        xpix, ypix : ndarray of int16 or int32, shape (nsx, nsy, size**2)
            Zero-based pixel coordinates in super-pixel order.
        """
        shape = self.shape if imsize is None else imsize
        return superpixels.pixel_coordinates(shape, self.super_pixel_size)

    def superpixel_corners(self, imsize: Sequence[int] | None = None) -> npt.NDArray[np.int64]:
        """Give the corner pixels of every super-pixel: `fpgpu.superpixels.superpixel_corners`.

        Parameters
        ----------
        imsize : (int, int), optional
            Pixels along x and y, if not those of the store's images.

        Returns
        -------
        corners : ndarray of int64, shape (nsx, nsy, 4, 2)
            Zero-based (x, y) of lower left, lower right, upper right, upper left.
        """
        shape = self.shape if imsize is None else imsize
        return superpixels.superpixel_corners(shape, self.super_pixel_size)

    def superpixelize(
        self,
        im: npt.ArrayLike,
        ierr: npt.ArrayLike,
        pix_dtype: npt.DTypeLike | None = None,
        *,
        backend: Backend | None = None,
    ) -> npt.NDArray[Any]:
        """Put an image in super-pixel order: `fpgpu.superpixels.superpixelize`.

        Parameters
        ----------
        im, ierr : array_like, shape (nx, ny)
            Fluxes and inverse uncertainties ``[x, y]``.
        pix_dtype : dtype, optional
            Of the result, if not that of the store.
        backend : Backend, optional
            Where to do it, with the same bits; NumPy by default.

        Returns
        -------
        superpixels : ndarray, shape (nsx, nsy, 2 * size**2)
            Fluxes, then inverse uncertainties.
        """
        dtype = self.pix_dtype if pix_dtype is None else pix_dtype
        return superpixelize_on(backend, im, ierr, self.super_pixel_size, dtype)


def _as_shape(nside: Any) -> tuple[int, int]:
    """Return pixels along x and y from one side or both."""
    sides = np.atleast_1d(np.asarray(nside))
    if sides.ndim != 1 or sides.size not in {1, 2}:
        raise LayoutError(f"nside_full must be one integer or two (x, y), not {nside!r}")
    first, *rest = (_as_integer(side, "nside_full") for side in sides)
    return first, rest[0] if rest else first


def _as_integer(value: Any, name: str) -> int:
    """Return an integer from a Python or NumPy number, or an array of one."""
    array = np.asarray(value)
    number = array.item() if array.size == 1 and array.dtype.kind in "iuf" else math.nan
    if not math.isfinite(number) or number != int(number):
        raise LayoutError(f"{name} must be an integer, not {value!r}")
    return int(number)


def _side_or_sides(sides: tuple[int, int]) -> int | npt.NDArray[np.int64]:
    """Return one number for a square, as forcepho does, and both otherwise."""
    return sides[0] if sides[0] == sides[1] else np.array(sides, np.int64)
