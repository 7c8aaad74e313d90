"""A report: what was measured, on which machine, with which versions, when, from which commit."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from benchmarks.measurements import Measured, Measurement

__all__ = ["FORMAT", "SUMMARY", "Report", "ReportError", "report_files"]

FORMAT = 1

SUMMARY = "gpu-summary.json"
"""What ``python -m benchmarks gpu`` writes beside a report."""


class ReportError(ValueError):
    """A report that cannot be read, or cannot be used for what was asked."""


def report_files(folder: Path) -> list[Path]:
    """Find the reports in a folder."""
    return sorted(path for path in folder.glob("*.json") if path.name != SUMMARY)


@dataclass(frozen=True)
class Report:
    """A run and all that is known about it.

    `facts` has date, command, commit, "uncommitted changes", size, machine (cpu, cores,
    memory_bytes, system, load over 1, 5 and 15 minutes at the end), device, versions and seconds;
    `diagnosis` is what the doctor says of a machine with a GPU, `steps` what else was tried on it.
    """

    facts: Mapping[str, Any]
    measurements: tuple[Measurement, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)
    diagnosis: Mapping[str, Any] | None = None
    failed: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[Mapping[str, Any], ...] = ()

    @property
    def columns(self) -> set[str]:
        """Who was measured."""
        return {measurement.column for measurement in self.measurements}

    @property
    def measured(self) -> Measured:
        """The measurements as a run holds them."""
        return Measured(list(self.measurements), dict(self.skipped), dict(self.failed))

    def with_steps(self, steps: Sequence[Mapping[str, Any]]) -> Self:
        """Add what ``python -m benchmarks gpu`` tried beside measuring."""
        kept = ("name", "shows", "outcome", "seconds", "error", "found")
        short = tuple({key: step[key] for key in kept if key in step} for step in steps)
        return replace(self, steps=short)

    def write(self, path: Path) -> None:
        """Write JSON."""
        content = {
            "format": FORMAT,
            **self.facts,
            "measurements": [measurement.as_dict() for measurement in self.measurements],
            "skipped": dict(self.skipped),
            "diagnosis": self.diagnosis,
            "failed": dict(self.failed),
            "steps": list(self.steps),
        }
        path.write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote."""
        try:
            content = json.loads(path.read_text())
            if content["format"] != FORMAT:
                raise ReportError(
                    f"{path}: format {content['format']}, expected {FORMAT}; measure again"
                )
            measurements = tuple(map(Measurement.from_dict, content.pop("measurements")))
            skipped, diagnosis = content.pop("skipped"), content.pop("diagnosis")
            failed, steps = content.pop("failed", {}), tuple(content.pop("steps", ()))
            del content["format"]
            content["date"], content["size"], content["machine"]["cpu"]
        except ReportError:
            raise
        except OSError as error:
            raise ReportError(f"{path}: cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ReportError(
                f"{path}: not a report of python -m benchmarks ({type(error).__name__}: {error})"
            ) from error
        return cls(content, measurements, skipped, diagnosis, failed, steps)
