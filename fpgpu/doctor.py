"""What this machine can do for fpgpu, and what to install where it cannot."""

import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import numpy as np

from fpgpu import __version__
from fpgpu.backends.arena import Arena, ArenaLayout
from fpgpu.backends.availability import CudaStatus, cuda_status, driver_release
from fpgpu.backends.base import Backend, MemoryState
from fpgpu.backends.choose import UsableName, auto_choice, get_backend
from fpgpu.backends.compiler import ARCHITECTURES, compile_source, read_sources
from fpgpu.backends.nvrtc import load_nvrtc
from fpgpu.errors import FpgpuError, KernelCompileError
from fpgpu.layout import PATCH_DTYPE

__all__ = ["BackendReport", "CopySpeed", "Diagnosis", "KernelReport", "Missing", "diagnose"]

_COPY_BYTES = 64 << 20


@dataclass(frozen=True)
class Missing:
    """Something that is not there.

    Attributes
    ----------
    what : str
        What is missing, and why it matters.
    fix : str
        The line that changes it.
    """

    what: str
    fix: str


@dataclass(frozen=True)
class KernelReport:
    """One kernel compiled for one architecture.

    Attributes
    ----------
    source, kernel : str
        File, and name in it; ``"-"`` for a file that does not compile.
    arch : int
        Compute capability, as 90.
    registers : int
        Of a thread.
    shared_bytes : int
        Shared memory of a block.
    spill_bytes : int
        Of a thread: what did not fit into registers.
    error : str or None
        Why it did not compile.
    """

    source: str
    kernel: str
    arch: int
    registers: int = 0
    shared_bytes: int = 0
    spill_bytes: int = 0
    error: str | None = None


@dataclass(frozen=True)
class CopySpeed:
    """The speed of one kind of copy.

    Attributes
    ----------
    what : str
        From where to where.
    n_bytes : int
        Bytes of each copy.
    bytes_per_second : float
        Median; each byte is counted once.
    """

    what: str
    n_bytes: int
    bytes_per_second: float


@dataclass(frozen=True)
class BackendReport:
    """One backend at work.

    Attributes
    ----------
    name, description : str
        The backend, and its device in words.
    memory_total, memory_free : int
        Bytes.
    limits : dict
        What one launch may ask of the device.
    error : str or None
        What failed in a small trial.
    copies : tuple of CopySpeed
        What was measured.
    """

    name: str
    description: str
    memory_total: int
    memory_free: int
    limits: dict[str, Any]
    error: str | None
    copies: tuple[CopySpeed, ...]


@dataclass(frozen=True)
class Diagnosis:
    """All that `diagnose` found out.

    Attributes
    ----------
    choice : {"cpu", "cuda"}
        The backend that "auto" takes.
    reason : str
        Why.
    versions : dict of str to str or None
        Of everything that matters; None for what was not found.
    cuda_problem : str or None
        Why CUDA cannot be used.
    backends : tuple of BackendReport
        Those that can be made here.
    kernels : tuple of KernelReport
        Every kernel, for every architecture asked for.
    missing : tuple of Missing
        What to install or change.
    """

    choice: UsableName
    reason: str
    versions: dict[str, str | None]
    cuda_problem: str | None
    backends: tuple[BackendReport, ...]
    kernels: tuple[KernelReport, ...]
    missing: tuple[Missing, ...]

    @property
    def works(self) -> bool:
        """Whether the backend that "auto" takes passed its trial."""
        return any(report.name == self.choice and not report.error for report in self.backends)

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON.

        Returns
        -------
        dict
            Strings, numbers, lists and dicts.
        """
        return asdict(self) | {"works": self.works}


def diagnose(
    device: int = 0, archs: Sequence[int] | None = None, measure: bool = True
) -> Diagnosis:
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
    Diagnosis
        What was found.
    """
    cuda = cuda_status(device)
    choice, reason = auto_choice(device)
    missing = []
    if cuda.problem is not None and cuda.fix is not None:
        missing.append(Missing(cuda.problem, cuda.fix))
    backends = [get_backend("cpu")]
    if cuda.problem is None:
        try:
            backends.append(get_backend("cuda", device))
        except FpgpuError as error:
            missing.append(Missing("a device that can be used", str(error)))
    try:
        archs = archs or ([cuda.capability] if cuda.capability else ())
        kernels = _compile_all(archs, cuda.cupy_cuda[0] if cuda.cupy_cuda else None)
    except FpgpuError as error:
        kernels = []
        missing.append(Missing("the kernels were not compiled", str(error)))
    return Diagnosis(
        choice,
        reason,
        _versions(cuda),
        cuda.problem,
        tuple(_try_out(backend, measure) for backend in backends),
        tuple(kernels),
        tuple(missing),
    )


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


def _try_out(backend: Backend, measure: bool) -> BackendReport:
    """Move data through a backend and see whether they arrive."""
    error = None
    copies = []
    description, memory = backend.name, MemoryState(0, 0, 0)
    try:
        description, memory = backend.description, backend.memory_state()
        _move_something(backend)
        for what, call in backend.copies_to_time(_COPY_BYTES).items() if measure else ():
            seconds = statistics.median(backend.time(call))
            copies.append(CopySpeed(what, _COPY_BYTES, _COPY_BYTES / seconds))
    except Exception as found:  # noqa: BLE001 - whatever it is, it is what was to be found out
        error = f"{type(found).__name__}: {found}"
    return BackendReport(
        backend.name,
        description,
        memory.total,
        memory.free,
        asdict(backend.limits),
        error,
        tuple(copies),
    )


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


def _compile_all(archs: Sequence[int], cuda_major: int | None) -> list[KernelReport]:
    """Compile every kernel, for every supported architecture if none is given; needs no GPU."""
    nvrtc = load_nvrtc(cuda_major)
    reports = []
    for arch in archs or [arch for arch in ARCHITECTURES if arch in nvrtc.architectures()]:
        for source in (name for name in read_sources() if name.endswith(".cu")):
            try:
                usages = compile_source(source, arch, cuda_major=cuda_major).usage
            except KernelCompileError as error:
                reports.append(KernelReport(source, "-", arch, error=str(error)))
                continue
            reports += [
                KernelReport(
                    source,
                    kernel,
                    arch,
                    usage.registers,
                    usage.shared_bytes,
                    usage.spill_store_bytes + usage.spill_load_bytes,
                )
                for kernel, usage in usages.items()
            ]
    return reports
