"""Quick-look pictures of a patch: where it is, which super-pixels it takes, what is in them.

Colours are those of Okabe and Ito and of the viridis family, which people with any colour vision
can tell apart. matplotlib is imported when a picture is made, and no global state of it is used.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fpgpu.errors import MissingExtraError, StoreWriteError
from fpgpu.patch.images import ExposureImage, exposure_images
from fpgpu.patch.plan import ExposurePlan, PatchPlan
from fpgpu.sky.regions import PolygonRegion, RectangularRegion, Region
from fpgpu.sky.sphere import Floats, positions, tangent_basis, tangent_coordinates, unit_vectors
from fpgpu.stores.meta import MetaStore

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_footprints", "plot_pixels", "plot_superpixels", "require_matplotlib", "save"]

MOST_EXPOSURES = 12
"""Exposures that get panels of their own."""

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
STYLES = ("-", "--", ":", "-.")
REGION_STYLE: dict[str, Any] = {"color": "black", "linewidth": 2.0, "linestyle": "-"}
NOT_USED = "0.75"

_ARCSEC = 3600.0 * 180.0 / np.pi


def require_matplotlib() -> None:
    """Say how to get matplotlib where it is missing.

    Raises
    ------
    MissingExtraError
        With the line that installs it.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"pictures need matplotlib, which cannot be imported ({error}): install it with"
            ' pip install "fpgpu[plot]", or leave the pictures out'
        ) from error


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
        Two axes: whole exposures, and what is taken of them.

    Raises
    ------
    MissingExtraError
        If matplotlib is missing.
    """
    figure = _figure(12.0, 6.4)
    whole, near = figure.subplots(1, 2)
    looks: dict[str, dict[str, Any]] = {
        band: {"color": COLORS[k % len(COLORS)], "linestyle": STYLES[k % len(STYLES)]}
        for k, band in enumerate(plan.bandlist)
    }
    for band, count in zip(plan.bandlist, plan.band_N, strict=True):
        label = f"{band}: {count} exposure{'' if count == 1 else 's'}"
        whole.plot([], [], label=label, **looks[band])
    for exposure in plan.exposures:
        wcs = meta.sky_wcs(exposure.band, exposure.expID)
        outline = wcs.footprint(16)
        whole.plot(*_offsets(plan.region, *_closed(*outline.T)), **looks[exposure.band])
        sky = wcs.pixel_to_world(*_superpixel_outlines(exposure, plan.super_pixel_size))
        near.plot(*_offsets(plan.region, *sky), linewidth=0.7, **looks[exposure.band])
    ra, dec = plan.region.center
    for axes, title in ((whole, "whole exposures"), (near, "super-pixels taken")):
        axes.plot(*_offsets(plan.region, *_outline(plan.region)), label="region", **REGION_STYLE)
        axes.set_title(title)
        axes.set_xlabel("east offset [arcsec]")
        axes.set_ylabel("north offset [arcsec]")
        axes.set_aspect("equal", adjustable="datalim")
        axes.invert_xaxis()
    figure.legend(*whole.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(f"{plan.n_exp} exposures around ra {ra:.5f}, dec {dec:+.5f} deg")
    return figure


def plot_superpixels(meta: MetaStore, plan: PatchPlan) -> "Figure":
    """Draw the super-pixels taken of each exposure, with the region.

    Parameters
    ----------
    meta : MetaStore
        WCS of the exposures.
    plan : PatchPlan
        Of the patch.

    Returns
    -------
    matplotlib.figure.Figure
        One axes an exposure, for the first `MOST_EXPOSURES`.

    Raises
    ------
    MissingExtraError
        If matplotlib is missing.
    """
    from matplotlib.collections import PolyCollection

    shown = plan.exposures[:MOST_EXPOSURES]
    figure, panels = _panels(len(shown), 1)
    for exposure, (axes,) in zip(shown, panels, strict=True):
        low = exposure.superpixels * plan.super_pixel_size - 0.5
        square = plan.super_pixel_size * np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
        axes.add_collection(
            PolyCollection(low[:, None] + square, facecolor="#56B4E9", edgecolor="white", lw=0.5)
        )
        wcs = meta.sky_wcs(exposure.band, exposure.expID)
        axes.plot(*wcs.world_to_pixel(*_outline(plan.region)), **REGION_STYLE)
        x0, x1, y0, y1 = (plan.super_pixel_size * edge for edge in exposure.window)
        room = plan.super_pixel_size
        axes.set_xlim(x0 - 0.5 - room, x1 - 0.5 + room)
        axes.set_ylim(y0 - 0.5 - room, y1 - 0.5 + room)
        axes.set_aspect("equal")
        nx, ny = exposure.shape
        _entitle(axes, exposure, f"{exposure.n_superpixels} super-pixels, exposure {nx} x {ny}")
    _say_how_many(figure, "super-pixels taken; the line is the region", plan)
    return figure


def plot_pixels(
    plan: PatchPlan,
    data: npt.NDArray[np.float32],
    ierr: npt.NDArray[np.float32],
    *,
    flux_units: str = "nJy",
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

    Returns
    -------
    matplotlib.figure.Figure
        Two axes an exposure, with a colour bar each, for the first `MOST_EXPOSURES`: flux, on a
        scale that is linear near zero and logarithmic beyond, and inverse uncertainty. Pixels
        without weight are grey.

    Raises
    ------
    MissingExtraError
        If matplotlib is missing.
    LayoutError
        If the arrays do not have as many values as the plan has pixels.
    """
    images = (exposure_images(plan, data), exposure_images(plan, ierr))
    shown = plan.exposures[:MOST_EXPOSURES]
    figure, panels = _panels(len(shown), 2)
    # More than there are panels is cut off by the shortest.
    for exposure, pair, flux, weight in zip(shown, panels, *images, strict=False):
        used = np.where(weight.image > 0, 1.0, np.nan)
        _show(pair[0], flux, flux.image * used, f"flux [{flux_units}]", is_flux=True)
        _entitle(pair[0], exposure, "flux")
        weight_label = f"inverse uncertainty [1/{flux_units}]"
        _show(pair[1], weight, weight.image * used, weight_label, is_flux=False)
        n_unused = int(np.count_nonzero(weight.image == 0))
        _entitle(pair[1], exposure, f"inverse uncertainty, {n_unused} pixels without")
    _say_how_many(figure, "pixels of the patch; grey: without weight", plan)
    return figure


def save(figure: "Figure", path: str | Path) -> Path:
    """Write a picture.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The picture.
    path : path
        The file; its suffix says the format.

    Returns
    -------
    Path
        The same.

    Raises
    ------
    StoreWriteError
        If it cannot be written.
    """
    path = Path(path)
    try:
        figure.savefig(path, dpi=120, bbox_inches="tight")
    except (OSError, ValueError) as error:
        raise StoreWriteError(f"{path}: the picture cannot be written: {error}") from error
    return path


def _figure(width: float, height: float) -> "Figure":
    """Make a figure in inches that arranges its axes so that nothing overlaps."""
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _panels(n_exposures: int, n_each: int) -> "tuple[Figure, list[Sequence[Axes]]]":
    """Make a group of axes for each exposure; a row holds four axes."""
    groups = min(4 // n_each, max(n_exposures, 1))
    n_rows = -(-n_exposures // groups)
    figure = _figure(4.2 * groups * n_each, 4.2 * n_rows + 0.6)
    grid: Any = figure.subplots(n_rows, groups * n_each, squeeze=False).ravel()
    for axes in grid[n_exposures * n_each :]:
        axes.remove()
    return figure, [grid[k * n_each : (k + 1) * n_each] for k in range(n_exposures)]


def _show(
    axes: "Axes", image: ExposureImage, values: npt.NDArray[Any], label: str, *, is_flux: bool
) -> None:
    """Draw an image in the pixels of its exposure; NaN in the patch is grey, outside white."""
    from matplotlib.colors import AsinhNorm, ListedColormap, Normalize

    (x0, y0), (nx, ny) = image.origin, image.image.shape
    extent = (x0 - 0.5, x0 + nx - 0.5, y0 - 0.5, y0 + ny - 0.5)
    taken = np.where(np.isfinite(image.image), 1.0, np.nan)
    axes.imshow(taken.T, origin="lower", extent=extent, cmap=ListedColormap([NOT_USED]))
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    norm: Any = Normalize(low, high)
    if is_flux and finite.size and high > low:
        spread = 3 * 1.4826 * float(np.median(np.abs(finite - np.median(finite))))
        norm = AsinhNorm(spread or 1.0, vmin=low, vmax=high)
    shown = axes.imshow(
        values.T,
        origin="lower",
        extent=extent,
        norm=norm,
        cmap="cividis" if is_flux else "viridis",
        interpolation="nearest",
    )
    bar = axes.figure.colorbar(shown, ax=axes, label=label, shrink=0.85)
    if isinstance(norm, AsinhNorm):
        # Matplotlib's own ticks crowd where such a scale turns from linear to logarithmic.
        ticks = norm.inverse(np.linspace(0.0, 1.0, 6)).tolist()
        bar.set_ticks(ticks, labels=[f"{tick:.3g}" for tick in ticks])
        bar.minorticks_off()
    else:
        bar.ax.ticklabel_format(useOffset=False)


def _entitle(axes: "Axes", exposure: ExposurePlan, what: str) -> None:
    """Name an exposure and its axes; a long name is cut in its middle."""
    name = f"{exposure.band}/{exposure.expID}"
    if len(name) > 33:
        name = f"{name[:12]}...{name[-18:]}"
    axes.set_title(f"{name}\n{what}", fontsize=9)
    axes.set_xlabel("x [pixel]")
    axes.set_ylabel("y [pixel]")


def _say_how_many(figure: "Figure", what: str, plan: PatchPlan) -> None:
    """Entitle a figure, and say when not all exposures are shown."""
    part = f" (the first {MOST_EXPOSURES} of {plan.n_exp} exposures)"
    figure.suptitle(what + (part if plan.n_exp > MOST_EXPOSURES else ""))


def _superpixel_outlines(exposure: ExposurePlan, size: int) -> tuple[Floats, Floats]:
    """Pixels x, y of the corners of super-pixels, with NaN between one outline and the next."""
    square = size * np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0), (np.nan, np.nan)])
    corners = exposure.superpixels[:, None] * size - 0.5 + square
    return corners[..., 0].ravel(), corners[..., 1].ravel()


def _outline(region: Region) -> tuple[Floats, Floats]:
    """Positions ra, dec in degrees along the edge of a region, closed."""
    if isinstance(region, PolygonRegion):
        return _closed(np.array(region.ra), np.array(region.dec))
    along = np.linspace(0.0, 1.0, 65)
    if isinstance(region, RectangularRegion):
        (west, east, *_), (south, _, north, _) = region.bounding_box
        ra = np.concatenate([west + (east - west) * along, east + (west - east) * along, [west]])
        return ra, np.repeat([south, north, south], [len(along), len(along), 1])
    centre, radius = region.bounding_cap
    east, north = tangent_basis(centre)
    angle = 2 * np.pi * along[:, None]
    direction = np.cos(angle) * east + np.sin(angle) * north
    ra, dec = positions(np.cos(radius) * centre + np.sin(radius) * direction)
    return ra, dec


def _closed(ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
    """Append the first point of an outline."""
    return np.append(ra, ra[0]), np.append(dec, dec[0])


def _offsets(region: Region, ra: Floats, dec: Floats) -> Iterable[Floats]:
    """Offsets from the centre of a region in arcsec, on the tangent plane."""
    xi, eta = tangent_coordinates(unit_vectors(ra, dec), unit_vectors(*region.center))
    return xi * _ARCSEC, eta * _ARCSEC
