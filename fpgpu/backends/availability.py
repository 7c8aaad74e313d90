"""Whether CUDA can be used here, and if not, why and what to do about it."""

import ctypes
import os
import re
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fpgpu.backends.nvrtc import load_nvrtc
from fpgpu.errors import BackendUnavailableError

__all__ = [
    "CudaStatus",
    "DriverStatus",
    "cuda_status",
    "driver_release",
    "driver_status",
    "import_cupy",
]

OLDEST_CAPABILITY = (7, 0)
"""Compute capability of the oldest devices that the kernels are compiled for (Volta)."""

_OLDEST_OF_CUDA_13 = (7, 5)

_KERNEL_MODULE = Path("/proc/driver/nvidia/version")
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE

_started_in: int | None = None  # the process that started the driver; its forks cannot use it

Version = tuple[int, int]


@dataclass(frozen=True)
class DriverStatus:
    """What the CUDA driver says, asked without CuPy.

    ``version`` is the newest CUDA it supports, None without a driver; ``problem`` says why it
    cannot be used, None when it can.
    """

    version: Version | None = None
    n_devices: int = 0
    problem: str | None = None
    fix: str | None = None


@dataclass(frozen=True)
class CudaStatus:
    """What was found on the way to a CUDA backend.

    ``cupy`` and ``cupy_cuda`` are the versions of CuPy and of the CUDA it was built for;
    ``capability`` is the compute capability of a usable device as one number, as 90; ``problem``
    says why a device cannot be used and ``fix`` what to do, both None when it can.
    """

    driver: DriverStatus
    cupy: str | None = None
    cupy_cuda: Version | None = None
    nvrtc: Version | None = None
    problem: str | None = None
    fix: str | None = None
    capability: int | None = None


def driver_status() -> DriverStatus:
    """Ask the CUDA driver for its version and the number of devices."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return DriverStatus(
            problem="there is no NVIDIA driver (libcuda.so.1 cannot be loaded)",
            fix="install the NVIDIA driver; in a container, start it with --gpus all",
        )
    global _started_in
    if _started_in not in (None, os.getpid()):
        return DriverStatus(
            problem="CUDA was started in the process that this one was forked from",
            fix='start workers with multiprocessing.get_context("spawn") or "forkserver"',
        )
    number = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(number))
    version = (number.value // 1000, number.value % 1000 // 10)
    status = driver.cuInit(0)
    if status == 0:
        _started_in = os.getpid()
        status = driver.cuDeviceGetCount(ctypes.byref(number))
    if status == _NO_DEVICE or (status == 0 and number.value == 0):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = "" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible!r})"
        return DriverStatus(
            version,
            problem=f"the NVIDIA driver sees no device{hidden}",
            fix="check nvidia-smi and CUDA_VISIBLE_DEVICES",
        )
    if status:
        return DriverStatus(
            version,
            problem=f"the NVIDIA driver does not start: {_error_name(driver, status)}",
            fix="check nvidia-smi; a driver that was updated needs a reboot",
        )
    return DriverStatus(version, number.value)


def driver_release() -> str | None:
    """Read which release of the NVIDIA driver is loaded."""
    try:
        text = _KERNEL_MODULE.read_text()
    except OSError:
        return None
    found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", text)
    return None if found is None else found[1]


def _error_name(driver: Any, status: int) -> str:
    """Name of a driver error."""
    name = ctypes.c_char_p()
    if driver.cuGetErrorName(status, ctypes.byref(name)) or name.value is None:
        return f"error {status}"
    return name.value.decode()


@cache
def import_cupy() -> Any:
    """Import CuPy."""
    with warnings.catch_warnings():
        # CuPy warns about CUDA_PATH when its libraries come in wheels, which is how we install it.
        warnings.filterwarnings("ignore", "CUDA path could not be detected", UserWarning)
        import cupy
    return cupy


def cuda_status(device: int = 0) -> CudaStatus:
    """Find out whether a CUDA device can be used."""
    driver = driver_status()
    extra = "cuda13" if driver.version and driver.version >= (13, 0) else "cuda12"
    install = f'pip install "fpgpu[{extra}]"'
    try:
        cupy = import_cupy()
        runtime = cupy.cuda.runtime
        number = runtime.runtimeGetVersion()
    except ModuleNotFoundError as error:
        missing = "CuPy is not installed" if error.name == "cupy" else f"CuPy lacks {error.name}"
        return _without_cupy(driver, missing, install)
    except Exception as error:  # noqa: BLE001 - whatever a CuPy raises whose parts do not fit
        reason = f"CuPy cannot be imported: {_in_one_line(error)}"
        return _without_cupy(driver, reason, install)

    if runtime.is_hip:
        return CudaStatus(
            driver,
            cupy.__version__,
            problem="this CuPy is built for ROCm, not for CUDA",
            fix=install,
        )
    built_for = (number // 1000, number % 1000 // 10)
    try:
        nvrtc = load_nvrtc(built_for[0]).version
    except BackendUnavailableError as error:
        reason = _in_one_line(error)
        return _without_cupy(driver, reason, install, cupy=cupy.__version__, cupy_cuda=built_for)

    problem, fix = driver.problem, driver.fix
    if problem is None and driver.version and driver.version[0] < built_for[0]:
        problem = (
            f"this CuPy is built for CUDA {built_for[0]}.{built_for[1]}, but the driver supports"
            f" CUDA {driver.version[0]}.{driver.version[1]}"
        )
        fix = f"pip uninstall cupy-cuda{built_for[0]}x and {install}, or update the driver"
    capability = None
    if problem is None:
        try:
            problem, fix = _device_problem(cupy, device, built_for)
            capability = None if problem else int(cupy.cuda.Device(device).compute_capability)
        except RuntimeError as error:  # whatever CUDA says
            problem = f"the CUDA runtime does not start: {_in_one_line(error)}"
            fix = "check nvidia-smi"
    return CudaStatus(driver, cupy.__version__, built_for, nvrtc, problem, fix, capability)


def _without_cupy(driver: DriverStatus, problem: str, fix: str, **found: Any) -> CudaStatus:
    """Report what CuPy lacks, and the driver's problem, which would come up next."""
    if driver.problem is not None:
        problem, fix = f"{problem}; and {driver.problem}", f"{fix}; and {driver.fix}"
    return CudaStatus(driver, problem=problem, fix=fix, **found)


def _in_one_line(error: Exception) -> str:
    """The message of CuPy, which says on several lines where it looked."""
    return " ".join(str(error).split())


def _device_problem(cupy: Any, device: int, built_for: Version) -> tuple[str | None, str | None]:
    """Say why a device cannot be used although driver and CuPy can."""
    n_devices = cupy.cuda.runtime.getDeviceCount()
    if not 0 <= device < n_devices:
        return (
            f"there is no device {device}: the devices are 0 to {n_devices - 1}",
            "pass device= one of those",
        )
    number = cupy.cuda.Device(device).compute_capability
    capability = (int(number[:-1]), int(number[-1]))
    if capability < OLDEST_CAPABILITY:
        have, need = (f"{a}.{b}" for a, b in (capability, OLDEST_CAPABILITY))
        return (
            f"device {device} has compute capability {have}; the kernels need {need} or newer",
            "use a device of the Volta generation or newer, or the cpu backend",
        )
    if capability < _OLDEST_OF_CUDA_13 and built_for >= (13, 0):
        return (
            f"device {device} has compute capability {number[:-1]}.{number[-1]}, which CUDA 12 was"
            f" the last to compile for, and this CuPy is built for CUDA {built_for[0]}",
            f'pip uninstall cupy-cuda{built_for[0]}x and pip install "fpgpu[cuda12]"',
        )
    return None, None
