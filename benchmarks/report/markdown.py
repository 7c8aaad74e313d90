"""A report as a page."""

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.report.document import Report
from benchmarks.report.goals import SIZE, goal_table
from benchmarks.report.tables import growth_table, markdown_table, measurement_table

__all__ = ["device_or_cpu", "page"]


def device_or_cpu(report: Report) -> str:
    """What did the work."""
    device = report.facts.get("device")
    if device and "fpgpu cuda" in report.columns:
        return str(device)
    machine = report.facts["machine"]
    return f"{machine['cpu']}, {machine['cores']} cores"


def page(report: Report, picture: str) -> str:
    """Lay a report out for reading; `picture` is the name of the file beside it."""
    facts = report.facts
    lines = [f"# {device_or_cpu(report)}, {facts['date'][:10]}, size {facts['size']}", ""]
    lines += [f"- {name}: {value}" for name, value in _flat(facts).items() if value is not None]
    lines += ["", f"![times and growth]({picture})", ""]
    if facts["size"] == SIZE:
        lines += ["## The speed to reach", "", *goal_table([report]), ""]
    lines += ["## How times grow", "", "Least squares of the logarithms: t ~ x^exponent.", ""]
    lines += [*growth_table(report.measurements), ""]
    lines += ["## Every measurement", ""]
    lines += [
        "Medians. A limit was timed just before and just after, on as many bytes: of a copy, half"
        " of what is read and written.",
        "",
        *measurement_table(report.measured),
    ]
    if report.diagnosis:
        lines += ["", "## Copies as `fpgpu doctor` measures them", "", *_copies(report.diagnosis)]
    if report.steps:
        lines += ["", "## Tried beside measuring", "", *_steps(report.steps)]
    if report.failed:
        lines += ["", "## Failed", ""]
        lines += [f"- {name}: {reason}" for name, reason in report.failed.items()]
    if report.skipped:
        lines += ["", "## Left out", ""]
        lines += [f"- {count} x {reason}" for reason, count in sorted(report.skipped.items())]
    return "\n".join(lines) + "\n"


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Name nested facts by their own names."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        flat.update(value if isinstance(value, dict) else {name: value})
    return flat


def _steps(steps: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line a step; what it found is in the file beside the page."""
    rows = [
        [
            step["name"],
            step["shows"],
            step["outcome"],
            f"{step['seconds']:.0f} s" if "seconds" in step else "",
            str(step.get("error") or "").partition("\n")[0].replace("|", "/"),
        ]
        for step in steps
    ]
    return markdown_table(("step", "shows", "outcome", "took", "because"), rows)


def _copies(diagnosis: Mapping[str, Any]) -> list[str]:
    rows = [
        [f"{copy['what']}, {copy['n_bytes'] >> 20} MiB", f"{copy['bytes_per_second'] / 1e9:.1f}"]
        for backend in diagnosis["backends"]
        for copy in backend["copies"]
    ]
    return markdown_table(("copy", "GB/s"), rows)
