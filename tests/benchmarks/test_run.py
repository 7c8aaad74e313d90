"""``python -m benchmarks``, as it is called."""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.report.document import Report
from tests.kernels.host_kernels import has_compiler

ROOT = Path(__file__).parents[2]


def call(
    *arguments: str, module: str = "benchmarks", timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    # What is called is no part of this run, whose tests may be shared among processes.
    own = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**own, "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


def test_a_run_writes_one_report(tmp_path: Path) -> None:
    result = call("--size", "small", "--out", str(tmp_path), "-k", "find_exposures or machine")
    assert result.returncode == 0, result.stdout + result.stderr
    data, page, picture = (Path(line) for line in result.stdout.splitlines()[-3:])
    assert sorted(tmp_path.iterdir()) == sorted([data, page, picture])

    found = Report.read(data)
    assert found.facts["command"] == (
        'python -m benchmarks --size small -k "find_exposures or machine"'
    )
    assert found.facts["machine"]["cores"] == os.cpu_count()
    assert found.facts["versions"]["Python"] == platform.python_version()
    operations = {m.operation for m in found.measurements}
    assert {"find exposures", "memcpy", "write and fsync", "disk read"} <= operations
    asked = [m for m in found.measurements if m.operation == "find exposures"]
    assert all(m.ratio for m in asked)
    assert "| find exposures | fpgpu cpu, a position | exposures |" in page.read_text()
    for text in (data.read_text(), page.read_text()):
        assert str(ROOT) not in text
        assert f"{Path.home()}/" not in text
        assert not re.search(rf"\b{re.escape(platform.node())}\b", text)


def test_without_a_gpu_nothing_is_written(tmp_path: Path) -> None:
    result = call("--backend", "cuda", "--out", str(tmp_path / "results"))
    assert result.returncode == 2
    assert "nothing was measured, there is no GPU to measure on: " in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_run_that_measures_nothing_writes_nothing(tmp_path: Path) -> None:
    result = call("--size", "small", "--out", str(tmp_path / "results"), "-k", "no_such_thing")
    assert result.returncode == 1
    assert "no report was written: the run failed or measured nothing" in result.stderr
    assert not list(tmp_path.iterdir())


def test_benchmarks_that_fail_are_told_and_the_others_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p tests.benchmarks.spoilt")
    chosen = "memory_and_disk or (kernels and test_superpixelize)"
    result = call("--backend", "cpu", "--size", "small", "-k", chosen, "--out", str(tmp_path))
    assert result.returncode == 1
    (data,) = tmp_path.glob("*.json")
    found = Report.read(data)
    assert {m.operation for m in found.measurements} >= {"disk read", "write and fsync"}
    assert not {m.operation for m in found.measurements} & {"memcpy", "superpixelize a batch"}
    failed = "test_machine.py::test_memory_and_disk[memcpy]"
    assert found.failed[failed] == "AssertionError: a wrong result"
    assert f"failed: {failed}: AssertionError: a wrong result" in result.stderr
    assert f"- {failed}: AssertionError: a wrong result" in data.with_suffix(".md").read_text()
    # What did its work in the warm-up alone.
    assert sum("test_superpixelize" in name for name in found.failed) == 8


def test_what_would_begin_too_late_is_left_out_and_said(tmp_path: Path) -> None:
    options = "--size", "small", "-k", "machine", "--minutes"
    assert call(*options, "0", "--out", str(tmp_path / "none")).returncode == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not has_compiler(), reason="kernels cannot run on the CPU without g++")
def test_the_command_for_a_gpu_makes_its_report(tmp_path: Path) -> None:
    kernels = tmp_path / "kernels"
    kernels.mkdir()
    result = call(
        str(kernels),
        "benchmarks",
        *("--backend", "cuda", "--size", "small", "--out", str(tmp_path / "results")),
        *("-k", "with_resident or staging_memory or copies_of"),
        module="tests.benchmarks.rehearsal",
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (data,) = (tmp_path / "results").glob("*.json")
    found = Report.read(data)
    assert found.columns == {"fpgpu cuda", "machine"}
    assert found.facts["device"]
    operations = {m.operation for m in found.measurements}
    copies = {"device to device", "host to device, page-locked", "device to host, page-locked"}
    assert copies | {"region to patch", "upload"} <= operations
    limits = {m.limit for m in found.measurements if m.operation == "region to patch"}
    assert limits == {"device to device"}
    assert json.loads(data.read_text())["diagnosis"]["choice"] == "cuda"
