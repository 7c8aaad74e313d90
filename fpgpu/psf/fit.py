"""From the images of a band's PSF to the mixtures that ``psf.h5`` holds.

A source is a mixture of round Gaussians of fixed radii, and each of them is convolved with a
mixture of its own: one much larger than the PSF needs fewer Gaussians, and every Gaussian costs in
every evaluation. So the PSF itself is fitted to the image; for each radius it is then thinned, as
long as the convolved profile stays the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fpgpu.errors import PSFError
from fpgpu.layout import PSF_DTYPE
from fpgpu.likelihood.mixture import radii_in_arcsec
from fpgpu.progress import progress_bar
from fpgpu.psf.images import PSFImages
from fpgpu.psf.mixtures import SMALLEST_SIGMA, Mixture, fit_mixture, render
from fpgpu.psf.profiles import RADII

__all__ = ["BandFit", "FitError", "fit_psf"]

Float = npt.NDArray[np.float64]

CORE = 8.0
"""Pixels from the middle within which every sample counts; outside, one a pixel does."""

FLOOR = 0.1
"""Of the peak: added to the light in the weights, which are those of a photon count."""

SUM_WEIGHTS = (30.0, 150.0)
"""Of the light in circles beside that of pixels, first and last: photometry lives on circles."""

INNER = 0.1
"""Arcsec: the smallest circle whose light has to be right, as apertures are not smaller."""

SPREADS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.6, 2.0)
"""Widest Gaussians of the first guesses, in radii that hold 90 % of the light."""

MOST_REFINED = 3

SAME = 1e-3
"""Share of the light, per unit of ln r, by which a thinned mixture may differ."""


class FitError(NamedTuple):
    """How far a mixture is from its image.

    Attributes
    ----------
    peak : float
        Largest difference of a sample, in units of the peak.
    energy : float
        Largest difference of the light in a circle of at least `inner` pixels, share of all light.
    centroid : float
        Distance of the centroids in pixels, of what is within the core.
    """

    peak: float
    energy: float
    centroid: float


@dataclass(frozen=True)
class BandFit:
    """Mixtures of one band at places of the detector, and how good they are.

    Attributes
    ----------
    images : PSFImages
        What was fitted.
    mixtures : list of Mixture
        The PSF at each place.
    errors : list of FitError
        Of each.
    parameters : ndarray of PSF_DTYPE, shape (n, n_psf)
        What ``psf.h5`` holds: the mixtures of all radii, one after the other.
    per_radius : tuple of int
        Gaussians of each radius.
    """

    images: PSFImages
    mixtures: list[Mixture]
    errors: list[FitError]
    parameters: npt.NDArray[np.void]
    per_radius: tuple[int, ...]

    @property
    def worst(self) -> FitError:
        """The largest error of each kind."""
        return FitError(*np.max(self.errors, axis=0))

    def __str__(self) -> str:
        """Say what was fitted and how well, in a line."""
        worst = self.worst
        return (
            f"{self.images.band}: {len(self.mixtures)} places, {len(self.mixtures[0].amp)} "
            f"Gaussians ({', '.join(map(str, self.per_radius))} by radius, "
            f"{sum(self.per_radius)} a source); off by at most {worst.energy:.2%} of the light in "
            f"a circle, {worst.peak:.1%} of the peak in a pixel, {worst.centroid:.3f} pixels in "
            "place"
        )


def fit_psf(
    images: PSFImages,
    radii: npt.ArrayLike | None = None,
    *,
    n_gauss: int = 4,
    signed: bool = False,
    max_error: float | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
    progress: bool | None = None,
) -> BandFit:
    """Fit mixtures of Gaussians to the PSFs of a band.

    Parameters
    ----------
    images : PSFImages
        From `read_psf_images` or `PSFImages.from_arrays`.
    radii : array_like or Quantity, shape (n_radii,), optional
        Standard deviations, arcsec or with units, of the Gaussians that sources are made of
        (`SersicMixture.radii`); by default those of `fpgpu.psf.default_profiles`.
    n_gauss : int, optional
        Gaussians of the PSF itself, which a point source gets.
    signed : bool, optional
        Whether amplitudes may be negative.
    max_error : float, optional
        Refuse a mixture that misses more of the light in any circle of 0.1 arcsec or more.
    on_progress : callable, optional
        Called with the number of places that are done.
    progress : bool, optional
        Whether to draw a progress bar; by default on a terminal and in a notebook.

    Returns
    -------
    BandFit
        To be added to a `PSFStore` with `add_psf(fit.images.band, fit.parameters, locations)`.

    Raises
    ------
    PSFError
        If a number makes no sense, a fit does not converge, or one is worse than `max_error`.
    LayoutError
        If the radii are none.

    Examples
    --------
    >>> import numpy as np
    >>> r2 = np.add.outer(np.arange(-15, 16) ** 2, np.arange(-15, 16) ** 2)
    >>> star = np.exp(-r2 / (2 * 1.5**2))
    >>> images = PSFImages.from_arrays("F200W", star, pixel_scale=0.03)
    >>> fit = fit_psf(images, [0, 0.1, 1.0], n_gauss=2)
    >>> bool(fit.worst.energy < 1e-3)
    True
    """
    if not isinstance(n_gauss, int | np.integer) or n_gauss < 1:
        raise PSFError(f"{n_gauss!r} Gaussians; expected a whole number, at least one")
    if max_error is not None and not 0 <= max_error < np.inf:
        raise PSFError(f"max_error is {max_error}; expected a share of the light, 0 or more")
    variances = (radii_in_arcsec(RADII if radii is None else radii) / images.pixel_scale) ** 2
    mixtures: list[Mixture] = []
    errors = []
    with progress_bar(len(images.images), f"fit {images.band}", progress) as bar:
        for k, image in enumerate(images.images):
            samples = _Samples.of(image, images.oversample)
            near = mixtures[_nearest(images.positions, k)] if mixtures else None
            mixture = _fitted(samples, n_gauss, signed, near, INNER / images.pixel_scale)
            if not all(np.isfinite(part).all() for part in mixture):
                raise PSFError(f"{images.band}: the fit of image {k} did not converge")
            error = samples.error(mixture, INNER / images.pixel_scale)
            if max_error is not None and error.energy > max_error:
                raise PSFError(
                    f"{images.band}: {n_gauss} Gaussians miss {error.energy:.2%} of the light of "
                    f"image {k} in a circle; at most {max_error:.2%} were allowed. Take more "
                    "Gaussians, or signed ones"
                )
            mixtures.append(mixture)
            errors.append(error)
            on_progress(k + 1)
            bar.update()
    by_radius = [_thinned(mixtures, variance, signed) for variance in variances]
    return BandFit(
        images,
        mixtures,
        errors,
        _as_parameters(by_radius),
        tuple(len(of_radius[0].amp) for of_radius in by_radius),
    )


@dataclass(frozen=True)
class _Samples:
    """The samples of an image that are fitted: all of the core, one a pixel outside."""

    x: Float
    y: Float
    light: Float
    area: Float

    @classmethod
    def of(cls, image: Float, oversample: float) -> "_Samples":
        from astropy.nddata import block_reduce

        n = len(image)
        places = (np.arange(n) - (n - 1) / 2) / oversample
        x, y = np.broadcast_arrays(places[None], places[:, None])
        is_core = np.maximum(abs(x), abs(y)) <= CORE
        step = max(1, round(oversample))
        coarse = [block_reduce(values, step, np.mean) for values in (x, y, image)]
        is_outer = np.maximum(abs(coarse[0]), abs(coarse[1])) > CORE
        area = step**2 / oversample**2
        parts = zip((x, y, image), coarse, strict=True)
        x, y, light = (np.concatenate([a[is_core], b[is_outer]]) for a, b in parts)
        areas = np.where(np.arange(len(x)) < is_core.sum(), oversample**-2, area)
        return cls(x, y, light, areas)

    @property
    def weights(self) -> Float:
        """Of differences, as if photons were counted."""
        peak = self.light.max()
        return np.asarray(np.sqrt(self.area / (peak * (abs(self.light) + FLOOR * peak))))

    def circles(self, radii: Float) -> Float:
        """Rows that sum the light within each radius, by the share of a sample's area in it."""
        # A sample counts by how far its middle is inside, over its own width.
        distance = np.hypot(self.x, self.y)
        inside = np.clip((radii[:, None] - distance) / np.sqrt(self.area) + 0.5, 0, 1)
        return np.asarray(inside * self.area)

    @property
    def reach(self) -> float:
        """Pixels from the middle to the nearest edge."""
        return float(self.x.max())

    def radius_of(self, share: float) -> float:
        """The radius that holds a share of the light."""
        radii = np.geomspace(0.3, self.reach, 60)
        energy = self.circles(radii) @ self.light
        return float(radii[np.searchsorted(energy, share * energy[-1]).clip(0, 59)])

    def error(self, mixture: Mixture, inner: float) -> FitError:
        """Tell how far a mixture is off; circles from `inner` pixels on."""
        off = render(mixture, self.x, self.y) - self.light
        radii = np.geomspace(min(inner, self.reach / 2), self.reach, 60)
        energy = abs(self.circles(radii) @ off).max()
        core = np.hypot(self.x, self.y) <= min(CORE, self.reach)
        weighted = self.area * core
        shift = [weighted @ (off * axis) / (weighted @ self.light) for axis in (self.x, self.y)]
        return FitError(
            float(abs(off).max() / self.light.max()), float(energy), float(np.hypot(*shift))
        )


def _fitted(
    samples: _Samples, n_gauss: int, signed: bool, near: Mixture | None, inner: float
) -> Mixture:
    """Fit from the neighbour's mixture, or from several scales."""
    smallest = min(inner, 2.0, samples.reach / 2)
    circles = samples.circles(np.geomspace(smallest, samples.reach, 16))
    # All light, which fluxes are told by; the light in circles, and where it is in them.
    total = 3 * samples.area[None]
    moments = [row * axis for row in circles for axis in (samples.x, samples.y)]
    rows = np.concatenate([total, circles, moments])
    light = rows @ samples.light

    def fitted(start: Mixture, weight: float) -> tuple[Mixture, float]:
        return fit_mixture(
            samples.x,
            samples.y,
            samples.light,
            samples.weights,
            start,
            signed=signed,
            sums=(weight * rows, weight * light),
        )

    if near is not None:
        return fitted(near, SUM_WEIGHTS[1])[0]
    guesses = _guesses(samples, n_gauss)
    # Circles pull hard and make narrow valleys: they begin gently.
    for weight, kept in ((SUM_WEIGHTS[0], MOST_REFINED), (SUM_WEIGHTS[1], 1)):
        tried = [fitted(mixture, weight) for mixture in guesses]
        guesses = [mixture for mixture, _ in sorted(tried, key=lambda fit: fit[1])[:kept]]
    return guesses[0]


def _guesses(samples: _Samples, n_gauss: int) -> list[Mixture]:
    """Where to begin: a core of several Gaussians a little apart, and one that is as wide as wings.

    Concentric round ones alone would stay so: nothing pulls them apart.
    """
    half, most = samples.radius_of(0.5), samples.radius_of(0.9)
    rng = np.random.default_rng(0)
    guesses = []
    for spread in SPREADS:
        sigma = np.array([half])
        if n_gauss > 1:
            sigma = np.append(half * np.geomspace(0.6, 1.8, n_gauss - 1), spread * most)
        share = np.where(np.arange(n_gauss) < max(n_gauss - 1, 1), 0.85 / max(n_gauss - 1, 1), 0.15)
        widths = (sigma[:, None] * np.exp(rng.normal(0, 0.2, (n_gauss, 2)))) ** 2
        cov = np.concatenate([widths, np.zeros((n_gauss, 1))], axis=1)
        guesses.append(Mixture(share, rng.normal(0, 0.3 * half, (n_gauss, 2)), cov))
    return guesses


def _nearest(positions: Float | None, k: int) -> int:
    """The place before `k` that is nearest to it."""
    if positions is None:
        return 0
    return int(np.hypot(*(positions[:k] - positions[k]).T).argmin())


def _thinned(mixtures: Sequence[Mixture], variance: float, signed: bool) -> list[Mixture]:
    """Return the smallest mixtures that are the same once convolved with a round Gaussian.

    All places of a band get the same number of Gaussians, as the file wants it.
    """
    for n in range(1, len(mixtures[0].amp)):
        thin = []
        for mixture in mixtures:
            candidate, difference = _merged(mixture, n, variance, signed)
            if difference > SAME:
                break
            thin.append(candidate)
        else:
            return thin
    return list(mixtures)


def _merged(mixture: Mixture, n: int, variance: float, signed: bool) -> tuple[Mixture, float]:
    """Fit `n` Gaussians to a convolved mixture; also the largest difference, per unit of ln r."""
    convolved = mixture.broadened(variance)
    widths = np.sqrt(convolved.cov[:, :2].mean(axis=1))
    radii = np.geomspace(0.2 * widths.min(), 5 * widths.max(), 40)
    angles = np.pi * np.arange(16) / 8
    x, y = (np.outer(radii, turn(angles)).ravel() for turn in (np.cos, np.sin))
    x, y = x + mixture.centroid[0], y + mixture.centroid[1]
    weights = 2 * np.pi * np.repeat(radii**2, len(angles))
    target = render(convolved, x, y)
    start = _moments(convolved, n)
    least = float(np.sqrt(variance + SMALLEST_SIGMA**2))
    fitted, _ = fit_mixture(x, y, target, weights, start, signed=signed, min_sigma=least)
    # Light is kept exactly: a flux must not depend on how its source is cut up.
    fitted = fitted._replace(amp=fitted.amp * (mixture.amp.sum() / fitted.amp.sum()))
    difference = float(abs((render(fitted, x, y) - target) * weights).max())
    return fitted.broadened(-variance), difference


def _moments(mixture: Mixture, n: int) -> Mixture:
    """Merge neighbours in width into `n` Gaussians that keep light, centroid and covariance."""
    order = np.argsort(mixture.cov[:, :2].sum(axis=1))
    parts = []
    for group in np.array_split(order, n):
        amp = np.maximum(mixture.amp[group], 1e-6)
        share = amp / amp.sum()
        center = share @ mixture.center[group]
        dx, dy = (mixture.center[group] - center).T
        cov = share @ (mixture.cov[group] + np.stack([dx * dx, dy * dy, dx * dy], axis=1))
        parts.append((amp.sum(), center, cov))
    return Mixture(*(np.array(column) for column in zip(*parts, strict=True)))


def _as_parameters(by_radius: Sequence[Sequence[Mixture]]) -> npt.NDArray[np.void]:
    """Put the mixtures of all radii one after the other, shape (places, Gaussians)."""
    rows = []
    for place in range(len(by_radius[0])):
        mixtures = [of_radius[place] for of_radius in by_radius]
        row = np.zeros(sum(len(m.amp) for m in mixtures), PSF_DTYPE)
        row["amp"] = np.concatenate([m.amp for m in mixtures])
        row["xcen"], row["ycen"] = np.concatenate([m.center for m in mixtures]).T
        row["Cxx"], row["Cyy"], row["Cxy"] = np.concatenate([m.cov for m in mixtures]).T
        row["sersic_bin"] = np.repeat(np.arange(len(mixtures)), [len(m.amp) for m in mixtures])
        rows.append(row)
    return np.stack(rows)
