"""Measurements as Markdown tables, ratios first."""

from collections.abc import Iterable, Sequence

from benchmarks.measurements import Measured, Measurement, readable
from benchmarks.report.growth import growths

__all__ = ["growth_table", "markdown_table", "measurement_table", "times"]


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lay out a table; columns after the first two are numbers and go to the right."""
    rule = ["---" if k < 2 else "---:" for k in range(len(header))]
    return ["| " + " | ".join(cells) + " |" for cells in (header, rule, *rows)]


def times(ratio: float) -> str:
    """Write a ratio with two digits that mean something."""
    digits = 0 if ratio >= 99.5 else 1 if ratio >= 9.95 else 2
    return f"{ratio:,.{digits}f} x"


def measurement_table(measured: Measured) -> list[str]:
    """Every measurement: beside the limit, beside forcepho, and as it was taken."""
    rows = []
    for title, ways in measured.by_title():
        theirs = [way.value for way in ways if way.column == "forcepho"]
        for way in ways:
            rows.append(
                [
                    title,
                    way.way,
                    times(way.ratio) if way.ratio is not None else "",
                    way.limit or "",
                    f"{min(theirs) / way.value:,.3g} x" if theirs and _is_ours(way) else "",
                    readable(way.value, way.unit),
                    f"{way.spread:.0%}" if way.spread is not None else "",
                    readable(way.best, way.unit) if way.best is not None else "",
                    f"{way.n_bytes / way.value / 1e9:.3g}" if way.n_bytes else "",
                ]
            )
    header = "operation", "way", "of its limit", "limit", "forcepho / fpgpu", "median", "quartiles"
    return markdown_table((*header, "best", "GB/s"), rows)


def growth_table(measurements: Iterable[Measurement]) -> list[str]:
    """How times grow: t is proportional to x to the power of the exponent."""
    rows = [
        [
            fit.operation,
            fit.way,
            fit.variable,
            f"{fit.exponent:.2f}",
            f"{fit.range[0]:,.7g} to {fit.range[1]:,.7g}",
            str(len(fit.points)),
            f"{fit.scatter:.0%}",
        ]
        for fit in growths(measurements)
    ]
    header = "operation", "way", "grows with", "exponent", "range", "points", "scatter"
    return markdown_table(header, rows)


def _is_ours(way: Measurement) -> bool:
    return way.column.startswith("fpgpu")
