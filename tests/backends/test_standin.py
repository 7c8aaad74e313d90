"""The stand-in for CuPy keeps the order of work, whenever Python's garbage is collected."""

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fpgpu.backends.arguments import PatchPixels, StagedExposure
from fpgpu.backends.base import Backend
from tests.backends import standin_cupy


@pytest.fixture(params=[None, 0, 1], ids=["all late", "kernels first", "copies first"])
def backend(request: pytest.FixtureRequest, cuda_class: Any) -> Iterator[Backend]:
    standin_cupy.set_pace(request.param)
    yield cuda_class(0)
    standin_cupy.set_pace(None)


@pytest.fixture(params=["page-locked", "device"])
def garbage(request: pytest.FixtureRequest, backend: Backend) -> Iterator[None]:
    """Memory in a cycle of references, which only the garbage collector finds."""
    gc.disable()
    cycle: list[Any] = []
    is_device = request.param == "device"
    cycle += [cycle, backend.empty((64,), "f4") if is_device else backend.stage(4096).array]
    del cycle
    backend._ring = None
    yield
    gc.enable()


@pytest.mark.usefixtures("garbage")
def test_garbage_may_be_collected_within_a_kernel(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = standin_cupy._state.kernels
    run = kernels.run
    monkeypatch.setattr(kernels, "run", lambda *call: (gc.collect(), run(*call)))
    superpixels = backend.upload(np.ones((2, 128), "f4"))
    pixels = PatchPixels(*(backend.empty((128,), "f4") for _ in range(4)))
    # Its table holds the address of the super-pixels, and is dropped before the kernel has run.
    backend.unpack([StagedExposure(superpixels, 2, 0.0, (4, 4))], np.zeros((2, 2), "i4"), pixels)
    assert (backend.download(pixels.data) == 1).all()


def test_waiting_within_work_is_refused(backend: Backend) -> None:
    stream = standin_cupy.Stream()
    stream.queue.append(("run", stream.synchronize))
    with pytest.raises(AssertionError, match="from the middle of its own work"):
        stream.synchronize()
