"""Staging: host memory that data pass through on their way to a device, allocated once.

Page-locked memory makes transfers fast and asynchronous but takes long to allocate, so a ring of a
few slots is made once and its slots are lent out. An asynchronous transfer reads its slot long
after the call that started it has returned; a slot therefore comes back together with an event and
is lent again only after the event has fired.
"""

import os
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fpgpu.errors import LayoutError, ReleasedMemoryError, StagingBusyError, StagingError

__all__ = ["PAGE", "Event", "Slot", "StagingRing", "StagingSettings"]

PAGE = 4096
"""Bytes to which slots are aligned, enough for direct I/O and for every dtype."""

_POLL = 2e-4  # seconds between two looks at events, which give no notice when they fire


class Event(Protocol):
    """Something a device does later; `cupy.cuda.Event` is one."""

    @property
    def done(self) -> bool:
        """Whether it has happened."""
        ...


@dataclass(frozen=True)
class StagingSettings:
    """How much staging memory a backend holds and how long it waits for it.

    Parameters
    ----------
    slot_bytes : int
        Bytes of one slot, rounded up to whole pages. The largest single transfer.
    depth : int
        Number of slots: one is filled while the others are in flight.
    timeout : float
        Seconds to wait for a slot before giving up.

    Raises
    ------
    StagingError
        When a setting is not positive.
    """

    slot_bytes: int = 64 << 20
    depth: int = 3
    timeout: float = 60.0

    def __post_init__(self) -> None:
        for name in ("slot_bytes", "depth", "timeout"):
            if not getattr(self, name) > 0:
                raise StagingError(f"staging {name} is {getattr(self, name)}; it must be above 0")
        object.__setattr__(self, "slot_bytes", -(-self.slot_bytes // PAGE) * PAGE)

    @property
    def total_bytes(self) -> int:
        """Bytes of a whole ring."""
        return self.slot_bytes * self.depth

    def changed(self, **settings: Any) -> "StagingSettings":
        """Return the settings with those given replaced; None leaves one as it is."""
        return replace(self, **{k: v for k, v in settings.items() if v is not None})


class Slot:
    """A piece of staging memory in one user's hands.

    Leaving its ``with`` block gives it back, if it was not before. Made by `StagingRing.acquire`.

    Parameters
    ----------
    ring : StagingRing
        Where it belongs.
    number : int
        Which piece of the ring it is.
    array : ndarray of uint8, shape (n_bytes,)
        The memory, page aligned.
    """

    def __init__(self, ring: "StagingRing", number: int, array: npt.NDArray[np.uint8]) -> None:
        self._ring = ring
        self._number = number
        self._array: npt.NDArray[np.uint8] | None = array
        self.nbytes = array.nbytes

    @property
    def array(self) -> npt.NDArray[np.uint8]:
        """The bytes asked for, shape (n_bytes,), page aligned.

        Raises
        ------
        ReleasedMemoryError
            When the slot was given back.
        """
        if self._array is None:
            raise ReleasedMemoryError(
                "the staging slot was given back; keep it until its transfer is started"
            )
        return self._array

    @property
    def released(self) -> bool:
        """Whether the slot was given back."""
        return self._array is None

    def view(
        self, shape: int | tuple[int, ...], dtype: npt.DTypeLike, offset: int = 0
    ) -> npt.NDArray[Any]:
        """See part of the slot as an array.

        Parameters
        ----------
        shape : int or tuple of int
            Shape of the array.
        dtype : dtype
            Its dtype.
        offset : int, optional
            Byte of the slot at which it begins.

        Returns
        -------
        ndarray
            A view, C-contiguous.

        Raises
        ------
        LayoutError
            When it does not fit.
        """
        dtype = np.dtype(dtype)
        shape = (shape,) if isinstance(shape, int) else shape
        end = offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if offset < 0 or end > self.nbytes:
            raise LayoutError(
                f"an array of shape {shape} and dtype {dtype} at byte {offset} ends at byte {end};"
                f" the staging slot was asked for {self.nbytes} bytes"
            )
        return self.array[offset:end].view(dtype).reshape(shape)

    def release(self, after: Event | None = None) -> None:
        """Give the slot back."""
        if self._array is None:
            raise ReleasedMemoryError("the staging slot was given back twice")
        self._array = None
        self._ring._take_back(self._number, after)

    def __enter__(self) -> "Slot":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.released:
            self.release()

    def __del__(self) -> None:
        # A slot dropped without being given back must not be lost to the ring.
        if getattr(self, "_array", None) is not None:
            self.release()


class StagingRing:
    """A few equal pieces of one block of host memory, lent out in turn.

    Any number of threads may ask for slots. A process that was forked must make its own ring.

    Parameters
    ----------
    buffer : ndarray of uint8, shape (settings.total_bytes,)
        The memory, page aligned; page locked when transfers should be asynchronous.
    settings : StagingSettings
        Size and number of the slots.

    Raises
    ------
    LayoutError
        When the buffer has another size, or is not page aligned.
    """

    def __init__(self, buffer: npt.NDArray[np.uint8], settings: StagingSettings) -> None:
        if buffer.nbytes != settings.total_bytes or buffer.ctypes.data % PAGE:
            raise LayoutError(
                f"a staging buffer of {buffer.nbytes} bytes at {buffer.ctypes.data:#x} was given;"
                f" it must have {settings.total_bytes} bytes and begin at a multiple of {PAGE}"
            )
        self.settings = settings
        self.pid = os.getpid()
        self._slots = buffer.reshape(settings.depth, settings.slot_bytes)
        self._free = deque(range(settings.depth))
        self._in_flight: list[tuple[Event, int]] = []
        # Reentrant: the garbage collector may give a dropped slot back while the lock is held.
        self._changed = threading.Condition(threading.RLock())
        self._closed = False

    @property
    def n_free(self) -> int:
        """Number of slots that could be lent now."""
        with self._changed:
            self._collect()
            return len(self._free)

    @property
    def closed(self) -> bool:
        """Whether the ring lends no more slots."""
        return self._closed

    def acquire(self, n_bytes: int | None = None, timeout: float | None = None) -> Slot:
        """Borrow a slot, waiting for one when all are lent or in flight."""
        n_bytes = self.settings.slot_bytes if n_bytes is None else n_bytes
        if not 0 <= n_bytes <= self.settings.slot_bytes:
            raise StagingError(
                f"{n_bytes} bytes of staging memory were asked for; a slot has"
                f" {self.settings.slot_bytes}; larger ones: with backend.staging(slot_bytes=...)"
            )
        number = self._wait_for_slot(self.settings.timeout if timeout is None else timeout)
        return Slot(self, number, self._slots[number, :n_bytes])

    def _wait_for_slot(self, timeout: float) -> int:
        """Take the number of a free slot."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                if self._closed:
                    raise StagingError("the staging ring is closed; its scope has ended")
                self._collect()
                if self._free:
                    number = self._free.popleft()
                    # Hand on the watch over events, and any further slot that just came free.
                    self._changed.notify()
                    return number
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    flying = len(self._in_flight)
                    raise StagingBusyError(
                        f"no staging slot came free within {timeout:g} s: {flying} of"
                        f" {self.settings.depth} in flight, {self.settings.depth - flying} held by"
                        " callers; release slots earlier, or with backend.staging(depth=...)"
                    )
                # Slots in hands notify when they come back; events have to be looked at.
                self._changed.wait(min(remaining, _POLL) if self._in_flight else remaining)

    def _collect(self) -> None:
        """Free the slots whose events have fired."""
        flying = []
        for event, number in self._in_flight:
            if event.done:
                self._free.append(number)
            else:
                flying.append((event, number))
        self._in_flight = flying

    def _take_back(self, number: int, after: Event | None) -> None:
        """Receive a slot from its user."""
        with self._changed:
            if after is None:
                self._free.append(number)
            else:
                self._in_flight.append((after, number))
            self._changed.notify()

    def close(self) -> None:
        """Lend no more slots, and wait for those in flight.

        The memory lives on until the last slot in someone's hands is dropped.
        """
        deadline = time.monotonic() + self.settings.timeout
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._collect()
            while self._in_flight:
                if time.monotonic() > deadline:
                    raise StagingBusyError(
                        f"{len(self._in_flight)} transfers did not end within"
                        f" {self.settings.timeout:g} s of closing their staging ring"
                    )
                self._changed.wait(_POLL)
                self._collect()
