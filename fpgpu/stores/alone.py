"""One writer at a time in a store folder, by a file that any shared file system can hold.

The lock is a file that can be created only once (``O_EXCL``, atomic on local disks, on NFS since
version 3, on Lustre), so no locks of the file system are needed. It names its owner; the owner
touches it every few seconds. Where the owner was killed it is out of date: on the same machine at
once, because its process is gone, on another machine when it has not been touched for long.
"""

import json
import logging
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from fpgpu.errors import StoreBusyError
from fpgpu.stores.files.sync import write_errors

__all__ = ["LOCK_NAME", "FolderLock", "alone_in"]

logger = logging.getLogger(__name__)

LOCK_NAME = ".fpgpu-writer.lock"

HEARTBEAT = 15.0
"""Seconds between two signs of life."""

STALE_AFTER = 180.0
"""Seconds without a sign of life after which a writer on another machine counts as dead."""

# Whoever gives way to a lock that vanishes under its eyes may try again; not for ever.
_ATTEMPTS = 5


@dataclass(frozen=True)
class Owner:
    """Who holds a lock.

    Attributes
    ----------
    host : str
        Name of the machine, for people.
    machine : str
        What tells whether a process number of the owner means anything here: boot and namespace.
    pid : int
        Its process.
    started : str
        When that process began, in the machine's own clock ticks, as numbers are used again.
    since : str
        When it took the lock, UTC.
    token : str
        Of this lock and no other.
    """

    host: str
    machine: str
    pid: int
    started: str
    since: str
    token: str

    @classmethod
    def here(cls) -> "Owner":
        """Describe this process."""
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        pid = os.getpid()
        return cls(platform.node(), _machine(), pid, _began(pid) or "", since, secrets.token_hex(8))

    def is_dead(self) -> bool:
        """Whether it was a process of this machine that has ended."""
        return self.machine == _machine() and _began(self.pid) != self.started

    def lives_here(self) -> bool:
        """Whether it is a living process of this machine."""
        return self.machine == _machine() and not self.is_dead()


class FolderLock:
    """The right to change a store folder, held until the block of `alone_in` ends.

    Parameters
    ----------
    path : Path
        The lock file.
    owner : Owner
        This process.
    """

    def __init__(self, path: Path, owner: Owner) -> None:
        self.path = path
        self._owner = owner
        self._ended = threading.Event()
        self._beat = threading.Thread(target=self._keep_alive, name="fpgpu lock", daemon=True)
        self._beat.start()

    def check(self) -> None:
        """Make sure that the lock is still this process's own.

        Raises
        ------
        StoreBusyError
            If somebody has broken it; nothing may be changed any more.
        """
        found = _owner_of(self.path)
        if found is None or found.token != self._owner.token:
            raise StoreBusyError(
                f"{self.path.parent}: this run was taken for dead and its lock was broken"
                f"{'' if found is None else f' by {_named(found)}'}; nothing more is written by "
                "it; run it again with --resume"
            )

    def release(self) -> None:
        """Give the lock back, unless somebody has broken it meanwhile."""
        self._ended.set()
        self._beat.join()
        found = _owner_of(self.path)
        if found is not None and found.token == self._owner.token:
            try:
                self.path.unlink(missing_ok=True)
            except OSError as error:
                # Whatever the block met is told, not this; the lock ends with the process.
                logger.warning("%s: cannot be removed: %s", self.path, error)

    def _keep_alive(self) -> None:
        """Touch the lock file until the end."""
        while not self._ended.wait(HEARTBEAT):
            with suppress(OSError):
                found = _owner_of(self.path)
                if found is not None and found.token == self._owner.token:
                    os.utime(self.path)


@contextmanager
def alone_in(folder: Path, *, break_lock: bool = False) -> Iterator[FolderLock]:
    """Keep other writers out of a store folder, which is made when missing.

    Parameters
    ----------
    folder : Path
        The store folder. When it was made here and stays empty it is removed again.
    break_lock : bool, optional
        Take the lock whoever holds it; for when its owner is known to be dead.

    Yields
    ------
    FolderLock
        To be asked again before each change.

    Raises
    ------
    StoreBusyError
        If another process is changing the stores there.
    StoreWriteError
        If the folder cannot be made or written.
    """
    is_new = not folder.exists()
    with write_errors(folder, "nothing was changed; give a folder that can be written"):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = _take(folder / LOCK_NAME, break_lock)
        except BaseException:
            _remove_if_empty(folder, is_new)
            raise
    try:
        yield lock
    finally:
        lock.release()
        _remove_if_empty(folder, is_new)


def _remove_if_empty(folder: Path, is_new: bool) -> None:
    """Remove a folder that was made for nothing."""
    if is_new:
        with suppress(OSError):
            folder.rmdir()


def _take(path: Path, break_lock: bool) -> FolderLock:
    """Create the lock file, after removing one whose owner is dead."""
    for _ in range(_ATTEMPTS):
        owner = Owner.here()
        if _create(path, json.dumps(asdict(owner)).encode()):
            return FolderLock(path, owner)
        found = _owner_of(path)
        if not break_lock and not _is_stale(path, found):
            raise StoreBusyError(_busy_message(path, found))
        _break(path, found)
    raise StoreBusyError(_busy_message(path, _owner_of(path)))


def _create(path: Path, content: bytes) -> bool:
    """Create a file that nobody else can create at the same time; False when it is there."""
    try:
        _create_complete(path, content)
    except FileExistsError:
        return False
    except OSError:  # NFS has no nameless files, a container may have no /proc
        return _create_and_fill(path, content)
    return True


def _create_complete(path: Path, content: bytes) -> None:
    """Create a file that appears with its content: who is killed here leaves no nameless lock."""
    descriptor = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, 0o644)
    try:
        _write_durably(descriptor, content)
        # Told of a descriptor, Python follows the link of /proc; the path is absolute all the same.
        os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor)
    finally:
        os.close(descriptor)


def _create_and_fill(path: Path, content: bytes) -> bool:
    """Create a file, as `_create`, that is there before its content."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    try:
        _write_durably(descriptor, content)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return True


def _write_durably(descriptor: int, content: bytes) -> None:
    """Write all of a file's content."""
    while content:  # a disk that is nearly full takes only the beginning
        content = content[os.write(descriptor, content) :]
    os.fsync(descriptor)


def _is_stale(path: Path, owner: Owner | None) -> bool:
    """Whether the owner of a lock is dead, as far as can be known."""
    if owner is not None:
        if owner.is_dead():
            return True
        if owner.lives_here():
            return False
    age = _age(path)
    return age is not None and age > STALE_AFTER


def _break(path: Path, owner: Owner | None) -> None:
    """Remove a lock, but only the one that was looked at."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    found = _owner_of(aside)
    if found is not None and (owner is None or found.token != owner.token):
        # Another one has broken the old lock and taken its own between our look and our rename.
        with suppress(FileExistsError):
            os.link(aside, path)
    else:
        logger.warning(
            "%s: the lock of %s was broken", path.parent, "a dead writer" if not owner else
            _named(owner),
        )  # fmt: skip
    aside.unlink(missing_ok=True)


def _owner_of(path: Path) -> Owner | None:
    """Read who holds a lock; None when there is none or it does not say."""
    try:
        return Owner(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _age(path: Path) -> float | None:
    """Return the seconds since a file was touched, by the clock of its file system."""
    probe = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        probe.touch(exist_ok=False)
        return probe.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return None
    finally:
        probe.unlink(missing_ok=True)


def _busy_message(path: Path, owner: Owner | None) -> str:
    """Say who is in the way and what to do."""
    age = _age(path)
    life = "" if age is None else f", last sign of life {max(age, 0.0):.0f} s ago"
    who = "a process that did not say its name" if owner is None else _named(owner)
    return (
        f"{path.parent}: another process is changing the stores here ({who}{life}); wait until it "
        "has ended, or give another folder; if you know that it is dead, use --break-lock"
    )


def _named(owner: Owner) -> str:
    return f"process {owner.pid} on {owner.host} since {owner.since}"


def _machine() -> str:
    """Name this boot of this machine, and the namespace that process numbers belong to."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116 (a magic link)
    except OSError:
        return platform.node()


def _began(pid: int) -> str | None:
    """Return when a process of this machine began; None when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # State, then 18 fields, then the start time; a zombie does nothing any more.
    return None if fields[0] in "ZX" else fields[19]
