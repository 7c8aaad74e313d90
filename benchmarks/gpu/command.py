"""Run the steps one after the other, each with its own limit, and keep what they found.

The summary is written anew after every step: whatever ends the command, what was known is there.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.gpu.job import launch, write_json
from benchmarks.gpu.steps import STEPS, Step
from benchmarks.report.document import SUMMARY, Report
from benchmarks.report.machine import source_facts
from benchmarks.run import write_pages

__all__ = ["run_steps"]

_ROOT = Path(__file__).parents[2]

_LEAST = 5.0
"""Seconds left under which no step begins."""

_LOG_CHARACTERS = 6000
"""Of what a step printed, the end; more where it failed than where it passed."""


def run_steps(out: Path, minutes: float, size: str, chosen: Sequence[str]) -> int:
    """Run steps: 0 when all passed or need what is not here, 1 otherwise, 2 without a GPU."""
    out.mkdir(parents=True, exist_ok=True)
    summary = _Summary(out / SUMMARY, minutes, size, chosen)
    end = time.monotonic() + 60 * minutes
    with _ended_in_order():
        for step in STEPS:
            if chosen and step.name not in chosen:
                continue
            left = end - time.monotonic()
            if left < _LEAST:
                summary.add(step, outcome="left out", error=f"the {minutes:g} minutes were over")
                continue
            summary.begin(step)
            summary.add(step, **_run(step, min(step.seconds, left), out, size))
            problem = summary.last["found"].get("cuda_problem")
            if problem is not None:
                print(f"there is no GPU to try: {problem}", file=sys.stderr)
                return 2
    _add_to_report(out, summary.steps)
    print(summary.path)
    return int(any(step["outcome"] not in ("passed", "skipped") for step in summary.steps))


class _Summary:
    """What is known so far, in a file."""

    def __init__(self, path: Path, minutes: float, size: str, chosen: Sequence[str]) -> None:
        self.path = path
        self.steps: list[dict[str, Any]] = []
        command = f"python -m benchmarks gpu --minutes {minutes:g} --size {size}"
        command += f" --steps {' '.join(chosen)}" if chosen else ""
        self._facts = source_facts(command)

    @property
    def last(self) -> dict[str, Any]:
        return self.steps[-1]

    def begin(self, step: Step) -> None:
        """Say what is being done: a summary that ends with it says where the command ended."""
        self._write({"name": step.name, "outcome": "begun", "shows": step.shows})

    def add(self, step: Step, **result: Any) -> None:
        """Add a step, and say in a line what became of it."""
        self.steps.append({"name": step.name, "shows": step.shows, "found": {}, **result})
        self._write()
        seconds = f"{result['seconds']:6.1f} s" if "seconds" in result else ""
        reason = str(result.get("error") or "").partition("\n")[0]
        print(f"{step.name:16} {result['outcome']:10} {seconds}  {reason}".rstrip(), flush=True)

    def _write(self, *begun: dict[str, Any]) -> None:
        write_json(self.path, {**self._facts, "steps": [*self.steps, *begun]})


def _run(step: Step, seconds: float, out: Path, size: str) -> dict[str, Any]:
    """Run a step in a process of its own, and end that and what it started at its limit."""
    folder = Path(tempfile.mkdtemp(prefix="fpgpu-gpu-"))
    result, log = folder / "result.json", folder / "log"
    what = step.home, step.name, str(result), str(out.resolve()), size, f"{seconds:.0f}"
    command = launch("benchmarks.gpu.step", *what)
    started = time.monotonic()
    with log.open("wb") as to:
        process = subprocess.Popen(command, cwd=_ROOT, stdout=to, stderr=to, start_new_session=True)
        try:
            status: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with suppress(ProcessLookupError):  # it has ended, with all that it started
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    known = json.loads(result.read_text()) if result.exists() else {"found": {}}
    if status is None:
        known |= {"outcome": "over its limit", "error": f"ended after {seconds:.0f} s"}
    elif "outcome" not in known:
        known |= {"outcome": "failed", "error": f"its process ended with {status}"}
    printed = log.read_text(errors="replace")
    shutil.rmtree(folder)
    end = _LOG_CHARACTERS if known["outcome"] != "passed" else _LOG_CHARACTERS // 4
    return {
        "seconds": round(time.monotonic() - started, 1),
        "limit": round(seconds),
        **known,
        "printed": printed[-end:],
    }


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM end the step that is under way, as Ctrl-C does."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _add_to_report(out: Path, steps: list[dict[str, Any]]) -> None:
    """Put what the steps showed into the report that one of them wrote."""
    for step in steps:
        if name := step["found"].get("report"):
            path = out / name
            report = Report.read(path).with_steps(steps)
            report.write(path)
            write_pages(report, path)
