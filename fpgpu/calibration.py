"""The chain from a detector image to the fluxes that a store keeps.

Background is subtracted, unusable pixels lose their weight, and counts become fluxes, with the
bits that forcepho's NumPy code gives: on whole images (`calibrate_images`), or tile by tile
straight into super-pixel order (`calibrated_superpixels`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from operator import index, itemgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fpgpu.errors import LayoutError, UnusableExposureError
from fpgpu.superpixels import SUPER_PIXEL_SIZE, as_image, empty_superpixels, grid_shape
from fpgpu.tiling import (
    Tile,
    pixels_of,
    split_into_tiles,
    work_through,
    write_superpixels,
    x_runs_fastest,
)

__all__ = ["MaskCounts", "calibrate_images", "calibrated_superpixels"]

Image = npt.NDArray[Any]


@dataclass(frozen=True)
class MaskCounts:
    """How many pixels of an exposure were masked, and why; a pixel can have several causes.

    Attributes
    ----------
    n_pixels : int
        All pixels of the image.
    n_masked : int
        Pixels without weight for any of the causes below.
    n_nonfinite_flux : int
        The background-subtracted image is NaN or infinite.
    n_bad_err : int
        The inverse uncertainty is NaN, infinite or negative.
    n_flagged : int
        The mask says that the pixel is bad.
    n_bad_area : int
        The area map is not a finite positive number.
    """

    n_pixels: int = 0
    n_masked: int = 0
    n_nonfinite_flux: int = 0
    n_bad_err: int = 0
    n_flagged: int = 0
    n_bad_area: int = 0

    def __str__(self) -> str:
        return (
            f"{self.n_masked} of {self.n_pixels} pixels masked: {self.n_nonfinite_flux} with flux "
            f"not finite, {self.n_bad_err} with a bad uncertainty, {self.n_flagged} flagged, "
            f"{self.n_bad_area} with a bad area"
        )

    def __add__(self, other: "MaskCounts") -> "MaskCounts":
        sums = (getattr(self, f.name) + getattr(other, f.name) for f in fields(self))
        return MaskCounts(*sums)


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
        arrays = {"im": as_image("im", im), "ierr": as_image("ierr", ierr)}
        if mask is not None:
            arrays["mask"] = as_image("mask", mask, "biu", "bool or integers")
        if bkg is not None:
            arrays["bkg"] = as_image("bkg", bkg)
        if area is not None:
            arrays["area"] = _as_float32(as_image("area", area))
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
        arrays = self._asdict()
        del arrays["bad_bits"]
        return self._replace(**{n: function(a) for n, a in arrays.items() if a is not None})


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


def _as_float32(image: Image) -> Image:
    """Round to float32 unless it is that already, in either byte order."""
    if image.dtype.kind == "f" and image.itemsize == 4:
        return image
    with np.errstate(over="ignore"):
        return image.astype(np.float32)


def calibrate_images(
    im: npt.ArrayLike,
    ierr: npt.ArrayLike,
    mask: npt.ArrayLike | None = None,
    bkg: npt.ArrayLike | None = None,
    *,
    bitmask: int | None = None,
    factor: float = 1.0,
    area: npt.ArrayLike | None = None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], MaskCounts]:
    """Subtract the background, mask, and convert to flux.

    A pixel is masked when the background-subtracted image or `ierr` is not finite, when `ierr` is
    negative, when the mask says so, or when `area` is not a finite positive number. Its `ierr`
    becomes 0, and its flux that of the background where this is finite, else 0. An `area` that
    masks a pixel counts as 1.

    Images of float32, float16 or integers of up to 16 bits are computed in float32, others in
    float64 and rounded to float32 at the end. The caller's arrays stay as they are.

    Parameters
    ----------
    im : array_like, shape (nx, ny), real
        Image ``[x, y]``, in any unit.
    ierr : array_like, shape (nx, ny), real
        Inverse of its uncertainties, in the inverse unit.
    mask : array_like of bool or integers, shape (nx, ny), optional
        Bad pixels (bool), or flags.
    bkg : array_like, shape (nx, ny), real, optional
        Background to subtract, in the unit of the image.
    bitmask : int, optional
        The bits of `mask` that make a pixel bad. Without it, or with 0, which forcepho takes as
        "not given", any bit does. It does not matter to a boolean mask.
    factor : float
        Flux per unit of the image.
    area : array_like, shape (nx, ny), real, optional
        Area of each pixel, relative to the one in `factor`; rounded to float32.

    Returns
    -------
    im : ndarray of float32, shape (nx, ny)
        Fluxes ``[x, y]``: ``(im - bkg) * factor * area``.
    ierr : ndarray of float32, shape (nx, ny)
        Their inverse uncertainties ``[x, y]``: ``ierr / factor / area``.
    counts : MaskCounts
        How many pixels were masked, and why.

    Raises
    ------
    LayoutError
        If the arrays differ in shape, or have a dtype that makes no sense.
    UnusableExposureError
        If `factor` or any resulting value is out of the range of float32.
    """
    planes = Planes.checked(im, ierr, mask, bkg, area, bitmask)
    flux, weight, counts = _calibrate(planes, _checked_factor(factor), x_runs_fastest(planes.im))
    _refuse([_overflows(flux, weight)])
    return flux, weight, counts


def calibrated_superpixels(
    im: npt.ArrayLike,
    ierr: npt.ArrayLike,
    mask: npt.ArrayLike | None = None,
    bkg: npt.ArrayLike | None = None,
    *,
    bitmask: int | None = None,
    factor: float = 1.0,
    area: npt.ArrayLike | None = None,
    size: int = SUPER_PIXEL_SIZE,
    out: npt.NDArray[np.float32] | None = None,
) -> tuple[npt.NDArray[np.float32], MaskCounts]:
    """Calibrate an exposure as `calibrate_images` does, into super-pixel order.

    Parameters
    ----------
    im, ierr, mask, bkg : array_like, shape (nx, ny)
        Image, inverse uncertainties, flags and background, as in `calibrate_images`.
    bitmask : int, optional
        The bits of `mask` that make a pixel bad.
    factor : float
        Flux per unit of the image.
    area : array_like, shape (nx, ny), optional
        Area of each pixel, relative to the one in `factor`.
    size : int
        Pixels along each side of a super-pixel.
    out : ndarray of float32, shape (nx // size, ny // size, 2 * size**2), optional
        Where to put the result; C-contiguous. Undefined after an error.

    Returns
    -------
    superpixels : ndarray of float32, shape (nx // size, ny // size, 2 * size**2)
        Fluxes, then inverse uncertainties, of each super-pixel ``[i, j]``.
    counts : MaskCounts
        How many pixels were masked, and why.

    Raises
    ------
    LayoutError
        If the arrays differ in shape, are no whole number of super-pixels, or have a dtype that
        makes no sense.
    UnusableExposureError
        If `factor` or any resulting value is out of the range of float32.
    """
    planes = Planes.checked(im, ierr, mask, bkg, area, bitmask)
    grid = grid_shape(planes.im.shape, size)
    scale = _checked_factor(factor)
    if out is not None and out.dtype != np.float32:
        raise LayoutError(f"out has dtype {out.dtype}; expected float32")
    superpixels = empty_superpixels(grid, size, np.float32, out)
    x_fastest = x_runs_fastest(planes.im)
    tiles = split_into_tiles(grid, size, x_fastest)

    def calibrate(share: Iterable[Tile]) -> tuple[MaskCounts, list[Image]]:
        counts, overflows = MaskCounts(), []
        for tile in share:
            pixels = pixels_of(tile, size)
            part = planes.map(itemgetter(pixels))
            flux, weight, tile_counts = _calibrate(part, scale, x_fastest)
            write_superpixels(flux, weight, size, superpixels[tile])
            counts += tile_counts
            overflows.append(_overflows(flux, weight, pixels[0].start, pixels[1].start))
        return counts, overflows

    results = work_through(calibrate, tiles, planes.im.size)
    _refuse([overflow for _, overflows in results for overflow in overflows])
    return superpixels, sum((counts for counts, _ in results), MaskCounts())


def _calibrate(
    planes: Planes, scale: tuple[float, float], x_fastest: bool
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], MaskCounts]:
    """Calibrate images, or a tile of them; `x_fastest` is how they run in memory.

    Most pixels are good, so what is masked is found first and only then looked at one by one.
    """
    if x_fastest:
        planes = planes.map(np.transpose)
    flux = planes.im.astype(working_dtype(planes.im), order="C")
    weight = planes.ierr.astype(working_dtype(planes.ierr), order="C")
    area = None if planes.area is None else planes.area.astype(np.float32, order="C")
    with np.errstate(all="ignore"):
        if planes.bkg is not None:
            np.subtract(flux, planes.bkg, out=flux, casting="same_kind")
        good = np.isfinite(flux)
        good &= np.isfinite(weight)
        good &= weight >= 0
        if planes.flags is not None:
            good &= (planes.flags & planes.bad_bits) == 0
        if area is not None:
            good &= np.isfinite(area)
            good &= area > 0

        # Along one axis zeros are looked for much faster.
        masked = np.unravel_index(np.flatnonzero(~good), good.shape)
        n_flagged = n_bad_area = 0
        n_bad_flux = _count(~np.isfinite(flux[masked]))
        n_bad_err = _count(~(np.isfinite(weight[masked]) & (weight[masked] >= 0)))
        if planes.flags is not None:
            n_flagged = _count(planes.flags[masked] & planes.bad_bits)
        if area is not None:
            bad_area = ~(np.isfinite(area[masked]) & (area[masked] > 0))
            n_bad_area = _count(bad_area)
            area[masked] = np.where(bad_area, 1, area[masked])

        weight[masked] = 0
        flux[masked] = 0
        if planes.bkg is not None:
            background = planes.bkg[masked]
            flux[masked] = np.where(np.isfinite(background), background, 0)
        flux *= flux.dtype.type(scale[0])
        weight *= weight.dtype.type(scale[1])
        if area is not None:
            flux *= area
            weight /= area
        flux, weight = flux.astype(np.float32, copy=False), weight.astype(np.float32, copy=False)
    counts = MaskCounts(flux.size, masked[0].size, n_bad_flux, n_bad_err, n_flagged, n_bad_area)
    return (flux.T, weight.T, counts) if x_fastest else (flux, weight, counts)


def _count(condition: npt.NDArray[Any]) -> int:
    """Count non-zero elements, as a plain integer."""
    return int(np.count_nonzero(condition))


def _checked_factor(factor: float) -> tuple[float, float]:
    """Return the factor for fluxes and its reciprocal for inverse uncertainties."""
    with np.errstate(all="ignore"):
        usable = factor > 0 and all(0 < np.float32(f) < np.inf for f in (factor, 1 / factor))
    if not usable:
        raise UnusableExposureError(
            f"a flux factor of {factor!r} cannot be used: it and its reciprocal must be finite "
            "and positive in float32; check ABMAG or PIXAR_SR in the header"
        )
    return factor, 1 / factor


def _overflows(flux: Image, weight: Image, x0: int = 0, y0: int = 0) -> Image:
    """Find the pixels (x, y) out of the range of float32, of a tile that begins at (x0, y0)."""
    finite = np.isfinite(flux)
    finite &= np.isfinite(weight)
    places = np.empty((0, 2), int) if finite.all() else np.argwhere(~finite)
    return np.add(places, (x0, y0))


def _refuse(overflows: Sequence[Image]) -> None:
    """Raise if any pixel is not finite after calibration."""
    found = np.concatenate(overflows)
    if len(found):
        x, y = min(found.tolist())
        raise UnusableExposureError(
            f"{len(found)} pixels leave the range of float32 when calibrated, the first at "
            f"[x, y] = [{x}, {y}]; check the flux factor, background and area map"
        )
