"""Two reports compared: ratios to limits, never times of different machines."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.report.compare import compare, comparison_lines
from benchmarks.report.document import ReportError
from tests.benchmarks.reports import measurement, report

OTHER = {"machine": {"cpu": "Another CPU", "cores": 64}}


def test_a_slower_machine_is_not_worse() -> None:
    old = report([measurement()])
    slower = report([measurement(value=20e-3, limit_value=10e-3)], **OTHER)
    found = compare(old, slower)
    assert found.passed
    assert [change.factor for change in found.changes] == [pytest.approx(1.0)]
    assert not found.same_machine


def test_a_larger_ratio_is_worse_on_any_machine() -> None:
    old = report([measurement("fine"), measurement("slow")])
    new = report([measurement("fine"), measurement("slow", 3.2e-3)], **OTHER)
    found = compare(old, new)
    assert [change.new.operation for change in found.worse] == ["slow"]
    assert not found.passed
    assert compare(old, new, tolerance=2.0).passed


def test_a_time_without_a_limit_is_compared_on_the_same_machine_only() -> None:
    times = [measurement("any"), measurement("alone", 1e-3, limit=None, limit_value=None)]
    old = report(times)
    slower = [times[0], replace(times[1], value=2e-3)]
    assert [change.new.operation for change in compare(old, report(slower)).worse] == ["alone"]

    found = compare(old, report(slower, **OTHER))
    assert found.passed
    assert [m.operation for m in found.not_compared] == ["alone"]
    assert any(line.startswith("not compared") for line in comparison_lines(found))


def test_times_of_different_machines_alone_are_refused() -> None:
    times = [measurement("alone", limit=None, limit_value=None)]
    with pytest.raises(ReportError, match="no measurement in common that can be compared"):
        compare(report(times), report(times, **OTHER))


def test_another_device_is_another_machine() -> None:
    old, new = (report([measurement()], device=name) for name in ("X1", "X2"))
    assert not compare(old, new).same_machine


def test_ratios_to_different_limits_are_not_compared() -> None:
    old = report([measurement(), measurement("moved")])
    moved = measurement("moved", 1.0, limit="write and fsync")
    assert compare(old, report([measurement(), moved], **OTHER)).not_compared == (moved,)


def test_what_is_not_measured_any_more_fails() -> None:
    old = report([measurement("kept"), measurement("lost")])
    found = compare(old, report([measurement("kept")]))
    assert not found.passed
    assert [m.operation for m in found.gone] == ["lost"]


def test_a_column_that_this_machine_cannot_measure_is_no_failure() -> None:
    old = report([measurement(), measurement(column="fpgpu cuda"), measurement(column="forcepho")])
    assert compare(old, report([measurement()])).passed


def test_forcepho_getting_slower_is_not_our_regression() -> None:
    old, new = (
        report([measurement(), measurement(column="forcepho", value=v)]) for v in (0.1, 9.0)
    )
    assert compare(old, new).passed


def test_other_inputs_are_refused() -> None:
    old, new = report([measurement()]), report([measurement()], size="small")
    with pytest.raises(ReportError, match="sizes survey and small are different inputs"):
        compare(old, new)


def test_the_exit_code_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(tmp_path / name) for name in ("old.json", "slow.json", "not.json")]
    report([measurement()]).write(Path(files[0]))
    report([measurement(value=9e-3)]).write(Path(files[1]))
    Path(files[2]).write_text("[]")
    assert main(["compare", files[0], files[0]]) == 0
    assert main(["compare", files[0], files[1]]) == 1
    assert "4.50 x worse" in capsys.readouterr().out
    assert main(["compare", files[0], files[1], "--tolerance", "5"]) == 0
    assert main(["compare", files[0], files[1], "--tolerance", "0.5"]) == 2
    assert main(["compare", files[0], files[2]]) == 2
    assert "not a report of python -m benchmarks" in capsys.readouterr().err
    assert main(["compare", files[0], str(tmp_path / "missing.json")]) == 2
    assert "missing.json: cannot be read: No such file" in capsys.readouterr().err
