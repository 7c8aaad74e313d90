"""Super-pixel geometry: the order in which forcepho and its kernels keep an image's pixels.

A super-pixel is a square block of `size` by `size` pixels. Super-pixel ``[i, j]`` holds the pixels
``[i * size : (i + 1) * size, j * size : (j + 1) * size]`` of an image ``[x, y]``, first all fluxes
and then all inverse uncertainties, each in C order (y runs fastest).
"""

from collections.abc import Iterable, Sequence
from operator import index
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fpgpu.errors import LayoutError
from fpgpu.tiling import (
    Tile,
    blocks_of,
    pixels_of,
    split_into_tiles,
    work_through,
    write_superpixels,
    x_runs_fastest,
)

__all__ = [
    "SUPER_PIXEL_SIZE",
    "Window",
    "empty_superpixels",
    "grid_shape",
    "images_from_superpixels",
    "pixel_coordinates",
    "superpixel_corners",
    "superpixelize",
]

SUPER_PIXEL_SIZE = 8
"""Pixels along each side of a super-pixel, unless a store says otherwise."""

# Corner pixels in units of (size - 1), in the order forcepho lists them.
_CORNERS = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])


class Window(NamedTuple):
    """A rectangle of super-pixels.

    Attributes
    ----------
    x0, x1, y0, y1 : int
        Half-open index bounds: ``x0 <= i < x1``, ``y0 <= j < y1``.
    """

    x0: int
    x1: int
    y0: int
    y1: int

    @classmethod
    def of(cls, bounds: Sequence[int]) -> "Window":
        """Make a window of four bounds.

        Parameters
        ----------
        bounds : Window or sequence of four int
            ``(x0, x1, y0, y1)``.

        Returns
        -------
        window : Window
            The same bounds, not yet checked.

        Raises
        ------
        LayoutError
            If there are not four.
        """
        try:
            return cls(*bounds)
        except TypeError:
            raise LayoutError(f"window is {bounds!r}; expected bounds (x0, x1, y0, y1)") from None

    @property
    def shape(self) -> tuple[int, int]:
        """Number of super-pixels along x and y."""
        return self.x1 - self.x0, self.y1 - self.y0

    @property
    def slices(self) -> tuple[slice, slice]:
        """What selects the window from an array whose first axes are super-pixel indices."""
        return slice(self.x0, self.x1), slice(self.y0, self.y1)

    def checked(self, grid: Sequence[int]) -> "Window":
        """Return the window with plain integer bounds, if it lies in a grid of super-pixels.

        Parameters
        ----------
        grid : (int, int)
            Number of super-pixels along x and y.

        Returns
        -------
        window : Window
            Its bounds are Python integers. It may be empty.

        Raises
        ------
        LayoutError
            If a bound is no integer, the bounds are reversed, or they leave the grid.
        """
        try:
            window = Window(*(index(bound) for bound in self))
        except TypeError:
            raise LayoutError(
                f"{self} must have integers (super-pixel indices) as bounds"
            ) from None
        nx, ny = grid
        if not (0 <= window.x0 <= window.x1 <= nx and 0 <= window.y0 <= window.y1 <= ny):
            raise LayoutError(
                f"{window} does not lie in a grid of {nx} x {ny} super-pixels; "
                f"expected 0 <= x0 <= x1 <= {nx} and 0 <= y0 <= y1 <= {ny}"
            )
        return window


def grid_shape(shape: Sequence[int], size: int = SUPER_PIXEL_SIZE) -> tuple[int, int]:
    """Count the super-pixels along each axis of an image.

    Parameters
    ----------
    shape : (int, int)
        Pixels of the image along x and y.
    size : int
        Pixels along each side of a super-pixel.

    Returns
    -------
    grid : (int, int)
        Super-pixels along x and y.

    Raises
    ------
    LayoutError
        If the image is not two-dimensional, is empty, or is no whole number of super-pixels.
    """
    if size < 1:
        raise LayoutError(f"the super-pixel size must be at least 1, not {size}")
    if np.shape(shape) != (2,):
        raise LayoutError(f"expected an image with axes (x, y), found shape {shape}")
    nx, ny = (index(side) for side in shape)
    if nx < 1 or ny < 1:
        raise LayoutError(f"an image of {nx} x {ny} pixels has no pixels")
    if nx % size or ny % size:
        wider = tuple(-(-side // size) * size for side in (nx, ny))
        raise LayoutError(
            f"an image of {nx} x {ny} pixels is no whole number of {size} x {size} super-pixels; "
            f"pad it to {wider[0]} x {wider[1]} with pixels of zero inverse uncertainty"
        )
    return nx // size, ny // size


def superpixelize(
    im: npt.ArrayLike,
    ierr: npt.ArrayLike,
    size: int = SUPER_PIXEL_SIZE,
    dtype: npt.DTypeLike = np.float32,
    out: npt.NDArray[Any] | None = None,
) -> npt.NDArray[Any]:
    """Put an image and its inverse uncertainties in super-pixel order.

    Values are only moved, and converted to `dtype` as an assignment would.

    Parameters
    ----------
    im : array_like, shape (nx, ny), real
        Fluxes ``[x, y]``; any unit, byte order and memory layout.
    ierr : array_like, shape (nx, ny), real
        Inverse uncertainties ``[x, y]``, in the inverse unit.
    size : int
        Pixels along each side of a super-pixel.
    dtype : dtype, optional
        Of the result; ignored if `out` is given.
    out : ndarray, shape (nx // size, ny // size, 2 * size**2), optional
        Where to put the result; C-contiguous.

    Returns
    -------
    superpixels : ndarray, shape (nx // size, ny // size, 2 * size**2)
        Fluxes, then inverse uncertainties, of each super-pixel ``[i, j]``.

    Raises
    ------
    LayoutError
        If the images or `out` have an unfit shape or dtype.
    """
    images = [as_image("im", im), as_image("ierr", ierr)]
    grid = grid_shape(images[0].shape, size)
    if images[1].shape != images[0].shape:
        raise LayoutError(f"ierr has shape {images[1].shape}, but im has {images[0].shape}")
    superpixels = empty_superpixels(grid, size, dtype, out)
    tiles = split_into_tiles(grid, size, x_runs_fastest(images[0]))

    def rearrange(share: Iterable[Tile]) -> None:
        # A value too large for `dtype` becomes infinite, as the caller can see in the result.
        with np.errstate(over="ignore", invalid="ignore"):
            for tile in share:
                im_part, ierr_part = (image[pixels_of(tile, size)] for image in images)
                write_superpixels(im_part, ierr_part, size, superpixels[tile])

    work_through(rearrange, tiles, images[0].size)
    return superpixels


def images_from_superpixels(
    superpixels: npt.NDArray[Any], size: int = SUPER_PIXEL_SIZE
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Undo `superpixelize`.

    Parameters
    ----------
    superpixels : ndarray, shape (nsx, nsy, 2 * size**2)
        Fluxes, then inverse uncertainties, of each super-pixel ``[i, j]``.
    size : int
        Pixels along each side of a super-pixel.

    Returns
    -------
    im, ierr : ndarray, shape (nsx * size, nsy * size)
        Fluxes and inverse uncertainties ``[x, y]``, of the same dtype, C-contiguous.

    Raises
    ------
    LayoutError
        If the array does not hold super-pixels of this size.
    """
    if superpixels.ndim != 3 or superpixels.shape[2] != 2 * size**2:
        raise LayoutError(
            f"expected super-pixels of shape (nsx, nsy, {2 * size**2}) for size {size}, "
            f"found {superpixels.shape}"
        )
    nsx, nsy, _ = superpixels.shape
    im, ierr = np.empty((2, nsx * size, nsy * size), superpixels.dtype)
    planes = superpixels.reshape(nsx, nsy, 2, size, size)
    blocks_of(im, size)[...] = planes[:, :, 0]
    blocks_of(ierr, size)[...] = planes[:, :, 1]
    return im, ierr


def pixel_coordinates(
    shape: Sequence[int], size: int = SUPER_PIXEL_SIZE
) -> tuple[npt.NDArray[np.signedinteger[Any]], npt.NDArray[np.signedinteger[Any]]]:
    """Give the coordinates of every pixel of an image, in super-pixel order.

    Parameters
    ----------
    shape : (int, int)
        Pixels of the image along x and y.
    size : int
        Pixels along each side of a super-pixel.

    Returns
    -------
    xpix, ypix : ndarray, shape (nx // size, ny // size, size**2)
        Zero-based pixel coordinates. Their dtype is int16, as in forcepho, or int32 if a side is
        longer than 32768 pixels.

    Raises
    ------
    LayoutError
        If the image is no whole number of super-pixels.
    """
    nsx, nsy = grid_shape(shape, size)
    dtype = np.int16 if size * max(nsx, nsy) - 1 <= np.iinfo(np.int16).max else np.int32
    xpix, ypix = np.empty((2, nsx, nsy, size, size), dtype)
    xpix[...] = np.arange(nsx * size).reshape(nsx, 1, size, 1)
    ypix[...] = np.arange(nsy * size).reshape(1, nsy, 1, size)
    return xpix.reshape(nsx, nsy, size**2), ypix.reshape(nsx, nsy, size**2)


def superpixel_corners(shape: Sequence[int], size: int = SUPER_PIXEL_SIZE) -> npt.NDArray[np.int64]:
    """Give the corner pixels of every super-pixel of an image.

    Parameters
    ----------
    shape : (int, int)
        Pixels of the image along x and y.
    size : int
        Pixels along each side of a super-pixel.

    Returns
    -------
    corners : ndarray of int64, shape (nx // size, ny // size, 4, 2)
        Zero-based coordinates (x, y) of the pixels at the corners: lower left (smallest x and y),
        lower right (largest x), upper right, upper left.

    Raises
    ------
    LayoutError
        If the image is no whole number of super-pixels.
    """
    nsx, nsy = grid_shape(shape, size)
    corners = np.empty((nsx, nsy, 4, 2), np.int64)
    corners[...] = _CORNERS * (size - 1)
    corners[..., 0] += size * np.arange(nsx)[:, None, None]
    corners[..., 1] += size * np.arange(nsy)[:, None]
    return corners


def empty_superpixels(
    grid: tuple[int, int], size: int, dtype: npt.DTypeLike, out: npt.NDArray[Any] | None = None
) -> npt.NDArray[Any]:
    """Return `out` if it can hold the super-pixels of a grid, or a new array if there is none.

    Parameters
    ----------
    grid : (int, int)
        Super-pixels along x and y.
    size : int
        Pixels along each side of a super-pixel.
    dtype : dtype
        Of a new array.
    out : ndarray, optional
        Where the caller wants them.

    Returns
    -------
    superpixels : ndarray, shape (nsx, nsy, 2 * size**2)
        C-contiguous; a new one is uninitialised.

    Raises
    ------
    LayoutError
        If `out` has another shape, holds no real numbers, or is not C-contiguous and writeable.
    """
    shape = (*grid, 2 * size**2)
    if out is None:
        return np.empty(shape, dtype)
    if out.shape != shape:
        raise LayoutError(f"out has shape {out.shape}; these super-pixels need {shape}")
    if out.dtype.kind not in "iuf":
        raise LayoutError(f"out has dtype {out.dtype}; expected real numbers")
    if not out.flags.c_contiguous or not out.flags.writeable:
        raise LayoutError("out must be C-contiguous and writeable")
    return out


def as_image(
    name: str, values: npt.ArrayLike, kinds: str = "iuf", expected: str = "real numbers"
) -> npt.NDArray[Any]:
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
