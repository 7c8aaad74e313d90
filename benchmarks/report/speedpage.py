"""The table of docs/speed.md, made from the reports that are kept in ``benchmarks/results/``."""

from pathlib import Path

from benchmarks.report.document import Report, ReportError, report_files
from benchmarks.report.goals import NOT_YET, SIZE, goal_table
from benchmarks.report.markdown import device_or_cpu

__all__ = ["BEGIN", "END", "GPU_COMMAND", "RESULTS", "replaced", "speed_section"]

RESULTS = Path(__file__).parents[1] / "results"
BEGIN = "<!-- speed: begin, written by python -m benchmarks table -->"
END = "<!-- speed: end -->"
GPU_COMMAND = "python -m benchmarks gpu"

_MOST_LOAD = 1.5  # for each core
_LOAD_MINUTES = (1, 5, 15)  # that the averages of the load are over


def replaced(text: str, section: str) -> str:
    """Put a section between the markers of a page."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ReportError(f"the page needs one line {BEGIN} and, after it, one line {END}")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{section}\n{END}{rest.split(END)[1]}"


def speed_section(folder: Path = RESULTS) -> str:
    """Write the table: of each row the newest report that has it, ratios with their range."""
    kept = [(path, Report.read(path)) for path in report_files(folder)]
    kept = [(path, report) for path, report in kept if report.facts["size"] == SIZE]
    if not kept:
        raise ReportError(
            f"{folder}: no report of size {SIZE}; make one with"
            f" python -m benchmarks --size {SIZE} --out benchmarks/results"
        )
    kept.sort(key=lambda pair: pair[1].facts["date"], reverse=True)
    lines = goal_table([report for _, report in kept])
    for path, report in kept:
        facts = report.facts
        commit = str(facts["commit"])[:12]
        lines += [
            "",
            f"[{path.stem}](../benchmarks/results/{path.with_suffix('.md').name}):"
            f" {device_or_cpu(report)}, {facts['date'][:10]}, commit {commit},"
            f" `{facts['command']}`.",
            *_note_of_load(report),
        ]
    if not any("fpgpu cuda" in report.columns for _, report in kept):
        lines += ["", f"What is {NOT_YET} will be shown by `{GPU_COMMAND}`."]
    return "\n".join(lines)


def _note_of_load(report: Report) -> list[str]:
    """Warn of a machine that had more to do than it has cores."""
    machine = report.facts["machine"]
    # Longer averages tell of what went on before the run.
    minutes = report.facts.get("seconds", 0.0) / 60
    within = [
        load
        for load, over in zip(machine.get("load", ()), _LOAD_MINUTES, strict=False)
        if over <= minutes
    ]
    load = within[-1] if within else 0.0
    if load <= _MOST_LOAD * machine["cores"]:
        return []
    return [
        f"Others used it, too (load {load:g} on {machine['cores']} cores): its times are several"
        " times those of a machine at rest, and its ratios are rough."
    ]
