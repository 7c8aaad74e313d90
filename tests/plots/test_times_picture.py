"""Where the time of a patch goes is measured by the code that builds it, and drawn."""

from itertools import combinations

import numpy as np
import pytest

import fpgpu
from fpgpu import CircularRegion, plots
from fpgpu.backends.base import Backend
from fpgpu.errors import PlanError
from fpgpu.patch.clock import PhaseClock
from fpgpu.patch.timing import PHASES, time_patch
from tests.plots.seen import nothing_overlaps, panels

CIRCLE = CircularRegion(53.16, -27.79, 0.8 / 3600)


def test_phases_are_measured_and_add_up(survey: fpgpu.Survey) -> None:
    times = time_patch(survey, CIRCLE, backend=survey.backend, repeats=2)
    assert list(times.seconds) == list(PHASES)
    assert times.n_exp == 6
    for phase in ("plan", "metadata", "read", "unpack"):
        assert times.seconds[phase] > 0
    # Nothing crosses a bus here: staging memory is what the backend computes on.
    assert times.seconds["upload"] == 0


def test_the_first_time_with_its_imports_does_not_count(
    survey: fpgpu.Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = []

    class KeptClock(PhaseClock):
        def __init__(self, backend: Backend) -> None:
            super().__init__(backend)
            clocks.append(self)

    monkeypatch.setattr("fpgpu.patch.timing.PhaseClock", KeptClock)
    times = time_patch(survey, CIRCLE, backend=survey.backend, repeats=1)
    _, second = clocks
    assert times.seconds["plan"] == second.seconds["plan"]


@pytest.mark.parametrize("count", [1, 3])
def test_a_bar_a_patch_with_the_phases_stacked(survey: fpgpu.Survey, count: int) -> None:
    radii = [0.3, 0.6, 0.9][:count]
    times = [
        time_patch(
            survey, CircularRegion(53.16, -27.79, r / 3600), backend=survey.backend, repeats=1
        )
        for r in radii
    ]
    figure = plots.plot_times(times)
    (axes,) = panels(figure)
    assert len(axes.patches) == len(PHASES) * count
    ends = max(bar.get_x() + bar.get_width() for bar in axes.patches)
    assert ends == pytest.approx(1e3 * max(sum(t.seconds.values()) for t in times))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(PHASES)
    assert nothing_overlaps(figure)


def test_a_patch_that_is_measured_twice_has_two_bars(survey: fpgpu.Survey) -> None:
    times = [time_patch(survey, CIRCLE, backend=survey.backend, repeats=1)] * 2
    axes = panels(plots.plot_times(times))[0]
    assert {bar.get_y() + bar.get_height() / 2 for bar in axes.patches} == {0, 1}
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(labels) == 2
    assert labels[0] == labels[1]


def test_any_two_phases_differ_in_grey_or_hatch(survey: fpgpu.Survey) -> None:
    from matplotlib.colors import to_rgb

    times = time_patch(survey, CIRCLE, backend=survey.backend, repeats=1)
    bars = [bars[0] for bars in panels(plots.plot_times([times]))[0].containers]
    for a, b in combinations(bars, 2):
        grey = [np.dot(to_rgb(bar.get_facecolor()), (0.299, 0.587, 0.114)) for bar in (a, b)]
        assert abs(grey[0] - grey[1]) > 0.1 or a.get_hatch() != b.get_hatch()


def test_no_times_are_refused(survey: fpgpu.Survey) -> None:
    with pytest.raises(PlanError, match="no times"):
        plots.plot_times([])
    with pytest.raises(PlanError, match="repeats is 0"):
        time_patch(survey, CIRCLE, backend=survey.backend, repeats=0)
