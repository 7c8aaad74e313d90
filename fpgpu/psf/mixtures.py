"""Mixtures of Gaussians as a likelihood renders them, and their fit to an image.

A pixel gets the density at its middle plus 1/24 of its Laplacian (the light that falls on a square
of one pixel, to second order): what kernels do with every Gaussian. A mixture is fitted to
pixel-integrated images through the same formula, so that it holds the light before the pixel.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Mixture", "fit_mixture", "render"]

Float = npt.NDArray[np.float64]

SMALLEST_SIGMA = 0.4
"""Pixels; narrower Gaussians are not resolved by the second order in the size of a pixel."""

MOST_AMPLITUDE = 3.0
"""Of a Gaussian where amplitudes may be negative, of all the light: Gaussians of nearly the same
width would grow against each other without end."""

MOST_SKEW = 0.95
"""Correlation of x and y within a Gaussian: a needle would fall between the pixels."""

TOLERANCE = 1e-8
MOST_STEPS = 300


class Mixture(NamedTuple):
    """Gaussians that together make a PSF.

    Attributes
    ----------
    amp : ndarray of float64, shape (n_gauss,)
        Shares of the light.
    center : ndarray of float64, shape (n_gauss, 2)
        x and y, pixels from the place of the source.
    cov : ndarray of float64, shape (n_gauss, 3)
        Cxx, Cyy, Cxy, pixels squared.
    """

    amp: Float
    center: Float
    cov: Float

    @property
    def centroid(self) -> Float:
        """Mean place of the light, x and y in pixels."""
        return np.asarray(self.amp @ self.center / self.amp.sum())

    def broadened(self, variance: float) -> "Mixture":
        """Convolve with a round Gaussian.

        Parameters
        ----------
        variance : float
            Of the Gaussian, pixels squared.

        Returns
        -------
        Mixture
            Another one.
        """
        return self._replace(cov=self.cov + np.array([variance, variance, 0.0]))


def render(mixture: Mixture, x: Float, y: Float) -> Float:
    """Return the light that pixels get.

    Parameters
    ----------
    mixture : Mixture
        Of a source at the origin.
    x, y : ndarray of float64, shape (n,)
        Middles of pixels.

    Returns
    -------
    ndarray of float64, shape (n,)
        Share of the light in each square of one pixel.
    """
    return np.asarray(_terms(mixture, x, y)[0].sum(axis=0))


def fit_mixture(
    x: Float,
    y: Float,
    values: Float,
    weights: Float,
    start: Mixture,
    *,
    signed: bool = False,
    sums: tuple[Float, Float] | None = None,
    min_sigma: float = SMALLEST_SIGMA,
) -> tuple[Mixture, float]:
    """Fit a mixture to samples of a pixel-integrated image by least squares.

    Parameters
    ----------
    x, y, values, weights : ndarray of float64, shape (n,)
        Places from the origin in pixels, the light per pixel there, and what differences are
        multiplied by.
    start : Mixture
        Where to begin; its number of Gaussians is kept.
    signed : bool
        Whether amplitudes may be negative.
    sums : (ndarray of shape (m, n), ndarray of shape (m,)), optional
        Linear combinations of the samples that shall come out, too, such as the light in circles.
    min_sigma : float
        Least standard deviation along an axis, pixels.

    Returns
    -------
    mixture : Mixture
        The best one near `start`.
    cost : float
        Half the sum of squares.
    """
    from scipy.optimize import least_squares  # slow to import

    combine, wanted = sums if sums is not None else (np.empty((0, len(x))), np.empty(0))
    form = _Form(signed, min_sigma**2)
    known: dict[bytes, tuple[Float, Float]] = {}

    def model(parameters: Float) -> tuple[Float, Float]:
        """Residuals and their derivatives, which SciPy asks for one after the other."""
        key = parameters.tobytes()
        if key not in known:
            mixture = form.mixture(parameters)
            terms, *derivatives = _terms(mixture, x, y)
            jacobian = form.jacobian(mixture, terms, *derivatives)
            light = terms.sum(axis=0)
            residual = np.concatenate([(light - values) * weights, combine @ light - wanted])
            known.clear()
            known[key] = residual, np.concatenate([jacobian * weights[:, None], combine @ jacobian])
        return known[key]

    result = least_squares(
        lambda p: model(p)[0],
        form.parameters(start),
        lambda p: model(p)[1],
        method="lm",
        x_scale="jac",
        xtol=TOLERANCE,
        ftol=TOLERANCE,
        max_nfev=MOST_STEPS,
    )
    return form.mixture(result.x), float(result.cost)


def _terms(mixture: Mixture, x: Float, y: Float) -> tuple[Float, Float, Float]:
    """Each Gaussian's light per pixel, and its derivatives by centre and covariance.

    Shapes (k, n), (k, 2, n), (k, 3, n). With P the inverse covariance, v = P d and N the density,
    the light is a N F, where F = 1 + (v.v - tr P) / 24.
    """
    dx = x - mixture.center[:, :1]
    dy = y - mixture.center[:, 1:]
    cxx, cyy, cxy = mixture.cov.T[:, :, None]
    det = cxx * cyy - cxy**2
    pxx, pyy, pxy = cyy / det, cxx / det, -cxy / det
    vx, vy = pxx * dx + pxy * dy, pxy * dx + pyy * dy
    density = mixture.amp[:, None] / (2 * np.pi * np.sqrt(det)) * np.exp(-(dx * vx + dy * vy) / 2)
    factor = 1 + (vx**2 + vy**2 - pxx - pyy) / 24
    wx, wy = pxx * vx + pxy * vy, pxy * vx + pyy * vy
    by_center = np.stack([vx * factor - wx / 12, vy * factor - wy / 12], axis=1)
    by_cov = np.stack(
        [
            (vx * vx - pxx) * factor / 2 + (pxx**2 + pxy**2 - 2 * wx * vx) / 24,
            (vy * vy - pyy) * factor / 2 + (pyy**2 + pxy**2 - 2 * wy * vy) / 24,
            (vx * vy - pxy) * factor + (pxy * (pxx + pyy) - wx * vy - wy * vx) / 12,
        ],
        axis=1,
    )
    return density * factor, density[:, None] * by_center, density[:, None] * by_cov


class _Form(NamedTuple):
    """Six free numbers a Gaussian, whatever their values: amplitude, centre, two widths, skew."""

    signed: bool
    min_variance: float

    def parameters(self, mixture: Mixture) -> Float:
        cxx, cyy, cxy = mixture.cov.T
        amp = (
            np.arctanh(np.clip(mixture.amp / MOST_AMPLITUDE, -0.99, 0.99))
            if self.signed
            else np.log(np.maximum(mixture.amp, 1e-6))
        )
        widths = [
            0.5 * np.log(np.maximum(c - self.min_variance, 1e-4 * self.min_variance))
            for c in (cxx, cyy)
        ]
        skew = np.arctanh(np.clip(cxy / np.sqrt(cxx * cyy) / MOST_SKEW, -0.99, 0.99))
        return np.stack([amp, *mixture.center.T, *widths, skew], axis=1).ravel()

    def mixture(self, parameters: Float) -> Mixture:
        amp, x, y, wide_x, wide_y, skew = parameters.reshape(-1, 6).T
        cxx, cyy = (self.min_variance + np.exp(2 * np.minimum(w, 20)) for w in (wide_x, wide_y))
        cov = np.stack([cxx, cyy, MOST_SKEW * np.tanh(skew) * np.sqrt(cxx * cyy)], axis=1)
        amp = MOST_AMPLITUDE * np.tanh(amp) if self.signed else np.exp(np.minimum(amp, 2))
        return Mixture(amp, np.stack([x, y], axis=1), cov)

    def jacobian(self, mixture: Mixture, terms: Float, by_center: Float, by_cov: Float) -> Float:
        """Derivatives of the light, shape (n, 6 k)."""
        cxx, cyy, cxy = mixture.cov.T[:, :, None]
        amp = mixture.amp[:, None]
        free_x, free_y = cxx - self.min_variance, cyy - self.min_variance
        limit = MOST_SKEW * np.sqrt(cxx * cyy)
        by_amp = terms * (MOST_AMPLITUDE / amp - amp / MOST_AMPLITUDE) if self.signed else terms
        columns = [
            by_amp,
            by_center[:, 0],
            by_center[:, 1],
            free_x * (2 * by_cov[:, 0] + cxy / cxx * by_cov[:, 2]),
            free_y * (2 * by_cov[:, 1] + cxy / cyy * by_cov[:, 2]),
            (limit - cxy**2 / limit) * by_cov[:, 2],
        ]
        return np.stack(columns, axis=1).reshape(-1, terms.shape[1]).T
