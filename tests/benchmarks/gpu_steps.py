"""Steps that end in every way that a step may, for tests of the command that runs them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu import command
from benchmarks.gpu.job import Job, NotHereError
from benchmarks.gpu.steps import Step


def passes(job: Job) -> None:
    job.note(answer=42)


def fails(job: Job) -> None:
    job.note(until_then=1)
    raise ZeroDivisionError("of this test")


def is_not_here(job: Job) -> None:
    raise NotHereError("a tool is not installed")


def crashes(job: Job) -> None:
    sys.stderr.write("just before\n")
    os.kill(os.getpid(), signal.SIGSEGV)


def hangs(job: Job) -> None:
    """Note who it is, and what it started, and go on for ever."""
    child = subprocess.Popen(["sleep", "600"])
    job.note(processes=[os.getpid(), child.pid])
    (job.out / "processes").write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)


def has_no_device(job: Job) -> None:
    job.note(cuda_problem="the card is on fire")
    raise AssertionError("no device")


def step(function: object, seconds: float = 60) -> Step:
    return Step(function.__name__, "tests.benchmarks.gpu_steps", seconds, "what it shows")


if __name__ == "__main__":
    command.STEPS = (step(passes), step(hangs), step(passes))
    sys.exit(command.run_steps(Path(sys.argv[1]), 9, "small", []))
