"""How far two WCSs of one image are apart, and where most."""

from typing import NamedTuple

import numpy as np

from fpgpu.sky.sphere import Floats, tangent_basis, tangent_coordinates, unit_vectors
from fpgpu.sky.wcs import SkyWCS

__all__ = ["Disagreement", "disagreement"]


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


def disagreement(a: SkyWCS, b: SkyWCS, shape: tuple[int, int]) -> Disagreement:
    """Compare two WCSs of one image over its whole detector.

    Parameters
    ----------
    a, b : SkyWCS
        The difference is expressed in pixels of the first.
    shape : tuple of int
        (nx, ny) of the image.

    Returns
    -------
    Disagreement
        The worst of a grid of 17 x 17 points from edge to edge.
    """
    sides = (np.linspace(-0.5, n - 0.5, 17) for n in shape)
    x, y = (side.ravel() for side in np.meshgrid(*sides))
    # With the next pixels along x and along y: each call of a gWCS takes long.
    ra, dec = a.pixel_to_world([x, x + 1, x], [y, y, y + 1])
    sky_a, sky_b = (ra[0], dec[0]), b.pixel_to_world(x, y)
    centre = unit_vectors(*sky_a)
    basis = tangent_basis(centre)

    def plane(sky: tuple[Floats, Floats]) -> Floats:
        return np.stack(tangent_coordinates(unit_vectors(*sky), centre, basis))

    # Through the local Jacobian rather than b's inverse: finite however far the two are apart.
    along_x, along_y = plane((ra[1], dec[1])), plane((ra[2], dec[2]))
    offset = plane(sky_b)
    area = along_x[0] * along_y[1] - along_x[1] * along_y[0]
    dx = (offset[0] * along_y[1] - offset[1] * along_y[0]) / area
    dy = (along_x[0] * offset[1] - along_x[1] * offset[0]) / area
    pixels = np.where(np.isfinite(dx + dy), np.hypot(dx, dy), np.inf)
    k = int(np.argmax(pixels))
    return Disagreement(
        float(pixels[k]),
        (float(x[k]), float(y[k])),
        (float(sky_a[0][k]), float(sky_a[1][k])),
        (float(sky_b[0][k]), float(sky_b[1][k])),
        float(np.median(pixels)),
    )
