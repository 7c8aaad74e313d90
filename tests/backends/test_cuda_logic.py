"""The CUDA backend's own logic, over a stand-in for CuPy that works as late as it may."""

import gc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fpgpu.backends.base import Backend
from fpgpu.backends.launches import Launch
from fpgpu.errors import (
    BackendUnavailableError,
    DeviceMemoryError,
    KernelCompileError,
    KernelLaunchError,
)
from tests.backends import standin_cupy
from tests.backends.conformance_memory import MemoryConformance
from tests.backends.conformance_operations import OperationsConformance
from tests.backends.conformance_patches import PatchConformance
from tests.backends.conformance_refusals import RefusalConformance


@pytest.fixture(params=[None, 0, 1], ids=["all late", "kernels first", "copies first"])
def backend(request: pytest.FixtureRequest, cuda_class: Any) -> Iterator[Backend]:
    standin_cupy.set_pace(request.param)
    yield cuda_class(0)
    standin_cupy.set_pace(None)


class TestCudaLogicMemory(MemoryConformance): ...


class TestCudaLogicOperations(OperationsConformance): ...


class TestCudaLogicRefusals(RefusalConformance): ...


class TestCudaLogicPatches(PatchConformance): ...


class TestCallersStream:
    """Operations keep the order of the stream that is current where they are called."""

    def test_they_come_after_what_it_has_to_do(self, backend: Backend) -> None:
        ones, plane = np.ones((8, 8), "f4"), backend.upload(np.zeros((8, 8), "f4"))
        backend.synchronize()
        with standin_cupy.Stream() as stream:
            standin_cupy.copy_async(plane.data.ptr, ones.ctypes.data, ones.nbytes, stream)
            superpixels = backend.superpixelize(plane, plane)
        assert (backend.download(superpixels) == 1).all()

    def test_they_come_before_what_it_gets_later(self, backend: Backend) -> None:
        ones, found = np.ones((8, 8), "f4"), np.zeros(128, "f4")
        with standin_cupy.Stream() as stream:
            plane = backend.upload(ones)
            superpixels = backend.superpixelize(plane, plane)
            standin_cupy.copy_async(found.ctypes.data, superpixels.data.ptr, found.nbytes, stream)
            stream.synchronize()
        assert (found == 1).all()

    def test_uploads_come_before_what_it_gets_later(self, backend: Backend) -> None:
        ones, found = np.ones(64, "f4"), np.zeros(64, "f4")
        with standin_cupy.Stream() as stream:
            there = backend.upload(ones)
            standin_cupy.copy_async(found.ctypes.data, there.data.ptr, found.nbytes, stream)
            stream.synchronize()
        assert (found == 1).all()

    def test_memory_is_lent_again_after_what_it_has_to_do(self, backend: Backend) -> None:
        found = np.zeros(64, "f4")
        there = backend.upload(np.ones(64, "f4"))
        backend.synchronize()
        with standin_cupy.Stream() as stream:
            standin_cupy.copy_async(found.ctypes.data, there.data.ptr, found.nbytes, stream)
            del there
            backend.synchronize()
            stream.synchronize()
        assert (found == 1).all()

    def test_memory_is_written_by_kernels_after_what_it_had_to_do(self, backend: Backend) -> None:
        # The pool may lend to a kernel's output what was dropped while the caller's stream read it.
        there, plane = (backend.upload(np.ones((8, 8), "f4")) for _ in range(2))
        found = np.zeros((8, 8), "f4")
        backend.synchronize()
        with standin_cupy.Stream() as stream:
            standin_cupy.copy_async(found.ctypes.data, there.data.ptr, found.nbytes, stream)
            del there
        backend.superpixelize(plane, plane)
        backend.stream.synchronize()
        stream.synchronize()
        assert (found == 1).all()

    def test_garbage_may_be_collected_while_memory_is_allocated(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = np.zeros(64, "f4")
        garbage = [backend.upload(np.ones(64, "f4"))]
        backend.synchronize()
        allocate = standin_cupy.Stream.__enter__

        def collect(stream: standin_cupy.Stream) -> standin_cupy.Stream:
            entered = allocate(stream)
            garbage.clear()
            return entered

        with standin_cupy.Stream() as stream:
            at = garbage[0].data.ptr
            standin_cupy.copy_async(found.ctypes.data, at, found.nbytes, stream)
            with monkeypatch.context() as patch:
                patch.setattr(standin_cupy.Stream, "__enter__", collect)
                backend.empty((8,), "f4")
            backend.synchronize()
            stream.synchronize()
        assert (found == 1).all()


def test_memory_of_another_device_may_be_collected_at_any_time(
    cuda_class: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = cuda_class(0), cuda_class(1)
    garbage = [there.upload(np.ones(8, "f4"))]
    enter = standin_cupy.Stream.__enter__

    def collect(stream: standin_cupy.Stream) -> standin_cupy.Stream:
        entered = enter(stream)
        garbage.clear()
        return entered

    monkeypatch.setattr(standin_cupy.Stream, "__enter__", collect)
    assert (here.download(here.upload(np.ones(8, "f4"))) == 1).all()
    assert garbage == []
    assert there.live_allocations == 0


def test_memory_is_not_given_back_by_a_forked_process(
    cuda_class: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = cuda_class(0)
    inherited = backend.empty((8,), "f4")
    backend.synchronize()
    monkeypatch.setattr("os.getpid", lambda: -1)
    monkeypatch.setattr(standin_cupy.Stream, "wait_event", lambda *_: pytest.fail("CUDA was used"))
    del inherited


def test_an_array_of_another_device_is_refused(cuda_class: Any) -> None:
    here, there = cuda_class(0), cuda_class(1)
    plane = here.empty((8, 8), "f4")
    with pytest.raises(KernelLaunchError, match="it lies on device 0, not on device 1"):
        there.superpixelize(plane, plane)


def test_staging_memory_that_cannot_be_locked_is_an_error(cuda_class: Any) -> None:
    backend = cuda_class(0)
    message = rf"3 staging slots of {standin_cupy.TOTAL:,} bytes could not be allocated"
    with (
        pytest.raises(DeviceMemoryError, match=message),
        backend.staging(slot_bytes=standin_cupy.TOTAL),
    ):
        pass
    assert (backend.download(backend.upload(np.ones(8))) == 1).all()


def test_a_forked_process_cannot_use_it(cuda_class: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = cuda_class(0)
    monkeypatch.setattr("os.getpid", lambda: -1)
    for use in (lambda: backend.allocate(8), backend.synchronize, backend.stage):
        with pytest.raises(BackendUnavailableError, match=r"forked.*spawn"):
            use()


def test_a_kernel_that_the_driver_does_not_take_is_told(
    cuda_class: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(module: standin_cupy.Module, cubin: bytes) -> None:
        raise standin_cupy.CUDADriverError("CUDA_ERROR_INVALID_IMAGE")

    backend = cuda_class(0)
    monkeypatch.setattr(standin_cupy.Module, "load", refuse)
    plane = backend.empty((8, 8), "f4")
    message = r"superpixelize\.cu as compiled .* capability 90 .*driver: CUDA_ERROR_INVALID_IMAGE"
    with pytest.raises(KernelCompileError, match=message):
        backend.superpixelize(plane, plane)
    with pytest.raises(KernelCompileError, match=r"check_layout\.cu"):
        cuda_class(0)


@pytest.mark.parametrize("pace", [None, 0, 1])
def test_kernels_wait_for_memory_of_the_asynchronous_allocator(
    cuda_class: Any, monkeypatch: pytest.MonkeyPatch, pace: int | None
) -> None:
    standin_cupy.set_pace(pace)
    backend = cuda_class(0)
    plane = backend.upload(np.ones((8, 8), "f4"))
    backend.synchronize()
    monkeypatch.setattr(standin_cupy._state, "allocator", standin_cupy.malloc_async)
    superpixels = backend.superpixelize(plane, plane)
    backend.stream.synchronize()
    backend.synchronize()
    found = backend.download(superpixels)
    standin_cupy.set_pace(None)
    assert (found == 1).all()


def test_what_is_freed_does_not_keep_the_next_upload_behind_kernels(cuda_class: Any) -> None:
    standin_cupy.set_pace(None)
    backend = cuda_class(0)
    old = backend.upload(np.ones((8, 8), "f4"))
    backend.synchronize()
    at_work: list[str] = []
    backend.stream._submit(lambda: at_work.append("a fit"))
    before = backend.memory_state().free
    del old
    there = backend.upload(np.full(64, 2, "f4"))
    backend._streams.copies.synchronize()
    assert at_work == []
    assert backend.memory_state().free == before
    assert (backend.download(there) == 2).all()
    assert at_work == ["a fit"]


def test_memory_that_kernels_still_use_is_waited_for_when_there_is_no_other(
    cuda_class: Any,
) -> None:
    standin_cupy.set_pace(None)
    backend = cuda_class(0)
    gc.collect()
    backend.synchronize()
    most = standin_cupy.TOTAL - standin_cupy._state.used - (1 << 20)
    old = backend.allocate(most)
    at_work: list[str] = []
    backend.stream._submit(lambda: at_work.append("a fit"))
    old.free()
    assert at_work == []
    again = backend.allocate(most)
    assert at_work == ["a fit"]
    again.free()
    backend.allocate(1).free()


def test_streams_are_handed_on_and_never_shared(cuda_class: Any) -> None:
    first, second = cuda_class(0), cuda_class(0)
    assert first.stream is not second.stream
    of_first = first.stream
    del first
    gc.collect()
    third = cuda_class(0)
    assert third.stream is of_first
    assert cuda_class(0).stream not in (of_first, second.stream)


def test_the_device_is_timed_with_its_work_waiting(cuda_class: Any) -> None:
    backend = cuda_class(0)
    plane = backend.upload(np.ones((8, 8), "f4"))
    waiting: list[bool] = []

    def call() -> None:
        backend.superpixelize(plane, plane)
        # Nothing has been done of it: the gate before the first event stands at the head.
        waiting.append(any(kind == "run" for kind, _ in backend.stream.queue))

    assert backend.time(call, repeat=3) == [1e-3] * 3
    assert waiting[1:] == [True] * 3


def test_page_locked_memory_begins_at_a_page(cuda_class: Any) -> None:
    assert standin_cupy._pinned(4096, 1).ctypes.data % 4096 == 512
    backend = cuda_class(0)
    with backend.stage(100) as slot:
        assert slot.array.ctypes.data % 4096 == 0


def test_shared_memory_beyond_the_usual_is_asked_for(cuda_class: Any) -> None:
    backend = cuda_class(0)
    assert backend.limits.dynamic_shared_bytes == 227 << 10
    launch = Launch("superpixelize.cu", "superpixelize", (1, 1, 1), (16, 16, 1), 0, 200 << 10)
    out = backend.empty((1, 1, 128), "f4")
    plane = backend.upload(np.ones((8, 8), "f4"))
    backend._launch(launch, plane, plane, out, *np.int32([8, 8, 8, 0]))
    assert (backend.download(out) == 1).all()
    asked = standin_cupy._state.dynamic[backend._function(launch).ptr]
    assert asked == 200 << 10
    with pytest.raises(KernelLaunchError, match=r"wants 233472 bytes .* allows 232448"):
        replace(launch, dynamic_bytes=228 << 10).checked(backend.limits)
