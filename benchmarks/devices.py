"""Operations of a backend, timed on its own clock beside its own copies."""

import statistics
from collections.abc import Callable
from typing import Any

import numpy.typing as npt
import pytest

from benchmarks.ratios import Measurement
from fpgpu.backends.base import Backend
from fpgpu.backends.memory import Array

__all__ = ["require_memory", "stack", "time_beside_copy"]

_REPEAT = 7
_MOST_COPIED = 512 << 20  # bytes; copies of more go no faster


def time_beside_copy(
    backend: Backend, way: str, call: Callable[[], Any], n_bytes: int, copy: str
) -> Measurement:
    """Time a call, and just before and just after it a copy of as many bytes.

    `copy` is one that a device makes; on the host there is only one.
    """
    n_copied = min(n_bytes, _MOST_COPIED)
    copies = backend.copies_to_time(n_copied)
    if copy not in copies:
        (copy,) = copies
    before = backend.time(copies[copy], _REPEAT)
    seconds = statistics.median(backend.time(call, _REPEAT))
    copied = statistics.median(before + backend.time(copies[copy], _REPEAT))
    return Measurement(
        f"fpgpu, {backend.name}, {way}", seconds, n_bytes, copied * n_bytes / n_copied, copy
    )


def stack(backend: Backend, image: npt.NDArray[Any], n_exp: int) -> Array:
    """Put an image into a backend's memory, once for each exposure."""
    planes = backend.empty((n_exp, *image.shape), image.dtype)
    for plane in planes:
        backend.upload(image, out=plane)
    return planes


def require_memory(backend: Backend, n_bytes: int) -> None:
    """Skip what a device has no memory for; the host's is not known, as caches fill it."""
    free = backend.memory_state().free
    if backend.device is not None and n_bytes > free:
        pytest.skip(f"{backend.description} has {free:,} bytes free, {n_bytes:,} are needed")
