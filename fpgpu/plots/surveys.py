"""The picture of a whole survey: the footprints of its exposures, and how deep each band is."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fpgpu.depth import aperture_ivar, limiting_magnitude
from fpgpu.errors import PlanError
from fpgpu.plots.canvas import band_looks, finish_sky_axes, make_panels, region_look
from fpgpu.plots.depth import show_depth
from fpgpu.plots.skyplane import ARCMIN, ARCSEC, mean_position, offsets, region_outline
from fpgpu.sky.coverage import depth_map, planar_area
from fpgpu.sky.regions import RegionLike
from fpgpu.sky.sphere import Floats, unit_vectors
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.names import each_band
from fpgpu.stores.pixel import PixelStore

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_survey"]

Key = tuple[str, str]

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
    keys = _exposures(meta, bands)
    outlines = [meta.footprint(*key) for key in keys]
    fields = _fields(outlines)
    if not 1 <= field <= len(fields):
        raise PlanError(f"there is no field {field}; the survey has {len(fields)}, from 1 on")
    members = fields[field - 1]
    center = mean_position([outlines[k] for k in members])
    sheet = _sheet([keys[k] for k in members], [outlines[k] for k in members], center)

    height = float(np.ptp(sheet.y) / np.ptp(sheet.x))
    figure, panels = make_panels(1 + len(sheet.bands), 4.2, 2.9 * height + 1.0)
    overview, *depths = panels
    _draw_footprints(overview, sheet)
    maps = {band: _depth_of(band, sheet, pixels) for band in sheet.bands}
    values = np.concatenate([m[np.isfinite(m)] for m in maps.values()])
    least = 0.0 if pixels is None else float(values.min(initial=np.inf))
    most = float(values.max(initial=1.0 if pixels is None else -np.inf))
    label = "exposures" if pixels is None else 'AB mag, 5 sigma within 0.15"'
    for axes, (band, depth) in zip(depths, maps.items(), strict=True):
        show_depth(axes, depth, sheet.x, sheet.y, label, most, least)
        axes.set_title(f"{band}: {_deepest(depth, pixels is not None)}", fontsize=10)
    for axes in panels:
        if region is not None:
            edge = offsets(center, *region_outline(region), unit=sheet.scale)
            axes.plot(*edge, label="region", **region_look())
        finish_sky_axes(axes, sheet.unit, np.array([sheet.x[[0, -1]], sheet.y[[0, -1]]]))
    legend = figure.legend(
        *overview.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=min(1 + len(maps), 6),
    )
    for line in legend.get_lines():
        line.set_linewidth(2.0)
    which = f" (field {field} of {len(fields)})" if len(fields) > 1 else ""
    plural = "s" if len(members) != 1 else ""
    figure.suptitle(
        f"{len(members)} exposure{plural}{which} around ra {center[0]:.4f},"
        f" dec {center[1]:+.4f} deg"
    )
    return figure


class _Sheet(NamedTuple):
    """One field on the plane."""

    keys: Sequence[Key]
    polygons: Sequence[Floats]
    pixel_scale2: Sequence[float]  # sky per exposure, arcsec^2
    x: Floats
    y: Floats
    unit: str
    scale: float

    @property
    def bands(self) -> list[str]:
        """Its bands in order."""
        return list(dict.fromkeys(band for band, _ in self.keys))


def _exposures(meta: MetaStore, bands: Iterable[str] | None) -> list[Key]:
    """The exposures of some bands."""
    asked = meta.bands if bands is None else each_band(bands, meta.bands)
    keys = [(band, expID) for band in asked for expID in meta.exposures(band)]
    if not keys:
        raise PlanError("the store has no exposures, so there is nothing to draw")
    return keys


def _fields(outlines: Sequence[Floats]) -> list[npt.NDArray[np.intp]]:
    """Sort outlines into fields, the one with most exposures first: linear in their number."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    size = np.deg2rad(FIELD_DEGREES)
    middles = np.array([unit_vectors(*outline.T).mean(axis=0) for outline in outlines])
    cells, cell_of = np.unique(np.floor(middles / size).astype(int), axis=0, return_inverse=True)
    pairs = cKDTree(cells).query_pairs(2.0, output_type="ndarray")
    links = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(len(cells), len(cells)))
    _, label = connected_components(links, directed=False)
    field_of = label[cell_of.ravel()]
    fields = [np.flatnonzero(field_of == number) for number in np.unique(field_of)]
    return sorted(fields, key=lambda members: (-len(members), members[0]))


def _sheet(keys: Sequence[Key], outlines: Sequence[Floats], center: tuple[float, float]) -> _Sheet:
    """Project a field, and choose unit and grid for it."""
    flat = [np.stack(offsets(center, *outline.T), axis=-1) for outline in outlines]
    areas = [planar_area(p) for p in flat]
    every = np.concatenate(flat)
    low, high = every.min(axis=0), every.max(axis=0)
    span = float((high - low).max())
    unit, scale = ("arcsec", ARCSEC) if span < 180 else ("arcmin", ARCMIN)
    low, high = (edge * scale / ARCSEC for edge in (low, high))
    margin = 0.04 * float((high - low).max())
    low, high = low - margin, high + margin
    step = float((high - low).max()) / GRID
    x_axis, y_axis = (np.arange(low[k] + 0.5 * step, high[k], step) for k in (0, 1))
    polygons = [p * scale / ARCSEC for p in flat]
    return _Sheet(keys, polygons, areas, x_axis, y_axis, unit, scale)


def _draw_footprints(axes: "Axes", sheet: _Sheet) -> None:
    """Draw all outlines, the lines the thinner the more there are."""
    n_all = len(sheet.keys)
    width = 1.2 if n_all <= 20 else 0.7 if n_all <= _MOST_OUTLINES else 0.25
    for band, look in band_looks(sheet.bands).items():
        mine = [p for p, (b, _) in zip(sheet.polygons, sheet.keys, strict=True) if b == band]
        broken = np.concatenate([np.vstack([p, p[:1], [(np.nan, np.nan)]]) for p in mine])
        plural = "s" if len(mine) != 1 else ""
        label = f"{band}: {len(mine)} exposure{plural}"
        axes.plot(*broken.T, label=label, linewidth=width, **look)
    axes.set_title("footprints", fontsize=10)


def _depth_of(band: str, sheet: _Sheet, pixels: PixelStore | None) -> npt.NDArray[np.float64]:
    """Map the depth of one band: exposures, or limiting magnitude with NaN where there is none."""
    mine = [k for k, (b, _) in enumerate(sheet.keys) if b == band]
    polygons = [sheet.polygons[k] for k in mine]
    if pixels is None:
        return depth_map(polygons, np.ones(len(mine)), sheet.x, sheet.y)
    ivar = [aperture_ivar(pixels, sheet.keys[k], sheet.pixel_scale2[k]) for k in mine]
    total = depth_map(polygons, ivar, sheet.x, sheet.y)
    return limiting_magnitude(total)


def _deepest(depth: npt.NDArray[np.float64], is_magnitude: bool) -> str:
    """Say how deep a band is at most."""
    found: Any = depth[np.isfinite(depth)]
    if is_magnitude:
        return f"down to {found.max():.2f} mag" if found.size else "no weight"
    deepest = int(found.max(initial=0))
    return f"up to {deepest} deep"
