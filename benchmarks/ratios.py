"""Keep the times of a run, and print them as ratios."""

import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import h5py
import numpy as np
import pytest

__all__ = ["RATIOS", "Measurement", "Ratios", "machine_facts", "memcpy_times"]

_COPIES = 15


@dataclass(frozen=True)
class Measurement:
    """The median time of one way to do an operation, in seconds.

    What moves bytes comes with the time that the machine took, just before and just after, to copy
    as many: the only fair yardstick on a machine that others use too. `copy` says which copy.
    """

    way: str
    seconds: float
    n_bytes: int | None = None
    copy_seconds: float | None = None
    copy: str = "memcpy"


@dataclass
class Ratios:
    """Measurements by operation, and what is no time."""

    measurements: dict[str, list[Measurement]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def add(self, operation: str, measurement: Measurement) -> None:
        self.measurements.setdefault(operation, []).append(measurement)

    def note(self, operation: str, line: str) -> None:
        self.notes.setdefault(operation, []).append(line)

    def lines(self) -> list[str]:
        """Write a paragraph an operation: times, throughputs, and how they compare."""
        text = [machine_facts()]
        for operation, ways in sorted(self.measurements.items()):
            text += ["", operation]
            ours = [way.seconds for way in ways if way.way.startswith("fpgpu")]
            for way in sorted(ways, key=lambda way: way.way):
                line = f"  {way.way:<42}{readable(way.seconds):>10}"
                if way.n_bytes is not None and way.copy_seconds is not None:
                    line += f"{way.n_bytes / way.seconds / 1e9:>8.2f} GB/s"
                    line += f"{way.seconds / way.copy_seconds:>8.2f} x {way.copy}"
                    line += f" ({readable(way.copy_seconds)})"
                if way.way.startswith("forcepho") and ours:
                    line += f"{way.seconds / min(ours):>8.1f} x fpgpu"
                text.append(line)
        for operation, lines in sorted(self.notes.items()):
            text += ["", operation, *(f"  {line}" for line in sorted(lines))]
        return text


RATIOS = pytest.StashKey[Ratios]()
"""Where pytest's configuration keeps what its run measured."""


def memcpy_times(n_bytes: int) -> list[float]:
    """Time copies of as many bytes between arrays that are in memory already, in seconds."""
    source = np.ones(n_bytes, np.uint8)
    target = np.zeros_like(source)
    times = []
    for _ in range(_COPIES):
        start = perf_counter()
        np.copyto(target, source)
        times.append(perf_counter() - start)
    return times


def readable(seconds: float) -> str:
    """Write a time in the unit that suits it."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def machine_facts() -> str:
    """Say on what the times were measured."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [
            line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = models[0].split(":", 1)[1].strip() if models else cpu
    return (
        f"{cpu}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"numpy {np.__version__}, h5py {h5py.__version__}"
    )
