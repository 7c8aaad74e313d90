"""What one run measured: a number for each way to do an operation, beside a limit."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import pytest

__all__ = ["COLUMNS", "MEASURED", "Key", "Measured", "Measurement", "check_labels", "readable"]

COLUMNS = ("fpgpu cpu", "fpgpu cuda", "forcepho", "machine")
"""Who did it: fpgpu on a backend, forcepho on the CPU, or the machine without either."""

_SIZES = {
    "side": "{0:g} x {0:g}",
    "radius": "r = {:g} arcsec",
    "exposures": "{0:,g} exposure{s}",
    "exposures a band": "{0:g} exposure{s} a band",
    "bands": "{0:g} band{s}",
    "pixels": "{0:,.0f} pixel{s}",
    "sources": "{0:g} source{s}",
    "Gaussians": "{0:g} Gaussian{s} a source",
    "cores": "{0:g} core{s}",
    "batch": "batch of {:g}",
    "window": "{0:g} x {0:g} super-pixels",
    "elsewhere": "{0:,g} exposure{s} more elsewhere",
    "patches": "{:g} patches",
    "bytes": "{:,.0f} bytes",
}
"""How the size of an operation's input is written, by what grows."""

Key = tuple[str, str, str, tuple[tuple[str, float], ...]]


def check_labels(operation: str, column: str, at: Mapping[str, float]) -> None:
    """Refuse what no table could show, also where nothing is timed."""
    if column not in COLUMNS:
        raise ValueError(f"column {column!r} of {operation!r} must be one of: {', '.join(COLUMNS)}")
    if unknown := set(at) - set(_SIZES):
        raise ValueError(
            f"{operation!r} grows with {sorted(unknown)}, expected some of: {', '.join(_SIZES)}"
        )


@dataclass(frozen=True)
class Measurement:
    """One way to do an operation on inputs of one size.

    `value` is a median in seconds, or bytes of memory; `best` is the shortest time, `spread` what
    lies between the quartiles, as a part of the median. `limit` is what the machine itself needs
    for the least that has to be done, timed just before and just after: the only fair yardstick on
    a machine that others use too, and the only figure that can be compared with another machine's.
    """

    operation: str
    column: str
    value: float
    detail: str = ""
    at: Mapping[str, float] = field(default_factory=dict)
    unit: str = "s"
    spread: float | None = None
    best: float | None = None
    n_bytes: int | None = None
    limit: str | None = None
    limit_value: float | None = None

    def __post_init__(self) -> None:
        check_labels(self.operation, self.column, self.at)

    @property
    def ratio(self) -> float | None:
        """How many times the limit this takes; None where there is none."""
        if self.limit_value is None or self.limit_value <= 0:
            return None
        return self.value / self.limit_value

    @property
    def input(self) -> str:
        """The size of the input, in words."""
        return ", ".join(
            _SIZES[name].format(value, s="" if value == 1 else "s")
            for name, value in self.at.items()
        )

    @property
    def title(self) -> str:
        """Operation and size of the input."""
        return f"{self.operation}, {self.input}" if self.at else self.operation

    @property
    def way(self) -> str:
        """Who, and how."""
        return f"{self.column}, {self.detail}" if self.detail else self.column

    @property
    def key(self) -> Key:
        """What is the same in another run."""
        return self.operation, self.column, self.detail, tuple(sorted(self.at.items()))

    def as_dict(self) -> dict[str, Any]:
        """Give plain values, for JSON."""
        return asdict(self) | {"at": dict(self.at)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make one from what `as_dict` gave."""
        return cls(**values)


@dataclass
class Measured:
    """All that a run measured, and what it left out."""

    measurements: list[Measurement] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    """Of benchmarks, by name: why. What they measured is not kept."""
    pending: list[Measurement] = field(default_factory=list)
    """Of the benchmark that is running, whose results are not yet checked."""

    def add(self, measurement: Measurement) -> None:
        self.pending.append(measurement)

    def passed(self) -> None:
        """Keep what the benchmark measured that has ended now."""
        self.measurements += self.pending
        self.pending.clear()

    def fail(self, name: str, reason: str) -> None:
        """Drop it: what gives wrong results has no speed."""
        self.failed[name] = reason
        self.pending.clear()

    def skip(self, reason: str) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + 1

    def by_title(self) -> Iterator[tuple[str, list[Measurement]]]:
        """Give the ways to do the same, side by side."""
        titles: dict[str, list[Measurement]] = {}
        for measurement in self.measurements:
            titles.setdefault(measurement.title, []).append(measurement)
        for title in sorted(titles, key=_in_order):
            yield title, sorted(titles[title], key=lambda m: (COLUMNS.index(m.column), m.detail))


MEASURED = pytest.StashKey[Measured]()
"""Where pytest's configuration keeps what its run measured."""


def readable(value: float, unit: str = "s") -> str:
    """Write a time or a number of bytes in the unit that suits it."""
    scales = {
        "s": (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)),
        "B": (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0)),
    }[unit]
    name, scale = next((s for s in scales if abs(value) >= s[1]), scales[-1])
    number = value / scale
    digits = 0 if abs(number) >= 100 else 1 if abs(number) >= 10 else 2
    return f"{number:.{digits}f} {name}"


def _in_order(title: str) -> tuple[Any, ...]:
    """Sort numbers inside a title by their value."""
    words = title.replace(",", "").split()
    return tuple((0, float(w), "") if w.replace(".", "").isdigit() else (1, 0.0, w) for w in words)
