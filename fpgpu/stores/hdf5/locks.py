"""Locks on a store's file, the same ones that the HDF5 library takes.

A writer holds the file exclusively, a reader of its metadata shares it. The locks are ``flock``
locks on the HDF5 file itself: a plain ``h5py.File`` in another process therefore excludes our
writers, and our writers exclude it, without its knowing of fpgpu. They end with the process.
"""

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fpgpu.errors import (
    MissingStoreError,
    StoreBusyError,
    StoreError,
    StoreFormatError,
    StoreWriteError,
)
from fpgpu.stores.files.sync import NO_LOCKS

__all__ = ["hold", "is_at", "remaining"]

POLL = 0.005

_held: set[int] = set()


@contextmanager
def hold(path: Path, deadline: float, *, exclusive: bool) -> Iterator[int]:
    """Open a file and hold it against other processes.

    Parameters
    ----------
    path : pathlib.Path
        The file, which must exist.
    deadline : float
        Time of `time.monotonic` at which to give up waiting for other holders.
    exclusive : bool
        Keep everybody out and open for writing; otherwise share with other readers.

    Yields
    ------
    int
        A descriptor of the file that is at `path` now.

    Raises
    ------
    MissingStoreError, StoreFormatError
        If there is no such file, or it is no regular file.
    StoreBusyError
        If others held it until the deadline.
    StoreWriteError
        If `exclusive` and the file cannot be opened for writing or its file system has no locks.
    """
    while True:
        descriptor = _open(path, exclusive)
        _held.add(descriptor)
        try:
            _wait(path, descriptor, deadline, exclusive)
            # Whoever replaced the file while we waited left us with a lock on the old one.
            if is_at(descriptor, path):
                yield descriptor
                return
        finally:
            _release(descriptor)


def remaining(deadline: float) -> float:
    """Return the seconds left until a deadline, never negative."""
    return max(0.0, deadline - time.monotonic())


def _open(path: Path, exclusive: bool) -> int:
    """Open a regular file; a pipe or a device must not make us wait for its other end."""
    flags = (os.O_RDWR if exclusive else os.O_RDONLY) | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise MissingStoreError(f"{path}: no such store; check the path") from exc
    except IsADirectoryError as exc:
        raise StoreFormatError(f"{path}: is a folder; expected an HDF5 file") from exc
    except OSError as exc:
        if exclusive:
            raise StoreWriteError(f"{path}: cannot be opened for writing: {exc}") from exc
        raise StoreError(f"{path}: cannot be opened for reading: {exc}") from exc
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StoreFormatError(f"{path}: is no regular file; expected an HDF5 file")
    return descriptor


def _wait(path: Path, descriptor: int, deadline: float, exclusive: bool) -> None:
    """Take the lock as soon as it is free."""
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError as exc:
            if time.monotonic() >= deadline:
                raise StoreBusyError(_busy_message(path, exclusive)) from exc
        except OSError as exc:
            if exc.errno not in NO_LOCKS:
                raise StoreError(f"{path}: cannot be locked: {exc}") from exc
            if exclusive:
                raise StoreWriteError(
                    f"{path}: its file system has no file locks ({exc}), so two writers could "
                    "damage the store; write it on a local disk and copy it here"
                ) from exc
            return
        time.sleep(POLL)


def _busy_message(path: Path, exclusive: bool) -> str:
    if exclusive:
        return (
            f"{path}: another process reads or writes this store; close its handles "
            "(store.close(), or the h5py.File) or wait for it, then try again"
        )
    return f"{path}: another process is writing this store; wait for it, then try again"


def is_at(descriptor: int, path: Path) -> bool:
    """Whether a descriptor is of the file that the path names now."""
    try:
        named = os.stat(path)  # noqa: PTH116 (one call, no Path object, on the way of every read)
    except OSError:
        return False
    return os.path.samestat(named, os.fstat(descriptor))


def _release(descriptor: int) -> None:
    """Unlock for all copies of the descriptor, those of forked children too, and close it."""
    if descriptor in _held:
        _held.discard(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        except OSError as exc:
            if exc.errno not in NO_LOCKS:
                raise
        finally:
            os.close(descriptor)


def _forget_in_child() -> None:
    """Close inherited descriptors: a child must not keep alive the lock of a dead parent."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)
