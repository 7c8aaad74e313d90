"""How far two WCSs of one image are apart, and where most."""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fpgpu.sky.inverse import newton_step
from fpgpu.sky.sphere import Floats, positions, unit_vectors

__all__ = ["Disagreement", "disagreement"]


class _WCS(Protocol):
    def pixel_to_world(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Floats, Floats]: ...


class Disagreement(NamedTuple):
    """Where two WCSs of one image differ most.

    Attributes
    ----------
    max_pixels : float
        Largest difference, in pixels; infinite where one of the two gives no position.
    pixel : tuple of float
        Zero-based (x, y) where it occurs.
    position_a, position_b : tuple of float
        Right ascension and declination of that pixel by the first and by the second, degrees.
    median_pixels : float
        Median difference, in pixels.
    """

    max_pixels: float
    pixel: tuple[float, float]
    position_a: tuple[float, float]
    position_b: tuple[float, float]
    median_pixels: float


def disagreement(a: _WCS, b: _WCS, shape: tuple[int, int], per_side: int = 17) -> Disagreement:
    """Compare two WCSs of one image over its whole detector.

    Parameters
    ----------
    a, b : SkyWCS or SipFit
        The difference is expressed in pixels of the first, which is asked three times as often.
    shape : tuple of int
        (nx, ny) of the image.
    per_side : int, optional
        Points along each side, from edge to edge.

    Returns
    -------
    Disagreement
        The worst of the points.
    """
    sides = (np.linspace(-0.5, n - 0.5, per_side) for n in shape)
    x, y = (side.ravel() for side in np.meshgrid(*sides))
    ra, dec = b.pixel_to_world(x, y)
    # By a's local scale rather than b's inverse: finite however far the two are apart.
    step, here = newton_step(a.pixel_to_world, x, y, unit_vectors(ra, dec))
    pixels = np.where(np.isfinite(step).all(axis=0), np.hypot(*step), np.inf)
    k = int(np.argmax(pixels))
    own_ra, own_dec = positions(here[k])
    return Disagreement(
        float(pixels[k]),
        (float(x[k]), float(y[k])),
        (float(own_ra), float(own_dec)),
        (float(ra[k]), float(dec[k])),
        float(np.median(pixels)),
    )
