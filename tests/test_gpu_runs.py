"""A run that was to test on a GPU and did not is no success."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run_pytest(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a process that sees no device."""
    hidden = {"CUDA_VISIBLE_DEVICES": "-1", "FPGPU_REQUIRE_GPU": "0", **environment}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args],
        cwd=ROOT,
        env={**os.environ, **hidden},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_without_a_gpu_its_tests_are_skipped_with_the_reason() -> None:
    result = run_pytest("tests/gpu", "tests/test_layout.py")
    assert result.returncode == 0, result.stdout
    assert "needs a GPU: " in result.stdout


@pytest.mark.parametrize(
    ("arguments", "required"), [(["-m", "gpu", "tests/gpu"], "0"), (["tests/test_layout.py"], "1")]
)
def test_a_gpu_run_that_ran_nothing_on_a_gpu_fails(arguments: list[str], required: str) -> None:
    result = run_pytest(*arguments, FPGPU_REQUIRE_GPU=required)
    assert result.returncode != 0
    assert "FAILED: no test ran on a GPU" in result.stdout
