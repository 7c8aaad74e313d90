"""How fast it is: a patch phase by phase, and every benchmark."""

import importlib.util

from benchmarks.gpu.job import Job, NotHereError
from benchmarks.report.document import report_files
from fpgpu import get_backend
from fpgpu.patch.resident import ResidentExposures
from fpgpu.patch.timing import PatchTimes, time_patch

__all__ = ["phases", "speed"]

_TO_END = 45
"""Seconds of the step's limit for the benchmark that has begun, and for making the report."""


def phases(job: Job) -> None:
    """Say where the time of a patch goes: staged, with sources, and of resident exposures."""
    field, backend = job.field(), get_backend("cuda")
    with field.open(backend) as survey:
        region, bands = field.region(), field.bands()
        job.note(staged=_milliseconds(time_patch(survey, region, bands=bands, backend=backend)))
        times = time_patch(survey, region, field.sources(), bands, backend=backend)
        job.note(with_15_sources=_milliseconds(times))
        limit = field.size.few * 8 * field.size.side**2
        with ResidentExposures(backend, limit) as resident:
            times = time_patch(survey, region, bands=bands, backend=backend, resident=resident)
            job.note(resident=_milliseconds(times))


def _milliseconds(times: PatchTimes) -> dict[str, float]:
    found = {phase: round(1e3 * seconds, 3) for phase, seconds in times.seconds.items()}
    return found | {"all": round(sum(found.values()), 3)}


def speed(job: Job) -> None:
    """Measure every operation beside the device's own copies, and write the report."""
    lacking = [name for name in ("pytest_benchmark", "matplotlib") if not _is_there(name)]
    if lacking:
        raise NotHereError(f'{", ".join(lacking)} not installed; pip install "fpgpu[bench]"')
    from benchmarks.run import run

    before = set(report_files(job.out))
    chosen = None if job.size.name == "survey" else "with_resident or batch_of_scenes"
    minutes = max(job.seconds - _TO_END, 5) / 60
    status = run(job.size.name, job.out, "cuda", chosen, minutes)
    (written,) = set(report_files(job.out)) - before or (None,)
    job.note(report=written and written.name)
    if status:
        raise AssertionError("benchmarks failed; the report tells which")


def _is_there(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
