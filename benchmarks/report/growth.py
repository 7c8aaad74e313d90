"""How the time of an operation grows with its input: the exponent of a power law."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from benchmarks.measurements import Measurement

__all__ = ["Growth", "fit_exponent", "growths"]

_FEWEST = 3
_FEWEST_OF = {"cores": 2}  # many machines have no more, and one and all of them say enough


@dataclass(frozen=True)
class Growth:
    """One way to do an operation, on inputs that differ in one thing only.

    `scatter` is the root mean square of the points about the law, as a part of their values.
    """

    operation: str
    column: str
    detail: str
    variable: str
    points: tuple[tuple[float, float], ...]
    exponent: float
    scatter: float

    @property
    def way(self) -> str:
        """Who, and how."""
        return f"{self.column}, {self.detail}" if self.detail else self.column

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest input."""
        return self.points[0][0], self.points[-1][0]


def fit_exponent(
    x: Iterable[float], y: Iterable[float], fewest: int = _FEWEST
) -> tuple[float, float]:
    """Fit ``y = c * x**exponent`` by least squares of the logarithms.

    Returns the exponent, and the root mean square of ``log(y)`` about the line.
    """
    log_x, log_y = np.log(np.asarray(list(x), float)), np.log(np.asarray(list(y), float))
    if len(log_x) < fewest or len(np.unique(log_x)) < fewest:
        raise ValueError(f"an exponent needs {fewest} different inputs, found {np.exp(log_x)}")
    if not (np.isfinite(log_x).all() and np.isfinite(log_y).all()):
        raise ValueError("an exponent needs positive inputs and positive times")
    slope, offset = np.polyfit(log_x, log_y, 1)
    return float(slope), float(np.sqrt(np.mean((log_y - slope * log_x - offset) ** 2)))


def growths(measurements: Iterable[Measurement]) -> list[Growth]:
    """Fit every operation that was measured at enough values of one thing, the rest being equal."""
    series: dict[tuple[object, ...], dict[float, float]] = {}
    for found in measurements:
        for variable, value in found.at.items():
            rest = tuple(sorted((k, v) for k, v in found.at.items() if k != variable))
            way = found.operation, found.column, found.detail, variable, rest
            series.setdefault(way, {})[value] = found.value
    fits = []
    for (operation, column, detail, variable, _), values in series.items():
        fewest = _FEWEST_OF.get(str(variable), _FEWEST)
        if len(values) >= fewest and min(*values, *values.values()) > 0:
            points = tuple(sorted(values.items()))
            law = fit_exponent(*zip(*points, strict=True), fewest)
            fits.append(Growth(*map(str, (operation, column, detail, variable)), points, *law))
    return sorted(fits, key=lambda fit: (fit.operation, fit.variable, fit.column, fit.detail))
