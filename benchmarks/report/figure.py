"""A report as a picture: times beside those of forcepho and of the machine, and how they grow.

Colours are those of Okabe and Ito, and every column has a marker of its own besides. matplotlib is
imported when a picture is made.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.measurements import Measurement
from benchmarks.report.document import Report
from benchmarks.report.goals import GOALS, SIZE, Goal, find
from benchmarks.report.growth import Growth, growths
from benchmarks.report.markdown import device_or_cpu
from benchmarks.report.tables import times
from fpgpu.plots import require_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]

_LOOKS: dict[str, dict[str, Any]] = {
    "fpgpu cpu": {"color": "#0072B2", "marker": "o"},
    "fpgpu cuda": {"color": "#009E73", "marker": "s"},
    "forcepho": {"color": "#D55E00", "marker": "^"},
    "limit": {"color": "black", "marker": "|"},
}
_LINES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))
_VARIABLES = {
    "exposures": "exposures in the store",
    "exposures a band": "exposures in each band",
    "radius": "radius of the region, arcsec",
    "bands": "bands",
    "sources": "sources",
    "pixels": "pixels of the patch",
    "Gaussians": "Gaussians a source",
    "cores": "cores",
}
_WIDTH, _ROW, _PANEL, _TITLE = 11.0, 0.36, 4.4, 0.5  # inches
_DPI = 110
_ROOM_FOR_RATIOS = 3.0  # beyond the margin, as a factor on the axis of times


def draw(report: Report) -> "Figure":
    """Draw a report; `savefig` of what comes back writes it."""
    require_matplotlib()
    from matplotlib.figure import Figure

    rows = _rows(report) if report.facts["size"] == SIZE else []
    panels = _panels(report)
    n_lines = (len(panels) + 1) // 2
    heights = [1.4 + _ROW * len(rows)] * bool(rows) + [_PANEL] * n_lines
    height = sum(heights) + _TITLE
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained")
    figure.suptitle(
        f"fpgpu, {device_or_cpu(report)}, {report.facts['date'][:10]}", fontsize="large"
    )
    parts = list(
        np.atleast_1d(figure.subfigures(len(heights) or 1, 1, height_ratios=heights or [1.0]))
    )
    if rows:
        _draw_times(parts.pop(0).subplots(), rows)
    for k, line in enumerate(parts[:n_lines]):
        axes = line.subplots(1, 2)
        for ax in axes[len(panels[2 * k : 2 * k + 2]) :]:
            ax.set_visible(False)
        for ax, (variable, fits) in zip(axes, panels[2 * k : 2 * k + 2], strict=False):
            _draw_growth(ax, variable, fits)
    return figure


def _rows(report: Report) -> list[tuple[str, dict[str, Measurement]]]:
    """What there is of each goal, by column."""
    rows = []
    for goal in GOALS:
        found = {
            column: measurement
            for column, detail in _details(goal).items()
            if (measurement := find(report.measurements, goal, column, detail)) is not None
            and measurement.unit == "s"
        }
        if found:
            rows.append((goal.title, found))
    return rows


def _details(goal: Goal) -> dict[str, str]:
    details = {"fpgpu cpu": goal.detail, "forcepho": goal.forcepho}
    return details if goal.cuda is None else details | {"fpgpu cuda": goal.cuda}


def _draw_times(ax: "Axes", rows: list[tuple[str, dict[str, Measurement]]]) -> None:
    """Put a line for each goal, the first on top."""
    for y, (_, found) in enumerate(rows):
        values = [m.value * 1e3 for m in found.values()]
        ax.plot([min(values), max(values)], [y, y], color="0.8", linewidth=1.5, zorder=1)
        for column, measurement in found.items():
            ax.plot(measurement.value * 1e3, y, markersize=8, linestyle="", **_LOOKS[column])
            if column.startswith("fpgpu") and measurement.limit_value is not None:
                limit = measurement.limit_value * 1e3
                ax.plot(limit, y, markersize=14, markeredgewidth=2, **_LOOKS["limit"])
        ours = [m.value for column, m in found.items() if column.startswith("fpgpu")]
        if "forcepho" in found and ours:
            ratio = times(found["forcepho"].value / min(ours))
            x = max(values)
            ax.annotate(ratio, (x, y), (10, 0), textcoords="offset points", va="center")
    for column, look in _LOOKS.items():
        label = "the machine's limit or yardstick" if column == "limit" else column
        if column == "limit" or any(column in found for _, found in rows):
            ax.plot([], [], label=label, markersize=8, linestyle="", **look)
    ax.set_xscale("log")
    ax.margins(x=0.12)
    ax.set_xlim(right=ax.get_xlim()[1] * _ROOM_FOR_RATIOS)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_yticks(range(len(rows)), [title for title, _ in rows])
    ax.set_xlabel("median, ms; beside it how many times as long forcepho takes")
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    ax.legend(loc="lower center", bbox_to_anchor=(0.3, 1.0), ncols=4, frameon=False)


def _panels(report: Report) -> list[tuple[str, list[Growth]]]:
    fits = growths(report.measurements)
    found = [(v, [fit for fit in fits if fit.variable == v]) for v in _VARIABLES]
    return [(variable, chosen) for variable, chosen in found if chosen]


def _draw_growth(ax: "Axes", variable: str, fits: list[Growth]) -> None:
    """Draw points and the power laws through them."""
    from matplotlib.ticker import LogFormatter, NullLocator

    kinds = list(dict.fromkeys((fit.operation, fit.detail) for fit in fits))
    for fit in fits:
        look = _LOOKS[fit.column]
        x, y = np.array(fit.points).T
        ax.plot(x, y * 1e3, linestyle="", markersize=6, **look)
        offset = np.mean(np.log(y) - fit.exponent * np.log(x))
        name = f"{fit.operation}, {fit.detail}" if fit.detail else fit.operation
        ax.plot(
            x,
            np.exp(offset) * x**fit.exponent * 1e3,
            color=look["color"],
            linestyle=_LINES[kinds.index((fit.operation, fit.detail)) % len(_LINES)],
            label=f"{fit.column}, {name}: $x^{{{fit.exponent:.2f}}}$",
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel(_VARIABLES[variable])
    ax.set_ylabel("median, ms")
    ticks = sorted({x for fit in fits for x, _ in fit.points})
    ax.set_xticks(ticks, [f"{tick:,.7g}" for tick in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    for axis in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
        axis(LogFormatter(minor_thresholds=(1.5, 0.5)))
    ax.grid(color="0.9")
    ax.set_axisbelow(True)
    ax.legend(loc="upper left", bbox_to_anchor=(-0.1, -0.16), fontsize="small", frameon=False)
