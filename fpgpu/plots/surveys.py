"""The picture of a whole survey: the footprints of its exposures, and how deep each band is."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fpgpu.depth import aperture_ivar, limiting_magnitude
from fpgpu.errors import PlanError
from fpgpu.plots.canvas import band_looks, counted, finish_sky_axes, make_panels, region_look
from fpgpu.plots.depth import show_depth
from fpgpu.plots.skyplane import ARCMIN, ARCSEC, mean_position, offsets, region_outline
from fpgpu.sky.coverage import depth_map, planar_area
from fpgpu.sky.regions import RegionLike
from fpgpu.sky.sphere import Floats, unit_vectors
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.metadata.skyrecords import Key
from fpgpu.stores.names import each_band
from fpgpu.stores.pixel import PixelStore

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_survey"]

GRID = 400
"""Points of the depth map along the longer side."""


FIELD_DEGREES = 1.0
"""Exposures further apart than about this are different fields."""


_MOST_OUTLINES = 400


def plot_survey(
    meta: MetaStore,
    bands: Iterable[str] | None = None,
    *,
    pixels: PixelStore | None = None,
    region: RegionLike | None = None,
    field: int = 1,
) -> "Figure":
    """Draw the footprints of a survey by band, and a map of the depth of each band.

    Parameters
    ----------
    meta : MetaStore
        Footprints of the exposures.
    bands : iterable of str, optional
        The bands, in this order; all by default.
    pixels : PixelStore, optional
        When given, depth is the magnitude (AB) of five standard deviations of the flux within
        0.15 arcsec, from the weights of a sample of super-pixels of each exposure, as if noise
        were independent from pixel to pixel. When not, it is the number of exposures.
    region : Region, or SkyRegion of regions, optional
        Drawn on top.
    field : int, optional
        Which field, from 1, by number of exposures, where the survey is of several that are
        degrees apart.

    Returns
    -------
    matplotlib.figure.Figure
        One axes with all footprints, and one a band.

    Raises
    ------
    MissingExtraError
        If matplotlib is missing.
    NotInStoreError
        If a band is not in the store.
    PlanError
        If there are no exposures, or no such field.
    WCSError
        If an exposure has no usable WCS.

    Examples
    --------
    >>> figure = plot_survey(survey.meta, region=region)
    >>> len(figure.axes) > 2
    True
    """
    asked = meta.bands if bands is None else each_band(bands, meta.bands)
    every = {(band, e): meta.footprint(band, e) for band in asked for e in meta.exposures(band)}
    if not every:
        raise PlanError("the store has no exposures, so there is nothing to draw")
    fields = _fields(every)
    if not 1 <= field <= len(fields):
        raise PlanError(f"there is no field {field}; the survey has {len(fields)}, from 1 on")
    keys = fields[field - 1]
    center = mean_position([every[key] for key in keys])
    flat = [np.stack(offsets(center, *every[key].T), axis=-1) for key in keys]
    is_small = np.ptp(np.concatenate(flat), axis=0).max() < 180
    unit, scale = ("arcsec", ARCSEC) if is_small else ("arcmin", ARCMIN)
    polygons = {key: polygon * scale / ARCSEC for key, polygon in zip(keys, flat, strict=True)}
    x, y = _grid(np.concatenate([*polygons.values()]))
    by_band = {band: [key for key in keys if key[0] == band] for band, _ in keys}

    figure, panels = make_panels(1 + len(by_band), 4.2, 2.9 * float(np.ptp(y) / np.ptp(x)) + 1.0)
    overview, *depths = panels
    _draw_footprints(overview, {b: [polygons[k] for k in mine] for b, mine in by_band.items()})
    maps = {}
    for band, mine in by_band.items():
        weights = np.ones(len(mine))
        if pixels is not None:
            areas = [planar_area(polygons[key]) * (ARCSEC / scale) ** 2 for key in mine]
            weights = np.array(list(map(aperture_ivar, repeat(pixels), mine, areas)))
        depth = depth_map([polygons[key] for key in mine], weights, x, y)
        maps[band] = depth if pixels is None else limiting_magnitude(depth)
    values = np.concatenate([m[np.isfinite(m)] for m in maps.values()])
    least = 0.0 if pixels is None else float(values.min(initial=np.inf))
    most = float(values.max(initial=1.0 if pixels is None else -np.inf))
    label = "exposures" if pixels is None else 'AB mag, 5 sigma within 0.15"'
    for axes, (band, depth) in zip(depths, maps.items(), strict=True):
        show_depth(axes, depth, x, y, label, most, least)
        axes.set_title(f"{band}: {_deepest(depth, pixels is not None)}", fontsize=10)
    for axes in panels:
        if region is not None:
            edge = offsets(center, *region_outline(region), unit=scale)
            axes.plot(*edge, label="region", **region_look())
        finish_sky_axes(axes, unit, np.array([x[[0, -1]], y[[0, -1]]]))
    handles = overview.get_legend_handles_labels()
    legend = figure.legend(*handles, loc="outside lower center", ncols=min(1 + len(maps), 6))
    for line in legend.get_lines():
        line.set_linewidth(2.0)
    which = f" (field {field} of {len(fields)})" if len(fields) > 1 else ""
    place = f"ra {center[0]:.4f}, dec {center[1]:+.4f} deg"
    figure.suptitle(f"{counted(len(keys), 'exposure')}{which} around {place}")
    return figure


def _fields(outlines: Mapping[Key, Floats]) -> list[list[Key]]:
    """Sort exposures into fields, the one with most of them first: linear in their number."""
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    size = np.deg2rad(FIELD_DEGREES)
    middles = np.array([unit_vectors(*sky.T).mean(axis=0) for sky in outlines.values()])
    cells, cell_of = np.unique(np.floor(middles / size).astype(int), axis=0, return_inverse=True)
    tree = cKDTree(cells)
    _, label = connected_components(tree.sparse_distance_matrix(tree, 2.0), directed=False)
    fields: dict[int, list[Key]] = {}
    for key, cell in zip(outlines, cell_of.ravel(), strict=True):
        fields.setdefault(label[cell], []).append(key)
    return sorted(fields.values(), key=len, reverse=True)


def _grid(vertices: Floats) -> tuple[Floats, ...]:
    """Choose the points of a map on the plane of some vertices, with a margin around them."""
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    margin = 0.04 * float((high - low).max())
    low, high = low - margin, high + margin
    step = float((high - low).max()) / GRID
    return tuple(np.arange(low[k] + 0.5 * step, high[k], step) for k in (0, 1))


def _draw_footprints(axes: "Axes", polygons: Mapping[str, Sequence[Floats]]) -> None:
    """Draw all outlines of each band, the lines the thinner the more there are."""
    n_all = sum(map(len, polygons.values()))
    width = 1.2 if n_all <= 20 else 0.7 if n_all <= _MOST_OUTLINES else 0.25
    for band, look in band_looks(polygons).items():
        mine = polygons[band]
        broken = np.concatenate([np.vstack([p, p[:1], [(np.nan, np.nan)]]) for p in mine])
        label = f"{band}: {counted(len(mine), 'exposure')}"
        axes.plot(*broken.T, label=label, linewidth=width, **look)
    axes.set_title("footprints", fontsize=10)


def _deepest(depth: npt.NDArray[np.float64], is_magnitude: bool) -> str:
    """Say how deep a band is at most."""
    found = depth[np.isfinite(depth)]
    if is_magnitude:
        return f"down to {found.max():.2f} mag" if found.size else "no weight"
    return f"up to {int(found.max(initial=0))} deep"
