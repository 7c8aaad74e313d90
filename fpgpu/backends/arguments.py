"""What operations are given: planes of exposures, staged super-pixels, pixels of a patch."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fpgpu.backends.checks import Owner, require_array, require_count, require_indices
from fpgpu.backends.memory import Array
from fpgpu.errors import KernelLaunchError, LayoutError, UnusableExposureError
from fpgpu.layout import ImageFlag
from fpgpu.superpixels import grid_shape

__all__ = [
    "Clock",
    "ExposurePlanes",
    "PatchPixels",
    "PlaneGeometry",
    "Read",
    "StagedExposure",
    "check_pixels",
    "check_planes",
    "check_staged",
    "mask_bits",
    "refuse_overflow",
    "untimed",
]

Read = Callable[[int, int, npt.NDArray[np.float32]], object]
"""``read(start, stop, to)`` puts super-pixels ``start:stop`` into host memory of their shape."""

Clock = Callable[[str], AbstractContextManager[None]]
"""``with clock(phase):`` around the work of a phase."""


def untimed(phase: str) -> AbstractContextManager[None]:
    """Take no time: what everything is done with unless a clock is asked for."""
    return nullcontext()


_PIXEL = np.dtype(np.float32)
_MOST_PIXELS = 2**32 - 2  # of an image: its pixels are numbered in 32 bits, one number is taken


@dataclass(frozen=True)
class ExposurePlanes:
    """One exposure for `calibrate`: planes of the backend, all of one shape.

    Parameters
    ----------
    image : array of float32
        Image, in any unit.
    error : array of float32
        Inverse uncertainties, in the inverse unit of the image.
    mask : array of bool or integers of 1, 2 or 4 bytes, optional
        Flags.
    background, area : array of float32, optional
        Background to subtract; area of each pixel relative to that in the factor.
    factor : float, optional
        Flux per unit of the image.
    """

    image: Array
    error: Array
    mask: Array | None = None
    background: Array | None = None
    area: Array | None = None
    factor: float = 1.0


@dataclass(slots=True)  # a patch makes one an exposure: a frozen one takes three times as long
class StagedExposure:
    """One exposure for `unpack`.

    Parameters
    ----------
    superpixels : array of float32 or None
        Shape (count, 2 * size**2): the wanted super-pixels in order; or shape
        (nsx, nsy, 2 * size**2): the whole exposure, of which `places` picks. None: they are yet to
        be read.
    count : int
        Number of its super-pixels in the patch.
    background : float, optional
        Subtracted from every flux, in the store's unit.
    grid : (int, int), optional
        Super-pixels of the exposure along x and y, for checking `places` of staged ones.
    """

    superpixels: Array | None
    count: int
    background: float = 0.0
    grid: tuple[int, int] | None = None


class PatchPixels(NamedTuple):
    """The pixel arrays of a patch.

    Attributes
    ----------
    data, ierr, xpix, ypix : array of float32, shape (n_pixels,)
        Flux, inverse uncertainty, and zero-based pixel coordinates.
    """

    data: Array
    ierr: Array
    xpix: Array
    ypix: Array


class PlaneGeometry(NamedTuple):
    """Planes as a kernel walks through them.

    Attributes
    ----------
    n_exp : int
        Exposures.
    along, across : int
        Pixels of a plane along its contiguous axis, and along the other.
    grid : (int, int)
        Super-pixels along x and y.
    """

    n_exp: int
    along: int
    across: int
    grid: tuple[int, int]

    @classmethod
    def of(cls, shape: Sequence[int], size: int, flags: ImageFlag) -> "PlaneGeometry":
        """Work it out from the shape of an image or a stack of images.

        Parameters
        ----------
        shape : sequence of int
            (nx, ny) or (n_exp, nx, ny); the last two are swapped with ``FITS_ORDER``.
        size : int
            Pixels along each side of a super-pixel.
        flags : ImageFlag
            How the planes are stored.

        Returns
        -------
        PlaneGeometry
            The numbers.

        Raises
        ------
        LayoutError
            When the image is no whole number of super-pixels.
        KernelLaunchError
            When it has too many pixels.
        """
        across, along = shape[-2:]
        image = (along, across) if flags & ImageFlag.FITS_ORDER else (across, along)
        grid = grid_shape(image, size)
        require_count("pixels in an image", along * across, _MOST_PIXELS, "a 32-bit pixel number")
        return cls(shape[0] if len(shape) == 3 else 1, along, across, grid)


def check_planes(owner: Owner, exposures: Sequence[ExposurePlanes]) -> dict[str, Array]:
    """Check every plane and the factor of every exposure."""
    if not exposures:
        raise LayoutError("no exposure was given to calibrate")
    shape: tuple[int | None, ...] = getattr(exposures[0].image, "shape", ())
    if len(shape) != 2:
        shape = (None, None)
    planes = {}
    for k, exposure in enumerate(exposures):
        for name in ("image", "error", "mask", "background", "area"):
            plane = getattr(exposure, name)
            if plane is not None:
                planes[f"{name} {k}"] = plane
                dtypes = _MASKS if name == "mask" else _PIXEL
                require_array(owner, f"{name} {k}", plane, dtypes, shape)
        with np.errstate(over="ignore"):
            pair = np.float32(exposure.factor), np.float32(1 / (exposure.factor or np.inf))
        if not all(0 < value < np.inf for value in pair):
            raise UnusableExposureError(
                f"the flux factor of exposure {k} is {exposure.factor!r}; it and its reciprocal"
                " must be finite and positive in float32"
            )
    return planes


_MASKS = [np.dtype(code) for code in ("?", "u1", "i1", "u2", "i2", "u4", "i4")]


def mask_bits(exposures: Sequence[ExposurePlanes], bitmask: int | None) -> tuple[int, int]:
    """Find how wide the masks are and which of their bits make a pixel bad."""
    dtypes = {exposure.mask.dtype for exposure in exposures if exposure.mask is not None}
    if len(dtypes) > 1:
        found = ", ".join(sorted(map(str, dtypes)))
        raise LayoutError(f"the masks have dtypes {found}; those of one call must be of one dtype")
    dtype = dtypes.pop() if dtypes else np.dtype(np.bool_)
    every = (1 << 8 * dtype.itemsize) - 1
    return dtype.itemsize, bitmask & every if bitmask and dtype.kind != "b" else every


def refuse_overflow(counts: npt.NDArray[Any], ny: int) -> None:
    """Raise if a value is not finite after calibration."""
    for k, row in enumerate(counts):
        if row["overflowed"]:
            x, y = divmod(int(row["first_overflow"]), ny)
            raise UnusableExposureError(
                f"{row['overflowed']} pixels of exposure {k} leave the range of float32 when"
                f" calibrated, the first at [x, y] = [{x}, {y}]; check the flux factor, background"
                " and area map"
            )


def check_staged(
    owner: Owner, exposures: Sequence[StagedExposure], places: npt.NDArray[np.int32], size: int
) -> dict[str, Array]:
    """Check the super-pixels of every exposure and the places picked from it."""
    # Pixel coordinates are float32, which holds whole numbers exactly below 2**24.
    require_indices("places", places, (sum(e.count for e in exposures), 2), 2**24 // size)
    grids = {_grid_of(exposure) for exposure in exposures}
    # As a rule all are of one size and every place is inside: then there is one look at them.
    is_settled = grids <= {None} or (None not in grids and _are_inside(places, grids))
    arrays, start = {}, 0
    for k, exposure in enumerate(exposures):
        require_count(f"super-pixels of exposure {k}", exposure.count, 2**31 - 1, "int32")
        if (array := exposure.superpixels) is not None:
            whole = len(getattr(array, "shape", ())) == 3
            shape = (None, None) if whole else (exposure.count,)
            name = f"superpixels of exposure {k}"
            require_array(owner, name, array, _PIXEL, (*shape, 2 * size * size))
            arrays[name] = array
        grid = None if is_settled else _grid_of(exposure)
        if grid is not None:
            mine = places[start : start + exposure.count]
            require_indices(f"places of exposure {k}, ", mine, (None, 2), grid)
        start += exposure.count
    return arrays


def _grid_of(exposure: StagedExposure) -> tuple[int, int] | None:
    """Super-pixels of an exposure along x and y, where they are known."""
    shape: tuple[int, ...] = getattr(exposure.superpixels, "shape", ())
    return (shape[0], shape[1]) if len(shape) == 3 else exposure.grid


def _are_inside(places: npt.NDArray[np.int32], grids: set[tuple[int, int] | None]) -> bool:
    """Whether all places, none of them negative, are inside all grids."""
    smallest = [min(sides) for sides in zip(*(grid for grid in grids if grid), strict=True)]
    if not len(places) or places.max() < min(smallest):
        return True
    return all(column.max() < side for column, side in zip(places.T, smallest, strict=True))


def check_pixels(owner: Owner, out: PatchPixels, n: int, size: int, max_snr: float) -> None:
    """Check the pixel arrays that super-pixels are unpacked into, and the cap of their errors."""
    if not (np.isfinite(max_snr) and max_snr >= 0):
        raise KernelLaunchError(f"max_snr is {max_snr}; it must be finite and not negative")
    n_pixels = n * size * size
    require_count("pixels in the patch", n_pixels, 2**31 - 1, "int32 exposure_start")
    for name, array in out._asdict().items():
        require_array(owner, name, array, _PIXEL, (n_pixels,), output=True)
