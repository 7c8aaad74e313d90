"""A kernel that reads beside its array, for a run in which the sanitizer must find it out."""

import numpy as np
import pytest

from fpgpu.backends.launches import Launch
from tests.kernels.conftest import host as host
from tests.kernels.host_kernels import Guarded, HostKernels, aligned

READ = 'extern "C" __global__ void read_one(const char* from, int n, char* to) { *to = from[n]; }'


@pytest.mark.parametrize("place", [-1, 33], ids=["before", "after"])
def test_reading_outside(host: HostKernels, place: int) -> None:
    host.add("read_one.cu", READ)
    array, out = aligned(np.zeros(33, np.uint8)), Guarded((1,), np.uint8)
    args = [np.uint64(array.ctypes.data), np.int32(place), np.uint64(out.address)]
    host.run(Launch("read_one.cu", "read_one", (1, 1, 1), (1, 1, 1)), args)
