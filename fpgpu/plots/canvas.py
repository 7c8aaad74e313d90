"""What all pictures are drawn on and with: figures, panels, colours, titles, files."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fpgpu.errors import MissingExtraError, StoreWriteError
from fpgpu.patch.plan import ExposurePlan, PatchPlan
from fpgpu.sky.sphere import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "GREY",
    "MAP",
    "MOST_EXPOSURES",
    "add_bar",
    "band_looks",
    "entitle",
    "finish_sky_axes",
    "make_figure",
    "make_panels",
    "pages",
    "region_look",
    "require_matplotlib",
    "save",
    "save_all",
    "shown_exposures",
    "shown_part",
    "shown_slice",
]

MOST_EXPOSURES = 12
"""Exposures that get panels of their own in one picture."""

MAP = "cividis"
"""Colours of maps: the same to every colour vision, and lightness alone tells the order."""

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", ":", "-.")
GREY = "0.75"

_TITLE_LINES = 4


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
    n_groups: int, n_each: int, columns: int = 4, side: float = 4.2
) -> "tuple[Figure, list[Sequence[Axes]]]":
    """Make a group of axes for each of several things; a row holds at most `columns` axes."""
    groups = min(max(columns // n_each, 1), max(n_groups, 1))
    n_rows = -(-max(n_groups, 1) // groups)
    figure = make_figure(side * groups * n_each, side * n_rows + 0.6)
    grid: Any = figure.subplots(n_rows, groups * n_each, squeeze=False).ravel()
    for axes in grid[n_groups * n_each :]:
        axes.remove()
    return figure, [grid[k * n_each : (k + 1) * n_each] for k in range(n_groups)]


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


def entitle(axes: "Axes", band: str, expID: str, what: str, width: int = 46) -> None:
    """Name an exposure, in lines of `width` characters, and the axes of its pixels."""
    lines = wrap(expID, width, max_lines=_TITLE_LINES, placeholder="...")
    axes.set_title("\n".join([f"{band}: {what}", *lines]), fontsize=8)
    axes.set_xlabel("x [pixel]")
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


def add_bar(axes: "Axes", drawn: Any, label: str, ticks: npt.ArrayLike | None = None) -> None:
    """Add a colour bar as high as the axes; with `ticks`, just these."""
    beside = axes.inset_axes((1.03, 0.0, 0.05, 1.0))
    bar = axes.figure.colorbar(drawn, cax=beside, label=label)
    if ticks is None:
        bar.ax.ticklabel_format(useOffset=False)
        return
    values = np.asarray(ticks).tolist()
    bar.set_ticks(values, labels=[f"{value:.3g}" for value in values])
    bar.minorticks_off()


def shown_slice(first: int) -> slice:
    """Give the numbers of the exposures that one picture has room for, from `first` on."""
    return slice(first, first + MOST_EXPOSURES)


def shown_exposures(plan: PatchPlan, first: int) -> Sequence[ExposurePlan]:
    """Give the exposures of a plan that one picture has room for, from number `first` on."""
    return plan.exposures[shown_slice(first)]


def shown_part(plan: PatchPlan, first: int) -> str:
    """Say which exposures are shown, when not all are."""
    n_shown = len(shown_exposures(plan, first))
    if n_shown == plan.n_exp:
        return ""
    return f" (exposures {first + 1} to {first + n_shown} of {plan.n_exp})"
