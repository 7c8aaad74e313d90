"""The stand-in for a GPU behaves like one where a kernel's errors would show."""

import numpy as np
import pytest

from fpgpu.backends.launches import Launch
from tests.kernels.host_kernels import Guarded, HostKernels

ROTATE = """
extern "C" __global__ void rotate(unsigned int* out, int barrier, int spread) {
    __shared__ unsigned int neighbour[64];
    const int n = blockIdx.x * blockDim.x + threadIdx.x;
    neighbour[threadIdx.x] = n;
    if (barrier == 1 || (barrier == 2 && threadIdx.x < 32)) __syncthreads();
    out[n] = neighbour[(threadIdx.x + spread) % blockDim.x];
}
"""


@pytest.fixture(scope="module")
def rotate(host: HostKernels):
    host.add("rotate.cu", ROTATE)

    def run(barrier: int) -> np.ndarray:
        out = Guarded((192,), np.uint32)
        args = (np.uint64(out.address), np.int32(barrier), np.int32(1))
        host.run(Launch("rotate.cu", "rotate", (3, 1, 1), (64, 1, 1)), args)
        out.check()
        return out.array.reshape(3, 64)

    return run


def test_a_barrier_lets_threads_see_each_other(rotate):
    expected = np.roll(np.arange(192).reshape(3, 64), -1, axis=1)
    np.testing.assert_array_equal(rotate(barrier=1), expected)


def test_without_the_barrier_poison_shows(rotate):
    assert (rotate(barrier=0) == 0xA5A5A5A5).any()


def test_a_barrier_that_some_threads_miss_is_an_error(rotate):
    with pytest.raises(RuntimeError, match="only some threads"):
        rotate(barrier=2)


def test_a_write_outside_an_array_is_noticed():
    guarded = Guarded((4,), np.uint32)
    guarded._bytes[guarded._stop] = 0
    with pytest.raises(AssertionError, match="after the array"):
        guarded.check()
