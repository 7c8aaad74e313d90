"""Patches of a stream are built by a thread; the stream of whoever asks for them waits for that."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fpgpu
from tests.backends import standin_cupy
from tests.patch.streams import regions


@pytest.mark.parametrize("pace", [None, 0, 1], ids=["all late", "kernels first", "copies first"])
def test_the_callers_stream_sees_complete_patches(
    golden: Path, cuda_class: Any, pace: int | None
) -> None:
    standin_cupy.set_pace(pace)
    backend = cuda_class(0)
    with (
        fpgpu.open(golden / "tiny", backend="cpu") as plain,
        fpgpu.open(golden / "tiny", backend=backend) as survey,
        standin_cupy.Stream() as callers,
        survey.stream(regions(3)) as stream,
    ):
        for item in stream:
            there = item.patch.array("data")
            found = np.empty(there.shape, "f4")
            standin_cupy.copy_async(found.ctypes.data, there.data.ptr, found.nbytes, callers)
            callers.synchronize()
            with plain.patch(item.region) as expected:
                assert np.array_equal(found, expected.retrieve("data"))
        backend.synchronize()
    standin_cupy.set_pace(None)
