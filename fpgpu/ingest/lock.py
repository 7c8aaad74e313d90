"""One ingest at a time into a store folder."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fpgpu.errors import StoreBusyError
from fpgpu.stores.files.sync import write_errors
from fpgpu.stores.hdf5.locks import hold

__all__ = ["alone_in"]

LOCK_NAME = ".fpgpu-ingest.lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other ingests out of a store folder, which is made when missing.

    The meta store is read when a run begins and written when it ends; a second run would lose
    what the first one adds meanwhile. The lock ends with the process.

    Parameters
    ----------
    folder : Path
        The store folder. When it was made here and stays empty it is removed again.

    Yields
    ------
    None

    Raises
    ------
    StoreBusyError
        If another ingest is writing there.
    StoreWriteError
        If the folder cannot be made or written, or its file system has no locks.
    """
    is_new = not folder.exists()
    with write_errors(folder, "nothing was changed; give --out a folder that can be written"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = folder / LOCK_NAME
        lock.touch()
    try:
        with hold(lock, time.monotonic(), exclusive=True):
            try:
                yield
            finally:
                # While it is held: whoever opened it meanwhile sees that it is no longer the one.
                lock.unlink(missing_ok=True)
    except StoreBusyError as error:
        if not _is_about(error, lock):
            raise
        raise StoreBusyError(
            f"{folder}: another ingest is writing here; wait until it has ended, or give --out "
            "another folder"
        ) from error
    finally:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


def _is_about(error: StoreBusyError, lock: Path) -> bool:
    """Whether an error is about the lock and not about a store."""
    return str(lock) in str(error)
