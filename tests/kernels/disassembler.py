"""What a GPU executes: machine code as text, from the wheel nvidia-cuda-nvdisasm."""

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pytest


@cache
def nvdisasm() -> Path:
    """The disassembler's path; a test that needs it is skipped where it is not installed."""
    try:
        found = files("nvidia-cuda-nvdisasm") or []
    except PackageNotFoundError:
        pytest.skip("machine code cannot be read: pip install nvidia-cuda-nvdisasm")
    return next(Path(str(file.locate())) for file in found if file.name == "nvdisasm")


def machine_code(cubin: bytes, folder: Path) -> dict[str, list[str]]:
    """Instructions of each kernel of a cubin."""
    path = folder / "kernels.cubin"
    path.write_bytes(cubin)
    done = subprocess.run(
        [nvdisasm(), "--print-code", path], capture_output=True, text=True, check=True
    )
    kernels: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("\t.section\t.text."):
            name = line.split(".text.")[1].split(",")[0]
            kernels[name] = []
        elif kernels and "/*" in line and ";" in line:
            kernels[name].append(line.split("*/", 1)[1].split(";")[0].strip())
    return kernels
