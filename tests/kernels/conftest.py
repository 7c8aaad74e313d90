"""Fixtures of the kernel tests: kernels on the CPU, and pixel values that break careless code."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from tests.kernels.host_kernels import HostKernels, has_compiler


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> HostKernels:
    """All kernels, compiled for the CPU."""
    if not has_compiler():
        pytest.skip("kernels cannot run on the CPU: g++ is not installed")
    return HostKernels(tmp_path_factory.mktemp("host_kernels"))


def _random(rng: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    return rng.normal(0, 100, shape).astype(np.float32)


def _any_bits(rng: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """All of float32: NaNs with payloads, infinities, denormals, signed zeros."""
    bits = rng.integers(0, 2**32, shape, np.uint32)
    special = [0, 0x80000000, 1, 0x80000001, 0x007FFFFF, 0x7F800000, 0xFF800000]
    special += [0x7FC00000, 0x7F800001, 0xFFC12345, 0x7F7FFFFF]
    chosen = rng.random(shape) < 0.5
    bits[chosen] = rng.choice(np.array(special, np.uint32), int(chosen.sum()))
    return bits.view(np.float32)


def _denormal(rng: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    bits = rng.integers(1, 0x800000, shape, np.uint32)
    return (bits | rng.integers(0, 2, shape, np.uint32) << 31).view(np.float32)


VALUES = {"random": _random, "any bits": _any_bits, "denormal": _denormal}


@pytest.fixture(params=VALUES)
def values(request: pytest.FixtureRequest) -> Callable[..., npt.NDArray[np.float32]]:
    """Make an array of a shape, of one kind of value: ``values(rng, shape)``."""
    return VALUES[request.param]
