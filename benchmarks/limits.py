"""What the machine itself needs for the least that an operation has to do.

A limit is timed just before and just after what it is compared with, on as many bytes.
"""

import os
import shutil
import statistics
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from fpgpu.backends.base import Backend

__all__ = [
    "Limit",
    "cached_read",
    "copy_durably",
    "copy_of",
    "disk_read",
    "durable_copy",
    "durable_write",
    "memcpy",
    "multiply_adds",
    "small_calls",
]

_COPIES = 15
_WRITES = 3
_CALLS = 1000
_BLOCK = 1 << 20
_MOST_COPIED = 512 << 20  # bytes; copies of more go no faster
_MOST_MULTIPLIED = 1 << 28  # of one core; some milliseconds
_LANES, _CHAINS = 16, 12  # enough to keep two units busy, each with results after 4 cycles or 5


@dataclass(frozen=True)
class Limit:
    """A name and a way to time it, in seconds.

    `scale` stands for what is worked out from less: the copy of 2 GiB from that of 512 MiB.
    """

    name: str
    times: Callable[[], list[float]]
    scale: float = 1.0

    def median_with(self, before: list[float]) -> float:
        """Time it again and give the median of both, in seconds."""
        return self.scale * statistics.median(before + self.times())


def memcpy(n_bytes: int) -> Limit:
    """Copy as many bytes between arrays that are in memory already."""
    n_copied = min(n_bytes, _MOST_COPIED)

    def times() -> list[float]:
        # Zeros never written to are all one page, which is read from the cache.
        source = np.ones(n_copied, np.uint8)
        target = np.zeros_like(source)
        np.copyto(target, source)
        return _timed(lambda: np.copyto(target, source), _COPIES)

    return Limit("memcpy", times, n_bytes / n_copied)


def copy_of(backend: Backend, copy: str, n_bytes: int) -> Limit:
    """Copy as many bytes as a backend's device does it; on the host there is only one way."""
    if backend.device is None:
        return memcpy(n_bytes)
    n_copied = min(n_bytes, _MOST_COPIED)
    # Its buffers are made when it is first timed, and kept for the second time.
    copies = backend.copies_to_time(n_copied)

    def times() -> list[float]:
        return backend.time(copies[copy], _COPIES)

    return Limit(copy, times, n_bytes / n_copied)


def cached_read(paths: Iterable[Path]) -> Limit:
    """Read whole files that the operating system has in memory."""
    files = list(paths)
    return Limit("reading the files", lambda: _timed(lambda: _read_all(files), _WRITES))


def disk_read(path: Path) -> Limit:
    """Read a file after asking the operating system to forget it."""

    def times() -> list[float]:
        found = []
        for _ in range(_WRITES):
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            found += _timed(lambda: _read_all([path]), 1)
        return found

    return Limit("disk read", times)


def durable_write(n_bytes: int, folder: Path) -> Limit:
    """Write as many bytes to a new file and wait until they are on the disk."""
    values = np.random.default_rng(1).integers(0, 256, n_bytes, np.uint8)
    path = folder / "durable"

    def write() -> None:
        with path.open("wb") as file:
            file.write(values.data)
            file.flush()
            os.fsync(file.fileno())

    def times() -> list[float]:
        found = []
        for _ in range(_WRITES):
            found += _timed(write, 1)
            path.unlink()
        return found

    return Limit("write and fsync", times)


def durable_copy(files: Iterable[Path], folder: Path) -> Limit:
    """Copy files to a new folder and wait until they are on the disk."""
    sources = list(files)

    def times() -> list[float]:
        return _timed(lambda: copy_durably(sources, folder), _WRITES)

    return Limit("copy and fsync of the files", times)


def copy_durably(files: Iterable[Path], folder: Path) -> None:
    """Replace a folder with copies of files that are on the disk."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in files:
        with path.open("rb") as old, (folder / path.name).open("wb") as new:
            shutil.copyfileobj(old, new)
            new.flush()
            os.fsync(new.fileno())


def multiply_adds(number: float, cores: int) -> Limit:
    """Multiply and add in single precision, in registers alone, as often on so many cores."""
    n_done = min(number, _MOST_MULTIPLIED * cores)
    rounds = max(1, round(n_done / (cores * _LANES * _CHAINS)))
    each = _multiply_adds()

    def times() -> list[float]:
        with ThreadPoolExecutor(cores) as pool:
            return _timed(lambda: list(pool.map(each, [rounds] * cores)), _COPIES)

    return Limit("multiply-adds", times, number / (rounds * cores * _LANES * _CHAINS))


def small_calls() -> Limit:
    """Call NumPy a thousand times on eight numbers: the yardstick where few bytes are moved."""
    values, out = np.ones(8), np.empty(8)

    def call() -> None:
        for _ in range(_CALLS):
            np.add(values, values, out=out)

    return Limit("1,000 NumPy calls", lambda: _timed(call, _COPIES))


@cache
def _multiply_adds() -> Callable[[int], float]:
    """Compile a loop of multiply-adds that do not wait for each other."""
    from llvmlite import ir
    from numba import njit, types
    from numba.core import cgutils
    from numba.extending import intrinsic

    @intrinsic
    def chains(typing: Any, rounds: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vector = ir.VectorType(ir.FloatType(), _LANES)
            kind, name = ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{_LANES}f32"
            fma = cgutils.get_or_insert_function(builder.module, kind, name)
            # Of chains with the same start there would be one.
            start = [ir.Constant(vector, [float(k)] * _LANES) for k in range(_CHAINS)]
            sums = [cgutils.alloca_once_value(builder, value) for value in start]
            factor = ir.Constant(vector, [0.5] * _LANES)
            with cgutils.for_range(builder, arguments[0]):
                for one in sums:
                    builder.store(builder.call(fma, [builder.load(one), factor, factor]), one)
            total = builder.load(sums[0])
            for one in sums[1:]:
                total = builder.fadd(total, builder.load(one))
            return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

        return types.float32(types.intp), generate

    @njit("float32(intp)", nogil=True)
    def run(rounds: int) -> Any:
        return chains(rounds)

    assert run(100) == _CHAINS, "each chain ends at 1"
    return run


def _timed(call: Callable[[], object], repeat: int) -> list[float]:
    seconds = []
    for _ in range(repeat):
        start = perf_counter()
        call()
        seconds.append(perf_counter() - start)
    return seconds


def _read_all(files: list[Path]) -> None:
    buffer = bytearray(_BLOCK)
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
