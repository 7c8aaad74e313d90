"""Where and of what a report is: the machine, the versions, the commit. No names of machines."""

import importlib
import os
import platform
import shutil
import subprocess
import warnings
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from fpgpu import __version__
from fpgpu.backends.availability import cuda_status
from fpgpu.backends.choose import get_backend

__all__ = ["gather_facts", "source_facts"]

_HERE = Path(__file__).parent
_PACKAGES = "numpy", "h5py", "astropy", "gwcs", "asdf", "scipy", "pytest-benchmark", "forcepho"


def gather_facts(command: str, size: str, seconds: float) -> dict[str, Any]:
    """Say all that a reader needs to judge the figures and to make them again."""
    cuda = cuda_status()
    usable = cuda.problem is None
    return {
        **source_facts(command),
        "size": size,
        "seconds": round(seconds),
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "system": _system(),
            "load": [round(load, 1) for load in os.getloadavg()],
        },
        "device": get_backend("cuda").description if usable else None,
        "driver": _output(
            "nvidia-smi", "--id=0", "--query-gpu=driver_version", "--format=csv,noheader"
        ),
        "versions": _versions(),
    }


def source_facts(command: str) -> dict[str, Any]:
    """Say what was run, when, and of which sources."""
    changes = _output("git", "-C", str(_HERE), "status", "--short", "-uno")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "commit": _output("git", "-C", str(_HERE), "rev-parse", "HEAD"),
        "uncommitted changes": None if changes is None else bool(changes),
    }


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _system() -> str:
    """Distribution and kernel, without what a provider wrote into their names."""
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        name = platform.system()
    kernel = ".".join(platform.release().split("-")[0].split(".")[:2])
    return f"{name}, {platform.system()} {kernel}"


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"fpgpu": __version__, "Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    found["forcepho"] = found["forcepho"] or _forcepho_version()
    return found


def _forcepho_version() -> str | None:
    """Ask forcepho itself where it is a checkout and not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of is not ours to mend
            return str(importlib.import_module("forcepho").__version__)
    except ImportError:
        return None


def _output(*command: str) -> str | None:
    """Ask a program, None when it is not there or has no answer."""
    if shutil.which(command[0]) is None:
        return None
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None
