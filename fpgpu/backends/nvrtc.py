"""NVIDIA's runtime compiler through its C interface: CUDA C++ text in, machine code out.

Compiling needs neither a GPU nor a driver nor CuPy, only ``libnvrtc``, which comes in a wheel of
its own. The library is looked for when it is first needed.
"""

import ctypes
import ctypes.util
import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from fpgpu.errors import BackendUnavailableError, KernelCompileError

__all__ = ["Nvrtc", "Program", "find_nvrtc", "load_nvrtc"]

INSTALL = "pip install nvidia-cuda-nvrtc-cu12 (CUDA 12) or pip install nvidia-cuda-nvrtc (CUDA 13)"

_IN_WHEEL = ("cu[0-9]*/lib/libnvrtc.so.[0-9]*", "cuda_nvrtc/lib/libnvrtc.so.[0-9]*")
_IN_TOOLKIT = ("lib64/libnvrtc.so", "targets/x86_64-linux/lib/libnvrtc.so")
_COMPILATION_FAILED = 6


class Program(NamedTuple):
    """What came out of one compilation."""

    cubin: bytes
    ptx: str
    log: str


def find_nvrtc() -> Iterator[Path | str]:
    """Yield the places ``libnvrtc`` is found at: wheels, then the toolkit, then the system."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for name in _IN_WHEEL:
            found = Path(folder).glob(name)
            yield from sorted((path for path in found if ".alt." not in path.name), reverse=True)
    roots = [os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    for root in filter(None, roots):
        yield from (path for name in _IN_TOOLKIT if (path := Path(root, name)).is_file())
    if system := ctypes.util.find_library("nvrtc"):
        yield system


class Nvrtc:
    """One loaded ``libnvrtc``.

    Parameters
    ----------
    library : path or str
        The shared library.

    Raises
    ------
    BackendUnavailableError
        When it cannot be loaded.
    """

    def __init__(self, library: Path | str) -> None:
        self.library = str(library)
        # The compiler looks for its own part by name only when it compiles, which finds nothing
        # where a wheel has no search path for it; what is loaded already, it takes.
        folder = Path(library).parent if isinstance(library, Path) else None
        for builtins in sorted(folder.glob("libnvrtc-builtins.so*")) if folder else ():
            with suppress(OSError):
                ctypes.CDLL(str(builtins))
        try:
            self._lib = ctypes.CDLL(self.library)
        except OSError as error:
            raise BackendUnavailableError(
                f"NVRTC at {self.library} cannot be loaded ({error}); install it again: {INSTALL}"
            ) from error
        major, minor = ctypes.c_int(), ctypes.c_int()
        try:
            self._lib.nvrtcGetErrorString.restype = ctypes.c_char_p
            self._check(self._lib.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
        except (AttributeError, KernelCompileError) as error:
            raise BackendUnavailableError(
                f"{self.library} is no usable NVRTC ({error}); install it again: {INSTALL}"
            ) from error
        self.version = (major.value, minor.value)

    def architectures(self) -> tuple[int, ...]:
        """Return the compute capabilities it can compile for, as 75, 80, ..."""
        n = ctypes.c_int()
        self._check(self._lib.nvrtcGetNumSupportedArchs(ctypes.byref(n)))
        archs = (ctypes.c_int * n.value)()
        self._check(self._lib.nvrtcGetSupportedArchs(archs))
        return tuple(archs)

    def compile(
        self, name: str, source: str, headers: Mapping[str, str], options: Sequence[str]
    ) -> Program:
        """Compile one source."""
        program = ctypes.c_void_p()
        self._check(
            self._lib.nvrtcCreateProgram(
                ctypes.byref(program),
                source.encode(),
                name.encode(),
                len(headers),
                _strings(headers.values()),
                _strings(headers),
            )
        )
        try:
            status = self._lib.nvrtcCompileProgram(program, len(options), _strings(options))
            log = self._output(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
            if status:
                reason = self._reason(status)
                detail = log if status == _COMPILATION_FAILED else f"{reason}\n{log}"
                raise KernelCompileError(
                    f"{name} did not compile with NVRTC {self.version[0]}.{self.version[1]},"
                    f" options {' '.join(options)}:\n{detail}",
                    source=name,
                    options=options,
                    log=log,
                )
            ptx = self._output(program, "PTX").rstrip(b"\0").decode()
            return Program(self._output(program, "CUBIN"), ptx, log)
        finally:
            self._lib.nvrtcDestroyProgram(ctypes.byref(program))

    def _output(self, program: ctypes.c_void_p, what: str) -> bytes:
        """Fetch one product of a compilation."""
        size = ctypes.c_size_t()
        self._check(self._lib[f"nvrtcGet{what}Size"](program, ctypes.byref(size)))
        if size.value == 0:
            return b""
        buffer = ctypes.create_string_buffer(size.value)
        self._check(self._lib[f"nvrtcGet{what}"](program, buffer))
        return buffer.raw

    def _reason(self, status: int) -> str:
        reason: bytes = self._lib.nvrtcGetErrorString(status)
        return reason.decode()

    def _check(self, status: int) -> None:
        if status:
            raise KernelCompileError(f"NVRTC at {self.library}: {self._reason(status)}")


def _strings(texts: Iterable[str]) -> ctypes.Array[ctypes.c_char_p]:
    """Make a C array of C strings."""
    encoded = [text.encode() for text in texts]
    return (ctypes.c_char_p * len(encoded))(*encoded)


@cache
def load_nvrtc(cuda_major: int | None = None) -> Nvrtc:
    """Load the first ``libnvrtc`` that is found."""
    others = []
    for library in find_nvrtc():
        try:
            nvrtc = Nvrtc(library)
        except BackendUnavailableError as error:
            others.append(str(error).partition("; install")[0])
            continue
        if cuda_major in (None, nvrtc.version[0]):
            return nvrtc
        others.append(f"{library} is of CUDA {nvrtc.version[0]}")
    wanted = "libnvrtc" if cuda_major is None else f"libnvrtc of CUDA {cuda_major}"
    found = f" ({'; '.join(others)})" if others else ""
    raise BackendUnavailableError(
        f"kernels cannot be compiled: {wanted} is in no installed NVIDIA wheel, not under"
        f" CUDA_PATH, /usr/local/cuda or the system's libraries{found}; install it with {INSTALL}"
    )
