"""The memory of a backend that operations are timed in."""

from typing import Any

import numpy.typing as npt
import pytest

from fpgpu.backends.base import Backend
from fpgpu.backends.memory import Array

__all__ = ["require_memory", "stack"]

_MOST_ON_THE_HOST = 512 << 20  # bytes; more would only fill memory that others use


def stack(backend: Backend, image: npt.NDArray[Any], n_exp: int) -> Array:
    """Put an image into a backend's memory, once for each exposure."""
    planes = backend.empty((n_exp, *image.shape), image.dtype)
    for plane in planes:
        backend.upload(image, out=plane)
    return planes


def require_memory(backend: Backend, n_bytes: int) -> None:
    """Skip what a device has no memory for, and on the host what tells nothing new."""
    if backend.device is None:
        most, what = _MOST_ON_THE_HOST, "are enough on the host"
    else:
        most, what = backend.memory_state().free, f"are free on {backend.description}"
    if n_bytes > most:
        pytest.skip(f"{most:,} bytes {what}, {n_bytes:,} are needed")
