"""The speed to reach: the operations that matter to a user, and what was aimed at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks.measurements import Measurement, readable
from benchmarks.report.document import Report
from benchmarks.report.tables import markdown_table, times

__all__ = ["GOALS", "NOT_YET", "SIZE", "Goal", "find", "goal_table"]

SIZE = "survey"
"""The size of inputs that the goals are meant for."""

NOT_YET = "not yet run on a GPU"
_MISSING = "not measured"


@dataclass(frozen=True)
class Goal:
    """One operation, and where its measurements are found.

    `at` names only what tells the row from others of the same operation.
    """

    title: str
    operation: str
    aim: str
    at: Mapping[str, float] = field(default_factory=dict)
    detail: str = ""
    forcepho: str = ""
    cuda: str | None = ""
    """Detail of the row on a GPU; None where a GPU has no part in it."""
    cpu: bool = True


_USUAL = {"exposures a band": 12, "bands": 3}
_SCENE = {"pixels": 1_158_656, "sources": 5, "Gaussians": 36}  # of 36 exposures within 3"

GOALS: Sequence[Goal] = (
    Goal(
        "superpixelize 2048 x 2048, image and error",
        "superpixelize",
        "2.5 x memcpy",
        {"side": 2048},
        detail="from a FITS image",
        cuda=None,
    ),
    Goal("add_exposure 2048 x 2048", "add_exposure", "60 ms + the write", cuda=None),
    Goal("open PixelStore, 36 exposures", "open PixelStore", "5 ms", {"exposures": 36}, cuda=None),
    Goal(
        "open MetaStore and ask, 36 exposures",
        "open MetaStore and ask",
        "10 ms",
        {"exposures": 36},
        cuda=None,
    ),
    Goal(
        "open MetaStore and ask, 10,000 exposures",
        "open MetaStore and ask",
        "0.5 s",
        {"exposures": 10_000},
        cuda=None,
    ),
    Goal(
        "exposures at a position, 1,000 in the store",
        "find exposures",
        "1 ms",
        {"exposures": 1000},
        detail="a position",
        forcepho="a position",
        cuda=None,
    ),
    Goal(
        "exposures of a region, 10,000 in the store",
        "find exposures",
        "1 ms",
        {"exposures": 10_000},
        detail="a circle of 3 arcsec",
        cuda=None,
    ),
    Goal(
        'region to patch, r = 3", 36 exposures',
        "region to patch",
        "10 ms; GPU 2.5 ms",
        {"radius": 3, **_USUAL},
    ),
    Goal(
        "the same, a file for each exposure",
        "region to patch",
        "10 ms; GPU 2.5 ms",
        {"radius": 3, **_USUAL},
        detail="sharded store",
        cuda="sharded store",
    ),
    Goal(
        "the same, exposures resident in the device's memory",
        "region to patch",
        "GPU 2.5 ms",
        {"radius": 3, **_USUAL},
        detail="resident exposures",
        cuda="resident exposures",
    ),
    Goal(
        "the same, with the plan given",
        "region to patch",
        "0.5 ms",
        {"radius": 3, **_USUAL},
        detail="resident exposures, plan given",
        cuda="resident exposures, plan given",
        cpu=False,
    ),
    Goal(
        'region to patch, r = 10", 36 exposures',
        "region to patch",
        "60 ms",
        {"radius": 10, **_USUAL},
    ),
    Goal(
        "pack metadata, 15 sources, FITS WCS",
        "pack metadata",
        "10 ms",
        {"sources": 15, "exposures a band": 12},
        detail="FITS WCS",
        forcepho="FITS WCS",
        cuda=None,
    ),
    Goal(
        "pack metadata, 15 sources, gWCS",
        "pack metadata",
        "10 ms",
        {"sources": 15, "exposures a band": 12},
        detail="gWCS",
        forcepho="gWCS",
        cuda=None,
    ),
    Goal(
        'a scene of 5 sources and its derivatives, r = 3", one core',
        "evaluate with derivatives",
        "15 x forcepho",
        _SCENE,
        detail="one core",
        forcepho="one core",
        cuda=None,
    ),
    Goal(
        "the same, all cores",
        "evaluate with derivatives",
        "30 x forcepho on 2 cores",
        _SCENE,
        detail="all cores",
        forcepho="one core",
        cuda=None,
    ),
    Goal(
        'a fit by forcepho, r = 3", 5 sources: build, optimise, write',
        "build, optimise and write",
        "10 x forcepho",
        {"radius": 3},
        cuda=None,
    ),
    Goal(
        'peak memory over the import, patch of r = 10"',
        "peak memory of a patch",
        "1.3 x the patch",
        cuda=None,
    ),
    Goal(
        "plan with 1,000 exposures more that the region does not touch",
        "plan with exposures elsewhere",
        "none measurable (1 x)",
        cuda=None,
    ),
    Goal(
        "superpixelize 16 x 2048 x 2048 on the device",
        "superpixelize a batch",
        "1.25 x device copy",
        {"side": 2048, "batch": 16},
        detail="[x, y]",
        cuda="[x, y]",
        cpu=False,
    ),
    Goal(
        'a scene of 5 sources and its derivatives, r = 3", on the device',
        "evaluate scenes",
        "0.5 ms",
        {"sources": 5, "batch": 1},
        cpu=False,
    ),
    Goal(
        "64 such scenes at once",
        "evaluate scenes",
        "60 % of issue slots",
        {"sources": 5, "batch": 64},
        cpu=False,
    ),
    Goal(
        "host to device, 16 exposures of a patch",
        "upload",
        "1.1 x pinned copy",
        {"batch": 16},
        cuda="staging memory",
        cpu=False,
    ),
)


def find(
    measurements: Sequence[Measurement], goal: Goal, column: str, detail: str
) -> Measurement | None:
    """Find the measurement of a goal; None when there is none."""
    found = [
        measurement
        for measurement in measurements
        if (measurement.operation, measurement.column, measurement.detail)
        == (goal.operation, column, detail)
        and goal.at.items() <= dict(measurement.at).items()
    ]
    if len(found) > 1:
        raise ValueError(f"{goal.title!r}: {len(found)} measurements of {column} fit, expected one")
    return found[0] if found else None


def goal_table(reports: Sequence[Report]) -> list[str]:
    """Lay goals and what was reached side by side; each time from the first report that has it.

    Ratios are of times of one report, and given with their range over all. A GPU column that no
    report has says that it was not yet run.
    """
    header = "operation", "aim", "forcepho / fpgpu", "of the limit", "CPU", "GPU", "forcepho"
    return markdown_table(header, [_row(goal, reports) for goal in GOALS])


class _Found(NamedTuple):
    """What a report has of a goal."""

    cpu: Measurement | None
    cuda: Measurement | None
    forcepho: Measurement | None


def _find_all(goal: Goal, report: Report) -> _Found:
    """Find a goal on the CPU, on the GPU and by forcepho."""

    def pick(column: str, detail: str | None) -> Measurement | None:
        return None if detail is None else find(report.measurements, goal, column, detail)

    return _Found(
        pick("fpgpu cpu", goal.detail if goal.cpu else None),
        pick("fpgpu cuda", goal.cuda),
        pick("forcepho", goal.forcepho),
    )


def _row(goal: Goal, reports: Sequence[Report]) -> list[str]:
    found = [_find_all(goal, report) for report in reports]
    cpu, cuda, forcepho = (next(filter(None, column), None) for column in zip(*found, strict=True))
    which = "cpu" if cpu else "cuda"
    ours = [(getattr(one, which), one.forcepho) for one in found if getattr(one, which)]
    gains = [theirs.value / mine.value for mine, theirs in ours if theirs]
    ratios = [mine.ratio for mine, _ in ours if mine.ratio is not None]
    was_on_gpu = any("fpgpu cuda" in report.columns for report in reports)
    return [
        goal.title,
        goal.aim,
        _range(gains),
        f"{_range(ratios)} {ours[0][0].limit}" if ratios else "",
        _cell(cpu, goal.cpu),
        NOT_YET
        if goal.cuda is not None and not was_on_gpu
        else _cell(cuda, goal.cuda is not None, with_limit=cpu is not None),
        readable(forcepho.value, forcepho.unit) if forcepho else "",
    ]


def _range(ratios: Sequence[float]) -> str:
    """Write the lowest and the highest; one where these are the same."""
    if not ratios:
        return ""
    low, high = times(min(ratios)), times(max(ratios))
    return high if low == high else f"{low.removesuffix(' x')} to {high}"


def _cell(found: Measurement | None, expected: bool, *, with_limit: bool = False) -> str:
    if found is None:
        return _MISSING if expected else ""
    text = readable(found.value, found.unit)
    if with_limit and found.ratio is not None:
        text += f" ({times(found.ratio)} {found.limit})"
    return text
