"""What a backend is: memory, transfers and operations, in one object that is passed explicitly."""

import os
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fpgpu.backends.launches import DeviceLimits
from fpgpu.backends.memory import Array, Ledger, Memory
from fpgpu.backends.operations import Operations
from fpgpu.backends.staging import Slot, StagingRing, StagingSettings
from fpgpu.errors import DeviceMemoryError, LayoutError

__all__ = ["Backend", "MemoryState"]


class MemoryState(NamedTuple):
    """Memory of a backend's device, in bytes.

    Attributes
    ----------
    free : int
        Not used by anybody.
    total : int
        All the device has.
    resident : int
        Held by the allocations of this backend object.
    """

    free: int
    total: int
    resident: int


class Backend(Operations):
    """Where arrays live and kernels run.

    A backend may be used by several threads. It can be pickled: in another process it becomes a
    backend of the same kind on the same device, with memory of its own.

    Parameters
    ----------
    device : int or None
        Number of the device; None for the host.
    limits : DeviceLimits
        What one launch may ask of it.
    staging : StagingSettings, optional
        Size and depth of the staging ring; it is allocated when it is first used.
    """

    def __init__(
        self, device: int | None, limits: DeviceLimits, staging: StagingSettings | None = None
    ) -> None:
        self.device = device
        self.limits = limits
        self.staging_settings = StagingSettings() if staging is None else staging
        self._ledger = Ledger()
        self._ring: StagingRing | None = None

    @property
    @abstractmethod
    def description(self) -> str:
        """The device in words."""

    @abstractmethod
    def memory_state(self) -> MemoryState:
        """Tell how much memory the device has and how much is free.

        Returns
        -------
        MemoryState
            In bytes.
        """

    def has_free(self, n_bytes: int) -> bool:
        """Tell whether so much memory is free.

        Parameters
        ----------
        n_bytes : int
            Bytes.

        Returns
        -------
        bool
            As `memory_state` says, or sooner.
        """
        return n_bytes <= self.memory_state().free

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until everything that was started has ended."""

    @abstractmethod
    def make_current_stream_wait(self) -> None:
        """Make the caller's current stream wait for all work that any thread has started so far.

        Needed where arrays were made by another thread, or while another stream was current.
        Nothing waits on the host.
        """

    @abstractmethod
    def time(
        self,
        call: Callable[[], object],
        repeat: int = 5,
        spoil: Callable[[], object] | None = None,
    ) -> list[float]:
        """Time a call on the device's own clock.

        Parameters
        ----------
        call : callable
            Starts operations of this backend. It is called once more before, to warm up.
        repeat : int, optional
            How often to time it.
        spoil : callable, optional
            Called after the warm-up, to fill outputs with what cannot be right: what is there
            afterwards was then written while it was timed.

        Returns
        -------
        list of float
            Seconds of each repetition.
        """

    @abstractmethod
    def copies_to_time(self, n_bytes: int) -> dict[str, Callable[[], object]]:
        """Make the copies whose speed is a measure of the machine.

        Parameters
        ----------
        n_bytes : int
            Bytes that each of them copies.

        Returns
        -------
        dict of str to callable
            Calls for `time`, by the name of the copy.
        """

    @abstractmethod
    def _allocate(self, n_bytes: int) -> Memory:
        """Make an allocation, or raise the MemoryError of whoever owns the memory."""

    @abstractmethod
    def _host_buffer(self, n_bytes: int) -> npt.NDArray[np.uint8]:
        """Make page-aligned host memory that transfers are fast from."""

    @abstractmethod
    def _copy_in(
        self, source: npt.NDArray[np.uint8], to: Array, slot: Slot | None, fresh: bool
    ) -> None:
        """Copy host bytes to a contiguous array; take the slot they are in back in time."""

    @abstractmethod
    def _copy_out(self, array: Array, to: npt.NDArray[Any]) -> None:
        """Copy an array to a contiguous host array and wait for it."""

    @property
    def live_allocations(self) -> int:
        """Number of allocations of this object that were not freed."""
        return self._ledger.count

    def allocate(self, n_bytes: int) -> Memory:
        """Allocate device memory.

        Parameters
        ----------
        n_bytes : int
            Its size; not initialised.

        Returns
        -------
        Memory
            With the address and views as arrays; freed by its `free`, or when it is dropped.

        Raises
        ------
        LayoutError
            When the size is negative.
        DeviceMemoryError
            When there is not enough. Nothing is kept and the device stays usable.
        """
        if n_bytes < 0:
            raise LayoutError(f"{n_bytes} bytes cannot be allocated")
        try:
            return self._allocate(n_bytes)
        except MemoryError as error:
            state = self.memory_state()
            raise DeviceMemoryError(
                f"{n_bytes:,} bytes were asked for on {self.description}: {state.free:,} of"
                f" {state.total:,} are free, {state.resident:,} are held by"
                f" {self.live_allocations} allocations of this backend; free patches that are no"
                " longer needed or take fewer at a time"
            ) from error

    def empty(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Array:
        """Make an array of the backend, not initialised.

        Parameters
        ----------
        shape : sequence of int
            Its shape.
        dtype : dtype
            Its dtype; a struct comes as words with one more axis.

        Returns
        -------
        array
            C-contiguous; its memory is freed with it.

        Raises
        ------
        DeviceMemoryError
            When there is not enough memory.
        """
        n_bytes = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
        return self.allocate(n_bytes).view(tuple(shape), dtype)

    def upload(
        self, source: npt.NDArray[Any] | Slot, out: Array | None = None, fresh: bool = False
    ) -> Array:
        """Copy from the host to the device.

        Parameters
        ----------
        source : ndarray or Slot
            Host array of any layout; or a staging slot, which is given back by this call and must
            not be touched afterwards.
        out : array, optional
            Where to put it: an array of as many bytes, such as a section of an arena.
        fresh : bool, optional
            Whether nothing on the device has used `out` yet, so that the transfer need not wait
            for the operations started before.

        Returns
        -------
        array
            Of the shape and native dtype of the source (uint8 for a slot). Operations of this
            backend that are started later see the copied bytes; nothing waits for the transfer.

        Raises
        ------
        LayoutError
            When `out` has another size.
        StagingBusyError
            When no staging slot came free in time.
        """
        slot = source if isinstance(source, Slot) else None
        host = slot.array if slot is not None else np.ascontiguousarray(source)
        if out is None:
            out, fresh = self.empty(host.shape, host.dtype), True
        elif self.why_foreign(out) or not out.flags.c_contiguous or out.nbytes != host.nbytes:
            raise LayoutError(
                f"{host.nbytes} bytes cannot be uploaded to out:"
                f" {self.why_foreign(out) or f'it has {out.nbytes} and must be C-contiguous'}"
            )
        try:
            if host.nbytes:
                self._copy_in(host.reshape(-1).view(np.uint8), out, slot, fresh)
        finally:
            if slot is not None and not slot.released:
                slot.release()
        return out

    def download(self, array: Array, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Copy from the device to the host, when all operations started before have ended.

        Parameters
        ----------
        array : array
            C-contiguous array of the backend.
        out : ndarray, optional
            Where to put it: C-contiguous, as many bytes; of a staging slot for speed.

        Returns
        -------
        ndarray
            The values.

        Raises
        ------
        LayoutError
            When the array is not of this backend or `out` does not fit.
        """
        reason = self.why_foreign(array)
        if reason or not array.flags.c_contiguous:
            raise LayoutError(f"cannot download: {reason or 'the array is not C-contiguous'}")
        if out is None:
            out = np.empty(array.shape, array.dtype)
        elif out.nbytes != array.nbytes or not out.flags.c_contiguous or not out.flags.writeable:
            raise LayoutError(
                f"out has {out.nbytes} bytes; expected {array.nbytes}, C-contiguous and writeable"
            )
        if array.nbytes:
            self._copy_out(array, out)
        return out

    def stage(self, n_bytes: int | None = None, timeout: float | None = None) -> Slot:
        """Borrow staging memory to fill and upload.

        Parameters
        ----------
        n_bytes : int, optional
            Bytes needed; a whole slot by default.
        timeout : float, optional
            Seconds to wait for a slot; that of the settings by default.

        Returns
        -------
        Slot
            Page-aligned host memory, page locked on CUDA.

        Raises
        ------
        StagingError
            When more is needed than a slot has.
        StagingBusyError
            When no slot came free in time.
        """
        return self._current_ring().acquire(n_bytes, timeout)

    @contextmanager
    def staging(
        self,
        slot_bytes: int | None = None,
        depth: int | None = None,
        timeout: float | None = None,
    ) -> Iterator[StagingRing]:
        """Use another staging ring within a ``with`` block; it is freed at its end.

        The setting belongs to this object and holds for all threads that use it.

        Parameters
        ----------
        slot_bytes, depth, timeout : optional
            As in `StagingSettings`; those in force are kept for what is not given.

        Yields
        ------
        StagingRing
            The ring of the block.
        """
        before = self.staging_settings, self._ring
        self.staging_settings = self.staging_settings.changed(
            slot_bytes=slot_bytes, depth=depth, timeout=timeout
        )
        self._ring = None
        try:
            ring = self._current_ring()
            try:
                yield ring
            finally:
                ring.close()
        finally:
            self.staging_settings, self._ring = before

    def _current_ring(self) -> StagingRing:
        """Return the staging ring of this process, made when it is first needed."""
        ring = self._ring
        if ring is None or ring.pid != os.getpid():
            with _ring_creation:
                ring = self._ring
                if ring is None or ring.pid != os.getpid():
                    settings = self.staging_settings
                    ring = StagingRing(self._staging_buffer(settings), settings)
                    self._ring = ring
        return ring

    def _staging_buffer(self, settings: StagingSettings) -> npt.NDArray[np.uint8]:
        """Allocate the memory of a ring."""
        try:
            return self._host_buffer(settings.total_bytes)
        except MemoryError as error:
            raise DeviceMemoryError(
                f"{settings.depth} staging slots of {settings.slot_bytes:,} bytes could not be"
                " allocated in host memory; use fewer or smaller ones: with backend.staging(...)"
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.device, self.staging_settings)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self.description}>"


_ring_creation = threading.Lock()


def _renew_lock() -> None:
    """Replace a lock that another thread may have held when this process was forked."""
    global _ring_creation
    _ring_creation = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)
