"""A report as JSON, as a page and as a picture."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.report.document import Report, ReportError
from benchmarks.report.figure import draw
from benchmarks.report.goals import GOALS
from benchmarks.report.markdown import page
from benchmarks.run import write_report
from tests.benchmarks.reports import GPU, full_report, measurement, report

ALL = ("fpgpu cpu", "fpgpu cuda", "forcepho")


@pytest.fixture
def gpu_report() -> Report:
    """A report with what the doctor says of a machine with a GPU."""
    copies = [{"what": "device to device", "n_bytes": 64 << 20, "bytes_per_second": 2.1e12}]
    found = full_report(ALL, device=GPU, driver="555.42")
    steps = [{"name": "patches", "shows": "same bits", "outcome": "passed", "found": {}}]
    diagnosis, failed = {"backends": [{"copies": copies}]}, {"test_a": "a wrong result"}
    return Report(found.facts, found.measurements, {}, diagnosis, failed).with_steps(steps)


def test_json_keeps_everything(gpu_report: Report, tmp_path: Path) -> None:
    gpu_report.write(tmp_path / "report.json")
    assert Report.read(tmp_path / "report.json") == gpu_report


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a report of python -m benchmarks"),
        ('{"format": 99}', "format 99, expected 1; measure again"),
        ('{"format": 1, "measurements": [{"speed": 3}]}', "not a report of python -m benchmarks"),
    ],
)
def test_other_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ReportError, match=message):
        Report.read(tmp_path / "report.json")


def test_files_are_named_after_the_day_the_device_and_the_size(
    gpu_report: Report, tmp_path: Path
) -> None:
    files = write_report(gpu_report, tmp_path / "new")
    stem = "2026-03-01-1200-cuda-device-0-nvidia-x1-survey"
    assert [path.name for path in files] == [f"{stem}.json", f"{stem}.md", f"{stem}.png"]
    assert files[2].read_bytes().startswith(b"\x89PNG")
    assert json.loads(files[0].read_text())["device"] == GPU
    assert f"![times and growth]({stem}.png)" in files[1].read_text()


def test_the_page_says_where_when_and_how(gpu_report: Report) -> None:
    lines = page(gpu_report, "p.png").splitlines()
    assert lines[0] == f"# {GPU}, 2026-03-01, size survey"
    for fact in ("command: python -m benchmarks --size survey", "driver: 555.42", "cores: 8"):
        assert f"- {fact}" in lines
    assert "- CuPy: None" not in lines
    assert "| device to device, 64 MiB | 2100.0 |" in lines
    assert any(line.startswith("| grows | fpgpu cuda | radius | 2.00 |") for line in lines)


def test_the_page_says_what_was_left_out() -> None:
    assert page(report([measurement()]), "p.png").endswith("- 3 x needs a GPU: none is here\n")


def test_the_page_says_what_failed_and_what_was_tried_on_the_device() -> None:
    found = replace(report([measurement()]), failed={"test_a": "a wrong result"})
    steps = [
        {"name": "overlap", "shows": "at once", "outcome": "failed", "seconds": 3.2, "error": "a|b"}
        | {"printed": "much", "found": {"together": 0}},
        {"name": "patches", "shows": "same bits", "outcome": "left out"},
    ]
    lines = page(found.with_steps(steps), "p.png").splitlines()
    assert "- test_a: a wrong result" in lines
    assert "| overlap | at once | failed | 3 s | a/b |" in lines
    assert "| patches | same bits | left out |  |  |" in lines


def test_goals_are_for_inputs_of_a_survey() -> None:
    assert "speed to reach" not in page(report([measurement()], size="small"), "p.png")


def test_nothing_in_the_picture_is_cut_and_every_goal_is_in_it(gpu_report: Report) -> None:
    figure = draw(gpu_report)
    figure.draw_without_rendering()
    axes = [ax for part in figure.subfigs for ax in part.axes if ax.get_visible()]
    labels = [label.get_text() for label in axes[0].get_yticklabels()]
    assert labels == [goal.title for goal in GOALS if "memory" not in goal.operation]
    for ax in axes:
        box, whole = ax.get_tightbbox(), figure.bbox
        assert whole.x0 <= box.x0 < box.x1 <= whole.x1, ax
        assert whole.y0 <= box.y0 < box.y1 <= whole.y1, ax
    assert len(axes) == 8


def test_a_report_of_nothing_that_grows_has_a_picture_too() -> None:
    assert draw(report([measurement()], size="small")).get_suptitle().startswith("fpgpu, Some CPU")
