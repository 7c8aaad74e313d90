"""``python -m benchmarks gpu``: whatever becomes of a step, the others go on, the known stays."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import command
from benchmarks.gpu.each_kernel import KERNELS, launch_each
from benchmarks.gpu.steps import STEPS, Step
from benchmarks.gpu.tools import METRICS, counters_by_kernel
from benchmarks.report.document import SUMMARY, Report
from benchmarks.sizes import SIZES
from fpgpu.backends.launches import Launch
from tests.backends import standin_cupy
from tests.backends.conftest import cuda_class as cuda_class
from tests.benchmarks import gpu_steps
from tests.benchmarks.gpu_steps import step
from tests.benchmarks.test_run import ROOT, call
from tests.kernels.host_kernels import has_compiler

Run = tuple[int, list[dict[str, Any]]]


def summary_of(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / SUMMARY).read_text())["steps"]
    return found


def run(
    monkeypatch: pytest.MonkeyPatch, folder: Path, steps: Sequence[Step], minutes: float = 9
) -> Run:
    """Run steps that are made for it."""
    monkeypatch.setattr(command, "STEPS", steps)
    return command.run_steps(folder, minutes, "small", []), summary_of(folder)


class TestOneAfterTheOther:
    def test_the_others_go_on(
        self,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        functions = gpu_steps.fails, gpu_steps.crashes, gpu_steps.is_not_here, gpu_steps.passes
        status, found = run(monkeypatch, tmp_path / "out", [step(one) for one in functions])
        assert status == 1
        outcomes = [one["outcome"] for one in found]
        assert outcomes == ["failed", "failed", "skipped", "passed"]
        failed, crashed, skipped, passed = found
        assert failed["error"] == "ZeroDivisionError: of this test"
        assert failed["found"] == {"until_then": 1}
        assert "Traceback" in failed["printed"]
        assert crashed["error"] == f"its process ended with {-signal.SIGSEGV}"
        assert crashed["printed"] == "just before\n"
        assert skipped["error"] == "a tool is not installed"
        assert passed["found"] == {"answer": 42}
        assert "fails            failed" in capsys.readouterr().out

    def test_what_passes_or_needs_what_is_not_here_is_a_success(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        functions = gpu_steps.is_not_here, gpu_steps.passes
        status, _ = run(monkeypatch, tmp_path, [step(one) for one in functions])
        assert status == 0

    def test_a_step_over_its_limit_is_ended_with_what_it_started(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        steps = [step(gpu_steps.hangs, 8), step(gpu_steps.passes)]
        status, (hung, passed) = run(monkeypatch, tmp_path, steps)
        assert status == 1
        assert (hung["outcome"], hung["error"]) == ("over its limit", "ended after 8 s")
        assert all(is_gone(process) for process in hung["found"]["processes"])
        assert passed["outcome"] == "passed"

    def test_what_would_begin_too_late_is_left_out(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        status, found = run(monkeypatch, tmp_path, [step(gpu_steps.passes)], minutes=0.05)
        assert (status, found[0]["outcome"]) == (1, "left out")
        assert found[0]["error"] == "the 0.05 minutes were over"

    def test_without_a_device_the_first_step_is_the_last(
        self,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        steps = [step(gpu_steps.has_no_device), step(gpu_steps.passes)]
        status, found = run(monkeypatch, tmp_path, steps)
        assert (status, len(found)) == (2, 1)
        assert "there is no GPU to try: the card is on fire" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "asked to end"]
    )
    def test_a_command_that_is_ended_leaves_what_was_known(
        self, tmp_path: Path, how: signal.Signals
    ) -> None:
        program = [sys.executable, "-m", gpu_steps.__name__, str(tmp_path)]
        running = subprocess.Popen(program, cwd=ROOT, stderr=subprocess.DEVNULL)
        processes = tmp_path / "processes"
        wait_until(lambda: processes.exists() and processes.read_text())
        running.send_signal(how)
        running.wait(30)
        passed, begun = summary_of(tmp_path)
        assert (passed["name"], passed["outcome"]) == ("passes", "passed")
        assert (begun["name"], begun["outcome"]) == ("hangs", "begun")
        for process in processes.read_text().split():
            wait_until(lambda process=process: is_gone(int(process)))


def wait_until(happens: Any) -> None:
    end = time.monotonic() + 60
    while not happens():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def is_gone(process: int) -> bool:
    """Whether a process has ended, also where nobody has asked how."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


# --- the steps themselves, over a stand-in for CuPy and for NVIDIA's tools ------------------------

SANITIZER = """#!/bin/sh
while [ "$1" != "--error-exitcode" ]; do shift; done
shift 2
"$@" && echo "========= ERROR SUMMARY: 0 errors"
"""
NCU = """#!/bin/sh
echo '==PROF== Connected to process 1'
cat "$(dirname "$0")/launches.csv"
"""
HEAD = '"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream"'
HEAD += ',"Block Size","Grid Size","Device","CC","Section Name","Metric Name"'
HEAD += ',"Metric Unit","Metric Value"'


def launches(names: Sequence[str]) -> str:
    """Write what ``ncu --csv`` prints of launches of kernels."""
    rows = [
        f'"{number}","1","python","127.0.0.1","{name}(const float *)","1","7","(256, 1, 1)"'
        f',"(2, 1, 1)","0","9.0","Command line profiler metrics","{metric}","%","{number}.5"'
        for number, name in enumerate(names)
        for metric in METRICS
    ]
    return "\n".join([HEAD, *rows]) + "\n"


def test_counters_are_a_line_a_launch() -> None:
    found = counters_by_kernel("==PROF== Connected\n" + launches(["unpack", "calibrate"]))
    assert [line["kernel"] for line in found] == ["unpack", "calibrate"]
    assert found[1] == {"kernel": "calibrate", **dict.fromkeys(METRICS.values(), "1.5 %")}
    assert counters_by_kernel("==ERROR== no permission") == []


def test_every_kernel_is_launched_for_the_tools(
    cuda_class: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FPGPU_BENCHMARK_CACHE", str(tmp_path))
    launched: set[str] = set()
    run = standin_cupy._state.kernels.run

    def noted(launch: Launch, *arguments: Any) -> None:
        launched.add(launch.kernel)
        run(launch, *arguments)

    monkeypatch.setattr(standin_cupy._state.kernels, "run", noted)
    launch_each(cuda_class(0), SIZES["small"])
    assert launched == set(KERNELS)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that stand in for NVIDIA's."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name, text in (("compute-sanitizer", SANITIZER), ("ncu", NCU)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "launches.csv").write_text(launches(KERNELS))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


QUICK = "phases", "overlap", "memcheck", "counters"
"""What is run when the long form is not asked for."""


@pytest.mark.skipif(not has_compiler(), reason="kernels cannot run on the CPU without g++")
@pytest.mark.usefixtures("tools")
@pytest.mark.timeout(900)
def test_the_command_over_a_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long_form: bool
) -> None:
    monkeypatch.setenv("FPGPU_BENCHMARK_CACHE", str(tmp_path / "cache"))
    kernels, out = tmp_path / "kernels", tmp_path / "out"
    kernels.mkdir()
    chosen = [] if long_form else ["--steps", *QUICK]
    arguments = str(kernels), "benchmarks", "gpu", "--size", "small", "--out", str(out), *chosen
    result = call(*arguments, module="tests.benchmarks.rehearsal", timeout=800)
    found = {one["name"]: one for one in summary_of(out)}
    problems = {name: one["error"] for name, one in found.items() if one["outcome"] == "failed"}
    # A stand-in does one thing at a time.
    assert list(problems) == ["overlap"], problems
    assert "were together" in problems["overlap"]
    assert result.returncode == 1, result.stderr
    assert list(found) == [one.name for one in STEPS if long_form or one.name in QUICK]
    assert set(found["phases"]["found"]) == {"staged", "with_15_sources", "resident"}
    assert found["memcheck"]["found"]["said"] == ["========= ERROR SUMMARY: 0 errors"]
    assert len(found["counters"]["found"]["kernels"]) == len(KERNELS)
    if long_form:
        ways = found["patches"]["found"]
        assert {"staged", "shards", "resident", "streamed", "15 sources", "swap"} == set(ways)
        assert all(way["bytes"] > 1e5 for way in ways.values())
        assert found["conformance"]["found"]["tests"] == {"passed": 8}
        assert found["round_trip"]["found"]["wrong"] == 0
        report = Report.read(out / found["speed"]["found"]["report"])
        assert report.columns >= {"fpgpu cuda"}
        assert [one["name"] for one in report.steps] == list(found)
        page = (out / found["speed"]["found"]["report"]).with_suffix(".md").read_text()
        assert "| overlap | uploads run while kernels do | failed |" in page
