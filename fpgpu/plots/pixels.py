"""Pictures of the pixels of a patch: flux and weight, and data beside a model."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fpgpu.patch.images import ExposureImage, exposure_images
from fpgpu.patch.plan import PatchPlan
from fpgpu.plots.canvas import (
    DIVERGING,
    MAP,
    MASKED,
    add_bar,
    finish_pixel_axes,
    make_groups,
    page_from,
    show_image,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["flux_scale", "plot_pixels", "plot_residuals", "round_ticks", "show_pixels"]

SIGMAS = 5.0
"""Ends of the colours of residuals, in standard deviations."""

_RESIDUAL_TICKS = (-4.0, -2.0, 0.0, 2.0, 4.0)

_APART = 0.09
"""Ticks of a scale of fluxes are no nearer, in parts of the scale."""

_MAGENTA = "magenta: without weight; hatched: not in the patch"


def plot_pixels(
    plan: PatchPlan,
    data: npt.NDArray[np.float32],
    ierr: npt.NDArray[np.float32],
    *,
    flux_units: str = "nJy",
    first: int = 0,
) -> "Figure":
    """Draw the pixels of each exposure.

    Parameters
    ----------
    plan : PatchPlan
        Of the patch.
    data, ierr : ndarray of float32, shape (n_pixels,)
        Flux and inverse uncertainty, in the order of the patch.
    flux_units : str, optional
        Of the flux.
    first : int, optional
        The exposure to begin with, from 0, where there are more than fit into one picture.

    Returns
    -------
    matplotlib.figure.Figure
        Two axes an exposure, with a colour bar each, for `MOST_EXPOSURES` at most: flux, on a
        scale that is linear near zero and logarithmic beyond, and inverse uncertainty. Pixels
        without weight are magenta.

    Raises
    ------
    MissingExtraError
        If matplotlib is missing.
    LayoutError
        If the arrays do not have as many values as the plan has pixels.

    Examples
    --------
    >>> figure = plot_pixels(patch.plan, patch.retrieve("data"), patch.retrieve("ierr"))
    """
    shown, part = page_from(plan, first)
    fluxes, weights = (exposure_images(plan, values)[shown] for values in (data, ierr))
    figure, groups = make_groups(plan.exposures[shown], 2, 7.0, 3.4)
    for pair, flux, weight in zip(groups, fluxes, weights, strict=True):
        used = np.where(weight.image > 0, 1.0, np.nan)
        values = flux.image * used
        norm, ticks = flux_scale(values)
        show_pixels(pair[0], flux, values, f"flux [{flux_units}]", norm, ticks)
        pair[0].set_title("flux", fontsize=10)
        label = f"1 / sigma [1/{flux_units}]"
        show_pixels(pair[1], weight, weight.image * used, label)
        n_unused = int(np.count_nonzero(weight.image == 0))
        pair[1].set_title(f"inverse uncertainty, {n_unused} without", fontsize=10)
    figure.suptitle(f"pixels of the patch; {_MAGENTA}{part}")
    return figure


def plot_residuals(
    plan: PatchPlan,
    data: npt.NDArray[np.float32],
    ierr: npt.NDArray[np.float32],
    model: npt.NDArray[Any],
    *,
    flux_units: str = "nJy",
    first: int = 0,
) -> "Figure":
    """Draw data, model and residual of each exposure.

    Parameters
    ----------
    plan : PatchPlan
        Of the patch.
    data, ierr : ndarray of float32, shape (n_pixels,)
        Flux and inverse uncertainty, in the order of the patch.
    model : ndarray of float, shape (n_pixels,)
        Flux of all sources, as `fpgpu.likelihood.reference.evaluate` gives it.
    flux_units : str, optional
        Of the flux.
    first : int, optional
        The exposure to begin with, from 0, where there are more than fit into one picture.

    Returns
    -------
    matplotlib.figure.Figure
        Three axes an exposure, for `MOST_EXPOSURES` at most: data and model on the same scale,
        and their difference in standard deviations. Pixels without weight are magenta.

    Raises
    ------
    MissingExtraError
        If matplotlib is missing.
    LayoutError
        If the arrays do not have as many values as the plan has pixels.
    """
    from matplotlib.colors import Normalize

    shown, part = page_from(plan, first)
    arrays = (data, ierr, np.asarray(model, np.float32))
    images = [exposure_images(plan, values)[shown] for values in arrays]
    figure, groups = make_groups(plan.exposures[shown], 3, 7.6, 2.9)
    spread = Normalize(-SIGMAS, SIGMAS)
    for axes, flux, weight, bright in zip(groups, *images, strict=True):
        used = np.where(weight.image > 0, 1.0, np.nan)
        values, sigmas = flux.image * used, (flux.image - bright.image) * weight.image * used
        norm, ticks = flux_scale(values)
        show_pixels(axes[0], flux, values, None, norm)
        show_pixels(axes[1], flux, bright.image, f"flux [{flux_units}]", norm, ticks)
        show_pixels(axes[2], flux, sigmas, "residual / sigma", spread, _RESIDUAL_TICKS, DIVERGING)
        counted = sigmas[np.isfinite(sigmas)].astype(np.float64)
        per_pixel = float(counted @ counted) / max(counted.size, 1)
        titles = ("data", "model", f"chi2 a pixel {per_pixel:.2f}")
        for place, title in zip(axes, titles, strict=True):
            place.set_title(title, fontsize=10)
    figure.suptitle(f"data | model | residual; {_MAGENTA}{part}")
    return figure


def flux_scale(values: npt.NDArray[Any]) -> tuple[Any, Sequence[float] | None]:
    """Choose the scale of an image of fluxes, linear near zero and logarithmic beyond, and ticks.

    Matplotlib's own ticks crowd where such a scale turns from linear to logarithmic.
    """
    from matplotlib.colors import AsinhNorm, Normalize

    finite = values[np.isfinite(values)]
    if not finite.size or finite.min() == finite.max():
        return Normalize(*((finite.min(), finite.max()) if finite.size else (0.0, 1.0))), None
    low, high = float(finite.min()), float(finite.max())
    spread = 3 * 1.4826 * float(np.median(np.abs(finite - np.median(finite))))
    norm = AsinhNorm(spread or 1.0, vmin=low, vmax=high)
    return norm, round_ticks(norm)


def round_ticks(norm: Any) -> Sequence[float] | None:
    """Choose ticks of such a scale: 0 and 1, 5, 2 times powers of ten, with room between them.

    None where that leaves fewer than three: the scale is narrow, and matplotlib's will do.
    """
    largest = max(abs(norm.vmin), abs(norm.vmax))
    powers = range(
        math.floor(math.log10(largest)), math.floor(math.log10(norm.linear_width)) - 2, -1
    )
    sizes = [float(f"{digit}e{power}") for digit in (1, 5, 2) for power in powers]
    kept: list[float] = []
    for value in (0.0, *(sign * size for size in sizes for sign in (1, -1))):
        if norm.vmin <= value <= norm.vmax and all(
            abs(norm(value) - norm(other)) >= _APART for other in kept
        ):
            kept.append(value)
    return sorted(kept) if len(kept) > 2 else None


def show_pixels(
    axes: "Axes",
    image: ExposureImage,
    values: npt.NDArray[Any],
    label: str | None,
    norm: Any = None,
    ticks: Sequence[float] | None = None,
    colors: str = MAP,
) -> None:
    """Draw values in the pixels of an exposure; NaN in the patch has the colour of masked ones.

    Without a label there is no colour bar.
    """
    from matplotlib.colors import ListedColormap, Normalize

    (x0, y0), (nx, ny) = image.origin, image.image.shape
    extent = (x0 - 0.5, x0 + nx - 0.5, y0 - 0.5, y0 + ny - 0.5)
    masked = np.where(np.isfinite(image.image) & ~np.isfinite(values), 1.0, np.nan)
    show_image(axes, masked, extent, cmap=ListedColormap([MASKED]))
    if norm is None:
        finite = values[np.isfinite(values)]
        norm = Normalize(*((finite.min(), finite.max()) if finite.size else (0.0, 1.0)))
    drawn = show_image(axes, values, extent, norm=norm, cmap=colors)
    if label is not None:
        add_bar(axes, drawn, label, ticks)
    finish_pixel_axes(axes, extent)
