"""The table of docs/speed.md comes from kept reports, and from nowhere else."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import PAGE, main
from benchmarks.report.document import Report, ReportError
from benchmarks.report.goals import GOALS, NOT_YET, find
from benchmarks.report.markdown import page
from benchmarks.report.speedpage import BEGIN, END, GPU_COMMAND, RESULTS, replaced, speed_section
from tests.benchmarks.reports import GPU, full_report, measurement

CPU_COLUMNS = ("fpgpu cpu", "forcepho")


def keep(folder: Path, name: str, kept: Report) -> None:
    folder.mkdir(exist_ok=True)
    kept.write(folder / f"{name}.json")


def test_without_a_gpu_report_the_gpu_column_says_so_and_how_to_change_that(tmp_path: Path) -> None:
    keep(tmp_path, "cpu", full_report(CPU_COLUMNS))
    section = speed_section(tmp_path)
    n_gpu = sum(goal.cuda is not None for goal in GOALS)
    assert section.count(f"| {NOT_YET} |") == n_gpu > 0
    assert f"What is {NOT_YET} will be shown by `{GPU_COMMAND}`." in section
    first = section.splitlines()[2]
    assert first.startswith(f"| {GOALS[0].title} | 2.5 x memcpy | 100 x | 7.00 x memcpy | 7.00 ms")
    assert "commit 0123456789ab, `python -m benchmarks --size survey`" in section


def test_times_are_of_the_newest_report_and_ratios_have_their_range(
    tmp_path: Path,
) -> None:
    old = full_report(CPU_COLUMNS, date="2026-01-01T00:00:00+00:00")
    slower = tuple(
        replace(m, value=2 * m.value) if m.column == "fpgpu cpu" else m for m in old.measurements
    )
    keep(tmp_path, "old", Report(old.facts, slower))
    keep(tmp_path, "new", full_report(CPU_COLUMNS, date="2026-02-01T00:00:00+00:00"))
    keep(tmp_path, "tiny", full_report(CPU_COLUMNS, size="small"))
    keep(tmp_path, "gpu", full_report(["fpgpu cuda"], device=GPU))
    section = speed_section(tmp_path)
    assert "| 50.0 to 100 x | 7.00 to 14.0 x memcpy | 7.00 ms |" in section.splitlines()[2]
    assert NOT_YET not in section
    assert "[new](../benchmarks/results/new.md): Some CPU, 8 cores, 2026-02-01" in section
    assert "[old](../benchmarks/results/old.md): Some CPU, 8 cores, 2026-01-01" in section
    assert f"[gpu](../benchmarks/results/gpu.md): {GPU}" in section
    assert "[tiny]" not in section


def test_what_the_newest_report_lacks_is_of_an_older_one(tmp_path: Path) -> None:
    old = full_report(CPU_COLUMNS, date="2026-01-01T00:00:00+00:00")
    new = full_report(CPU_COLUMNS, date="2026-02-01T00:00:00+00:00")
    other = tuple(m for m in new.measurements if m.operation != GOALS[0].operation)
    keep(tmp_path, "old", old)
    keep(tmp_path, "new", Report(new.facts, other))
    assert "| 100 x | 7.00 x memcpy | 7.00 ms |" in speed_section(tmp_path).splitlines()[2]


def test_a_busy_machine_is_not_passed_over(tmp_path: Path) -> None:
    machine = {"cpu": "Some CPU", "cores": 2, "load": [0.0, 9.5, 0.0]}
    keep(tmp_path, "cpu", full_report(CPU_COLUMNS, machine=machine))
    assert "Others used it, too (load 9.5 on 2 cores)" in speed_section(tmp_path)
    keep(tmp_path, "cpu", full_report(CPU_COLUMNS))
    assert "Others used it" not in speed_section(tmp_path)


def test_the_load_before_a_run_is_not_held_against_it(tmp_path: Path) -> None:
    machine = {"cpu": "Some CPU", "cores": 2, "load": [1.0, 1.0, 9.5]}
    keep(tmp_path, "cpu", full_report(CPU_COLUMNS, machine=machine, seconds=400))
    assert "Others used it" not in speed_section(tmp_path)
    keep(tmp_path, "cpu", full_report(CPU_COLUMNS, machine=machine, seconds=1000))
    assert "Others used it, too (load 9.5 on 2 cores)" in speed_section(tmp_path)


def test_a_goal_that_was_not_measured_is_not_passed_over(tmp_path: Path) -> None:
    whole = full_report(CPU_COLUMNS)
    lacking = [m for m in whole.measurements if m.operation != "superpixelize"]
    keep(tmp_path, "cpu", Report(whole.facts, tuple(lacking)))
    assert f"| {GOALS[0].title} | 2.5 x memcpy |  |  | not measured |" in speed_section(tmp_path)


def test_a_goal_that_two_measurements_fit_is_refused() -> None:
    twice = [measurement("add_exposure", at={"side": side}) for side in (1024, 2048)]
    (goal,) = (goal for goal in GOALS if goal.operation == "add_exposure")
    with pytest.raises(ValueError, match="2 measurements of fpgpu cpu fit, expected one"):
        find(twice, goal, "fpgpu cpu", "")


def test_without_a_report_there_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="no report of size survey; make one with"):
        speed_section(tmp_path)


def test_a_page_keeps_all_but_what_is_between_the_markers() -> None:
    page = f"head\n{BEGIN}\nold\n{END}\ntail\n"
    assert replaced(page, "new") == f"head\n{BEGIN}\nnew\n{END}\ntail\n"
    with pytest.raises(ReportError, match="the page needs one line"):
        replaced("head", "new")


def test_the_page_is_what_the_kept_reports_say() -> None:
    text = PAGE.read_text()
    assert replaced(text, speed_section()) == text, "run python -m benchmarks table"
    assert main(["table", "--check"]) == 0


def test_a_page_that_disagrees_is_noticed_and_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "speed.md"
    page.write_text(PAGE.read_text().replace(" ms", " us"))
    monkeypatch.setattr("benchmarks.__main__.PAGE", page)
    assert main(["table", "--check"]) == 1
    assert "run python -m benchmarks table" in capsys.readouterr().err
    assert main(["table"]) == 0
    assert main(["table", "--check"]) == 0


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_kept_reports_are_whole_and_of_a_commit(path: Path) -> None:
    kept = Report.read(path)
    assert kept.facts["commit"]
    assert not kept.facts["uncommitted changes"]
    assert path.with_suffix(".png").is_file()
    assert path.with_suffix(".md").read_text() == page(kept, path.with_suffix(".png").name)


def test_all_goals_differ() -> None:
    whole = full_report(["fpgpu cpu", "fpgpu cuda", "forcepho"])
    for goal in GOALS:
        if goal.cpu:
            assert find(whole.measurements, goal, "fpgpu cpu", goal.detail)
        if goal.cuda is not None:
            assert find(whole.measurements, goal, "fpgpu cuda", goal.cuda)
