"""A stand-in for CuPy: as much of it as the CUDA backend uses, on the CPU.

Streams are queues. At one pace all work is done as late as it may be: nothing runs until somebody
waits for it. At the others every second stream does its work at once and the rest as late as it
may. A missing wait between streams, or a staging slot that is used again too early, therefore gives
wrong values every time and not once in a while. Kernels are the real sources, run by g++.

It shows that the backend's own logic is right. It says nothing about CUDA or CuPy themselves.
"""

import ctypes
import importlib
import itertools
import sys
import threading
import types
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from fpgpu.backends.compiler import kernel_names
from tests.kernels.host_kernels import HostKernels

TOTAL = 1 << 30
POISON = 0xC7

Task = Callable[[], None]


class Stream:
    """A queue of work; `_progress` does the first piece of it."""

    def __init__(self, non_blocking: bool = False) -> None:
        self.queue: deque[tuple[str, Any]] = deque()
        self.at_work = False
        self.ptr = id(self)
        self.number = next(_state.numbers)
        self.device_id = _state.devices()[-1]
        _state.streams.append(self)

    @property
    def done(self) -> bool:
        return not self.queue

    def _submit(self, task: Task) -> None:
        self.queue.append(("run", task))
        if _state.pace is not None and self.number % 2 == _state.pace:
            self.synchronize()

    def launch_host_func(self, callback: Callable[[Any], object], arg: Any) -> None:
        self._submit(lambda: callback(arg) and None)

    def wait_event(self, event: "Event") -> None:
        if event.mark is not None:
            self.queue.append(("wait", event.mark))

    def _progress(self) -> None:
        # A finalizer that waits would do later work before the work it was called from.
        assert not self.at_work, "this stream is waited for from the middle of its own work"
        self.at_work = True
        kind, what = self.queue[0]
        try:
            if kind == "run":
                what()
            elif kind == "wait":
                what.reach()
            else:
                what.reached = True
        finally:
            self.queue.popleft()
            self.at_work = False

    def synchronize(self) -> None:
        with _state.lock:
            while self.queue:
                self._progress()

    def __enter__(self) -> "Stream":
        _state.current().append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _state.current().pop()


class _Mark:
    """A place in a stream's queue."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.reached = False
        stream.queue.append(("mark", self))

    def reach(self) -> None:
        while not self.reached:
            self.stream._progress()


class Event:
    """Marks a place in a stream; looking at it is what makes the stream move, a little."""

    def __init__(self, disable_timing: bool = False) -> None:
        self.mark: _Mark | None = None
        self._looks = 0
        self._device_id = _state.devices()[-1]

    def record(self, stream: Stream) -> None:
        assert self._device_id == stream.device_id, "an event and a stream of different devices"
        self.mark = _Mark(stream)
        self._looks = 0

    @property
    def done(self) -> bool:
        self._looks += 1
        # Looking never waits, not even for another thread's work.
        if self._looks > 2 and _state.lock.acquire(blocking=False):
            try:
                self.synchronize()
            finally:
                _state.lock.release()
        return self.mark is None or self.mark.reached

    def synchronize(self) -> None:
        with _state.lock:
            if self.mark is not None:
                self.mark.reach()


class Device:
    """A device that is current within its ``with`` block; device 1 exists to be foreign."""

    def __init__(self, id: int = 0) -> None:  # noqa: A002
        self.id = id
        self.compute_capability = "90"
        self.attributes = {
            "MaxThreadsPerBlock": 1024,
            "MaxGridDimX": 2**31 - 1,
            "MaxGridDimY": 65535,
            "MaxGridDimZ": 65535,
            "MaxSharedMemoryPerBlock": 49152,
            "MaxSharedMemoryPerBlockOptin": 232448,
        }

    def __enter__(self) -> "Device":
        _state.devices().append(self.id)
        return self

    def __exit__(self, *_: object) -> None:
        _state.devices().pop()


class _State:
    """What CUDA keeps for a process."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.lock = threading.RLock()
        self.used = 0
        self.pace: int | None = None
        self.kernels: HostKernels | None = None
        self.dynamic: dict[int, int] = {}
        self.forget: list[Callable[[], None]] = []
        self.allocator: Callable[[int], Any] = lambda size: MemoryPool().malloc(size)
        self.null: dict[int, Stream] = {}
        self.numbers = itertools.count(1)
        self._threads = threading.local()

    def devices(self) -> list[int]:
        """The devices that are current in this thread, the innermost last."""
        return self._threads.__dict__.setdefault("devices", [0])

    def current(self) -> list[Stream]:
        """The streams that are current in this thread on its device, the innermost last."""
        device = self.devices()[-1]
        if device not in self.null:
            self.null[device] = Stream()
            self.numbers = itertools.count(self.null[device].number)
            self.null[device].number = 0
        stacks = self._threads.__dict__.setdefault("stacks", {})
        return stacks.setdefault(device, [self.null[device]])


_state = _State()
_state.current()
Stream.null = _state.null[0]


class OutOfMemoryError(MemoryError): ...


class CUDARuntimeError(RuntimeError):
    def __init__(self, status: int) -> None:
        super().__init__(f"CUDA error {status}")
        self.status = status


class CUDADriverError(RuntimeError): ...


class _Block:
    """Device memory: poisoned when lent; when dropped, poisoned again in its stream's order."""

    def __init__(self, size: int) -> None:
        if _state.used + size > TOTAL:
            raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes")
        _state.used += size
        self.size = size
        raw = np.full(size + 512, POISON, np.uint8)
        start = -raw.ctypes.data % 512
        self.bytes = raw[start : start + size]
        self.stream = _state.current()[-1]

    def __del__(self) -> None:
        if hasattr(self, "bytes") and _state is not None:  # as it is when Python ends
            _state.used -= self.size
            memory = self.bytes
            # What is lent again is overwritten by its next user, in the order of this stream. A
            # finalizer may run in the middle of other work, so it does none itself.
            self.stream.queue.append(("run", lambda: memory.fill(POISON ^ 0xFF)))


class MemoryPool:
    """Whose method is the allocator that CuPy starts with."""

    def malloc(self, size: int) -> "MemoryPointer":
        return MemoryPointer(_Block(size), 0)


class MemoryPointer:
    def __init__(self, mem: Any, offset: int) -> None:
        self.mem = mem
        self.ptr = (mem.bytes.ctypes.data if isinstance(mem, _Block) else mem.ptr) + offset


class UnownedMemory:
    def __init__(self, ptr: int, size: int, owner: object, device_id: int) -> None:
        self.ptr, self.size, self.owner, self.device_id = ptr, size, owner, device_id


class ndarray:  # noqa: N801
    """An array in device memory; its values can only be had by copying them."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, memptr: MemoryPointer) -> None:
        self.shape, self.dtype, self.data = tuple(shape), np.dtype(dtype), memptr
        assert self.dtype.isnative, "CuPy has native dtypes only"
        assert self.dtype.kind != "V", "CuPy has no structs"
        self.device = Device(memptr.mem.device_id)
        self.size = int(np.prod(self.shape))
        self.nbytes = self.size * self.dtype.itemsize
        self.ndim = len(self.shape)
        steps = np.cumprod([self.dtype.itemsize, *self.shape[:0:-1]])[: self.ndim]
        self.strides = tuple(map(int, steps[::-1]))
        self.flags = types.SimpleNamespace(c_contiguous=True)

    def __getitem__(self, index: int | slice) -> "ndarray":
        if isinstance(index, slice):
            start, stop, step = index.indices(self.shape[0])
            assert step == 1, "only what stays contiguous"
            shape = (max(stop - start, 0), *self.shape[1:])
            row = self.nbytes // max(self.shape[0], 1)
            return ndarray(shape, self.dtype, MemoryPointer(self.data.mem, self._at(start * row)))
        if not 0 <= index < self.shape[0]:
            raise IndexError(index)
        step = self.nbytes // self.shape[0]
        return ndarray(
            self.shape[1:], self.dtype, MemoryPointer(self.data.mem, self._at(index * step))
        )

    def fill(self, value: float) -> None:
        """Write a value everywhere, in the order of the current stream."""
        pattern = np.full(self.size, value, self.dtype)
        copy_async(self.data.ptr, pattern.ctypes.data, self.nbytes, _state.current()[-1])
        _state.current()[-1]._submit(lambda: id(pattern) and None)

    def reshape(self, *shape: int) -> "ndarray":
        rest = -self.size // int(np.prod(shape)) if -1 in shape else 0
        shape = tuple(rest if length == -1 else length for length in shape)
        return ndarray(shape, self.dtype, self.data)

    def _at(self, n_bytes: int) -> int:
        return self.data.ptr - self.data.mem.ptr + n_bytes


def text_as_code(name: str, text: str, *_: Any, **__: Any) -> bytes:
    """In the place of `fpgpu.backends.compiler.machine_code`: the text stands for itself."""
    assert "#include" not in text
    return text.encode()


class Module:
    """A source whose kernels run on the CPU."""

    def load(self, cubin: bytes) -> None:
        self.code = cubin.decode()

    def get_function(self, name: str) -> "Function":
        return Function(self, name)


class Function:
    def __init__(self, module: Module, funcname: str) -> None:
        self.code, self.name = module.code, funcname
        self.ptr = id(self)
        _state.dynamic[self.ptr] = 48 << 10

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        shared_mem: int = 0,
    ) -> None:
        from fpgpu.backends.launches import Launch

        assert shared_mem <= _state.dynamic[self.ptr], "CUDA_ERROR_INVALID_VALUE"
        assert all(isinstance(arg, np.generic | ndarray) for arg in args), "not a C argument"
        values = [np.uint64(arg.data.ptr) if isinstance(arg, ndarray) else arg for arg in args]
        kernels = _state.kernels
        assert kernels is not None
        homes = (f for f, text in kernels.sources.items() if self.name in kernel_names(text))
        launch = Launch(next(homes, f"{self.name}.cu"), self.name, grid, block)
        _state.current()[-1]._submit(lambda: kernels.run(launch, values))


def copy_async(to: int, source: int, size: int, stream: Stream) -> None:
    """Copy bytes when it is the stream's turn."""
    stream._submit(lambda: ctypes.memmove(to, source, size) and None)


def _memcpy_async(to: int, source: int, size: int, kind: int, stream: int) -> None:
    copy_async(to, source, size, next(s for s in _state.streams if s.ptr == stream))


def _drain() -> None:
    """Do all the work there is."""
    for stream in _state.streams:
        stream.synchronize()


class _PageLocked(np.ndarray):
    """Page-locked memory; as with cudaFreeHost, it does not go before the work there is."""

    def __del__(self) -> None:
        for stream in list(_state.streams):
            if stream.queue:
                stream.queue.append(("run", partial(id, self.base)))


def _pinned(size: int, flags: int) -> Any:
    if size > TOTAL:
        raise CUDARuntimeError(2)
    # Small blocks of page-locked memory begin within a page.
    raw = np.empty(size + 8192, np.uint8)
    start = -raw.ctypes.data % 4096 + 512
    return raw[start : start + size].view(_PageLocked)


def set_pace(pace: int | None) -> None:
    """Choose which streams made from now on work at once: the odd (1), the even (0), or none.

    Numbers start at 1; the streams that are there from the start are number 0.
    """
    _drain()
    _state.pace = pace
    for forget in _state.forget:
        forget()
    _state.numbers = itertools.count(1)
    _state.streams[:] = _state.null.values()


def malloc_async(size: int) -> MemoryPointer:
    """Memory that is there only when its stream has come to it: what was written before is lost."""
    pointer = MemoryPointer(_Block(size), 0)
    memory = pointer.mem.bytes
    pointer.mem.stream._submit(lambda: memory.fill(POISON))
    return pointer


class MemoryAsyncPool:
    """Whose method is CUDA's asynchronous allocator."""

    malloc = staticmethod(malloc_async)


def set_allocator(allocator: Callable[[int], Any]) -> None:
    """Take memory from another allocator, in every thread."""
    _state.allocator = allocator


@contextmanager
def using_allocator(allocator: Callable[[int], Any]) -> Iterator[None]:
    """Take memory from another allocator in a ``with`` block."""
    before = _state.allocator
    set_allocator(allocator)
    try:
        yield
    finally:
        set_allocator(before)


def make_module(kernels: HostKernels) -> types.ModuleType:
    """Build the module ``cupy``, whose kernels are those given."""
    _state.allocator = MemoryPool().malloc
    _state.kernels = kernels
    cupy = types.ModuleType("cupy")
    runtime = types.SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        hostAllocPortable=1,
        memcpyHostToDevice=1,
        memcpyDeviceToHost=2,
        memcpyDeviceToDevice=3,
        memcpyAsync=_memcpy_async,
        runtimeGetVersion=lambda: 12090,
        memGetInfo=lambda: (TOTAL - _state.used, TOTAL),
        getDeviceProperties=lambda device: {"name": b"stand-in"},
    )
    cupy.cuda = types.SimpleNamespace(
        Device=Device,
        Event=Event,
        MemoryPointer=MemoryPointer,
        PinnedMemory=_pinned,
        PinnedMemoryPointer=lambda memory, offset: memory,
        Stream=Stream,
        UnownedMemory=UnownedMemory,
        MemoryPool=MemoryPool,
        MemoryAsyncPool=MemoryAsyncPool,
        set_allocator=set_allocator,
        using_allocator=using_allocator,
        get_allocator=lambda: _state.allocator,
        alloc=lambda size: _state.allocator(size),
        function=types.SimpleNamespace(Module=Module),
        driver=types.SimpleNamespace(
            CUDADriverError=CUDADriverError,
            CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK=0,
            CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8,
            funcGetAttribute=lambda attribute, func: 1024,
            funcSetAttribute=lambda func, attribute, value: _state.dynamic.update({func: value}),
        ),
        get_current_stream=lambda: _state.current()[-1],
        get_elapsed_time=lambda start, end: 1.0,
        runtime=runtime,
    )
    cupy.get_default_memory_pool = lambda: types.SimpleNamespace(free_bytes=lambda: 0)
    cupy.ndarray = ndarray
    return cupy


def install(kernels: HostKernels, *, to_stay: bool = False) -> Any:
    """Put the stand-in in the place of CuPy and return the CUDA backend's class made with it.

    Unless it is to stay, whoever imports CuPy later gets the real one.
    """
    names = ("cupy", "fpgpu.backends.cuda", "fpgpu.backends.devicememory")
    before = {name: sys.modules.pop(name, None) for name in names}
    sys.modules["cupy"] = make_module(kernels)
    try:
        # Not from the package, which has an older one as its attribute.
        cuda = importlib.import_module("fpgpu.backends.cuda")
        cuda.machine_code = text_as_code
        _state.forget.append(sys.modules["fpgpu.backends.devicememory"]._idle.clear)
    finally:
        for name, module in () if to_stay else before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
    return cuda.CudaBackend
