"""``fpgpu ingest --dry-run``: what would happen, printed."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from fpgpu.cli.console import Progress, format_table, print_json

if TYPE_CHECKING:
    from fpgpu.ingest.dryrun import PlannedExposure
    from fpgpu.ingest.inputs import Input

__all__ = ["run_dry"]


def run_dry(items: "list[Input]", out: Path, *, as_json: bool, quiet: bool) -> int:
    """Print what an ingest would do."""
    from fpgpu.ingest.dryrun import plan_ingest
    from fpgpu.ingest.report import unknown_bands

    plan: list[PlannedExposure] = []
    with Progress(len(items), "dry run", enabled=not quiet and not as_json) as progress:
        done = 0
        for planned in plan_ingest(items, out):
            plan.append(planned)
            while done < len(items) and items[done].path != planned.file:
                progress.step(items[done].path.name)
                done += 1
        for item in items[done:]:
            progress.step(item.path.name)
    unknown = unknown_bands(items, (one.band for one in plan))
    if as_json:
        exposures = [{**asdict(one), "file": str(one.file)} for one in plan]
        print_json({"out": str(out), "exposures": exposures, "unknown_bands": unknown})
    else:
        _print_plan(plan, out, quiet)
    for text in unknown:
        print(text, file=sys.stderr)
    if not any(one.status in {"new", "replace"} for one in plan):
        return 2
    return 1 if unknown or any(one.status == "refused" for one in plan) else 0


def _print_plan(plan: "list[PlannedExposure]", out: Path, quiet: bool) -> None:
    """Print tables for people."""
    good, bad, left = (
        [one for one in plan if one.status in kinds]
        for kinds in (("new", "replace"), ("refused",), ("left out",))
    )
    if good and not quiet:
        columns = ["band", "exposure", "would be", "reader", "pixels", "unit", "nJy/unit"]
        columns += ["errors", "bad flags", "WCS", "refit px"]
        print(format_table(columns, [_row(one) for one in good]))
        print()
        for note, files in _by_note(good).items():
            more = f" and {len(files) - 1} more" if len(files) > 1 else ""
            print(f"note {files[0]}{more}: {note}")
    if bad:
        print(format_table(["refused", "because"], [[str(one.file), _reason(one)] for one in bad]))
        print()
    new = sum(one.status == "new" for one in good)
    print(
        f"dry run: {new} new and {len(good) - new} replaced in {out}, {len(bad)} refused"
        f"{f', {len(left)} left out' if left else ''}; "
        "nothing was written"
    )


def _reason(one: "PlannedExposure") -> str:
    """Say why an exposure is refused, without saying the file twice."""
    return one.reason.removeprefix(f"{one.file.absolute()}: ").removeprefix(f"{one.file}: ")


def _row(one: "PlannedExposure") -> list[object]:
    factor = f"{one.flux_factor:.6g}" if one.flux_units == "nJy" else f"1 ({one.flux_units})"
    return [
        one.band,
        one.expID,
        one.status,
        one.reader,
        f"{one.nx}x{one.ny}",
        one.unit or "-",
        factor,
        one.uncertainties,
        ",".join(one.bad_flags) or "-",
        one.wcs,
        "-" if one.sip_residual is None else f"{one.sip_residual:.1e}",
    ]


def _by_note(plan: "list[PlannedExposure]") -> dict[str, list[str]]:
    """The files that each note is for."""
    found: dict[str, list[str]] = {}
    for one in plan:
        for note in one.notes:
            found.setdefault(note, []).append(str(one.file))
    return found
