"""The picture of where the time of a patch goes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fpgpu.errors import PlanError
from fpgpu.patch.timing import PHASES, PatchTimes
from fpgpu.plots.canvas import make_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_times"]

# Any two differ in lightness or hatching: phases that take no time leave others side by side.
_LOOKS: dict[str, dict[str, Any]] = {
    "plan": {"color": "#1B2A49"},
    "metadata": {"color": "#D55E00", "hatch": "//"},
    "read": {"color": "#0072B2"},
    "upload": {"color": "#F0E442", "hatch": ".."},
    "unpack": {"color": "#7FD1B9"},
    "other": {"color": "#DDDDDD", "hatch": "xx"},
}


def plot_times(times: Sequence[PatchTimes]) -> "Figure":
    """Draw how long each phase of some patches took, as stacked bars.

    Parameters
    ----------
    times : sequence of PatchTimes
        From `fpgpu.patch.timing.time_patch`; at least one.

    Returns
    -------
    matplotlib.figure.Figure
        Bars from the first one down.

    Raises
    ------
    MissingExtraError
        If matplotlib is missing.
    PlanError
        If there are no times.
    """
    if not times:
        raise PlanError("no times of a patch to draw; measure some with time_patch")
    figure = make_figure(11.0, 1.6 + 0.7 * len(times))
    axes = figure.subplots()
    labels = [
        f"{2 * 3600 * np.rad2deg(t.region.bounding_cap[1]):.3g} arcsec across\n{t.n_exp} exp.,"
        f" {t.n_pixels / 1e6:.3g} Mpix, {t.n_sources} src"
        for t in times
    ]
    rows, left = range(len(times)), [0.0] * len(times)
    for phase in PHASES:
        width = [1e3 * t.seconds[phase] for t in times]
        axes.barh(rows, width, left=left, label=phase, edgecolor="white", **_LOOKS[phase])
        left = [a + b for a, b in zip(left, width, strict=True)]
    for row, total in enumerate(left):
        axes.text(total, row, f"  {total:.3g} ms", va="center")
    axes.set_yticks(rows, labels)
    axes.set_xlim(0, 1.14 * max(left))
    axes.invert_yaxis()
    axes.set_xlabel("time [ms]")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    repeats = " or ".join(str(n) for n in sorted({t.repeats for t in times}))
    backends = ", ".join(dict.fromkeys(t.backend for t in times))
    figure.suptitle(
        f"where the time of a patch goes, on {backends}: median of {repeats}", fontsize=11
    )
    return figure
