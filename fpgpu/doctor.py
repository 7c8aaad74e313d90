"""What this machine can do for fpgpu, and what to install where it cannot."""

import itertools
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from typing import Any

import numpy as np

from fpgpu import __version__
from fpgpu.backends.arena import Arena, ArenaLayout
from fpgpu.backends.availability import CudaStatus, cuda_status, driver_release
from fpgpu.backends.base import Backend, MemoryState
from fpgpu.backends.choose import auto_choice, get_backend
from fpgpu.backends.compiler import ARCHITECTURES, KernelUsage, compile_source, read_sources
from fpgpu.backends.nvrtc import load_nvrtc
from fpgpu.errors import FpgpuError, KernelCompileError
from fpgpu.layout import PATCH_DTYPE

__all__ = ["diagnose"]

_COPY_BYTES = 64 << 20


def diagnose(
    device: int = 0, archs: Sequence[int] | None = None, measure: bool = True
) -> dict[str, Any]:
    """Try out what can be tried here.

    Parameters
    ----------
    device : int, optional
        Number of the CUDA device.
    archs : sequence of int, optional
        Compute capabilities, as 90, to compile the kernels for. By default that of the device;
        without one every supported capability that NVRTC knows.
    measure : bool, optional
        Whether to measure the speed of copies.

    Returns
    -------
    dict
        Plain values, as ``fpgpu doctor --json`` prints them: the ``choice`` that "auto" makes,
        the ``reason``, and whether it ``works``; ``versions``, None for what was not found;
        ``cuda_problem``, why CUDA cannot be used, or None; and a dict each for the ``backends``
        that can be made here, for each of the ``kernels`` and architectures, and for what is
        ``missing``.
    """
    cuda = cuda_status(device)
    choice, reason = auto_choice(device)
    missing = {cuda.problem: cuda.fix} if cuda.problem and cuda.fix else {}
    backends, kernels = [get_backend("cpu")], []
    if cuda.problem is None:
        try:
            backends.append(get_backend("cuda", device))
        except FpgpuError as error:
            missing["a device that can be used"] = str(error)
    try:
        archs = archs or ([cuda.capability] if cuda.capability else ())
        kernels = _compile_all(archs, cuda.cupy_cuda[0] if cuda.cupy_cuda else None)
    except FpgpuError as error:
        missing["the kernels were not compiled"] = str(error)
    tried = [_try_out(backend, measure) for backend in backends]
    return {
        "choice": choice,
        "reason": reason,
        "versions": _versions(cuda),
        "cuda_problem": cuda.problem,
        "backends": tried,
        "kernels": kernels,
        "missing": [{"what": what, "fix": fix} for what, fix in missing.items()],
        "works": any(one["name"] == choice and not one["error"] for one in tried),
    }


def _versions(cuda: CudaStatus) -> dict[str, str | None]:
    """Version of everything that matters, None for what is not there."""

    def text(version: tuple[int, int] | None) -> str | None:
        return None if version is None else ".".join(map(str, version))

    try:
        nvrtc = text(load_nvrtc().version)
    except FpgpuError:
        nvrtc = None
    return {
        "fpgpu": __version__,
        "Python": platform.python_version(),
        "system": platform.platform(),
        "numpy": np.__version__,
        "h5py": metadata.version("h5py"),
        "CuPy": cuda.cupy,
        "CUDA of CuPy": text(cuda.cupy_cuda),
        "NVIDIA driver": driver_release(),
        "CUDA of the driver": text(cuda.driver.version),
        "NVRTC": nvrtc,
    }


def _try_out(backend: Backend, measure: bool) -> dict[str, Any]:
    """Move data through a backend and see whether they arrive."""
    error, copies = None, []
    description, memory = backend.name, MemoryState(0, 0, 0)
    try:
        description, memory = backend.description, backend.memory_state()
        _move_something(backend)
        for what, call in backend.copies_to_time(_COPY_BYTES).items() if measure else ():
            speed = _COPY_BYTES / statistics.median(backend.time(call))
            copies.append({"what": what, "n_bytes": _COPY_BYTES, "bytes_per_second": speed})
    except Exception as found:  # noqa: BLE001 - whatever it is, it is what was to be found out
        error = f"{type(found).__name__}: {found}"
    return {
        "name": backend.name,
        "description": description,
        "memory_total": memory.total,
        "memory_free": memory.free,
        "limits": asdict(backend.limits),
        "error": error,
        "copies": copies,
    }


def _move_something(backend: Backend) -> None:
    """Send images around and let a kernel look at a patch."""
    image = np.arange(2 * 16 * 24, dtype=np.float32).reshape(2, 16, 24)
    there = backend.upload(image)
    planes = backend.images_from_superpixels(backend.superpixelize(there, there))
    for plane in planes:
        if not np.array_equal(backend.download(plane), image):
            raise FpgpuError(f"{backend.description} does not give back the images it was given")
    layout = ArenaLayout(n_pixels=64, n_exp=1, n_bands=1, n_src=1, n_radii=1, n_psf=1)
    with Arena(backend, layout) as arena:
        staging = np.zeros(layout.upload_bytes, np.uint8)
        views = layout.views(staging)
        views["band_N"][:] = views["n_psf_per_source"][:] = 1
        views["exposure_N"][:] = 64
        views["data"][:] = np.arange(64)
        arena.upload(staging)
        seen = backend.check_layout(arena.pointer, n_bands=1)
    data = seen[(PATCH_DTYPE.names or ()).index("data")]
    if (data["count"], data["last"]) != (64, np.float32(63).view(np.uint32)):
        raise FpgpuError(f"a kernel on {backend.description} does not see the patch it was given")


def _compile_all(archs: Sequence[int], cuda_major: int | None) -> list[dict[str, Any]]:
    """Compile every kernel, for every supported architecture if none is given; needs no GPU."""
    nvrtc = load_nvrtc(cuda_major)
    archs = archs or [arch for arch in ARCHITECTURES if arch in nvrtc.architectures()]
    found = []
    for arch, source in itertools.product(archs, read_sources()):
        if not source.endswith(".cu"):
            continue
        error, usages = None, {"-": KernelUsage(0, 0, 0, 0, 0)}
        try:
            usages = compile_source(source, arch, cuda_major=cuda_major).usage
        except KernelCompileError as failure:
            error = str(failure)
        found += [
            {
                "source": source,
                "kernel": kernel,
                "arch": arch,
                "registers": usage.registers,
                "shared_bytes": usage.shared_bytes,
                "spill_bytes": usage.spill_store_bytes + usage.spill_load_bytes,
                "error": error,
            }
            for kernel, usage in usages.items()
        ]
    return found
