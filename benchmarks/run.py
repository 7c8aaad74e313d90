"""Run the benchmarks and write one report: JSON, a page and a picture."""

import re
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from benchmarks.measurements import MEASURED, Measured
from benchmarks.report.document import Report
from benchmarks.report.machine import gather_facts
from benchmarks.report.markdown import device_or_cpu, page
from fpgpu.backends.availability import cuda_status
from fpgpu.doctor import diagnose

__all__ = ["BACKENDS", "MINUTES", "run", "write_pages", "write_report"]

BACKENDS = {"all": None, "cpu": "not gpu", "cuda": "gpu"}
"""What to measure on, and the mark that chooses it."""

MINUTES = 9.0
"""A machine with a GPU is often lent for ten."""

_HERE = Path(__file__).parent
_LAST = ("test_transfer.py", "test_kernels.py", "test_stream.py")
"""What may fall to the end of the time; on a GPU little else is measured, so they begin at once."""


class _Keeper:
    """A plugin of pytest that keeps what a run measured, and puts what matters less last."""

    def __init__(self) -> None:
        self.measured = Measured()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: _LAST.index(n) if (n := item.path.name) in _LAST else -1)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.measured = session.config.stash.get(MEASURED, self.measured)


def run(size: str, out: Path, backend: str, chosen: str | None, minutes: float) -> int:
    """Measure and write a report: 0, or 1 when a benchmark failed or nothing was measured."""
    problem = cuda_status().problem
    if backend == "cuda" and problem is not None:
        print(f"nothing was measured, there is no GPU to measure on: {problem}", file=sys.stderr)
        return 2
    keeper, started = _Keeper(), time.monotonic()
    status = pytest.main(_arguments(size, backend, chosen, minutes), plugins=[keeper])
    if not keeper.measured.measurements:
        print("no report was written: the run failed or measured nothing", file=sys.stderr)
        return 1
    seconds = time.monotonic() - started
    report = Report(
        gather_facts(_command(size, backend, chosen), size, seconds),
        tuple(keeper.measured.measurements),
        keeper.measured.skipped,
        diagnose() if problem is None and backend != "cpu" else None,
        keeper.measured.failed,
    )
    for path in write_report(report, out):
        print(path)
    for name, reason in report.failed.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    return int(bool(status))


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write JSON, Markdown and a picture, named after the day and what did the work."""
    folder.mkdir(parents=True, exist_ok=True)
    when = datetime.fromisoformat(report.facts["date"])
    what = re.sub(r"[^a-z0-9]+", "-", device_or_cpu(report).lower()).strip("-")
    stem = f"{when:%Y-%m-%d-%H%M}-{what}-{report.facts['size']}"
    data = folder / f"{stem}.json"
    report.write(data)
    return [data, *write_pages(report, data)]


def write_pages(report: Report, data: Path) -> list[Path]:
    """Write the page and the picture of a report beside it."""
    from benchmarks.report.figure import draw

    text, picture = (data.with_suffix(suffix) for suffix in (".md", ".png"))
    text.write_text(page(report, picture.name))
    draw(report).savefig(picture)
    return [text, picture]


def _arguments(size: str, backend: str, chosen: str | None, minutes: float) -> list[str]:
    """Measure in a fixed order, and leave nothing behind in the repository."""
    arguments = [str(_HERE), "-q", "-p", "no:randomly", "-p", "no:cacheprovider"]
    arguments += ["--benchmark-enable", "--benchmark-quiet", "--size", size]
    arguments += ["--stop-after", str(60 * minutes), "--override-ini", "timeout=0"]
    arguments += ["--continue-on-collection-errors"]
    if mark := BACKENDS[backend]:
        arguments += ["-m", mark]
    return arguments + (["-k", chosen] if chosen else [])


def _command(size: str, backend: str, chosen: str | None) -> str:
    command = f"python -m benchmarks --size {size}"
    if backend != "all":
        command += f" --backend {backend}"
    return command + (f' -k "{chosen}"' if chosen else "")
