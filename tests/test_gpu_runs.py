"""A run that was to test on a GPU and did not is no success."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.host_kernels import has_compiler

ROOT = Path(__file__).parents[1]

HIDE = """
import re, runpy, sys
from importlib import metadata

def needs(name):
    if name in known: return
    known.add(name)
    try: wanted = metadata.requires(name) or ()
    except metadata.PackageNotFoundError: return
    for line in wanted:
        if "extra ==" not in line: needs(re.match(r"[\\w.-]+", line)[0].lower().replace("_", "-"))

known = set()
for name in ("fpgpu", "pytest"): needs(name)
homes = metadata.packages_distributions()
def normal(name): return name.lower().replace("_", "-").replace(".", "-")
hidden = {m for m, packages in homes.items() if not known & {normal(p) for p in packages}}

class Hider:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] in hidden: raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Hider())
print("hidden:", *sorted(hidden))
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Runs a module as if nothing were installed but what fpgpu and pytest need."""


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


@pytest.mark.skipif(not has_compiler(), reason="kernels cannot run on the CPU without g++")
def test_those_of_a_gpu_need_pytest_and_what_fpgpu_needs(tmp_path: Path) -> None:
    over_standin = ["tests.benchmarks.rehearsal", str(tmp_path), "pytest"]
    chosen = ["-q", "-m", "gpu", "tests/gpu", "-k", "structs", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [sys.executable, "-c", HIDE, *over_standin, *chosen],
        cwd=ROOT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    hidden = result.stdout.partition("\n")[0].split()
    assert {"hypothesis", "lsst", "pytest_benchmark", "xdist"} <= set(hidden)
    assert not {"numpy", "astropy", "gwcs", "pytest", "numba"} & set(hidden)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "4 passed" in result.stdout
