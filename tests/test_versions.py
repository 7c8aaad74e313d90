"""What is run with the oldest and the newest versions of what the project builds on."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def test_the_core_of_the_tests_is_there() -> None:
    (core,) = re.findall(r'^core="([^"]*)"', (ROOT / ".ci" / "versions").read_text(), re.MULTILINE)
    assert len(core.split()) > 10
    assert all((ROOT / path).exists() for path in core.split())


def test_every_python_that_is_promised_is_tried() -> None:
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    script = (ROOT / ".ci" / "versions").read_text()
    assert f'pythons="{" ".join(promised)}"' in script
    assert f"oldest_python={promised[0]}\n" in script
    assert PROJECT["requires-python"] == f">={promised[0]}"


@pytest.mark.parametrize("name", ["", "plot", "compress", "dask", "mpi", "test"])
def test_the_oldest_versions_are_those_of_the_bounds(name: str) -> None:
    extras = [name] if name else []
    printed = subprocess.run(
        [sys.executable, ".ci/bounds.py", *extras], cwd=ROOT, check=True,
        capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    wanted = PROJECT["dependencies"] + (EXTRAS[name] if name else [])
    bounds = [
        re.sub(r"\s*>=\s*", "==", line.partition(";")[0]).strip() for line in wanted if ">=" in line
    ]
    assert printed == bounds
    assert all(">=" in line for line in PROJECT["dependencies"])
