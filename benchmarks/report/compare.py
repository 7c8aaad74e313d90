"""Whether fpgpu became slower: two reports compared as ratios to the limits of their own runs.

Times of two machines, or of one on a busy and on a quiet day, say nothing about fpgpu. What a
measurement took beside its limit in the same run does. Where there is no limit, times are compared
only if both reports come from the same machine.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.measurements import Key, Measurement
from benchmarks.report.document import Report, ReportError
from benchmarks.report.tables import markdown_table, times

__all__ = ["TOLERANCE", "Change", "Comparison", "compare", "comparison_lines"]

TOLERANCE = 1.5
"""How many times its old ratio a measurement may take; shared machines vary by less."""


@dataclass(frozen=True)
class Change:
    """One measurement in both reports."""

    old: Measurement
    new: Measurement
    factor: float


@dataclass(frozen=True)
class Comparison:
    """What two reports say of each other.

    `gone` was measured before and is not any more, although its column was; `not_compared` has no
    limit and comes from another machine.
    """

    changes: tuple[Change, ...]
    worse: tuple[Change, ...]
    gone: tuple[Measurement, ...]
    not_compared: tuple[Measurement, ...]
    same_machine: bool
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether nothing became worse and nothing went missing."""
        return not (self.worse or self.gone)


def compare(old: Report, new: Report, tolerance: float = TOLERANCE) -> Comparison:
    """Compare what fpgpu did in two runs."""
    if tolerance < 1:
        raise ReportError(f"a tolerance of {tolerance:g} forbids any noise; expected 1 or more")
    if old.facts["size"] != new.facts["size"]:
        raise ReportError(
            f"sizes {old.facts['size']} and {new.facts['size']} are different inputs; compare"
            " reports of the same --size"
        )
    same_machine = _machine(old) == _machine(new)
    before, after = _ours(old.measurements), _ours(new.measurements)
    changes, not_compared = [], []
    for key in before.keys() & after.keys():
        factor = _factor(before[key], after[key], same_machine)
        if factor is None:
            not_compared.append(after[key])
        else:
            changes.append(Change(before[key], after[key], factor))
    if not changes:
        raise ReportError("the reports have no measurement in common that can be compared")
    changes.sort(key=lambda change: -change.factor)
    return Comparison(
        tuple(changes),
        tuple(change for change in changes if change.factor > tolerance),
        tuple(m for k, m in before.items() if k not in after and m.column in new.columns),
        tuple(not_compared),
        same_machine,
        tolerance,
    )


def comparison_lines(found: Comparison, most: int = 10) -> list[str]:
    """Say it: what is worse, what is gone, and the largest changes."""
    lines = [
        f"{len(found.changes)} measurements compared as ratios to the limits of their runs,"
        f" {'the same machine' if found.same_machine else 'different machines'}:"
        f" {len(found.worse)} worse by more than {times(found.tolerance)}, {len(found.gone)} gone"
    ]
    lines += [f"gone: {m.title}: {m.way}" for m in found.gone]
    lines += [
        f"not compared, it has no limit and the machines differ: {m.title}: {m.way}"
        for m in found.not_compared
    ]
    shown = found.changes[: max(most, len(found.worse))]
    rows = [
        [
            change.new.title,
            change.new.way,
            times(change.factor) + (" worse" if change in found.worse else ""),
            _ratio(change.old),
            _ratio(change.new),
            change.new.limit or "",
        ]
        for change in shown
    ]
    header = "operation", "way", "change", "old, of its limit", "new, of its limit", "limit"
    return [*lines, "", *markdown_table(header, rows)]


def _machine(report: Report) -> tuple[object, ...]:
    machine = report.facts["machine"]
    return machine["cpu"], machine.get("cores"), report.facts.get("device")


def _ours(measurements: Iterable[Measurement]) -> dict[Key, Measurement]:
    return {m.key: m for m in measurements if m.column.startswith("fpgpu")}


def _factor(old: Measurement, new: Measurement, same_machine: bool) -> float | None:
    """How many times its old ratio a measurement takes now."""
    if old.ratio is not None and new.ratio is not None and old.limit == new.limit:
        return new.ratio / old.ratio if old.ratio > 0 else None
    if same_machine and old.value > 0 and old.unit == new.unit:
        return new.value / old.value
    return None


def _ratio(measurement: Measurement) -> str:
    return times(measurement.ratio) if measurement.ratio is not None else ""
