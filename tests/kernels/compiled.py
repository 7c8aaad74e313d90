"""Kernels compiled once for all the tests that look at what came out."""

import functools

from fpgpu.backends.compiler import ARCHITECTURES, compile_source
from fpgpu.backends.nvrtc import load_nvrtc
from fpgpu.errors import BackendUnavailableError

__all__ = ["compile_once", "known_architectures", "most_spilled"]

compile_once = functools.cache(compile_source)


def known_architectures() -> tuple[int, ...]:
    """Those that the installed NVRTC compiles for: Volta's is not in CUDA 13."""
    try:
        known = load_nvrtc().architectures()
    except BackendUnavailableError:
        return ARCHITECTURES  # these tests are then skipped, each by its name
    return tuple(arch for arch in ARCHITECTURES if arch in known)


def most_spilled(arch: int) -> int:
    """Bytes a thread that may be saved: around the division that Volta calls as a function."""
    return 16 if arch < 75 else 0
