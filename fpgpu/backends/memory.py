"""Memory of a backend: allocations with an address, counted while they live."""

import itertools
import weakref
from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fpgpu.backends.hostpool import HostPool
from fpgpu.errors import LayoutError, ReleasedMemoryError

__all__ = ["ALIGNMENT", "Array", "HostMemory", "Ledger", "Memory", "device_dtype"]

Array: TypeAlias = Any
"""`numpy.ndarray` on the CPU backend, `cupy.ndarray` on the CUDA backend."""

ALIGNMENT = 256
"""Bytes to which allocations and the sections of an arena are aligned, as `cudaMalloc` does."""


def device_dtype(dtype: npt.DTypeLike) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Say how a dtype is held in a backend's arrays.

    Devices know native numbers only. Other byte orders are held as the bytes they are in the native
    dtype, and kernels are told by a flag; structs are held as words.
    """
    dtype = np.dtype(dtype)
    if dtype.kind == "O":
        raise LayoutError("arrays of Python objects cannot be held by a backend")
    if dtype.kind != "V":
        return dtype.newbyteorder("="), ()
    if dtype.itemsize % 4:
        raise LayoutError(f"a struct of {dtype.itemsize} bytes is no whole number of 4-byte words")
    return np.dtype(np.uint32), (dtype.itemsize // 4,)


class Ledger:
    """Which allocations of a backend live, and how large they are."""

    def __init__(self) -> None:
        # Single dict operations only: they are atomic, so threads and finalizers need no lock.
        self._sizes: dict[int, int] = {}
        self._keys = itertools.count()

    def enter(self, owner: Any, n_bytes: int) -> None:
        """Count an allocation for as long as its owner lives."""
        key = next(self._keys)
        self._sizes[key] = n_bytes
        weakref.finalize(owner, self._sizes.pop, key).atexit = False

    @property
    def count(self) -> int:
        """Number of allocations that live."""
        return len(self._sizes)

    @property
    def nbytes(self) -> int:
        """Bytes of the allocations that live."""
        return sum(list(self._sizes.values()))


class Memory(ABC):
    """One allocation of a backend.

    Parameters
    ----------
    pointer : int
        Its address, a multiple of `ALIGNMENT`.
    nbytes : int
        Its size.
    """

    def __init__(self, pointer: int, nbytes: int) -> None:
        self.nbytes = nbytes
        self._pointer = pointer
        self._freed = False

    @property
    def pointer(self) -> int:
        """The address."""
        if self._freed:
            raise ReleasedMemoryError(
                f"the memory of {self.nbytes} bytes was freed and has no address any more"
            )
        return self._pointer

    @property
    def freed(self) -> bool:
        """Whether it was freed."""
        return self._freed

    def view(self, shape: tuple[int, ...], dtype: npt.DTypeLike, offset: int = 0) -> Array:
        """See part of the memory as an array of the backend.

        Parameters
        ----------
        shape : tuple of int
            Shape.
        dtype : dtype
            Dtype; a struct comes as words with one more axis, see `device_dtype`.
        offset : int, optional
            Byte at which it begins.

        Returns
        -------
        array
            C-contiguous. It keeps the bytes alive even when the memory is freed before it.

        Raises
        ------
        LayoutError
            When it does not fit.
        ReleasedMemoryError
            When the memory was freed.
        """
        dtype, trailing = device_dtype(dtype)
        shape = (*shape, *trailing)
        end = offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if offset < 0 or end > self.nbytes:
            raise LayoutError(
                f"an array of shape {shape} and dtype {dtype} at byte {offset} ends at byte {end}"
                f" of an allocation of {self.nbytes} bytes"
            )
        _ = self.pointer
        return self._view(shape, dtype, offset)

    def free(self) -> None:
        """Give the memory back once its last view is gone; a second call does nothing."""
        if not self._freed:
            self._freed = True
            self._release()

    @abstractmethod
    def _view(self, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int) -> Array:
        """Make the array of a checked view."""

    @abstractmethod
    def _release(self) -> None:
        """Drop what keeps the memory alive."""


class HostMemory(Memory):
    """Host memory, for the CPU backend.

    Parameters
    ----------
    n_bytes : int
        Its size.
    ledger : Ledger
        Where it is counted.
    pool : HostPool
        Where it comes from, and goes when its last view is gone.
    """

    def __init__(self, n_bytes: int, ledger: Ledger, pool: HostPool) -> None:
        # NumPy gives an empty slice the address of its base; no bytes have an aligned one too.
        memory = pool.take(max(n_bytes, 1))
        ledger.enter(memory.base, n_bytes)
        super().__init__(memory.ctypes.data, n_bytes)
        self._bytes: npt.NDArray[np.uint8] | None = memory

    def _view(self, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int) -> Array:
        if self._bytes is None:
            raise ReleasedMemoryError("this host memory was freed")
        return np.ndarray(shape, dtype, self._bytes, offset)

    def _release(self) -> None:
        self._bytes = None
