"""From the sky to pixels, for any map from pixels to the sky.

Distorted WCSs have no closed inverse, and the inverse polynomials that come with many of them are
approximations (those of JWST's gWCSs miss by up to 0.03 px). Newton's method on the forward map
is exact, needs a handful of evaluations, and works on all positions at once.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fpgpu.errors import WCSError
from fpgpu.sky.sphere import Floats, tangent_basis, tangent_coordinates, unit_vectors

__all__ = ["ForwardMap", "Linearisation", "invert", "linearise", "newton_step"]

ForwardMap = Callable[[Floats, Floats], tuple[Floats, Floats]]
"""Pixels (x, y) to (ra, dec) in degrees; arrays of one shape."""

_MAX_STEPS = 25
# One more step after this one would change nothing that float64 degrees can express.
_CONVERGED = 1e-5


class Linearisation(NamedTuple):
    """A tangent plane near the detector, and pixels as a linear function of it.

    Attributes
    ----------
    centre : ndarray of float64, shape (3,)
        Unit vector of the tangent point.
    matrix : ndarray of float64, shape (2, 3)
        Pixel x and y from (1, xi, eta), in pixels per radian.
    """

    centre: Floats
    matrix: Floats


def linearise(forward: ForwardMap, domain: tuple[float, float, float, float]) -> Linearisation:
    """Fit a linear approximation of the inverse over a part of the detector."""
    x0, x1, y0, y1 = domain
    x, y = (side.ravel() for side in np.meshgrid(np.linspace(x0, x1, 5), np.linspace(y0, y1, 5)))
    vectors = unit_vectors(*forward(x, y))
    centre = vectors.mean(axis=0)
    centre = centre / np.linalg.norm(centre)
    plane = np.stack([np.ones_like(x), *tangent_coordinates(vectors, centre)], axis=-1)
    if not np.all(np.isfinite(plane)):
        raise WCSError(
            f"the WCS gives no usable positions on the sky for pixels x {x0:g} to {x1:g}, "
            f"y {y0:g} to {y1:g}; expected finite ones within one hemisphere"
        )
    # In units of the detector's own extent: the rank is then that of the map, not of its scale.
    extent = np.abs(plane).max(axis=0)
    extent[extent == 0] = 1.0
    matrix, _, rank, _ = np.linalg.lstsq(plane / extent, np.stack([x, y], axis=-1), rcond=1e-9)
    if rank < 3:
        raise WCSError("the WCS maps the whole detector onto a line or a point of the sky")
    return Linearisation(centre, (matrix / extent[:, None]).T)


def invert(
    forward: ForwardMap, ra: npt.ArrayLike, dec: npt.ArrayLike, start: Linearisation
) -> tuple[Floats, Floats]:
    """Find the pixels that a forward map sends to given positions.

    Parameters
    ----------
    forward : callable
        Pixels to sky.
    ra, dec : array_like
        Degrees, shapes that broadcast together.
    start : Linearisation
        From `linearise`.

    Returns
    -------
    x, y : ndarray of float64
        Zero-based pixels, to about 1e-8 px; NaN where the map reaches no such position.
    """
    ra, dec = np.broadcast_arrays(np.asarray(ra, np.float64), np.asarray(dec, np.float64))
    wanted = unit_vectors(ra.ravel(), dec.ravel())
    xi, eta = tangent_coordinates(wanted, start.centre)
    pixels = start.matrix @ np.stack([np.ones_like(xi), xi, eta])
    found = np.full_like(pixels, np.nan)
    active = np.flatnonzero(np.isfinite(pixels).all(axis=0))
    for _ in range(_MAX_STEPS):
        if not active.size:
            break
        step, _ = newton_step(forward, pixels[0, active], pixels[1, active], wanted[active])
        pixels[:, active] += step
        size = np.abs(step).max(axis=0)
        done = active[size < _CONVERGED]
        found[:, done] = pixels[:, done]
        active = active[size >= _CONVERGED]  # drops NaN, too: those have left the map
    x, y = found.reshape(2, *ra.shape)
    return x, y


def newton_step(forward: ForwardMap, x: Floats, y: Floats, wanted: Floats) -> tuple[Floats, Floats]:
    """Change of pixels, shape (2, n), that brings their image towards unit vectors; and the image.

    In the plane that touches the sky there, with what a step of one pixel changes in it.
    """
    xs, ys = np.stack([x, x + 1.0, x]), np.stack([y, y, y + 1.0])
    with np.errstate(all="ignore"):
        here, *beside = unit_vectors(*forward(xs.ravel(), ys.ravel())).reshape(3, -1, 3)
        basis = tangent_basis(here)
        (a, c), (b, d), (u, v) = (
            tangent_coordinates(there, here, basis) for there in (*beside, wanted)
        )
        return np.stack([d * u - b * v, a * v - c * u]) / (a * d - b * c), here
