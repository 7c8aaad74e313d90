"""Whether the device is usable, and whether it does what every backend must do."""

import sys
from typing import Any

import pytest

from benchmarks.gpu.job import Job
from fpgpu.doctor import diagnose

__all__ = ["conformance", "doctor"]


def doctor(job: Job) -> None:
    """Compile and load every kernel, and move something."""
    found = diagnose()
    job.note(cuda_problem=found["cuda_problem"], diagnosis=found)
    bad = [tried["error"] for tried in found["kernels"] + found["backends"] if tried["error"]]
    if found["choice"] != "cuda" or bad:
        raise AssertionError("; ".join([found["reason"], *bad]))


class _Counts:
    """A plugin of pytest that writes what became of tests while they run."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.counts: dict[str, int] = {}
        self.failures: dict[str, str] = {}
        self.skips: dict[str, int] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        self.counts[report.outcome] = self.counts.get(report.outcome, 0) + 1
        if report.failed:
            self.failures[report.nodeid] = str(report.longrepr)[-800:]
        elif report.skipped and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2]
            self.skips[reason] = self.skips.get(reason, 0) + 1
        if report.failed or sum(self.counts.values()) % 50 == 0:
            self.write()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failures[report.nodeid] = str(report.longrepr)[-800:]

    def pytest_sessionfinish(self) -> None:
        self.write()

    def write(self) -> None:
        first = dict(list(self.failures.items())[:20])
        self.job.note(tests=self.counts, failures=first, skips=self.skips)


def conformance(job: Job) -> None:
    """Run the tests that need a device; pytest is all that they need beside fpgpu."""
    # Warnings of packages in versions that nobody has tried are no fault of a device.
    arguments: list[Any] = ["-q", "-m", "gpu", "-p", "no:cacheprovider", "-W", "default"]
    if job.size.name == "small":
        arguments += ["tests/gpu/test_conformance.py", "-k", "structs or chain"]
    else:
        arguments += ["tests/gpu"]
    status = pytest.main(arguments, plugins=[_Counts(job)])
    if status:
        raise AssertionError(f"pytest ended with {int(status)}; see failures")
    sys.stdout.flush()
