"""Streams when things go wrong: each fault is told for its region, and nothing is lost or hangs."""

import ctypes
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import fpgpu
from fpgpu import PatchPlan, Survey
from fpgpu.backends.base import Backend, MemoryState
from fpgpu.backends.memory import Memory
from fpgpu.errors import (
    DeviceMemoryError,
    FpgpuError,
    MissingStoreError,
    StoreConflictError,
    StoreFormatError,
    StreamError,
)
from fpgpu.patch import worker
from fpgpu.patch.build import build_patch
from fpgpu.patch.device import Patch
from fpgpu.patch.stream import PatchStream
from tests.patch.streams import regions, stream_threads, without_exposure
from tests.patch.streams import survey as survey

Build = Callable[[PatchPlan, Any], Patch]


def stream_of(survey: Survey, build: Build, n: int, depth: int = 2) -> PatchStream:
    """Stream regions of the field with another way to build."""
    return PatchStream(regions(n), survey.plan, build, survey.backend, depth=depth)


def failing_at(survey: Survey, at: int, fault: Callable[[], None]) -> Build:
    """Build patches, but meet a fault at the n-th."""
    calls = iter(range(1000))

    def build(plan: PatchPlan, catalog: Any) -> Patch:
        if next(calls) == at:
            fault()
        return build_patch(survey, plan, catalog, backend=survey.backend)

    return build


def outcomes(stream: PatchStream) -> list[type[BaseException] | None]:
    """Use a stream up, and tell what became of each region."""
    with stream:
        return [None if item.error is None else type(item.error) for item in stream]


# --- the store changes between plan and read -----------------------------------------------------


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 3)


def put_garbage(path: Path) -> None:
    path.with_suffix(".new").write_bytes(b"no store at all" * 1000)
    path.with_suffix(".new").replace(path)


def put_other_exposures(path: Path) -> None:
    other = path.with_suffix(".new")
    with h5py.File(path) as old, h5py.File(other, "w") as new:
        new.attrs.update(old.attrs)
        old.copy("F444W", new)
    other.replace(path)


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (Path.unlink, MissingStoreError),
        (truncate, StoreFormatError),
        (put_garbage, StoreFormatError),
        (put_other_exposures, StoreFormatError),
    ],
)
def test_a_store_that_is_damaged_between_plan_and_read_is_told_until_it_is_whole_and_open_again(
    survey: Survey, damage: Callable[[Path], None], error: type[FpgpuError]
) -> None:
    path = Path(survey.pixels.h5file)
    whole = shutil.copy(path, path.with_suffix(".whole"))
    plans = [survey.plan(region) for region in regions(4)]
    with survey.stream(plans, depth=1) as stream:
        next(stream)  # where its pixels are is known by now
    damage(path)
    assert outcomes(survey.stream(plans, depth=1)) == [error] * 4
    Path(whole).replace(path)
    assert outcomes(survey.stream(plans, depth=1)) == [StoreConflictError] * 4
    with fpgpu.open(path.parent, backend=survey.backend) as again:
        assert outcomes(again.stream(plans, depth=1)) == [None] * 4


def test_a_store_that_is_replaced_by_a_newer_one_gives_the_new_pixels_when_it_is_opened(
    survey: Survey,
) -> None:
    path = Path(survey.pixels.h5file)
    plans = [survey.plan(region) for region in regions(3)]
    with survey.stream(plans, depth=1) as stream:
        before = next(stream).patch.retrieve("data")
    other = shutil.copy(path, path.with_suffix(".new"))
    with h5py.File(other, "r+") as file:
        for plan in plans[0].exposures:
            file[f"{plan.band}/{plan.expID}/data"][..., :64] += 1.0
    Path(other).replace(path)
    with (
        fpgpu.open(path.parent, backend=survey.backend) as again,
        again.stream(plans, depth=1) as stream,
    ):
        after = next(stream).patch.retrieve("data")
    assert np.array_equal(after, before + np.float32(1))


# --- errors in the thread ------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 2, 5])
def test_an_unforeseen_error_is_that_of_its_region_alone(survey: Survey, at: int) -> None:
    def fault() -> None:
        raise ArithmeticError("unforeseen")

    found = outcomes(stream_of(survey, failing_at(survey, at, fault), 6))
    assert found == [ArithmeticError if k == at else None for k in range(6)]


def test_an_error_that_is_kept_keeps_no_memory(
    survey: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = survey.backend

    def fail(*args: object, **kwargs: object) -> None:
        held = backend.allocate(100)
        raise ArithmeticError(f"unforeseen, with {held.nbytes} bytes")

    monkeypatch.setattr(survey.pixels.reader, "list_reader", fail)
    with backend.staging() as ring:
        with survey.stream(regions(3)) as stream:
            errors = [item.error for item in stream]
        backend.synchronize()
        assert ring.n_free == ring.settings.depth
    assert [str(error) for error in errors] == ["unforeseen, with 100 bytes"] * 3
    assert backend.live_allocations == 0


def test_a_thread_that_is_told_to_exit_ends_the_stream(survey: Survey) -> None:
    def fault() -> None:
        raise SystemExit("told to")

    stream = stream_of(survey, failing_at(survey, 1, fault), 6)
    assert next(stream).error is None
    with pytest.raises(SystemExit, match="told to"):
        next(stream)
    assert stream.closed
    assert survey.backend.live_allocations == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_between_patches_costs_none(
    survey: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_LOOK", 0.05)
    built = threading.Semaphore(0)

    def build(plan: PatchPlan, catalog: Any) -> Patch:
        patch = build_patch(survey, plan, catalog, backend=survey.backend)
        built.release()
        return patch

    with stream_of(survey, build, 6, depth=2) as stream:
        assert next(stream).error is None
        assert all(built.acquire(timeout=60) for _ in range(3))
        time.sleep(0.3)  # until the thread waits for more to do
        (thread,) = stream_threads()
        kill = ctypes.pythonapi.PyThreadState_SetAsyncExc
        kill(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
        found = [type(item.error) for item in stream]
    assert found == [type(None)] * 5
    assert survey.backend.live_allocations == 0


def test_a_thread_that_dies_over_a_patch_is_an_error_of_that_one() -> None:
    builder: worker.Worker[str] = worker.Worker("fpgpu-stream")
    task = builder.submit(lambda: "built")
    assert builder.outcome(task) == "built"
    dead = threading.Thread(target=str)
    dead.start()
    dead.join()
    lost = worker.Task(lambda: "never")
    lost.runner = dead
    assert lost.take()
    assert isinstance(builder.outcome(lost), StreamError)
    assert builder.outcome(builder.submit(lambda: "built too")) == "built too"
    builder.shutdown()
    assert not builder.is_alive


# --- memory --------------------------------------------------------------------------------------


class Budget:
    """Lets a backend hold no more than so many bytes, and notes the most that it held."""

    def __init__(self, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        self.limit = 1 << 40
        self.most = 0
        self._backend = backend
        self._allocate = backend._allocate
        monkeypatch.setattr(backend, "_allocate", self._limited)

    def needs(self, survey: Survey, n: int) -> list[int]:
        """Measure what building the patch of each region takes."""
        needed = []
        for region in regions(n):
            self.most = 0
            survey.patch(region).free()
            needed.append(self.most)
        return needed

    def _limited(self, asked: int) -> Memory:
        wanted = self._backend.memory_state().resident + asked
        if wanted > self.limit:
            raise MemoryError(f"{wanted} bytes")
        self.most = max(self.most, wanted)
        return self._allocate(asked)


@pytest.mark.parametrize("depth", [1, 3])
def test_nothing_fails_for_having_been_built_ahead(
    survey: Survey, monkeypatch: pytest.MonkeyPatch, depth: int
) -> None:
    budget = Budget(survey.backend, monkeypatch)
    budget.limit = max(budget.needs(survey, 9))
    with survey.stream(regions(9), depth=depth) as stream:
        for item in stream:
            assert item.patch.retrieve("ierr").size == item.patch.plan.n_pixels


def test_a_patch_that_is_too_large_even_alone_is_told_and_the_others_come(
    survey: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = Budget(survey.backend, monkeypatch)
    needed = budget.needs(survey, 9)
    largest = needed.index(max(needed))
    budget.limit = max(needed) - 1
    with survey.stream(regions(9), depth=3) as stream:
        errors = {item.index: item.error for item in stream}
    assert [k for k, error in errors.items() if error] == [largest]
    assert isinstance(errors[largest], DeviceMemoryError)


def test_memory_that_is_seen_to_be_short_is_told_before_reading(
    survey: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey.backend, "memory_state", lambda: MemoryState(1000, 2000, 0))
    monkeypatch.setattr(survey.backend, "has_free", lambda n_bytes: n_bytes <= 1000)
    with survey.stream(regions(2)) as stream:
        for item in stream:
            with pytest.raises(DeviceMemoryError, match="has 1,000 of 2,000 free"):
                _ = item.patch


def test_no_staging_memory_is_an_error_of_each_region(survey: Survey) -> None:
    backend = survey.backend
    lent = [backend.stage() for _ in range(backend.staging_settings.depth)]
    with backend.staging(timeout=0.05) as ring:
        held = [ring.acquire() for _ in range(ring.settings.depth)]
        with survey.stream(regions(2)) as stream:
            errors = [str(item.error) for item in stream]
        for slot in held:
            slot.release()
    assert all("no staging slot came free within 0.05 s" in error for error in errors)
    for slot in lent:
        slot.release()


# --- an error is its own region's ----------------------------------------------------------------


def test_errors_say_what_is_missing(survey: Survey) -> None:
    plan = survey.plan(regions(1)[0])
    with survey.stream([plan, without_exposure(plan), plan]) as stream:
        texts = [str(item.error) for item in stream]
    assert texts[0] == texts[2] == "None"
    assert "gone" in texts[1]
