"""Pictures of the pixels of a patch: flux and weight, and data beside a model."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fpgpu.patch.images import ExposureImage, exposure_images
from fpgpu.patch.plan import PatchPlan
from fpgpu.plots.canvas import (
    GREY,
    MAP,
    add_bar,
    entitle,
    make_panels,
    shown_exposures,
    shown_part,
    shown_slice,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["flux_scale", "plot_pixels", "plot_residuals", "show_pixels"]

SIGMAS = 5.0
"""Ends of the colours of residuals, in standard deviations."""

_NARROW = 27
_RESIDUAL_TICKS = (-5.0, -3.0, -1.0, 1.0, 3.0, 5.0)


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
        without weight are grey.

    Raises
    ------
    MissingExtraError
        If matplotlib is missing.
    LayoutError
        If the arrays do not have as many values as the plan has pixels.
    """
    fluxes, weights = _cut(plan, first, data, ierr)
    shown = shown_exposures(plan, first)
    figure, panels = make_panels(len(shown), 2)
    for exposure, pair, flux, weight in zip(shown, panels, fluxes, weights, strict=True):
        used = np.where(weight.image > 0, 1.0, np.nan)
        values = flux.image * used
        norm, ticks = flux_scale(values)
        show_pixels(pair[0], flux, values, f"flux [{flux_units}]", norm, ticks)
        entitle(pair[0], exposure.band, exposure.expID, "flux")
        label = f"inverse uncertainty [1/{flux_units}]"
        show_pixels(pair[1], weight, weight.image * used, label)
        n_unused = int(np.count_nonzero(weight.image == 0))
        what = f"inverse uncertainty, {n_unused} pixels without"
        entitle(pair[1], exposure.band, exposure.expID, what)
    figure.suptitle(f"pixels of the patch; grey: without weight{shown_part(plan, first)}")
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
        and their difference in standard deviations. Pixels without weight are grey.

    Raises
    ------
    MissingExtraError
        If matplotlib is missing.
    LayoutError
        If the arrays do not have as many values as the plan has pixels.
    """
    from matplotlib.colors import Normalize

    light = np.asarray(model, np.float32)
    images = _cut(plan, first, data, ierr, light)
    shown = shown_exposures(plan, first)
    figure, panels = make_panels(len(shown), 3, columns=6, side=3.1)
    for exposure, axes, flux, weight, bright in zip(shown, panels, *images, strict=True):
        used = np.where(weight.image > 0, 1.0, np.nan)
        values, sigmas = flux.image * used, (flux.image - bright.image) * weight.image * used
        norm, ticks = flux_scale(values)
        for place, image, what in ((0, values, "data"), (1, bright.image, "model")):
            show_pixels(axes[place], flux, image, f"flux [{flux_units}]", norm, ticks)
            entitle(axes[place], exposure.band, exposure.expID, what, _NARROW)
        spread = Normalize(-SIGMAS, SIGMAS)
        label = "residual / sigma"
        show_pixels(axes[2], flux, sigmas, label, spread, np.array(_RESIDUAL_TICKS))
        counted = sigmas[np.isfinite(sigmas)].astype(np.float64)
        per_pixel = float(counted @ counted) / max(counted.size, 1)
        what = f"chi2 a pixel {per_pixel:.2f}"
        entitle(axes[2], exposure.band, exposure.expID, what, _NARROW)
    figure.suptitle(f"data | model | residual; grey: without weight{shown_part(plan, first)}")
    return figure


def flux_scale(values: npt.NDArray[Any]) -> tuple[Any, npt.NDArray[np.float64] | None]:
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
    return norm, np.asarray(norm.inverse(np.linspace(0.0, 1.0, 6)))


def show_pixels(
    axes: "Axes",
    image: ExposureImage,
    values: npt.NDArray[Any],
    label: str,
    norm: Any = None,
    ticks: npt.NDArray[np.float64] | None = None,
) -> None:
    """Draw values in the pixels of an exposure; NaN in the patch is grey, outside white."""
    from matplotlib.colors import ListedColormap, Normalize

    (x0, y0), (nx, ny) = image.origin, image.image.shape
    extent = (x0 - 0.5, x0 + nx - 0.5, y0 - 0.5, y0 + ny - 0.5)
    taken = np.where(np.isfinite(image.image), 1.0, np.nan)
    axes.imshow(taken.T, origin="lower", extent=extent, cmap=ListedColormap([GREY]))
    if norm is None:
        finite = values[np.isfinite(values)]
        norm = Normalize(*((finite.min(), finite.max()) if finite.size else (0.0, 1.0)))
    drawn = axes.imshow(
        values.T, origin="lower", extent=extent, norm=norm, cmap=MAP, interpolation="nearest"
    )
    add_bar(axes, drawn, label, ticks)


def _cut(
    plan: PatchPlan, first: int, *arrays: npt.NDArray[np.float32]
) -> list[list[ExposureImage]]:
    """Make images of the exposures that are shown, of each array."""
    return [exposure_images(plan, values)[shown_slice(first)] for values in arrays]
