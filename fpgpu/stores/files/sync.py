"""Steps that make a file's content durable, and the locks that keep writers apart."""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fpgpu.errors import FpgpuError, StoreBusyError, StoreWriteError

__all__ = [
    "NO_LOCKS",
    "StrPath",
    "copy_bytes",
    "fsync",
    "locked",
    "prepare",
    "real_path",
    "try_lock",
    "write_errors",
]

StrPath = str | os.PathLike[str]

LOCK_TIMEOUT = 10.0
LOCK_POLL = 0.005
# What file systems without locks answer; EBADF, those that lock for writing handles only.
NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL, errno.EBADF}
# Answers of file systems that cannot copy inside the kernel.
NO_KERNEL_COPY = {errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.EPERM}
COPY_CHUNK = 1 << 24


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other writers while files in it are renamed."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + LOCK_TIMEOUT
        while not try_lock(descriptor, without_locks=True):
            if time.monotonic() > deadline:
                raise StoreBusyError(
                    f"{folder}: another process has been changing files here for "
                    f"{LOCK_TIMEOUT:.0f} s; try again when it is done"
                )
            time.sleep(LOCK_POLL)
        yield
    finally:
        os.close(descriptor)


def try_lock(descriptor: int, *, without_locks: bool) -> bool:
    """Take a lock that ends with the descriptor or the process; False when another holds it.

    File systems mounted without locks answer `without_locks`.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as exc:
        if exc.errno not in NO_LOCKS:
            raise
        return without_locks
    return True


@contextmanager
def write_errors(place: Path, outcome: str = "it is as it was before") -> Iterator[None]:
    """Turn the operating system's errors into one that says where and with what outcome."""
    try:
        yield
    except FpgpuError:
        raise
    except OSError as exc:
        raise StoreWriteError(f"{place}: cannot be written: {exc}; {outcome}") from exc


def real_path(target: StrPath) -> Path:
    """Follow symbolic links, so that the link stays and its file is replaced."""
    final = Path(target).resolve()
    if final.is_dir():
        raise StoreWriteError(f"{final}: is a folder; expected a file to create or replace")
    return final


def prepare(temporary: Path, target: Path) -> None:
    """Give a temporary its final permissions and make its content durable."""
    if target.exists():
        if not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, "the file is write-protected", str(target))
        temporary.chmod(stat.S_IMODE(target.stat().st_mode))
    fsync(temporary)


def fsync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as exc:
        # Some network file systems sync files but know no syncing of folders.
        if exc.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def copy_bytes(source: int, start: int, stop: int, target: int) -> int:
    """Append a range of one open file to another; return how many bytes there were.

    The kernel copies, or shares the blocks, where the file systems allow it.
    """
    position, in_kernel = start, True
    while position < stop:
        try:
            if in_kernel:
                n = os.copy_file_range(source, target, stop - position, offset_src=position)
            else:
                n = os.write(target, os.pread(source, min(COPY_CHUNK, stop - position), position))
        except OSError as exc:
            if not in_kernel or exc.errno not in NO_KERNEL_COPY:
                raise
            in_kernel = False
            continue
        if n == 0:
            break
        position += n
    return position - start
