"""The picture of a PSF and its mixture: profile, light in circles, residual, more Gaussians."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from fpgpu.plots.canvas import COLORS, DIVERGING, add_bar, make_figure
from fpgpu.psf.mixtures import render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fpgpu.psf.fit import BandFit

__all__ = ["plot_psf"]


def plot_psf(
    fit: "BandFit", place: int = 0, errors_by_number: Mapping[int, float] | None = None
) -> "Figure":
    """Draw how well a mixture is its PSF.

    Parameters
    ----------
    fit : BandFit
        From `fpgpu.psf.fit_psf`.
    place : int, optional
        Which place on the detector.
    errors_by_number : mapping of int to float, optional
        The error of the light in circles for other numbers of Gaussians.

    Returns
    -------
    matplotlib.figure.Figure
        Radial profile, light in circles, residual in units of the peak, and error by number.

    Raises
    ------
    MissingExtraError
        If matplotlib is missing.
    """
    images = fit.images
    image = images.images[place]
    n = len(image)
    places = (np.arange(n) - (n - 1) / 2) / images.oversample
    x, y = np.broadcast_arrays(places[None], places[:, None])
    model = render(fit.mixtures[place], x.ravel(), y.ravel()).reshape(image.shape)
    radius = np.hypot(x, y)
    rings = np.linspace(0, places[-1], max(n // 2, 2))
    ring = np.digitize(radius, rings) - 1
    inside = ring < len(rings) - 1
    counts = np.bincount(ring[inside])
    middle = (0.5 * (rings[1:] + rings[:-1]) * images.pixel_scale)[: len(counts)]
    figure = make_figure(11.0, 9.0)
    (profile, energy), (residual, numbers) = figure.subplots(2, 2)
    for values, label, color, style in (
        (image, "image", COLORS[6], "-"),
        (model, "mixture", COLORS[1], "--"),
    ):
        light = np.bincount(ring[inside], values[inside])
        drawn = np.where(light > 0, light / np.maximum(counts, 1), np.nan)
        profile.semilogy(middle, drawn, style, color=color, label=label)
        energy.plot(middle, np.cumsum(light) / images.oversample**2, style, color=color)
    profile.set(xlabel="radius [arcsec]", ylabel="light of a pixel", title="mean of rings")
    profile.legend()
    energy.set(xlabel="radius [arcsec]", ylabel="share of the light", title="light in circles")
    shown = abs(places) <= 8
    core = np.ix_(shown, shown)
    off = (model - image)[core] / image.max()
    most = float(abs(off).max()) or 1.0
    edge = float(places[shown][-1])
    drawn_map = residual.imshow(
        off, origin="lower", cmap=DIVERGING, vmin=-most, vmax=most, extent=(-edge, edge) * 2
    )
    add_bar(residual, drawn_map, "mixture - image, of the peak")
    residual.set(xlabel="x [pixel]", ylabel="y [pixel]", title="residual of the core")
    tried = {len(fit.mixtures[place].amp): fit.errors[place].energy, **(errors_by_number or {})}
    order = sorted(tried)
    numbers.semilogy(order, [max(tried[k], 1e-6) for k in order], "o-", color=COLORS[0])
    numbers.set(
        xlabel="Gaussians of the PSF",
        ylabel="largest error of a circle",
        title="number of Gaussians",
    )
    numbers.set_xticks(order)
    figure.suptitle(str(fit).replace("; ", "\n"), fontsize=10)
    return figure
