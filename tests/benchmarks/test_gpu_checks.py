"""The checks of ``python -m benchmarks gpu`` find what they look for."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu import large, sameness, sharing
from benchmarks.gpu.job import Job
from benchmarks.sizes import SIZES
from fpgpu.backends.cpu import CpuBackend
from tests.backends.conftest import cuda_class as cuda_class


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path / "result.json", tmp_path, SIZES["small"], 60)


@pytest.mark.parametrize("last", [1, 2])
def test_arrays_that_differ_are_named(job: Job, monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    # A backend is its own survey here, whose field opens nothing.
    field = SimpleNamespace(open=lambda backend: nullcontext(backend))
    monkeypatch.setattr(job, "field", lambda: field)
    monkeypatch.setattr(sameness, "get_backend", str)

    def make(backend: str, _: Any) -> Any:
        yield {"data": np.array([1, 1 if backend == "cpu" else last]), "G": 1}

    monkeypatch.setattr(sameness, "WAYS", {"made up": make})
    if last == 1:
        sameness.patches(job)
    else:
        with pytest.raises(AssertionError, match="those of the CPU: made up: data"):
            sameness.patches(job)
    assert job.found["made up"]["different"] == ([] if last == 1 else ["data"])


@pytest.mark.parametrize(
    "step", [large.round_trip, large.calibrate], ids=lambda step: step.__name__
)
@pytest.mark.parametrize("is_right", [True, False], ids=["right", "wrong"])
def test_one_wrong_pixel_is_found(
    job: Job, monkeypatch: pytest.MonkeyPatch, step: Any, is_right: bool
) -> None:
    backend = CpuBackend()
    monkeypatch.setattr(large, "get_backend", lambda name: backend)

    def spoilt(call: Any) -> Any:
        def made(*args: Any, **options: Any) -> Any:
            found = call(*args, **options)
            found[0][-1].reshape(-1)[9] += 1
            return found

        return made

    for name in () if is_right else ("images_from_superpixels", "calibrate"):
        monkeypatch.setattr(backend, name, spoilt(getattr(backend, name)))
    if is_right:
        step(job)
    else:
        with pytest.raises(AssertionError, match=r"[1-9] of \d+ (images|exposures)"):
            step(job)


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one after the other"])
def test_streams_that_work_at_once_are_told_from_others(
    job: Job, monkeypatch: pytest.MonkeyPatch, cuda_class: Any, at_once: bool
) -> None:
    backend = cuda_class(0)
    cp = cuda_class.__init__.__globals__["cp"]
    seen: dict[int, int] = {}

    def elapsed(_: Any, event: Any) -> float:
        stream = event.mark.stream
        count = seen[stream.number] = seen.get(stream.number, 0) + 1
        later = 0 if at_once or stream is backend.stream else 1e6
        return count + later

    monkeypatch.setattr(cp.cuda, "get_elapsed_time", elapsed)
    monkeypatch.setattr(sharing, "import_cupy", lambda: cp)
    monkeypatch.setattr(sharing, "get_backend", lambda name: backend)
    if at_once:
        sharing.overlap(job)
        assert job.found["together"] == 8
    else:
        with pytest.raises(AssertionError, match="were together"):
            sharing.overlap(job)
