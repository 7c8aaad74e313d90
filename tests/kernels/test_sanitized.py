"""Kernels neither read nor write a byte outside their arrays, as the address sanitizer sees it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.host_kernels import HostKernels

TOP = Path(__file__).parents[2]
SHORT = "unpack and any_size or any_alignment or null_residual or random_scenes"
SHORT += " or any_number"


def sanitized_run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run tests of this folder in a process that watches the kernels' memory."""
    # The C++ library comes along, or else exceptions would not be seen by the sanitizer.
    libraries = []
    for name in ("libasan.so", "libstdc++.so"):
        found = subprocess.run(
            ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        )
        libraries.append(found.stdout.strip())
    if not Path(libraries[0]).is_absolute():
        pytest.skip("g++ has no address sanitizer; install libasan")
    settings = {
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0",
        "FPGPU_SANITIZE_KERNELS": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-s", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, *arguments], cwd=TOP, env=os.environ | settings,
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip


def test_no_kernel_leaves_its_arrays(host: HostKernels, long_form: bool) -> None:
    chosen = [] if long_form else ["-k", SHORT]
    files = ("superpixelize", "calibrate", "unpack", "check_layout", "evaluate")
    run = sanitized_run(*(f"tests/kernels/test_{name}_kernel.py" for name in files), *chosen)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[:4000]
    assert " passed" in run.stdout


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_kernel_that_does_is_found_out(host: HostKernels, place: str) -> None:
    run = sanitized_run(f"tests/kernels/reading_outside.py::test_reading_outside[{place}]")
    assert run.returncode != 0
    assert "AddressSanitizer: use-after-poison" in run.stderr
    assert "read_one" in run.stderr
