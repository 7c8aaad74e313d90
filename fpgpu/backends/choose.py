"""The only switch between backends."""

import logging
import threading
from importlib import import_module
from typing import Literal, get_args

from fpgpu.backends.availability import cuda_status
from fpgpu.backends.base import Backend
from fpgpu.backends.cpu import CpuBackend
from fpgpu.backends.staging import StagingSettings
from fpgpu.errors import BackendUnavailableError, KernelCompileError

__all__ = ["BackendName", "UsableName", "auto_choice", "get_backend"]

logger = logging.getLogger(__name__)

BackendName = Literal["cpu", "cuda", "auto"]
UsableName = Literal["cpu", "cuda"]

_lock = threading.Lock()
_choices: dict[int, tuple[UsableName, str]] = {}


def get_backend(
    name: BackendName = "auto", device: int | None = None, staging: StagingSettings | None = None
) -> Backend:
    """Make a backend.

    Parameters
    ----------
    name : {"auto", "cpu", "cuda"}
        "auto" takes CUDA where it works; it looks once in a process and logs what it chose and why.
    device : int, optional
        Number of the CUDA device, 0 by default; None for the CPU.
    staging : StagingSettings, optional
        Size and depth of the staging ring, which is allocated when first used.

    Returns
    -------
    Backend
        A new object, to be passed to whoever should use it.

    Raises
    ------
    BackendUnavailableError
        When "cuda" cannot be used, with the reason and the line that installs what is missing; when
        there is no such backend. It never falls back.
    KernelCompileError
        When kernels do not compile for the device that was asked for, or the driver does not take
        them.

    Examples
    --------
    >>> get_backend("cpu").name
    'cpu'
    """
    if name not in get_args(BackendName):
        names = ", ".join(map(repr, get_args(BackendName)))
        raise BackendUnavailableError(f"there is no backend {name!r}; there are {names}")
    if name == "auto":
        name, _ = auto_choice(device)
        device = device if name == "cuda" else None
    if name == "cpu":
        if device is not None:
            raise BackendUnavailableError(f"the cpu backend has no device {device}; leave it out")
        return CpuBackend(staging=staging)
    status = cuda_status(device or 0)
    if status.problem is not None:
        raise BackendUnavailableError(
            f"the cuda backend cannot be used: {status.problem}; to use it: {status.fix}"
        )
    try:
        backend: Backend = import_module("fpgpu.backends.cuda").CudaBackend(device or 0, staging)
    except (BackendUnavailableError, KernelCompileError):
        raise
    except Exception as error:  # whatever CUDA says: another process has the device to itself
        raise BackendUnavailableError(
            f"device {device or 0} cannot be used by the cuda backend: {error}; see nvidia-smi"
        ) from error
    return backend


def auto_choice(device: int | None = None) -> tuple[UsableName, str]:
    """Say which backend "auto" takes, and why."""
    with _lock:
        if (device or 0) not in _choices:
            status = cuda_status(device or 0)
            choice: tuple[UsableName, str]
            choice = "cuda", f"CuPy {status.cupy} works with device {device or 0}"
            if status.problem is not None:
                choice = "cpu", f"{status.problem}; for a GPU: {status.fix}"
            else:
                try:  # that it is found does not say that it works
                    get_backend("cuda", device)
                except (BackendUnavailableError, KernelCompileError) as error:
                    choice = "cpu", " ".join(str(error).partition("\n")[0].split())
            logger.info("backend auto: %s, because %s", *choice)
            _choices[device or 0] = choice
        return _choices[device or 0]
