"""forcepho's CUDA kernel as one text that NVRTC compiles, and how it is launched.

The sources are those of the installed forcepho, unchanged. They include headers of the host, which
NVRTC does not have: stand-ins give the few names that are used of them.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.backends.compiler import single_file
from fpgpu.backends.launches import DeviceLimits, Launch
from fpgpu.errors import ForcephoMissingError, KernelLaunchError
from fpgpu.layout import (
    MAXSOURCES,
    NPARAMS,
    NUMACCUMS,
    PATCH_DTYPE,
    PSF_DTYPE,
    RESPONSE_DTYPE,
    SOURCE_DTYPE,
)

__all__ = ["KERNEL", "OPTIONS", "SOURCE", "kernel_launch", "kernel_text", "shared_bytes"]

SOURCE = "compute_gaussians_kernel.cu"
KERNEL = "EvaluateProposal"

OPTIONS = ("--std=c++17", "--maxrregcount=64")
"""As forcepho compiles it: 1024 threads a block leave 64 registers for each."""

STAND_INS = {
    "cuda.h": "",
    "stdio.h": "",
    "cstdint": "typedef short int16_t;",
    "math.h": "#ifndef M_PI\n#define M_PI 3.14159265358979323846\n#endif",
}
"""Headers of the host that the kernel includes, with what it uses of them."""

_NULL = "#ifndef NULL\n#define NULL 0\n#endif\n"

_SYSTEM_INCLUDE = re.compile(r"^(\s*#include\s+)<([^>]+)>", re.MULTILINE)

ACCUMULATOR_BYTES = 8 + 4 * NPARAMS * MAXSOURCES
IMAGE_GAUSSIAN_BYTES = 84

# What the kernel declares beside the block that the launch asks for, rounded up.
_STATIC_SHARED_BYTES = 256

_SIZES = {
    "Patch": PATCH_DTYPE.itemsize,
    "PSFSourceGaussian": PSF_DTYPE.itemsize,
    "Source": SOURCE_DTYPE.itemsize,
    "Response": RESPONSE_DTYPE.itemsize,
    "Accumulator": ACCUMULATOR_BYTES,
    "ImageGaussian": IMAGE_GAUSSIAN_BYTES,
}


def kernel_text(folder: Path) -> str:
    """Put forcepho's kernel and all it includes into one text."""
    files = {
        path.name: _SYSTEM_INCLUDE.sub(r'\1"\2"', path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*"))
        if path.suffix in {".cu", ".cc", ".h", ".hh"}
    }
    if SOURCE not in files:
        raise ForcephoMissingError(
            f"{folder} has no {SOURCE}: forcepho was installed without its kernel sources; install"
            " it again"
        )
    sizes = (
        f'static_assert(sizeof({name}) == {size}, "sizeof {name}");\n'
        for name, size in _SIZES.items()
    )
    return _NULL + single_file(SOURCE, files | STAND_INS) + "".join(sizes)


def shared_bytes(n_psf_per_source: npt.NDArray[np.int32], n_sources: int) -> int:
    """Shared memory that a block of the kernel needs.

    Parameters
    ----------
    n_psf_per_source : ndarray of int32, shape (n_bands,)
        Gaussians in a PSF of each band.
    n_sources : int
        Sources.

    Returns
    -------
    int
        Bytes, without what the kernel declares itself.
    """
    gaussians = n_sources * int(np.max(n_psf_per_source, initial=0))
    return NUMACCUMS * ACCUMULATOR_BYTES + IMAGE_GAUSSIAN_BYTES * gaussians


def kernel_launch(patch: Any, threads: int, limits: DeviceLimits) -> Launch:
    """Say how the kernel is launched for a patch: one block a band."""
    if threads < 32 or threads % 32:
        raise KernelLaunchError(f"{threads} threads a block; {KERNEL} needs a multiple of 32")
    # It adds up over whole warps whose every lane must have a pixel.
    uneven = np.flatnonzero(np.asarray(patch.exposure_N) % 32)
    if uneven.size:
        raise KernelLaunchError(
            f"exposure {uneven[0]} of the patch has {patch.exposure_N[uneven[0]]} pixels; {KERNEL}"
            ' takes multiples of 32: use kernel="fpgpu", or stores with super-pixels of 8 x 8'
        )
    needed = shared_bytes(patch.n_psf_per_source, patch.n_sources)
    budget = limits.dynamic_shared_bytes - _STATIC_SHARED_BYTES
    if needed > budget:
        one = shared_bytes(patch.n_psf_per_source, 1) - shared_bytes(patch.n_psf_per_source, 0)
        most = (budget - shared_bytes(patch.n_psf_per_source, 0)) // one
        raise KernelLaunchError(
            f"{patch.n_sources} sources with {int(np.max(patch.n_psf_per_source))} PSF Gaussians"
            f" each need {needed} bytes of shared memory a block; {budget} are there: fit at most"
            f" {most} sources at a time (maxactive={most})"
        )
    launch = Launch(
        SOURCE, KERNEL, (patch.n_bands, 1, 1), (threads, 1, 1), _STATIC_SHARED_BYTES, needed
    )
    return launch.checked(limits)
