"""Gaussians on a detector: what they put into pixels, and how that changes with their parameters.

A Gaussian is averaged over each pixel to second order: with the offset ``d`` of the pixel's centre,
the inverse covariance ``F`` and ``v = F d``,

    counts * sqrt(det F) / 2 pi * exp(-d.v / 2) * (1 + (v.v - tr F) / 24),

as the mean of a function over a unit square is the function plus 1/24 of its Laplacian. Where the
exponent's argument ``d.v`` is above `MAX_EXP_ARG` the Gaussian counts as zero.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fpgpu.layout import MAX_EXP_ARG

__all__ = ["Gaussians", "Rendering", "reaching"]

Float = npt.NDArray[np.float64]


class Gaussians(NamedTuple):
    """Gaussians on one detector, or the derivatives of a number with respect to them.

    Attributes
    ----------
    counts : ndarray of float64, shape (n,)
        The integral of each.
    centre : ndarray of float64, shape (n, 2)
        x, y in zero-based pixels.
    covariance : ndarray of float64, shape (n, 2, 2)
        Pixels squared, symmetric and positive definite.
    """

    counts: Float
    centre: Float
    covariance: Float


class Rendering:
    """Gaussians evaluated in pixels.

    Parameters
    ----------
    gaussians : Gaussians
        n of them.
    x, y : ndarray of float64, shape (n_pixels,)
        Centres of the pixels, zero-based.
    """

    def __init__(self, gaussians: Gaussians, x: Float, y: Float) -> None:
        offset = np.stack([x, y]) - gaussians.centre[:, :, None]
        F = np.asarray(np.linalg.inv(gaussians.covariance), np.float64)
        v = F @ offset
        argument = (offset * v).sum(axis=1)
        height = np.sqrt(np.linalg.det(F)) / (2 * np.pi)
        trace = F[:, 0, 0] + F[:, 1, 1]
        self._gaussians = gaussians
        self._F = F  # (n, 2, 2)
        self._v = v  # (n, 2, n_pixels)
        # For unit counts: the value at the centre of a pixel, and what makes it the mean over it.
        self._density = height[:, None] * np.exp(-argument / 2) * (argument <= MAX_EXP_ARG)
        self._correction = 1 + ((v * v).sum(axis=1) - trace[:, None]) / 24

    def counts(self) -> Float:
        """Sum the Gaussians in each pixel.

        Returns
        -------
        ndarray of float64, shape (n_pixels,)
            Counts per pixel.
        """
        return np.asarray(self._gaussians.counts @ (self._density * self._correction), np.float64)

    def pull_back(self, slope: Float) -> Gaussians:
        """Differentiate a function of the pixels' counts with respect to the Gaussians.

        Parameters
        ----------
        slope : ndarray of float64, shape (n_pixels,)
            Derivative of the function with respect to the counts of each pixel.

        Returns
        -------
        Gaussians
            Derivatives with respect to counts, centre and covariance. That of the covariance is
            symmetric: a change ``dC`` of the matrix changes the function by ``(that * dC).sum()``.
        """
        F, v = self._F, self._v
        peak = self._density * slope
        mean = peak * self._correction
        v_mean, v_peak = v * mean[:, None], v * peak[:, None]

        # With w = F v and the centre: d(-d.v/2) = v.dx, d(v.v) = -2 w.dx.
        # With the covariance, as dF = -F dC F: d(-d.v/2) = v dC v / 2, d(v.v) = -2 w dC v,
        # d(log sqrt(det F)) = -tr(F dC) / 2 and d(tr F) = -tr(F F dC).
        shift = v_mean.sum(axis=2) - (F @ v_peak.sum(axis=2)[:, :, None])[:, :, 0] / 12
        in_density = v_mean @ _transposed(v) - F * mean.sum(axis=1)[:, None, None]
        cross = F @ (v_peak @ _transposed(v))
        in_correction = cross + _transposed(cross) - F @ F * peak.sum(axis=1)[:, None, None]
        stretch = in_density / 2 - in_correction / 24
        counts = self._gaussians.counts
        return Gaussians(mean.sum(axis=1), counts[:, None] * shift, counts[:, None, None] * stretch)


def reaching(gaussians: Gaussians, x: Float, y: Float) -> npt.NDArray[np.intp]:
    """Find the Gaussians that may put counts into pixels; all others are zero in every one.

    Parameters
    ----------
    gaussians : Gaussians
        n of them.
    x, y : ndarray of float64, shape (n_pixels,)
        Centres of the pixels, zero-based; at least one.

    Returns
    -------
    ndarray of intp, shape (n_reaching,)
        Their numbers, increasing.
    """
    first, last = np.array([x.min(), y.min()]), np.array([x.max(), y.max()])
    # How far the ellipse d.v = MAX_EXP_ARG extends along x and y, and a little for rounding.
    variance = gaussians.covariance[:, [0, 1], [0, 1]]
    extent = 1.000001 * np.sqrt(MAX_EXP_ARG * variance)
    is_near = (gaussians.centre + extent >= first) & (gaussians.centre - extent <= last)
    return np.flatnonzero(is_near.all(axis=1))


def _transposed(matrices: Float) -> Float:
    """Exchange the last two axes."""
    return matrices.swapaxes(-1, -2)
