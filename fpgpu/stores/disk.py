"""Files that appear or change as a whole: written beside, made durable, renamed into place."""

import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from fpgpu.errors import (
    FpgpuError,
    MissingStoreError,
    StoreConflictError,
    StoreError,
    StoreFormatError,
    StoreWriteError,
)

__all__ = [
    "DRAFT",
    "Signature",
    "StrPath",
    "after_commit",
    "fsync",
    "inside",
    "make_folders",
    "new_file",
    "open_regular",
    "read_errors",
    "read_regular",
    "real_path",
    "signature",
    "signature_if_there",
    "write_all",
    "write_beside",
    "write_errors",
]

StrPath = str | os.PathLike[str]

DRAFT = re.compile(r"\.[0-9a-f]{16}\.part(\..+)?")
"""What `write_beside` calls a file that is not complete."""


_PIECE = 4 << 20


class Signature(NamedTuple):
    """What tells that a file is still the one that was looked at."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Signature":
        """Take it from what the operating system tells."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def signature(path: StrPath | int) -> Signature:
    """Return the signature of a file, given by path or open file descriptor."""
    try:
        return Signature.of(os.stat(path))  # noqa: PTH116 (also takes a descriptor)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise MissingStoreError(f"{path}: no such file") from exc


def signature_if_there(path: StrPath) -> Signature | None:
    """Return the signature of a file, None where there is none."""
    try:
        return signature(path)
    except MissingStoreError:
        return None


@contextmanager
def write_errors(place: StrPath, outcome: str = "it is as it was before") -> Iterator[None]:
    """Turn the operating system's errors into one that says where and with what outcome."""
    try:
        yield
    except FpgpuError:
        raise
    except OSError as exc:
        raise StoreWriteError(f"{place}: cannot be written: {exc}; {outcome}") from exc


@contextmanager
def after_commit(outcome: str) -> Iterator[None]:
    """Say in an error of what is written after a commit that this one is made."""
    try:
        yield
    except StoreWriteError as exc:
        raise StoreWriteError(f"{exc}; {outcome}") from exc


@contextmanager
def read_errors(
    path: StrPath, missing: str = "does not exist any more; open the store again"
) -> Iterator[None]:
    """Turn the operating system's errors into those of a file of a store that is read."""
    try:
        yield
    except FpgpuError:
        raise
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise MissingStoreError(f"{path}: {missing}") from exc
    except OSError as exc:
        raise StoreError(f"{path}: cannot be read: {exc}") from exc


def real_path(target: StrPath) -> Path:
    """Follow symbolic links, so that the link stays and its file is replaced."""
    try:
        final = Path(target).resolve()
        is_folder = final.is_dir()
    except (OSError, RuntimeError, ValueError) as exc:
        raise StoreWriteError(f"{target}: cannot be a file: {exc}") from exc
    if is_folder:
        raise StoreWriteError(f"{final}: is a folder; expected a file to create or replace")
    return final


def inside(folder: Path, name: str, place: str) -> Path:
    """Return the real path of a file that a store names, if it lies in the store's folder."""
    path = Path(name)
    if not name or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise StoreFormatError(
            f"{place} lies in {name!r}, which is outside the folder of the store; such links are "
            "not followed"
        )
    try:
        real = (folder / path).resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise MissingStoreError(
            f"{place} lies in {folder / path}, which does not exist; put it back, open the store "
            "again if it was changed meanwhile, or add the exposure again"
        ) from exc
    except (OSError, RuntimeError) as exc:
        raise StoreFormatError(
            f"{place} lies in {folder / path}, which cannot be looked at: {exc}"
        ) from exc
    if not real.is_relative_to(folder):
        raise StoreFormatError(
            f"{place} lies in {name!r}, which leads to {real}, outside the folder of the store; "
            "such links are not followed"
        )
    return real


def open_regular(path: StrPath) -> int:
    """Open a file for reading; anything but a regular file, which might block, is refused."""
    # Without waiting: opening a pipe would last until somebody writes into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StoreFormatError(f"{path}: is no regular file")
    return descriptor


def read_regular(path: StrPath) -> tuple[bytes, Signature]:
    """Read a whole regular file, and tell its signature."""
    descriptor = open_regular(path)
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        content = stream.readall()
        return content, signature(descriptor)


def write_all(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    """Write all of some bytes; a disk that is nearly full takes only the beginning at once."""
    view = memoryview(content).cast("B")
    while view:
        n = os.pwrite(descriptor, view[:_PIECE], offset)
        if n == _PIECE:  # the disk begins with it at once, not only when it is asked to sync
            os.posix_fadvise(descriptor, offset, n, os.POSIX_FADV_DONTNEED)
        view, offset = view[n:], offset + n


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


def make_folders(folder: Path) -> None:
    """Make a folder, and those above it, durable."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        fsync(new.parent)


@contextmanager
def new_file(path: Path) -> Iterator[int]:
    """Open a new file for writing and make it durable; nothing is left of it after an error.

    Its name must be one that nobody can know before, or be created by one alone.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        try:
            yield descriptor
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


@contextmanager
def write_beside(target: StrPath, is_current: Callable[[], bool] | None = None) -> Iterator[Path]:
    """Replace a file by a new one, all at once, when the block ends without an error."""
    final = real_path(target)
    draft = final.with_name(f".{secrets.token_hex(8)}.part{final.suffix}")
    try:
        with write_errors(final):
            yield draft
            if final.exists():
                if not os.access(final, os.W_OK):
                    raise PermissionError(errno.EACCES, "the file is write-protected", str(final))
                draft.chmod(stat.S_IMODE(final.stat().st_mode))
            fsync(draft)
            if is_current is not None and not is_current():
                raise StoreConflictError(f"{final}: was changed by somebody else; try again")
            os.replace(draft, final)  # noqa: PTH105 (the crash tests stop at these calls)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
    with write_errors(final, "it is replaced, but a power failure may bring the old one back"):
        fsync(final.parent)
