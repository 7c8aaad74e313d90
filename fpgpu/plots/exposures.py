"""Pictures of exposures on their detectors: super-pixels taken, and their layout with the mask."""

from typing import TYPE_CHECKING

import numpy as np

from fpgpu.errors import LayoutError
from fpgpu.patch.images import ExposureImage
from fpgpu.patch.plan import PatchPlan
from fpgpu.plots.canvas import (
    MAP,
    add_bar,
    break_name,
    finish_pixel_axes,
    make_figure,
    make_panels,
    page_from,
    region_look,
    show_image,
)
from fpgpu.plots.pixels import flux_scale, show_pixels
from fpgpu.plots.skyplane import region_outline
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.pixel import PixelStore
from fpgpu.superpixels import Window, grid_shape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_layout", "plot_superpixels"]

ACROSS = 6
"""Super-pixels along each side of the close-up."""

_LINE = 46
"""Characters of a title over one panel."""


def plot_superpixels(meta: MetaStore, plan: PatchPlan, *, first: int = 0) -> "Figure":
    """Draw the super-pixels taken of each exposure, with the region.

    Parameters
    ----------
    meta : MetaStore
        WCS of the exposures.
    plan : PatchPlan
        Of the patch.
    first : int, optional
        The exposure to begin with, from 0, where there are more than fit into one picture.

    Returns
    -------
    matplotlib.figure.Figure
        One axes an exposure, for `MOST_EXPOSURES` at most.

    Raises
    ------
    MissingExtraError
        If matplotlib is missing.
    """
    shown, part = page_from(plan, first)
    exposures = plan.exposures[shown]
    figure, panels = make_panels(len(exposures), 3.6, 3.8)
    from matplotlib.collections import PolyCollection

    for exposure, axes in zip(exposures, panels, strict=True):
        low = exposure.superpixels * plan.super_pixel_size - 0.5
        square = plan.super_pixel_size * np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
        axes.add_collection(
            PolyCollection(low[:, None] + square, facecolor="#56B4E9", edgecolor="white", lw=0.5)
        )
        wcs = meta.sky_wcs(exposure.band, exposure.expID)
        axes.plot(*wcs.world_to_pixel(*region_outline(plan.region)), **region_look())
        x0, x1, y0, y1 = exposure.window
        sides = plan.super_pixel_size * np.array([x0 - 1, x1 + 1, y0 - 1, y1 + 1])
        finish_pixel_axes(axes, tuple(sides))
        nx, ny = exposure.shape
        what = f"{exposure.band}: {exposure.n_superpixels} super-pixels, exposure {nx} x {ny}"
        axes.set_title(f"{what}\n{break_name(exposure.expID, _LINE)}", fontsize=8.5)
    figure.suptitle(f"super-pixels taken; the line is the region{part}")
    return figure


def plot_layout(
    pixels: PixelStore, band: str, expID: str, *, place: tuple[float, float] | None = None
) -> "Figure":
    """Draw how an exposure is laid out in super-pixels, with what is masked.

    Parameters
    ----------
    pixels : PixelStore
        The exposure's.
    band, expID : str
        The exposure.
    place : (float, float), optional
        Zero-based pixel (x, y) in the middle of the close-up; by default where the super-pixel
        with the brightest pixel is.

    Returns
    -------
    matplotlib.figure.Figure
        Two axes: the part of each super-pixel that has weight, over the whole exposure; and the
        pixels of a few super-pixels, each with its index, the masked ones crossed.

    Raises
    ------
    MissingExtraError
        If matplotlib is missing.
    NotInStoreError, StoreFormatError, StoreBusyError
        If the exposure is not there, or cannot be read.
    LayoutError
        If the place is not on the exposure.

    Examples
    --------
    >>> figure = plot_layout(survey.pixels, *survey.find_exposures(region)[0])
    """
    (nx, ny), size = pixels.shape, pixels.super_pixel_size
    grid = grid_shape((nx, ny), size)
    if place is not None and not (0 <= place[0] < nx and 0 <= place[1] < ny):
        raise LayoutError(
            f"pixel {place} is not on {band}/{expID}, which has {nx} x {ny}; expected 0 <= x <"
            f" {nx} and 0 <= y < {ny}"
        )
    flux, ierr = pixels.read_exposure(band, expID)
    used = ierr > 0
    if place is None:
        brightest = np.unravel_index(np.argmax(np.where(used, flux, -np.inf)), flux.shape)
        place = float(brightest[0]), float(brightest[1])
    window = _window_around(place, grid, size)
    figure = make_figure(12.6, 6.1)
    whole, near = figure.subplots(1, 2)

    share = used.reshape(grid[0], size, grid[1], size).mean(axis=(1, 3))
    frame = (-0.5, nx - 0.5, -0.5, ny - 0.5)
    drawn = show_image(whole, share, frame, cmap=MAP, vmin=0.0, vmax=1.0)
    add_bar(whole, drawn, "part of each super-pixel with weight")
    finish_pixel_axes(whole, frame)
    masked_part = 100 * (1 - used.mean())
    whole.set_title(f"{grid[0]} x {grid[1]} super-pixels, {masked_part:.2f} % masked", fontsize=11)
    x0, x1, y0, y1 = (size * edge - 0.5 for edge in window)
    box = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)])
    whole.plot(*box.T, **region_look())

    part = np.s_[size * window.x0 : size * window.x1, size * window.y0 : size * window.y1]
    image = ExposureImage(band, expID, flux[part], (int(x0 + 0.5), int(y0 + 0.5)), (nx, ny))
    values = np.where(used[part], flux[part], np.nan)
    units = pixels.record(band, expID).flux_units
    show_pixels(near, image, values, f"flux [{units}]", *flux_scale(values))
    masked = np.argwhere(~used[part]) + image.origin
    near.scatter(*masked.T, marker="x", s=18, linewidth=1.0, color="black", zorder=5)
    _draw_grid(near, window, size)
    n_masked = len(masked)
    near.set_title(f"index of each super-pixel; {n_masked} masked pixels", fontsize=11)
    figure.suptitle(
        f"{break_name(f'{band} {expID}', 100)}\nin super-pixels of {size} x {size} pixels;"
        " magenta: masked"
    )
    return figure


def _window_around(place: tuple[float, float], grid: tuple[int, int], size: int) -> Window:
    """The few super-pixels around a pixel that are on the exposure."""
    edges = []
    for value, n in zip(place, grid, strict=True):
        low = min(max(int(value // size) - ACROSS // 2, 0), max(n - ACROSS, 0))
        edges += [low, min(low + ACROSS, n)]
    return Window(*edges)


def _draw_grid(axes: "Axes", window: Window, size: int) -> None:
    """Draw the edges of super-pixels, and their indices."""
    x0, x1, y0, y1 = (size * edge - 0.5 for edge in window)
    axes.vlines(np.arange(x0, x1 + size, size), y0, y1, color="white", linewidth=1.0)
    axes.hlines(np.arange(y0, y1 + size, size), x0, x1, color="white", linewidth=1.0)
    for ix in range(window.x0, window.x1):
        for iy in range(window.y0, window.y1):
            axes.text(
                ix * size,
                (iy + 1) * size - 1.0,
                f"{ix}, {iy}",
                fontsize=9,
                va="top",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.85},
            )
