"""Measure on a GPU and keep the results: ``python -m benchmarks.record``.

A run that measured nothing on a GPU, or failed, leaves no file.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ratios import RATIOS, Ratios, machine_facts, readable
from benchmarks.sizes import SIZES
from fpgpu.backends.availability import cuda_status
from fpgpu.doctor import Diagnosis, diagnose

__all__ = ["main", "write_results"]

_HERE = Path(__file__).parent


class _Keeper:
    """A plugin of pytest that keeps what a run measured."""

    def __init__(self) -> None:
        self.ratios = Ratios()

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.ratios = session.config.stash[RATIOS]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks that need a GPU and write what they measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record", description=__doc__)
    parser.add_argument("--size", choices=list(SIZES), default="survey", help="size of the inputs")
    parser.add_argument("--out", type=Path, default=_HERE / "results", help="folder of the files")
    options = parser.parse_args(argv)
    problem = cuda_status().problem
    if problem is not None:
        print(f"nothing was measured, there is no GPU to measure on: {problem}", file=sys.stderr)
        return 1
    keeper = _Keeper()
    run = [str(_HERE), "-m", "gpu", "--benchmark-enable", "--size", options.size]
    status = pytest.main(run, plugins=[keeper])
    if status or not keeper.ratios.measurements:
        print("nothing was written: the run failed or measured nothing", file=sys.stderr)
        return 1
    command = f"python -m benchmarks.record --size {options.size}"
    for path in write_results(options.out, keeper.ratios, diagnose(), command):
        print(path)
    return 0


def write_results(
    folder: Path, ratios: Ratios, diagnosis: Diagnosis, command: str
) -> tuple[Path, Path]:
    """Write medians and all that is known about where they were measured, as JSON and Markdown."""
    (device,) = (report for report in diagnosis.backends if report.name == "cuda")
    now = datetime.now(UTC)
    changes = _output("git", "-C", str(_HERE), "status", "--short", "-uno")
    facts = {
        "date": now.isoformat(timespec="seconds"),
        "command": command,
        "commit": _output("git", "-C", str(_HERE), "rev-parse", "HEAD"),
        "uncommitted changes": None if changes is None else bool(changes),
        "device": device.description,
        "driver": _output(
            "nvidia-smi", "--id=0", "--query-gpu=driver_version", "--format=csv,noheader"
        ),
        "machine": machine_facts(),
    }
    medians = {
        operation: [asdict(measurement) for measurement in ways]
        for operation, ways in sorted(ratios.measurements.items())
    }
    results = {**facts, "medians": medians, "diagnosis": diagnosis.as_dict()}
    slug = re.sub(r"[^a-z0-9]+", "-", device.description.lower()).strip("-")
    stem = f"{now:%Y-%m-%d-%H%M}-{slug}"
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / f"{stem}.json", folder / f"{stem}.md"
    written[0].write_text(json.dumps(results, indent=1) + "\n")
    written[1].write_text(_markdown({**facts, **diagnosis.versions}, ratios, diagnosis))
    return written


def _markdown(facts: dict[str, Any], ratios: Ratios, diagnosis: Diagnosis) -> str:
    """Lay the same out for reading."""
    lines = [f"# {facts['device']}, {facts['date'][:10]}", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", "| copy | GB/s |", "|---|---:|"]
    lines += [
        f"| {copy.what}, {copy.n_bytes >> 20} MiB | {copy.bytes_per_second / 1e9:.1f} |"
        for report in diagnosis.backends
        for copy in report.copies
    ]
    lines += ["", "Bytes are those of a copy that moves as much: half of what is read and written."]
    lines += ["", "| operation | way | median | GB/s | speed of the copy reached | copy |"]
    lines += ["|---|---|---:|---:|---:|---|"]
    for operation, ways in sorted(ratios.measurements.items()):
        for way in sorted(ways, key=lambda way: way.way):
            row = f"| {operation} | {way.way} | {readable(way.seconds)} |"
            if way.n_bytes is not None and way.copy_seconds is not None:
                row += f" {way.n_bytes / way.seconds / 1e9:.1f} |"
                row += f" {way.copy_seconds / way.seconds:.0%} | {way.copy} |"
            lines.append(row)
    return "\n".join(lines) + "\n"


def _output(*command: str) -> str | None:
    """Ask a program, None when it is not there or has no answer."""
    if shutil.which(command[0]) is None:
        return None
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
