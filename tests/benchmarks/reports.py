"""Reports as a run makes them, for tests of what becomes of them."""

from collections.abc import Sequence
from typing import Any

from benchmarks.measurements import Measurement
from benchmarks.report.document import Report
from benchmarks.report.goals import GOALS, Goal

__all__ = ["GPU", "full_report", "measurement", "report"]

GPU = "CUDA device 0 (NVIDIA X1)"


def measurement(operation: str = "unpack", value: float = 2e-3, **changes: Any) -> Measurement:
    """Make a measurement that takes twice its limit."""
    usual: dict[str, Any] = {
        "column": "fpgpu cpu",
        "n_bytes": 10**7,
        "limit": "memcpy",
        "limit_value": 1e-3,
        "at": {"sources": 15},
    }
    return Measurement(operation, value=value, **usual | changes)


def report(measurements: Sequence[Measurement], **facts: Any) -> Report:
    """Make a report of a machine without a GPU."""
    usual: dict[str, Any] = {
        "date": "2026-03-01T12:00:00+00:00",
        "command": "python -m benchmarks --size survey",
        "commit": "0123456789abcdef0123",
        "uncommitted changes": False,
        "size": "survey",
        "seconds": 400,
        "machine": {"cpu": "Some CPU", "cores": 8, "memory_bytes": 1 << 34, "system": "Linux"},
        "device": None,
        "driver": None,
        "versions": {"fpgpu": "0.1.0", "CuPy": None},
    }
    return Report(usual | facts, tuple(measurements), {"needs a GPU: none is here": 3})


def full_report(columns: Sequence[str], **facts: Any) -> Report:
    """Make a report that has every goal, and a growth with every variable."""
    found = []
    for goal in GOALS:
        found += [_reached(goal, column) for column in columns if _takes_part(goal, column)]
    for variable in (
        "exposures",
        "exposures a band",
        "radius",
        "bands",
        "sources",
        "pixels",
        "cores",
    ):
        for column in columns:
            found += [
                measurement("grows", 1e-3 * x**2, column=column, at={variable: x})
                for x in (1, 3, 12)
            ]
    return report(list({m.key: m for m in found}.values()), **facts)


def _takes_part(goal: Goal, column: str) -> bool:
    if column == "fpgpu cuda":
        return goal.cuda is not None
    return goal.cpu


def _reached(goal: Goal, column: str) -> Measurement:
    details = {"fpgpu cpu": goal.detail, "fpgpu cuda": goal.cuda, "forcepho": goal.forcepho}
    return measurement(
        goal.operation,
        0.7 if column == "forcepho" else 7e-3,
        column=column,
        detail=details[column],
        at=goal.at,
        unit="B" if "memory" in goal.operation else "s",
    )
