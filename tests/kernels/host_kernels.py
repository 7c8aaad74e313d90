"""Runs kernel sources on the CPU: g++ compiles the same files, fibers stand in for threads."""

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fpgpu.backends.compiler import kernel_names, read_sources
from fpgpu.backends.launches import Launch

# The CPU must not fuse a * b + c; kernels view floats as words, which strict aliasing forbids.
FLAGS = ["-std=c++17", "-O1", "-ffp-contract=off", "-fno-strict-aliasing", "-Wall", "-Werror"]
FLAGS += ["-Wno-unknown-pragmas", "-Wno-unused-variable", "-Wno-unused-function"]
# In a process that was started with the address sanitizer, it watches kernels and their arrays.
SANITIZED = "FPGPU_SANITIZE_KERNELS" in os.environ
FLAGS += ["-g", "-fsanitize=address"] if SANITIZED else []
POISON = 0xA5
GUARD = 4096


class HostKernels:
    """Shared libraries of all kernel sources, compiled when first used, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sources = dict(read_sources())
        self._libraries: dict[str, ctypes.CDLL] = {}
        self._lock = threading.RLock()  # a library holds the state of one launch
        for name, text in self.sources.items():
            (folder / name).write_text(text)

    def add(self, name: str, text: str) -> None:
        """Add a source that is not one of fpgpu's."""
        self.sources[name] = text
        (self.folder / name).write_text(text)

    def run(self, launch: Launch, args: Sequence[np.generic]) -> None:
        """Run a kernel over its whole grid; RuntimeError when it misuses a barrier."""
        call = getattr(self._library(launch.source), f"host_{launch.kernel}")
        values = [np.array(arg) for arg in args]
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        message = ctypes.create_string_buffer(256)
        dimensions = [(ctypes.c_uint * 3)(*sizes) for sizes in (launch.grid, launch.block)]
        with self._lock:
            failed = call(*dimensions, pointers, message)
        if failed:
            raise RuntimeError(message.value.decode())

    def _library(self, source: str) -> ctypes.CDLL:
        if source not in self._libraries:
            exports = "".join(f"HOST_EXPORT({k})\n" for k in kernel_names(self.sources[source]))
            wrapper = self.folder / f"host_{source}.cc"
            wrapper.write_text(f'#include "host.hh"\n#include "{source}"\n{exports}')
            library = self.folder / f"{source}.so"
            include = [f"-I{Path(__file__).parent}", f"-I{self.folder}"]
            command = ["g++", *FLAGS, *include, "-shared", "-fPIC", "-o", library, wrapper]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            assert result.returncode == 0, result.stderr
            self._libraries[source] = ctypes.CDLL(str(library))
        return self._libraries[source]


class Guarded:
    """A poisoned output between two guard zones, `offset` bytes from 256-byte alignment."""

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike, offset: int = 0) -> None:
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._bytes = np.full(nbytes + 2 * GUARD, POISON, np.uint8)
        self._start = GUARD - self._bytes.ctypes.data % 256 + offset
        self._stop = self._start + nbytes
        self.array = self._bytes[self._start : self._stop].view(dtype).reshape(shape)
        if SANITIZED:
            _forbid(self._bytes[: self._start])
            _forbid(self._bytes[self._stop :])

    @property
    def address(self) -> int:
        return self.array.ctypes.data

    def check(self) -> None:
        """Fail when anything outside the array was written."""
        assert (self._bytes[: self._start] == POISON).all(), "written before the array"
        assert (self._bytes[self._stop :] == POISON).all(), "written after the array"


def _forbid(memory: npt.NDArray[np.uint8]) -> None:
    """Make any access of a kernel to some memory an error."""
    forbid = ctypes.CDLL(None).__asan_poison_memory_region
    forbid(ctypes.c_void_p(memory.ctypes.data), ctypes.c_size_t(memory.nbytes))


def aligned(array: npt.ArrayLike, offset: int = 0) -> npt.NDArray:
    """Copy an input to an address at `offset` bytes from 256-byte alignment."""
    array = np.asarray(array)
    copy = Guarded(array.shape, array.dtype, offset).array
    copy[...] = array
    return copy


def assert_same_bits(found: npt.NDArray, expected: npt.NDArray) -> None:
    """Compare bit patterns, so that NaN payloads and signed zeros count."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(
        np.ascontiguousarray(found).view(np.uint8), np.ascontiguousarray(expected).view(np.uint8)
    )


def has_compiler() -> bool:
    return shutil.which("g++") is not None
