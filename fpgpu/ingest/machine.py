"""How many exposures this machine can work on at a time: its cores, its memory, their limits."""

import math
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

__all__ = ["available_cores", "available_memory", "suggested_workers"]

BASE_BYTES = 256 << 20
"""What a worker needs before it reads anything: Python and its libraries."""

BYTES_PER_BYTE = 4
"""Memory a worker needs for a byte of its file, at the most."""

WORTH_A_WORKER = 32 << 20
"""Bytes of input whose reading takes longer than starting a process for it."""

# FITS files of detectors shrink to a quarter at best.
_COMPRESSION = 4
_COMPRESSED = {".gz", ".fz", ".bz2", ".xz", ".zip", ".asdf"}

_CGROUP = Path("/sys/fs/cgroup")


def available_cores() -> int:
    """Count the cores that this process may use."""
    cores = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(cores, 1)


def available_memory() -> int | None:
    """Find how much memory this process may still use."""
    found = []
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) << 10)
    with suppress(OSError, ValueError):
        limit = int((_CGROUP / "memory.max").read_text())
        found.append(limit - int((_CGROUP / "memory.current").read_text()))
    return min(found, default=None)


def suggested_workers(files: Iterable[Path]) -> int:
    """Suggest how many processes should read exposures here."""
    sizes = []
    for file in files:
        with suppress(OSError):
            expanded = _COMPRESSION if file.suffix in _COMPRESSED else 1
            sizes.append(file.stat().st_size * expanded)
    n = min(available_cores(), max(len(sizes), 1))
    n = min(n, 1 + sum(sizes) // WORTH_A_WORKER)
    memory = available_memory()
    if memory is not None:
        n = min(n, memory // (BASE_BYTES + BYTES_PER_BYTE * max(sizes, default=0)))
    return max(n, 1)
