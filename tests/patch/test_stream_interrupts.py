"""Ctrl-C, and the end of a process, while a stream is in use."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = "tests.patch.interrupted_stream"
NOTHING_LEFT = {"live": 0, "free": 2, "threads": []}


def start(golden: Path, way: str) -> subprocess.Popen[str]:
    """Start a process that uses a stream, and wait until it does."""
    process = subprocess.Popen(
        [sys.executable, "-m", SCRIPT, str(golden / "tiny"), way],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for the end of a process that must end well, and return what it printed last."""
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    return out.splitlines()[-1] if out else ""


@pytest.mark.parametrize("way", ["in_use", "in_a_wait"])
def test_an_interrupt_ends_a_stream_and_gives_all_memory_back(golden: Path, way: str) -> None:
    process = start(golden, way)
    process.send_signal(signal.SIGINT)
    assert json.loads(finish(process)) == NOTHING_LEFT


def test_an_interrupt_may_come_at_any_time(golden: Path, long_form: bool) -> None:
    rng = random.Random(7)
    for _ in range(40 if long_form else 2):
        process = start(golden, "at_any_time")
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGINT)
        assert json.loads(finish(process)) == NOTHING_LEFT


def test_a_process_may_end_without_closing_its_stream(golden: Path) -> None:
    assert finish(start(golden, "not_closed")) == ""
