"""Memory and streams of one CUDA device, and the order in which they may be used.

Memory is taken from CuPy's pool on the copy stream, because what happens first to most allocations
is an upload: it can then start while kernels run on other memory. It goes back to the pool when
whatever might still use it has ended, which nothing waits for unless there is no other memory.

The rules of ordering are on a page, ``docs/ordering.md``, each with the test that fails without it.
"""

import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import cupy as cp
import numpy as np
import numpy.typing as npt

from fpgpu.backends.memory import Ledger, Memory
from fpgpu.backends.staging import PAGE

__all__ = ["CudaMemory", "Streams", "pinned_bytes"]

_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation, which CuPy does not name


_idle: dict[int, list[tuple[Any, ...]]] = {}
"""Of each device: the streams of backends that are gone, for the next ones."""


class Streams:
    """The two streams of a backend, and how they wait for each other and for the caller's.

    Every method expects the device to be current.

    Parameters
    ----------
    device : cupy.cuda.Device
        Where they run.
    """

    def __init__(self, device: Any) -> None:
        self.device = device
        self.pid = os.getpid()
        # Streams are never destroyed: the pool knows memory by the handle of its stream, and a new
        # stream may get the handle of one that died with work under way.
        idle = _idle.setdefault(device.id, [])
        try:
            streams = idle.pop()
        except IndexError:
            with device:
                streams = (*(cp.cuda.Stream(non_blocking=True) for _ in range(3)), deque())
        weakref.finalize(self, idle.append, streams).atexit = False
        self.copies, self.kernels, self._aside, self._leaving = streams

    @property
    def _caller(self) -> Any:
        """The stream of this device that is current for whoever called this package."""
        known = _callers.streams.get(self.device.id)
        return cp.cuda.get_current_stream() if known is None else known

    @contextmanager
    def _current(self, stream: Any) -> Iterator[None]:
        """Make a stream current and remember the caller's.

        Within such a block the garbage collector may drop memory that the caller's stream uses.
        """
        before = _callers.streams
        _callers.streams = before | {self.device.id: self._caller}
        try:
            with stream:
                yield
        finally:
            _callers.streams = before

    def copies_after_kernels(self) -> None:
        """Let later copies wait for all kernels, those on the caller's stream included."""
        self.copies.wait_event(_mark(self.kernels))
        caller = self._caller
        if caller != self.copies:
            self.copies.wait_event(_mark(caller))

    def kernels_after_copies(self) -> None:
        """Let later kernels wait for all copies, those on the caller's stream included."""
        copied = _mark(self.copies)
        self.kernels.wait_event(copied)
        caller = self._caller
        if caller not in (self.kernels, self.copies):
            caller.wait_event(copied)

    @contextmanager
    def in_order(self) -> Iterator[None]:
        """Run kernels after what the caller's stream has to do, and before what it gets later."""
        caller = self._caller
        foreign = caller != self.kernels
        if foreign:
            self.kernels.wait_event(_mark(caller))
        with self._current(self.kernels):
            yield
        if foreign:
            caller.wait_event(_mark(self.kernels))

    def caller_after_all(self) -> None:
        """Let what the caller's stream gets later wait for both, whoever started their work."""
        caller = self._caller
        for stream in (self.copies, self.kernels):
            if caller != stream:
                caller.wait_event(_mark(stream))

    def kernels_after_all(self) -> None:
        """Let later kernels wait for all copies and for the caller's stream."""
        self.kernels.wait_event(_mark(self.copies))
        caller = self._caller
        if caller not in (self.kernels, self.copies):
            self.kernels.wait_event(_mark(caller))

    @contextmanager
    def on_kernel_stream(self) -> Iterator[None]:
        """Run kernels on their stream without ordering them: the caller waits for the stream."""
        with self._current(self.kernels):
            yield

    def give_back(self, memory: Any) -> None:
        """Return memory to its pool as soon as nothing on the device can use it any more.

        Nothing waits for that: what is started later, the upload of the next patch above all, does
        not stand behind the kernels of now. Called by the garbage collector at any moment, so it
        only marks where streams are unless they have nothing to do; `allocate` and `let_go` look.
        """
        streams = {stream.ptr: stream for stream in (self.copies, self.kernels, self._caller)}
        if not all(stream.done for stream in streams.values()):
            self._leaving.append(([_mark(stream) for stream in streams.values()], memory))

    @property
    def leaving_bytes(self) -> int:
        """Bytes that were given back, and that kernels may still use."""
        return sum(memory.mem.size for _, memory in list(self._leaving))

    def let_go(self, *, wait: bool) -> None:
        """Drop memory that nothing uses any more."""
        with suppress(IndexError):  # another thread was quicker
            while self._leaving:
                events, memory = self._leaving.popleft()
                if wait:
                    for event in events:
                        event.synchronize()
                elif not all(event.done for event in events):
                    self._leaving.appendleft((events, memory))
                    break
                del memory

    def allocate(self, n_bytes: int) -> Any:
        """Take memory from CuPy's pool, in the order of the copy stream."""
        self.let_go(wait=False)
        with self._current(self.copies):
            # A pool has no blocks of 0 bytes, but an arena without arrays has an address too.
            n_bytes = max(n_bytes, 1)
            try:
                memory = cp.cuda.alloc(n_bytes)
            except MemoryError:
                if not self._leaving:
                    raise
                self.let_go(wait=True)
                memory = cp.cuda.alloc(n_bytes)
        if not isinstance(getattr(cp.cuda.get_allocator(), "__self__", None), cp.cuda.MemoryPool):
            # Of another allocator, as CuPy's asynchronous one, memory is there only when the stream
            # that it was asked for on has come so far; kernels may be the first to write to it.
            self.kernels.wait_event(_mark(self.copies))
        return memory

    def send(self, source: npt.NDArray[np.uint8], address: int, stream: Any = None) -> Any:
        """Start copying host memory to the device."""
        kind = cp.cuda.runtime.memcpyHostToDevice
        return self._copy(address, source.ctypes.data, source.nbytes, kind, stream)

    def receive(self, address: int, to: npt.NDArray[Any], stream: Any = None) -> Any:
        """Start copying device memory to the host."""
        kind = cp.cuda.runtime.memcpyDeviceToHost
        return self._copy(to.ctypes.data, address, to.nbytes, kind, stream)

    def mark_kernels(self) -> Any:
        """Mark the end of the kernels that were started so far."""
        return _mark(self.kernels)

    def receive_after(self, event: Any, address: int, to: npt.NDArray[Any]) -> None:
        """Copy device memory to the host as soon as an event has fired, whatever else goes on."""
        kind = cp.cuda.runtime.memcpyDeviceToHost
        self._aside.wait_event(event)
        cp.cuda.runtime.memcpyAsync(to.ctypes.data, address, to.nbytes, kind, self._aside.ptr)
        self._aside.synchronize()

    def copy(self, source: int, to: int, n_bytes: int) -> Any:
        """Start copying within the device."""
        return self._copy(to, source, n_bytes, cp.cuda.runtime.memcpyDeviceToDevice)

    def _copy(self, to: int, source: int, n_bytes: int, kind: int, stream: Any = None) -> Any:
        """Start a copy and mark its end."""
        stream = self.copies if stream is None else stream
        cp.cuda.runtime.memcpyAsync(to, source, n_bytes, kind, stream.ptr)
        return _mark(stream)


class _Loan:
    """Device memory lent by CuPy's pool, given back in the right order when it is dropped."""

    def __init__(self, n_bytes: int, streams: Streams) -> None:
        self._streams = streams
        self.memory = streams.allocate(n_bytes)

    def __del__(self) -> None:
        # A process that was forked cannot use CUDA, and has nothing to give back.
        is_owner = hasattr(self, "memory") and os.getpid() == self._streams.pid
        if is_owner and not sys.is_finalizing():
            with self._streams.device:
                self._streams.give_back(self.memory)


class CudaMemory(Memory):
    """Device memory.

    Parameters
    ----------
    n_bytes : int
        Its size.
    ledger : Ledger
        Where it is counted.
    streams : Streams
        Of the backend it belongs to.
    """

    def __init__(self, n_bytes: int, ledger: Ledger, streams: Streams) -> None:
        loan = _Loan(n_bytes, streams)
        ledger.enter(loan, n_bytes)
        super().__init__(loan.memory.ptr, n_bytes)
        # Views refer to the loan, not to the pool's block, so that it ends with the last of them.
        self._memory = cp.cuda.UnownedMemory(
            loan.memory.ptr, max(n_bytes, 1), loan, streams.device.id
        )

    def _view(self, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int) -> Any:
        return cp.ndarray(shape, dtype, cp.cuda.MemoryPointer(self._memory, offset))

    def _release(self) -> None:
        self._memory = None


def pinned_bytes(n_bytes: int) -> npt.NDArray[np.uint8]:
    """Allocate page-locked host memory that every device can copy from.

    Parameters
    ----------
    n_bytes : int
        Number of bytes. Not taken from CuPy's pool, which rounds up to a power of two.

    Returns
    -------
    ndarray of uint8, shape (n_bytes,)
        Page aligned; unlocked and freed when the last view is dropped.

    Raises
    ------
    MemoryError
        When the host has not so much that can be locked.
    """
    try:
        # A page more, to cut at pages: small blocks were seen to begin within one.
        memory = cp.cuda.PinnedMemory(n_bytes + PAGE, cp.cuda.runtime.hostAllocPortable)
    except cp.cuda.runtime.CUDARuntimeError as error:
        if error.status != _OUT_OF_MEMORY:
            raise
        raise MemoryError(str(error)) from error
    whole = np.frombuffer(cp.cuda.PinnedMemoryPointer(memory, 0), np.uint8, n_bytes + PAGE)
    start = -whole.ctypes.data % PAGE
    return whole[start : start + n_bytes]


class _Callers(threading.local):
    """Of each thread and device: the caller's stream while one of a backend is current."""

    def __init__(self) -> None:
        self.streams: dict[int, Any] = {}


_callers = _Callers()


def _mark(stream: Any) -> Any:
    """Record an event at the end of what a stream has to do."""
    event = cp.cuda.Event(disable_timing=True)
    event.record(stream)
    return event
