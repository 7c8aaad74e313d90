"""The CUDA backend: CuPy arrays, one stream for copies and one for kernels, page-locked staging.

Nothing waits for the whole device. Operations run in the order of the stream that is current where
they are called, as CuPy's own do; uploads overlap with kernels that were started before them.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import cupy as cp
import numpy as np
import numpy.typing as npt

from fpgpu.backends.arguments import (
    Clock,
    ExposurePlanes,
    PatchPixels,
    Read,
    StagedExposure,
)
from fpgpu.backends.base import Backend, MemoryState
from fpgpu.backends.compiler import OPTIONS, cache_folder, machine_code, single_file
from fpgpu.backends.devicememory import CudaMemory, Streams, pinned_bytes
from fpgpu.backends.launches import DeviceLimits, Launch, c_ints, one_launch, table_launch
from fpgpu.backends.memory import Array, Memory
from fpgpu.backends.operations import FirstBad
from fpgpu.backends.staging import Slot, StagingRing, StagingSettings
from fpgpu.backends.unpacking import batches, runs
from fpgpu.errors import (
    BackendUnavailableError,
    DeviceMemoryError,
    KernelCompileError,
    KernelLaunchError,
)
from fpgpu.layout import (
    CALIBRATE_COUNTS_DTYPE,
    CALIBRATE_DTYPE,
    NO_PIXEL,
    PATCH_DTYPE,
    SEEN_DTYPE,
    UNPACK_DTYPE,
    ImageFlag,
)

__all__ = ["CudaBackend"]

_MOST_HELD_BACK = 0.05
"""Seconds that the device is held back at most while a call to be timed is made."""

_USUAL_DYNAMIC_BYTES = 48 << 10

# What a launch needs is staged apart from patches: it must not wait for slots that callers fill.
_TABLES = StagingSettings(slot_bytes=64 << 10, depth=16)


class CudaBackend(Backend):
    """One NVIDIA device, used through CuPy and its memory pool.

    Parameters
    ----------
    device : int, optional
        Its number.
    staging : StagingSettings, optional
        Size and depth of the ring of page-locked memory.
    """

    name = "cuda"
    in_host_memory = False

    def __init__(self, device: int = 0, staging: StagingSettings | None = None) -> None:
        self._pid = os.getpid()
        self._device = cp.cuda.Device(device)
        attributes = self._device.attributes
        limits = DeviceLimits(
            threads_per_block=attributes["MaxThreadsPerBlock"],
            grid=tuple(attributes[f"MaxGridDim{axis}"] for axis in "XYZ"),
            shared_bytes_per_block=attributes["MaxSharedMemoryPerBlock"],
            dynamic_shared_bytes=attributes["MaxSharedMemoryPerBlockOptin"],
        )
        super().__init__(device, limits, staging)
        self._streams = Streams(self._device)
        self._functions: dict[tuple[str, str], Any] = {}
        self._tables = StagingRing(self._host_buffer(_TABLES.total_bytes), _TABLES)
        # One kernel is tried: that a device is there does not say that it takes what is compiled.
        self._function(one_launch("check_layout", 1))

    @property
    def description(self) -> str:
        """Name and number of the device."""
        name = cp.cuda.runtime.getDeviceProperties(self.device)["name"].decode()
        return f"CUDA device {self.device} ({name})"

    @property
    def stream(self) -> Any:
        """The stream on which kernels run, a `cupy.cuda.Stream`."""
        return self._streams.kernels

    def why_foreign(self, array: Any) -> str | None:
        """Say why an object is no CuPy array of this device, None if it is one."""
        if not isinstance(array, cp.ndarray):
            kind = f"{type(array).__module__}.{type(array).__qualname__}"
            return f"it is a {kind}, not a CuPy array; backend.upload makes one"
        if array.device.id != self.device:
            return f"it lies on device {array.device.id}, not on device {self.device}"
        return None

    def address(self, array: Array) -> int:
        """Address of an array's first element."""
        return int(array.data.ptr)

    def memory_state(self) -> MemoryState:
        """Tell how much memory the device has and how much is free."""
        with self._on_device():
            free, total = cp.cuda.runtime.memGetInfo()
            unused = cp.get_default_memory_pool().free_bytes()
        leaving = self._streams.leaving_bytes
        return MemoryState(free + unused + leaving, total, self._ledger.nbytes)

    def synchronize(self) -> None:
        """Wait for both streams."""
        with self._on_device():
            self._streams.copies.synchronize()
            self._streams.kernels.synchronize()
            self._streams.let_go(wait=True)

    def make_current_stream_wait(self) -> None:
        """Let what the caller's stream gets later come after what any thread has started."""
        with self._on_device():
            self._streams.caller_after_all()

    def time(
        self,
        call: Callable[[], object],
        repeat: int = 5,
        spoil: Callable[[], object] | None = None,
    ) -> list[float]:
        """Time what a call lets the device do, by events on it.

        The device is held back until the call has returned, so that it finds its work waiting and
        is not timed while Python prepares the next piece. A call that itself waits for the device
        is held back for 50 ms only, and is timed with its own waiting.
        """
        call()
        if spoil is not None:
            spoil()
        seconds = []
        with self._on_device():
            for _ in range(repeat):
                self.synchronize()
                start, end = cp.cuda.Event(), cp.cuda.Event()
                called = threading.Event()
                self.stream.launch_host_func(called.wait, _MOST_HELD_BACK)
                start.record(self.stream)
                self._streams.copies.wait_event(start)
                try:
                    call()
                    self._streams.kernels_after_copies()
                    end.record(self.stream)
                finally:
                    called.set()
                end.synchronize()
                seconds.append(cp.cuda.get_elapsed_time(start, end) / 1e3)
        return seconds

    def copies_to_time(self, n_bytes: int) -> dict[str, Callable[[], object]]:
        """Make the copies whose speed is a measure of the machine."""
        # Made by the first copy that needs them: page-locked memory above all takes long to get.
        pinned = cache(lambda: self._host_buffer(n_bytes))
        # Zeros never written to would be one page, which is read from the cache.
        pageable = cache(lambda: np.ones(n_bytes, np.uint8))
        device = cache(lambda place: self.empty((n_bytes,), np.uint8).data)
        send, receive, copy = self._streams.send, self._streams.receive, self._streams.copy
        return {
            "host to device, page-locked": lambda: send(pinned(), device(0).ptr),
            "host to device, pageable": lambda: send(pageable(), device(0).ptr),
            "device to host, page-locked": lambda: receive(device(0).ptr, pinned()),
            "device to device": lambda: copy(device(0).ptr, device(1).ptr, n_bytes),
        }

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """Make this device current."""
        if os.getpid() != self._pid:
            raise BackendUnavailableError(
                "this process was forked from one that uses CUDA, which then cannot be used here;"
                ' start workers with multiprocessing.get_context("spawn") or "forkserver"'
            )
        with self._device:
            yield

    def _allocate(self, n_bytes: int) -> Memory:
        with self._on_device():
            return CudaMemory(n_bytes, self._ledger, self._streams)

    def _host_buffer(self, n_bytes: int) -> npt.NDArray[np.uint8]:
        with self._on_device():
            return pinned_bytes(n_bytes)

    def _copy_in(
        self, source: npt.NDArray[np.uint8], to: Array, slot: Slot | None, fresh: bool
    ) -> None:
        with self._on_device():
            if not fresh:
                self._streams.copies_after_kernels()
            if slot is not None:
                slot.release(after=self._streams.send(source, to.data.ptr))
            else:
                self._copy_in_pieces(source, to.data.ptr)
            self._streams.kernels_after_copies()

    def _copy_in_pieces(self, source: npt.NDArray[np.uint8], address: int) -> None:
        """Send pageable memory through staging slots, one filled while others are in flight."""
        ring = self._tables if source.nbytes <= _TABLES.total_bytes else self._current_ring()
        step = ring.settings.slot_bytes
        for start in range(0, source.nbytes, step):
            piece = source[start : start + step]
            with ring.acquire(piece.nbytes) as slot:
                slot.array[...] = piece
                slot.release(after=self._streams.send(slot.array, address + start))

    def _copy_out(self, array: Array, to: npt.NDArray[Any]) -> None:
        with self._on_device():
            self._streams.copies_after_kernels()
            self._streams.receive(array.data.ptr, to).synchronize()

    def run_source(
        self, text: str, launch: Launch, arguments: Sequence[Any], options: tuple[str, ...] = ()
    ) -> None:
        """Run a kernel of another source than fpgpu's own, in the order of the caller's stream."""
        self._launch(launch, *arguments, function=self._function(launch, text, options))

    def page_locked(self, n_bytes: int) -> npt.NDArray[np.uint8]:
        """Make host memory for `exchange`.

        Parameters
        ----------
        n_bytes : int
            Its size.

        Returns
        -------
        ndarray of uint8, shape (n_bytes,)
            Page locked; freed when the last view is dropped.

        Raises
        ------
        DeviceMemoryError
            When the host has not so much that can be locked.
        """
        try:
            return self._host_buffer(n_bytes)
        except MemoryError as error:
            raise DeviceMemoryError(
                f"{n_bytes} bytes of host memory could not be locked for transfers; evaluate fewer"
                " scenes at a time"
            ) from error

    def exchange(
        self,
        sent: npt.NDArray[np.uint8],
        to: int,
        calls: Sequence[tuple[Launch, Sequence[Any]]],
        found: int,
        received: npt.NDArray[np.uint8],
    ) -> None:
        """Send bytes, run fpgpu's kernels, fetch bytes, and wait: once, for all of it.

        Everything is on one stream, after what this backend and the caller's stream had to do.
        """
        with self._on_device():
            functions = [self._function(launch) for launch, _ in calls]
            self._streams.kernels_after_all()
            self._streams.send(sent, to, self.stream)
            with self._streams.on_kernel_stream():
                for function, (launch, arguments) in zip(functions, calls, strict=True):
                    self._call(function, launch, arguments)
            self._streams.receive(found, received, self.stream)
            self.stream.synchronize()

    def _launch(self, launch: Launch, *arguments: Any, function: Any = None) -> None:
        """Run a kernel in the order of the caller's stream; of fpgpu, unless one is given."""
        function = function or self._function(launch)
        with self._on_device(), self._streams.in_order():
            self._call(function, launch, arguments)

    def _call(self, function: Any, launch: Launch, arguments: Sequence[Any]) -> None:
        """Run a kernel on the current stream."""
        shared = launch.dynamic_bytes
        try:
            if shared > _USUAL_DYNAMIC_BYTES:
                # More than every device has, which a kernel gets only when it is asked for.
                most = cp.cuda.driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                cp.cuda.driver.funcSetAttribute(function.ptr, most, shared)
            function(launch.grid, launch.block, tuple(arguments), shared)
        except cp.cuda.driver.CUDADriverError as error:
            raise KernelLaunchError(
                f"{launch.kernel} was refused on {self.description} with grid {launch.grid},"
                f" block {launch.block}: {error}"
            ) from error

    def _function(self, launch: Launch, text: str = "", options: tuple[str, ...] = OPTIONS) -> Any:
        """The kernel of a launch, loaded when it is first needed: of fpgpu, or of a given text."""
        key = text, launch.kernel
        if key not in self._functions:
            with self._on_device():
                text = text or single_file(launch.source)
                self._functions[key] = self._load(launch, text, options)
        return self._functions[key]

    def _load(self, launch: Launch, text: str, options: tuple[str, ...]) -> Any:
        """Compile a source, or take its machine code from the cache, and load it."""
        capability = int(self._device.compute_capability)
        major = cp.cuda.runtime.runtimeGetVersion() // 1000
        code = machine_code(
            launch.source, text, capability, options, cuda_major=major, cache=cache_folder()
        )
        driver = cp.cuda.driver
        try:
            module = cp.cuda.function.Module()
            module.load(code)
            function = module.get_function(launch.kernel)
            most = driver.funcGetAttribute(
                driver.CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, function.ptr
            )
        except driver.CUDADriverError as error:
            raise KernelCompileError(
                f"{launch.source} as compiled by NVRTC for compute capability {capability} is not"
                f" taken by the driver: {error}",
                source=launch.source,
                options=options,
            ) from error
        threads = launch.block[0] * launch.block[1] * launch.block[2]
        if threads > most:
            raise KernelLaunchError(
                f"{launch.kernel} wants {threads} threads a block; as compiled for this device it"
                f" can have {most}"
            )
        return function

    def _superpixelize(
        self, launch: Launch, im: Array, ierr: Array, size: int, flags: ImageFlag, out: Array
    ) -> None:
        self._launch(launch, im, ierr, out, *_image_shape(out, size), *c_ints(size, flags))

    def _images_from_superpixels(
        self,
        launch: Launch,
        superpixels: Array,
        size: int,
        flags: ImageFlag,
        im: Array,
        ierr: Array,
    ) -> None:
        shape = _image_shape(superpixels, size)
        self._launch(launch, superpixels, im, ierr, *shape, *c_ints(size, flags))

    def _calibrate(
        self,
        launch: Launch,
        exposures: Sequence[ExposurePlanes],
        size: int,
        mask_bytes: int,
        bitmask: int,
        flags: ImageFlag,
        out: Array,
    ) -> npt.NDArray[Any]:
        table = np.zeros(len(exposures), CALIBRATE_DTYPE)
        for exposure, row, to in zip(exposures, table, out, strict=True):
            for name in ("image", "error", "mask", "background", "area"):
                plane = getattr(exposure, name)
                row[name] = 0 if plane is None else plane.data.ptr
            row["superpixels"] = to.data.ptr
            row["factor"], row["inverse_factor"] = exposure.factor, 1 / exposure.factor
        counts = np.zeros(len(exposures), CALIBRATE_COUNTS_DTYPE)
        counts["first_overflow"] = NO_PIXEL
        on_device = self.upload(counts)
        self._launch(
            launch,
            self.upload(table),
            on_device,
            *_image_shape(out, size),
            *c_ints(size, mask_bytes),
            np.uint32(bitmask),
            np.int32(flags),
        )
        self.download(on_device, out=counts)
        return counts

    def _unpack(
        self,
        exposures: Sequence[StagedExposure],
        places: npt.NDArray[np.int32],
        out: PatchPixels,
        size: int,
        max_snr: float,
        read: Read,
        clock: Clock,
    ) -> FirstBad:
        """Send what is read in as few transfers as slots allow, and unpack it after each."""
        pixels, found = size * size, []
        bytes_each = 8 * pixels
        at_most = self.staging_settings.slot_bytes // bytes_each or 1
        for is_read, run in runs(exposures):
            for pieces in batches(run, at_most, at_most) if is_read else [run]:
                start, stop = pieces[0].start, pieces[-1].stop
                rows = []
                for number, begin, end in pieces:
                    exposure = exposures[number]
                    address, length = 0, 0
                    if not is_read:
                        array: Any = exposure.superpixels
                        address = array.data.ptr
                        length = array.shape[1] if array.ndim == 3 else 0
                    rows.append((address, begin - start, end - begin, length, exposure.background))
                table = np.array(rows, UNPACK_DTYPE)
                if is_read:
                    with self.stage((stop - start) * bytes_each) as slot:
                        read(start, stop, slot.view((stop - start, 2 * pixels), np.float32))
                        with clock("upload"):
                            memory = self.allocate(slot.nbytes)
                            there = memory.view((slot.nbytes,), np.uint8)
                            self.upload(slot, out=there, fresh=True)
                    table["source"] = memory.pointer + bytes_each * table["start"].astype(np.int64)
                here = out
                if stop - start < len(places):
                    here = PatchPixels(*(a[start * pixels : stop * pixels] for a in out))
                with clock("unpack"):
                    found.append(
                        (start, self._unpack_table(table, places[start:stop], here, size, max_snr))
                    )

        def first_bad() -> int | None:
            for start, look in found:
                if (bad := look()) is not None:
                    return start + bad
            return None

        return first_bad

    def _unpack_table(
        self,
        table: npt.NDArray[Any],
        places: npt.NDArray[np.int32],
        out: PatchPixels,
        size: int,
        max_snr: float,
    ) -> FirstBad:
        """Unpack what is in device memory."""
        # One transfer: the table, places, and after them what the kernel finds.
        parts = table.view(np.uint32), places.reshape(-1).view(np.uint32), [np.uint32(NO_PIXEL)]
        words = self.upload(np.concatenate(parts, dtype=np.uint32))
        first = words[-1:]
        places_there = np.uint64(words.data.ptr + table.nbytes)
        addresses = [array.data.ptr for array in out]
        wide = size % 2 == 0 and not any(at % 16 for at in (*addresses, *table["source"].tolist()))
        longest = int(table["count"].max()) * size * size // (4 if wide else 1)
        launch = table_launch("unpack", len(table), longest, wide)
        limit = np.float32(max_snr)
        self._launch(launch, words, places_there, *out, np.int32(size), limit, first)
        with self._on_device():
            unpacked = self._streams.mark_kernels()

        def first_bad() -> int | None:
            found = np.empty(1, np.uint32)
            with self._on_device():
                self._streams.receive_after(unpacked, first.data.ptr, found)
            return None if found[0] == NO_PIXEL else int(found[0])

        return first_bad

    def _check_layout(self, launch: Launch, patch: int, n_bands: int) -> npt.NDArray[Any]:
        seen = np.zeros(len(PATCH_DTYPE.names or ()), SEEN_DTYPE)
        on_device = self.empty(seen.shape, seen.dtype)
        self._launch(launch, np.uint64(patch), np.int32(n_bands), on_device)
        return self.download(on_device, out=seen)


def _image_shape(superpixels: Array, size: int) -> tuple[np.int32, ...]:
    """Pixels of the images along x and y, as a kernel takes them."""
    return c_ints(*(length * size for length in superpixels.shape[-3:-1]))
