"""Fixtures of the tests that need a GPU; each runs once with every way of taking memory."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.backends.conformance_operations import guarded as guarded

if TYPE_CHECKING:
    from fpgpu.backends.base import Backend


@pytest.fixture(scope="session")
def n_patches() -> int:
    """How many patches come and go in a test of leaks."""
    return 5000


@pytest.fixture(
    params=["pool", "pool, caller's stream", "async allocator", "async allocator, caller's stream"]
)
def backend(request: pytest.FixtureRequest) -> "Iterator[Backend]":
    """A new CUDA backend, with CuPy's pool or CUDA's, on the default stream or another."""
    import cupy as cp

    from fpgpu.backends.choose import get_backend

    allocator, *stream = request.param.split(", ")
    current = cp.cuda.Stream(non_blocking=True) if stream else cp.cuda.Stream.null
    pool = cp.cuda.MemoryAsyncPool() if allocator == "async allocator" else cp.cuda.MemoryPool()
    with cp.cuda.using_allocator(pool.malloc), current:
        yield get_backend("cuda")
        current.synchronize()
