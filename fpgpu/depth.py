"""How deep exposures are: limiting magnitudes, from a sample of their weights."""

import numpy as np
import numpy.typing as npt

from fpgpu.errors import PlanError
from fpgpu.stores.pixel import PixelStore
from fpgpu.superpixels import grid_shape

__all__ = ["APERTURE_RADIUS", "aperture_ivar", "limiting_magnitude"]

APERTURE_RADIUS = 0.15
"""Of the circle that a limiting magnitude is told for, arcsec."""

_SAMPLES = 8
"""Super-pixels along each side that an exposure's weight is taken from."""

_NANOJANSKY_ZERO_POINT = 31.4


def aperture_ivar(pixels: PixelStore, key: tuple[str, str], area: float) -> float:
    """Tell the inverse variance of the flux in an aperture, as if noise were independent."""
    units = pixels.record(*key).flux_units
    if units != "nJy":
        raise PlanError(
            f"{key[0]}/{key[1]}: its fluxes are in {units!r}; a limiting magnitude needs nJy; draw"
            " the number of exposures instead"
        )
    nx, ny = pixels.shape
    grid = grid_shape(pixels.shape, pixels.super_pixel_size)
    steps = [np.unique(((np.arange(_SAMPLES) + 0.5) * n / _SAMPLES).astype(int)) for n in grid]
    places = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 2)
    ierr = pixels.read_superpixels(*key, places)[:, pixels.super_pixel_size**2 :]
    per_pixel = float(np.mean(ierr.astype(np.float64) ** 2))
    return per_pixel * (area / (nx * ny)) / (np.pi * APERTURE_RADIUS**2)


def limiting_magnitude(ivar: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Give the magnitude of five standard deviations.

    Parameters
    ----------
    ivar : array_like of float
        Inverse variances of a flux, 1/nJy^2.

    Returns
    -------
    ndarray of float64
        AB magnitudes; NaN where there is no weight.

    Examples
    --------
    >>> float(limiting_magnitude(0.25).round(2))
    28.9
    """
    weight = np.asarray(ivar, np.float64)
    with np.errstate(divide="ignore"):
        depth = _NANOJANSKY_ZERO_POINT - 2.5 * np.log10(5.0 / np.sqrt(weight))
    return np.where(weight > 0, depth, np.nan)
