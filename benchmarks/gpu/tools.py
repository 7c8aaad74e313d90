"""What NVIDIA's own tools say of the kernels, where they are installed."""

import csv
import re
import shutil
import subprocess
from typing import Any

from benchmarks.gpu.each_kernel import KERNELS
from benchmarks.gpu.job import Job, NotHereError, launch

__all__ = ["counters", "counters_by_kernel", "memcheck", "racecheck"]

METRICS = {
    "gpu__time_duration.sum": "microseconds",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "memory %",
    "dram__bytes.sum.per_second": "memory rate",
    "smsp__issue_active.avg.pct_of_peak_sustained_active": "issue slots %",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "warps %",
    "launch__registers_per_thread": "registers",
    "launch__grid_size": "blocks",
}
"""What Nsight Compute is asked for, and what it is called here."""

_ERRORS = 9
"""The status by which compute-sanitizer tells that it found something."""


def memcheck(job: Job) -> None:
    """Watch every kernel's accesses."""
    _sanitize(job, "memcheck")


def racecheck(job: Job) -> None:
    """Watch every kernel's shared memory."""
    _sanitize(job, "racecheck")


def _sanitize(job: Job, tool: str) -> None:
    # Memory that is asked for and refused is an error of the API that fpgpu expects.
    options = ["--tool", tool, "--report-api-errors", "no", "--error-exitcode", str(_ERRORS)]
    done = _run([_found("compute-sanitizer"), *options, *launch(*_PROGRAM, "small")])
    said = [line for line in done.stdout.splitlines() if line.startswith("=========")]
    job.note(said=said[-40:])
    if done.returncode or not any("SUMMARY: 0 " in line for line in said):
        raise AssertionError(f"compute-sanitizer ended with {done.returncode}: {_end(done)}")


def counters(job: Job) -> None:
    """Let Nsight Compute count what each kernel does."""
    names = "|".join(KERNELS)
    # Clocks are left as they are: the times are those of everyday.
    options = ["--csv", "--clock-control", "none", "--kernel-name", f"regex:^({names})$"]
    options += ["--metrics", ",".join(METRICS)]
    done = _run([_found("ncu"), *options, *launch(*_PROGRAM, job.size.name)])
    lines = counters_by_kernel(done.stdout)
    job.note(kernels=lines)
    if done.returncode or not lines:
        raise AssertionError(f"ncu ended with {done.returncode}: {_end(done)}")
    missing = set(KERNELS) - {line["kernel"] for line in lines}
    if missing:
        raise AssertionError(f"not seen: {', '.join(sorted(missing))}")


def counters_by_kernel(text: str) -> list[dict[str, Any]]:
    """Read what ``ncu --csv`` prints: a line a launch, in the order of the launches."""
    rows = [line for line in text.splitlines() if line.startswith('"')]
    launches: dict[str, dict[str, Any]] = {}
    for row in csv.DictReader(rows):
        name = METRICS.get(row.get("Metric Name", ""))
        if name is not None:
            kernel = re.split(r"[(<]", row["Kernel Name"])[0]
            line = launches.setdefault(row["ID"], {"kernel": kernel})
            line[name] = f"{row['Metric Value']} {row['Metric Unit']}".strip()
    return list(launches.values())


_PROGRAM = ("benchmarks.gpu.each_kernel",)


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise NotHereError(f"{program} is not installed")
    return path


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a tool; the step's own limit ends both."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr, sep="\n")
    return done


def _end(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stdout + done.stderr)[-600:]
