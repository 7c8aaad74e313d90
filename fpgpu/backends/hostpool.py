"""Host memory that was freed, kept to be lent again.

The kernel clears every page that a process gets, and takes it back when it is freed: for the arena
of a large patch that costs nearly as much as filling it. CuPy keeps freed device memory for the
same reason.
"""

import itertools
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["HostPool", "aligned_bytes"]

Bytes = npt.NDArray[np.uint8]

_LEAST = 1 << 20
"""Smaller blocks are left to the allocator of C, which keeps them itself."""

_MOST_KEPT = 512 << 20
"""Bytes kept at most: two patches of the largest usual size."""


def aligned_bytes(n_bytes: int, alignment: int) -> Bytes:
    """Allocate host memory at an aligned address.

    Parameters
    ----------
    n_bytes : int
        Number of bytes.
    alignment : int
        The address is a multiple of this.

    Returns
    -------
    ndarray of uint8, shape (n_bytes,)
        Not initialised.
    """
    raw = np.empty(n_bytes + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + n_bytes]


class HostPool:
    """Blocks of host memory, lent and kept.

    A block comes back when the last array that shows it is gone, so nothing lent is ever lent
    twice. Any number of threads may take blocks, and the garbage collector may bring some back at
    any moment: what is kept is changed by single operations on a dict, which need no lock.

    Parameters
    ----------
    alignment : int
        Addresses are multiples of this.
    most_kept : int, optional
        Bytes to keep at most.
    """

    def __init__(self, alignment: int, most_kept: int = _MOST_KEPT) -> None:
        self._alignment = alignment
        self._most_kept = most_kept
        self._kept: dict[int, Bytes] = {}
        self._numbers = itertools.count()

    @property
    def kept_bytes(self) -> int:
        """Bytes that are kept and not lent."""
        return sum(block.nbytes for block in list(self._kept.values()))

    def take(self, n_bytes: int) -> Bytes:
        """Lend memory.

        Parameters
        ----------
        n_bytes : int
            Its size.

        Returns
        -------
        ndarray of uint8, shape (n_bytes,)
            Not initialised. Its base is what lives as long as any array that shows the memory.

        Raises
        ------
        MemoryError
            When there is not enough, even with nothing kept.
        """
        block = self._take_kept(n_bytes)
        if block is None:
            try:
                block = aligned_bytes(n_bytes, self._alignment)
            except MemoryError:
                self.clear()
                block = aligned_bytes(n_bytes, self._alignment)
        lease = _Lease(block)
        if block.nbytes >= _LEAST:
            weakref.finalize(lease, self._take_back, block).atexit = False
        return np.asarray(lease)[:n_bytes]

    def clear(self) -> None:
        """Give everything that is kept back to the system."""
        self._kept.clear()

    def _take_kept(self, n_bytes: int) -> Bytes | None:
        """Take the smallest block that is large enough, if it is not much too large."""
        fitting = [
            (block.nbytes, number)
            for number, block in list(self._kept.items())
            if n_bytes <= block.nbytes <= n_bytes + n_bytes // 4
        ]
        for _, number in sorted(fitting):
            block = self._kept.pop(number, None)
            if block is not None:  # else another thread was quicker
                return block
        return None

    def _take_back(self, block: Bytes) -> None:
        """Keep a block, and of the others the latest for which there is room."""
        if block.nbytes > self._most_kept:
            return
        self._kept[next(self._numbers)] = block
        for number in list(self._kept):
            if self.kept_bytes <= self._most_kept:
                break
            self._kept.pop(number, None)


class _Lease:
    """What all arrays that show a lent block have as their base."""

    def __init__(self, block: Bytes) -> None:
        self._block = block
        self.__array_interface__: dict[str, Any] = block.__array_interface__
