"""What all pictures are drawn on and with: figures, panels, colours, titles, files."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpgpu.errors import MissingExtraError, StoreWriteError
from fpgpu.patch.plan import ExposurePlan, PatchPlan
from fpgpu.sky.sphere import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "DIVERGING",
    "MAP",
    "MASKED",
    "MOST_EXPOSURES",
    "add_bar",
    "band_looks",
    "break_name",
    "counted",
    "finish_pixel_axes",
    "finish_sky_axes",
    "make_figure",
    "make_groups",
    "make_panels",
    "page_from",
    "pages",
    "region_look",
    "require_matplotlib",
    "save",
    "save_all",
    "show_image",
]

MOST_EXPOSURES = 12
"""Exposures that get panels of their own in one picture."""

MAP = "cividis"
"""Colours of maps: the same to every colour vision, and lightness alone tells the order."""

DIVERGING = "PuOr"
"""Colours of differences, white where there is none, told apart by every colour vision."""

MASKED = "magenta"
"""Pixels without weight: to every colour vision far from all colours of both maps."""

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", ":", "-.")

_GROUP_LINE = 72
"""Characters of a title over a group of panels."""


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


def pages(plan: PatchPlan, draw: Callable[..., "Figure"]) -> Iterator["Figure"]:
    """Draw as many pictures as the exposures of a plan need.

    Parameters
    ----------
    plan : PatchPlan
        The exposures.
    draw : callable
        ``draw(first=...)`` gives the picture that begins with that exposure.

    Yields
    ------
    matplotlib.figure.Figure
        One picture after the other.
    """
    for first in range(0, plan.n_exp, MOST_EXPOSURES):
        yield draw(first=first)


def save_all(
    prefix: str, figures: Mapping[str, Iterable["Figure"]], suffix: str = "png"
) -> Iterator[Path]:
    """Write pictures of several kinds, one after the other.

    Parameters
    ----------
    prefix : str
        What all names begin with.
    figures : mapping of str to iterable of Figure
        Pictures by kind; they are asked for one by one, so that one is in memory at a time.
    suffix : str, optional
        The format.

    Yields
    ------
    Path
        ``PREFIX_KIND.png``; further pictures of a kind are numbered, ``PREFIX_KIND_2.png``.

    Raises
    ------
    StoreWriteError
        If one cannot be written.
    """
    for kind, some in figures.items():
        for number, figure in enumerate(some, start=1):
            ending = f"_{number}" if number > 1 else ""
            yield save(figure, f"{prefix}_{kind}{ending}.{suffix}")


def make_figure(width: float, height: float) -> "Figure":
    """Make a figure in inches that arranges its axes so that nothing overlaps."""
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def make_panels(
    n_panels: int, width: float, height: float, columns: int = 4
) -> "tuple[Figure, list[Axes]]":
    """Make panels of a size in inches, `columns` in a row at most."""
    columns = min(columns, max(n_panels, 1))
    n_rows = -(-max(n_panels, 1) // columns)
    figure = make_figure(width * columns, height * n_rows + 0.5)
    panels: Any = figure.subplots(n_rows, columns, squeeze=False).ravel()
    for axes in panels[n_panels:]:
        axes.remove()
    return figure, list(panels[:n_panels])


def make_groups(
    exposures: Sequence[ExposurePlan], n_each: int, width: float, height: float
) -> "tuple[Figure, list[Sequence[Axes]]]":
    """Make groups of panels, two in a row, each under the name of its exposure, y axis shared."""
    columns = min(2, max(len(exposures), 1))
    n_rows = -(-max(len(exposures), 1) // columns)
    figure = make_figure(width * columns, height * n_rows + 0.5)
    parts = figure.subfigures(n_rows, columns, squeeze=False).ravel()
    groups = []
    for exposure, part in zip(exposures, parts, strict=False):
        part.suptitle(break_name(f"{exposure.band} {exposure.expID}", _GROUP_LINE), fontsize=11)
        groups.append(part.subplots(1, n_each, sharey=True))
    return figure, groups


def band_looks(bands: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Give each band a colour and a line style, so that either alone tells neighbours apart."""
    # Seven colours and four styles have no common divisor: 28 different looks.
    return {
        band: {"color": COLORS[k % len(COLORS)], "linestyle": STYLES[k % len(STYLES)]}
        for k, band in enumerate(bands)
    }


def region_look() -> dict[str, Any]:
    """Give the look of the line around a region: seen on every background."""
    from matplotlib.patheffects import withStroke

    around = [withStroke(linewidth=4.0, foreground="white")]
    return {"color": "black", "linewidth": 2.0, "linestyle": "-", "path_effects": around}


def break_name(name: str, width: int) -> str:
    """Break a name into lines of `width` characters, where it may be broken: after / _ . and -."""
    lines = [""]
    for part in re.split(r"(?<=[ /_.-])", name):
        if len(lines[-1]) + len(part) > width and lines[-1]:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def finish_pixel_axes(axes: "Axes", corners: tuple[float, float, float, float]) -> None:
    """Show a square around the pixels between corners (x0, x1, y0, y1), hatched where none are."""
    x0, x1, y0, y1 = corners
    half = 0.5 * max(x1 - x0, y1 - y0)
    axes.set_xlim(0.5 * (x0 + x1) - half, 0.5 * (x0 + x1) + half)
    axes.set_ylim(0.5 * (y0 + y1) - half, 0.5 * (y0 + y1) + half)
    axes.set_aspect("equal")
    axes.patch.set(hatch="///", edgecolor="0.85", linewidth=0.0)
    axes.locator_params(nbins=5, integer=True)
    axes.set_xlabel("x [pixel]")
    if axes.get_subplotspec().is_first_col():  # type: ignore[union-attr]
        axes.set_ylabel("y [pixel]")


def finish_sky_axes(axes: "Axes", unit: str, limits: Floats | None = None) -> None:
    """Make a map of the sky of axes with offsets: equal scales, right ascension to the left.

    With limits ((x low, x high), (y low, y high)) it shows just these.
    """
    axes.set_xlabel(f"east offset [{unit}]")
    axes.set_ylabel(f"north offset [{unit}]")
    if limits is None:
        axes.set_aspect("equal", adjustable="datalim")
    else:
        axes.set_aspect("equal", adjustable="box")
        axes.set_xlim(*limits[0])
        axes.set_ylim(*limits[1])
    axes.invert_xaxis()


def show_image(axes: "Axes", values: Any, extent: Any, **looks: Any) -> Any:
    """Show values ``[x, y]`` between edges (x0, x1, y0, y1), each as the square it is of."""
    return axes.imshow(values.T, origin="lower", extent=extent, interpolation="nearest", **looks)


def add_bar(axes: "Axes", drawn: Any, label: str, ticks: Sequence[float] | None = None) -> None:
    """Add a colour bar as high as the axes; with `ticks`, just these."""
    beside = axes.inset_axes((1.03, 0.0, 0.05, 1.0))
    bar = axes.figure.colorbar(drawn, cax=beside, label=label)
    if ticks is None:
        bar.ax.ticklabel_format(useOffset=False)
        return
    bar.set_ticks(
        list(ticks), labels=[f"{value:g}".replace("-", "\N{MINUS SIGN}") for value in ticks]
    )
    bar.minorticks_off()


def page_from(plan: PatchPlan, first: int) -> tuple[slice, str]:
    """Give the exposures that one picture has room for, and say which, when not all are."""
    last = min(first + MOST_EXPOSURES, plan.n_exp)
    part = (
        f" (exposures {first + 1} to {last} of {plan.n_exp})" if last - first < plan.n_exp else ""
    )
    return slice(first, last), part


def counted(n: int, what: str) -> str:
    """Write a number of things."""
    return f"{n} {what}{'' if n == 1 else 's'}"
