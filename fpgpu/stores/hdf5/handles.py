"""Who in this process has which store open.

HDF5 keeps one copy of a file's metadata for all handles of a process and never notices that the
file changed under it. So all handles of a store are known here, whatever `PixelStore` object they
belong to: they are closed before the file changes and opened again when next needed. A handle that
somebody else opened with h5py cannot be closed safely; it makes a change fail, before it begins.

Locks are taken in one order, so that nobody waits in a circle: the process's lock of the file
first, the file's own lock (`fpgpu.stores.hdf5.locks`) second.
"""

import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import h5py

from fpgpu.errors import FpgpuError, StoreBusyError, StoreError, StoreFormatError, StoreWriteError
from fpgpu.stores.files.intent import is_pending
from fpgpu.stores.files.publish import Signature, recover, signature
from fpgpu.stores.files.sync import NO_LOCKS, locked, write_errors
from fpgpu.stores.hdf5 import locks
from fpgpu.stores.hdf5.change import Edit, change_file, create_file, roll_back
from fpgpu.stores.hdf5.guard import HDF5_ERRORS
from fpgpu.stores.hdf5.journal import journal_path

__all__ = ["StoreFile", "open_for_reading", "reading_errors", "store_file"]

_files: "weakref.WeakValueDictionary[str, StoreFile]" = weakref.WeakValueDictionary()
_files_lock = threading.Lock()


def store_file(path: Path) -> "StoreFile":
    """Return the one `StoreFile` of a real path in this process."""
    with _files_lock:
        known = _files.get(str(path))
        if known is None:
            known = _files[str(path)] = StoreFile(path)
        return known


class StoreFile:
    """One HDF5 file, as all stores of this process share it.

    Parameters
    ----------
    path : pathlib.Path
        Its real path; the file need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._handle: h5py.File | None = None
        self._seen: Signature | None = None
        self._users: weakref.WeakSet[object] = weakref.WeakSet()

    @contextmanager
    def reading(self, timeout: float) -> Iterator[h5py.File]:
        """Open the file for a look at its metadata while nobody changes it.

        Raises
        ------
        MissingStoreError, StoreFormatError, StoreBusyError
            If there is no such file, it cannot be read, or a writer held it for too long.
        """
        deadline = time.monotonic() + timeout
        with self._locked(deadline), self._settled(deadline):
            self._drop_stale_handle()
            with reading_errors(self.path), open_for_reading(self.path) as h5:
                yield h5

    def data(self, user: object, timeout: float) -> h5py.File:
        """Return the handle that stays open until the file changes or its users release it."""
        deadline = time.monotonic() + timeout
        with self._locked(deadline), self._settled(deadline):
            self._drop_stale_handle()
            if not self._handle:
                with reading_errors(self.path):
                    self._handle = open_for_reading(self.path)
                self._seen = signature(self.path)
            self._users.add(user)
            return self._handle

    def release(self, user: object) -> None:
        """Close the handle if nobody else uses it."""
        with self._lock:
            self._users.discard(user)
            if not self._users:
                self._close()

    def apply(self, edit: Edit, timeout: float) -> None:
        """Apply an edit to the file, completely or not at all.

        Raises
        ------
        StoreBusyError
            If a handle outside of fpgpu, another thread or another process holds the file.
        StoreWriteError
            If the change could not be made; the file is as it was before.
        """
        deadline = time.monotonic() + timeout
        with self._locked(deadline):
            self._close()
            self._refuse_foreign_handles()
            while not self._applied(edit, deadline):
                pass

    def create(self, edit: Edit, timeout: float) -> bool:
        """Create the file with an edit already applied; False when it came into being meanwhile."""
        with self._locked(time.monotonic() + timeout):
            self._finish_publication()
            return create_file(self.path, edit)

    @contextmanager
    def _locked(self, deadline: float) -> Iterator[None]:
        """Keep the other threads of this process out."""
        if not self._lock.acquire(timeout=locks.remaining(deadline)):
            raise StoreBusyError(
                f"{self.path}: another thread of this process is changing this store; try again"
            )
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def _settled(self, deadline: float) -> Iterator[None]:
        """Share the file with other readers, after undoing what a dead writer left."""
        while True:
            self._finish_publication()
            with locks.hold(self.path, deadline, exclusive=False):
                if not os.path.lexists(journal_path(self.path)):
                    yield
                    return
            self._recover(deadline)

    def _applied(self, edit: Edit, deadline: float) -> bool:
        """Apply an edit; False when the file was replaced while we waited for it."""
        self._finish_publication()
        with locks.hold(self.path, deadline, exclusive=True) as descriptor, ExitStack() as stack:
            with write_errors(self.path):
                # Whoever replaces the file does so under this lock.
                stack.enter_context(locked(self.path.parent))
            if is_pending(self.path.parent) or not locks.is_at(descriptor, self.path):
                return False
            if os.path.lexists(journal_path(self.path)):
                roll_back(descriptor, self.path)
            change_file(descriptor, self.path, edit)
            return True

    def _finish_publication(self) -> None:
        """Complete a change of several files of the folder that a crash interrupted."""
        if is_pending(self.path.parent):
            recover(self.path.parent)

    def _recover(self, deadline: float) -> None:
        """Undo the change of a writer that is dead, or wait for one that is not."""
        self._close()
        try:
            with locks.hold(self.path, deadline, exclusive=True) as descriptor:
                if os.path.lexists(journal_path(self.path)):
                    roll_back(descriptor, self.path)
        except StoreWriteError as exc:
            raise StoreError(
                f"{self.path}: a writer died during a change, which must be undone before the "
                f"store can be read, and that needs write permission: {exc}"
            ) from exc

    def _refuse_foreign_handles(self) -> None:
        """Refuse a change that another handle of this process would not see."""
        for descriptor in h5py.h5f.get_obj_ids(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE):
            if _is_open_on(descriptor, self.path):
                raise StoreBusyError(
                    f"{self.path}: is open in this process through h5py, which would go on seeing "
                    "the old content; close that h5py.File, or read through PixelStore.data"
                )

    def _drop_stale_handle(self) -> None:
        """Close a handle of a file that has changed or was replaced."""
        if self._handle and self._seen != signature(self.path):
            self._close()

    def _close(self) -> None:
        """Close the handle; the next one who needs it opens it again."""
        handle, self._handle = self._handle, None
        if handle:
            handle.close()

    def _reset_in_child(self) -> None:
        """Replace a lock that a thread of the parent may have held."""
        self._lock = threading.RLock()


@contextmanager
def reading_errors(path: Path | str) -> Iterator[None]:
    """Turn whatever h5py raises on a damaged file into one error that names the file."""
    try:
        yield
    except FpgpuError:
        raise
    except HDF5_ERRORS as exc:
        raise StoreFormatError(
            f"{path}: cannot be read as an HDF5 store: {type(exc).__name__}: {exc}; "
            "it is damaged or of another kind"
        ) from exc


def open_for_reading(path: Path) -> h5py.File:
    """Open a file for reading, also where the file system has no locks.

    Not with ``swmr=True``: there HDF5 reads metadata of a wrong checksum a hundred times more,
    waiting twice as long each time, so that a damaged file stops the process for good.
    """
    try:
        return h5py.File(path, "r")
    except OSError as exc:
        if exc.errno not in NO_LOCKS:
            raise
        return h5py.File(path, "r", locking=False)


def _is_open_on(file_id: h5py.h5f.FileID, path: Path) -> bool:
    """Whether an HDF5 file handle is of the file at a path, whatever name it was opened by."""
    try:
        if file_id.get_access_plist().get_driver() == h5py.h5fd.SEC2:
            found = os.fstat(file_id.get_vfd_handle())
        else:
            found = os.stat(file_id.name)  # noqa: PTH116 (a name in bytes)
        return os.path.samestat(found, path.stat())
    except (OSError, RuntimeError, ValueError):
        # A handle that has no file, or just lost it.
        return False


def _reset_in_child() -> None:
    global _files_lock
    _files_lock = threading.Lock()
    for known in list(_files.values()):
        known._reset_in_child()


os.register_at_fork(after_in_child=_reset_in_child)
