"""What only a real device can show: streams, processes, its memory, its compiler's kernels."""

import multiprocessing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import fpgpu
from fpgpu import CircularRegion
from fpgpu.backends.arguments import ExposurePlanes
from fpgpu.backends.choose import get_backend
from fpgpu.errors import BackendUnavailableError, DeviceMemoryError, KernelLaunchError
from fpgpu.superpixels import superpixelize
from tests.backends.conformance_memory import some_bytes
from tests.gpu import needs_gpu as needs_gpu

if TYPE_CHECKING:
    from fpgpu.backends.base import Backend

cp = pytest.importorskip("cupy")

pytestmark = pytest.mark.gpu

BUSY = """extern "C" __global__ void busy(long long cycles) {
    const long long start = clock64();
    while (clock64() - start < cycles) {}
}"""
CYCLES = 50_000_000  # some ten milliseconds: far longer than any launch


def keep_busy(stream: "cp.cuda.Stream") -> None:
    """Delay whatever is given to a stream afterwards."""
    with stream:
        cp.RawKernel(BUSY, "busy")((1,), (1,), (np.int64(CYCLES),))


def test_auto_takes_the_device() -> None:
    assert get_backend("auto").name == "cuda"


def test_operations_come_after_what_the_callers_stream_has_to_do(backend: "Backend") -> None:
    stream = cp.cuda.Stream(non_blocking=True)
    plane = backend.upload(np.zeros((8, 8), "f4"))
    backend.synchronize()
    keep_busy(stream)
    with stream:
        plane += 1
        superpixels = backend.superpixelize(plane, plane)
    assert (backend.download(superpixels) == 1).all()


def test_operations_come_before_what_the_callers_stream_gets_later(backend: "Backend") -> None:
    stream = cp.cuda.Stream(non_blocking=True)
    plane = backend.upload(np.ones((8, 8), "f4"))
    keep_busy(backend.stream)
    with stream:
        doubled = 2 * backend.superpixelize(plane, plane)
        found = doubled.get(stream=stream)
        stream.synchronize()
    assert (found == 2).all()


def test_memory_is_lent_again_after_what_the_callers_stream_has_to_do(backend: "Backend") -> None:
    stream = cp.cuda.Stream(non_blocking=True)
    shape = (1024, 1024)
    there, plane = (backend.upload(np.ones(shape, "f4")) for _ in range(2))
    superpixels = backend.superpixelize(plane, plane)
    for warm in (backend.images_from_superpixels(superpixels), 2 * plane):
        del warm
    cp.cuda.runtime.deviceSynchronize()
    keep_busy(stream)
    with stream:
        doubled = 2 * there
        del there
    # A kernel writes to memory of the same size, to which nothing is copied before.
    written = backend.images_from_superpixels(superpixels)
    assert (backend.download(written[0]) == 1).all()
    assert (doubled.get(stream=stream) == 2).all()


def test_patches_of_a_stream_are_complete_for_the_callers_stream(
    backend: "Backend", golden: Path
) -> None:
    callers = cp.cuda.Stream(non_blocking=True)
    regions = [CircularRegion(53.16, -27.79, 1.2 / 3600)] * 5
    folder = golden / "tiny"
    with (
        fpgpu.open(folder, backend="cpu") as plain,
        plain.patch(regions[0]) as expected,
        fpgpu.open(folder, backend=backend) as survey,
        callers,
        survey.stream(regions) as patches,
    ):
        keep_busy(backend.stream)
        for item in patches:
            found = item.patch.array("data").get(stream=callers)
            callers.synchronize()
            assert found.tobytes() == expected.retrieve("data").tobytes()


def test_an_upload_overlaps_with_kernels_and_is_seen_by_later_ones(backend: "Backend") -> None:
    keep_busy(backend.stream)
    ones = backend.upload(np.ones((8, 8), "f4"))
    assert (backend.download(backend.superpixelize(ones, ones)) == 1).all()


def test_a_slot_is_not_lent_before_its_transfer_has_ended(backend: "Backend") -> None:
    n_bytes = 32 << 20
    with backend.staging(slot_bytes=n_bytes, depth=1):
        there = []
        for value in range(6):
            slot = backend.stage(n_bytes)
            slot.array[:] = value
            there.append(backend.upload(slot))
        for value, array in enumerate(there):
            assert int(array.min()) == int(array.max()) == value


def test_full_size_exposures_have_the_bits_of_numpy(backend: "Backend") -> None:
    im, ierr = (some_bytes((3, 2048, 2048), "f4", seed) for seed in (1, 2))
    found = backend.download(backend.superpixelize(backend.upload(im), backend.upload(ierr)))
    for k in range(3):
        assert found[k].tobytes() == superpixelize(im[k], ierr[k]).tobytes()


def test_memory_that_runs_out_leaves_the_device_usable() -> None:
    pool = cp.cuda.MemoryPool()
    pool.set_limit(size=256 << 20)
    with cp.cuda.using_allocator(pool.malloc):
        backend = get_backend("cuda")
        held = [backend.allocate(64 << 20) for _ in range(3)]
        with pytest.raises(DeviceMemoryError, match=r"asked for on CUDA device 0.*are held by 3"):
            backend.allocate(128 << 20)
        held.pop().free()
        im = backend.upload(np.ones((8, 8), "f4"))
        assert (backend.download(backend.superpixelize(im, im)) == 1).all()


def test_no_kernel_uses_slow_local_memory(backend: "Backend") -> None:
    plane = backend.upload(np.ones((8, 8), "f4"))
    backend.superpixelize(plane, plane)
    backend.calibrate([ExposurePlanes(plane, plane)])
    assert {name: f.local_size_bytes for name, f in backend._functions.items()} == {
        "superpixelize": 0,
        "calibrate": 0,
    }


def test_an_array_of_another_device_is_refused() -> None:
    if cp.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("needs two GPUs")
    here, there = get_backend("cuda", 0), get_backend("cuda", 1)
    plane = here.empty((8, 8), "f4")
    with pytest.raises(KernelLaunchError, match="lies on device 0, not on device 1"):
        there.superpixelize(plane, plane)


def rearrange_often(seed: int, results: "multiprocessing.Queue[tuple[int, int]]") -> None:
    """Count the images that come back right, in another process."""
    backend, right = get_backend("cuda"), 0
    for n in range(50):
        im = some_bytes((2, 256, 256), "f4", 1000 * seed + n)
        there = backend.upload(im)
        back, _ = backend.images_from_superpixels(backend.superpixelize(there, there))
        right += backend.download(back).tobytes() == im.tobytes()
    results.put((seed, right))


def test_two_processes_share_a_device() -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    children = [context.Process(target=rearrange_often, args=(n, results)) for n in range(2)]
    for child in children:
        child.start()
    found = sorted(results.get(timeout=240) for _ in children)
    for child in children:
        child.join()
    assert found == [(0, 50), (1, 50)]


def use_after_fork(backend: "Backend", results: "multiprocessing.Queue[str]") -> None:
    """Report how a forked process is refused."""
    try:
        backend.allocate(8)
    except BackendUnavailableError as error:
        results.put(str(error))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_is_told_to_spawn(backend: "Backend") -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=use_after_fork, args=(backend, results))
    child.start()
    assert "spawn" in results.get(timeout=60)
    child.join()
