"""Pictures of a region of sky: the exposures over it, and how often each place is covered."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fpgpu.patch.images import exposure_images
from fpgpu.patch.plan import ExposurePlan, PatchPlan
from fpgpu.plots.canvas import (
    band_looks,
    counted,
    finish_sky_axes,
    make_figure,
    make_panels,
    region_look,
)
from fpgpu.plots.depth import show_depth
from fpgpu.plots.skyplane import ARCSEC, closed, offsets, region_outline, sky_of_offsets
from fpgpu.sky.sphere import Floats
from fpgpu.stores.meta import MetaStore

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_coverage", "plot_footprints"]

GRID = 160
"""Points along each side of a map of coverage."""

_ROOM = 1.15


def plot_footprints(meta: MetaStore, plan: PatchPlan) -> "Figure":
    """Draw the outlines of the exposures with the region, and the super-pixels around it.

    Parameters
    ----------
    meta : MetaStore
        WCS of the exposures.
    plan : PatchPlan
        Of the patch.

    Returns
    -------
    matplotlib.figure.Figure
        Two axes: whole exposures, and the edge of the super-pixels taken of each.

    Raises
    ------
    MissingExtraError
        If matplotlib is missing.

    Examples
    --------
    >>> figure = plot_footprints(survey.meta, survey.plan(region))
    """
    figure = make_figure(12.0, 6.6)
    whole, near = figure.subplots(1, 2)
    looks = band_looks(plan.bandlist)
    for band, count in zip(plan.bandlist, plan.band_N, strict=True):
        label = f"{band}: {counted(int(count), 'exposure')}"
        whole.plot([], [], label=label, **looks[band])
    for exposure in plan.exposures:
        wcs = meta.sky_wcs(exposure.band, exposure.expID)
        outline = closed(*wcs.footprint(16).T)
        whole.plot(*offsets(plan.region.center, *outline), **looks[exposure.band])
        sky = wcs.pixel_to_world(*_staircase(exposure, plan.super_pixel_size))
        near.plot(*offsets(plan.region.center, *sky), linewidth=1.2, **looks[exposure.band])
    edge = offsets(plan.region.center, *region_outline(plan.region))
    for axes, title in ((whole, "whole exposures"), (near, "edges of the super-pixels taken")):
        axes.plot(*edge, label="region", **region_look())
        axes.set_title(title)
        finish_sky_axes(axes, "arcsec")
    figure.legend(*whole.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(_around(plan))
    return figure


def plot_coverage(
    meta: MetaStore, plan: PatchPlan, ierr: npt.NDArray[np.float32] | None = None
) -> "Figure":
    """Draw how many exposures of each band the patch has at each place.

    Parameters
    ----------
    meta : MetaStore
        WCS of the exposures.
    plan : PatchPlan
        Of the patch.
    ierr : ndarray of float32, shape (n_pixels,), optional
        Inverse uncertainty in the order of the patch: pixels without weight do not count.

    Returns
    -------
    matplotlib.figure.Figure
        One axes a band.

    Raises
    ------
    MissingExtraError
        If matplotlib is missing.
    LayoutError
        If the array does not have as many values as the plan has pixels.

    Examples
    --------
    >>> figure = plot_coverage(survey.meta, patch.plan, patch.retrieve("ierr"))
    """
    from scipy.ndimage import map_coordinates

    center, (_, radius) = plan.region.center, plan.region.bounding_cap
    reach = _ROOM * radius * ARCSEC
    along = reach * (2 * (np.arange(GRID) + 0.5) / GRID - 1)
    sky = sky_of_offsets(center, along[:, None], along[None, :])
    ones = np.ones(plan.n_pixels, np.float32)
    weights = exposure_images(plan, ones if ierr is None else ierr, fill=0.0)
    counts = {band: np.zeros((GRID, GRID)) for band in plan.bandlist}
    for exposure, weight in zip(plan.exposures, weights, strict=True):
        x, y = meta.sky_wcs(exposure.band, exposure.expID).world_to_pixel(*sky)
        # Outside of it, and where the WCS gives no pixel, an exposure counts for nothing.
        places = np.nan_to_num([x - weight.origin[0], y - weight.origin[1]], nan=-9.0)
        has_weight = (weight.image > 0).astype(np.float32)
        counts[exposure.band] += map_coordinates(has_weight, places, order=0, mode="grid-constant")
    figure, panels = make_panels(plan.n_bands, 4.4, 3.7, columns=3)
    most = max((float(count.max()) for count in counts.values()), default=1.0)
    for axes, (band, count), n_exp in zip(panels, counts.items(), plan.band_N, strict=True):
        show_depth(axes, count, along, along, "exposures", most)
        axes.plot(*offsets(center, *region_outline(plan.region)), **region_look())
        inside = count[plan.region.contains_sky(*sky)]  # none, for a tiny region
        low, high = (int(inside.min()), int(inside.max())) if inside.size else (0, 0)
        axes.set_title(f"{band}: {low} to {high} of {n_exp} exposures in the region", fontsize=10)
        finish_sky_axes(axes, "arcsec", np.array([(-reach, reach)] * 2))
    what = "pixels with weight" if ierr is not None else "super-pixels taken"
    figure.suptitle(f"coverage by {what}\n{_around(plan)}", fontsize=11)
    return figure


def _around(plan: PatchPlan) -> str:
    """Say how many exposures there are, and where."""
    ra, dec = plan.region.center
    return f"{counted(plan.n_exp, 'exposure')} around ra {ra:.5f}, dec {dec:+.5f} deg"


def _staircase(exposure: ExposurePlan, size: int) -> tuple[Floats, Floats]:
    """Pixels x, y of the sides that super-pixels share with none, with NaN between sides."""
    window = exposure.window
    taken = np.zeros(np.add(window.shape, 2), bool)
    taken[tuple((exposure.superpixels - (window.x0, window.y0) + 1).T)] = True
    sides = []
    for axis in (0, 1):
        # A side before place i along an axis separates places i - 1 and i.
        start = np.argwhere(np.diff(taken, axis=axis)) + np.eye(2, dtype=int)[axis]
        end = start + np.eye(2, dtype=int)[1 - axis]
        sides.append(np.stack([start, end], axis=1))
    corners = np.concatenate(sides) - 1 + (window.x0, window.y0)
    x, y = np.insert(corners * size - 0.5, 2, np.nan, axis=1).reshape(-1, 2).T
    return x, y
