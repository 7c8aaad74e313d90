"""Folders for the temporaries of a change, which tell a dead writer's from a living one's."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fpgpu.stores.files.intent import SCRATCH_PREFIX, pending_scratches, settle
from fpgpu.stores.files.sync import StrPath, locked, try_lock, write_errors

__all__ = ["scratch_folder", "scratch_folders"]


@contextmanager
def scratch_folder(folder: StrPath, *, alone: bool = False) -> Iterator[Path]:
    """Make a folder for temporaries inside `folder`, removed with its content at the end.

    What killed writers left in `folder` is finished or removed first.

    Parameters
    ----------
    folder : path
        An existing folder.
    alone : bool, optional
        The caller knows that nobody else is writing here, so that leftovers can be told from work
        in progress where the file system has no locks.

    Yields
    ------
    pathlib.Path
        The new folder.

    Raises
    ------
    StoreWriteError
        If `folder` does not exist or cannot be written.
    StoreBusyError
        If another process holds `folder` for longer than a publication takes.
    """
    folder = Path(folder)
    with write_errors(folder), locked(folder):
        settle(folder)
        _remove_abandoned(folder, alone)
        scratch, descriptor = _new_scratch(folder)
    try:
        yield scratch
    finally:
        # A publication that failed half-way is finished from these temporaries by the next reader.
        if scratch.name not in pending_scratches(folder):
            shutil.rmtree(scratch, ignore_errors=True)
        os.close(descriptor)


def _new_scratch(folder: Path) -> tuple[Path, int]:
    """Create a scratch folder and hold its lock until the descriptor is closed."""
    scratch = folder / f"{SCRATCH_PREFIX}{secrets.token_hex(8)}"
    scratch.mkdir()
    descriptor = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY)
    try_lock(descriptor, without_locks=True)
    return scratch, descriptor


def scratch_folders(folder: Path) -> list[Path]:
    """Return all scratch folders, those in use and those left behind."""
    with os.scandir(folder) as entries:
        return sorted(Path(e.path) for e in entries if e.name.startswith(SCRATCH_PREFIX))


def _remove_abandoned(folder: Path, alone: bool) -> None:
    """Remove scratch folders whose writer is dead; the folder's lock is held."""
    for scratch in scratch_folders(folder):
        with suppress(OSError):
            descriptor = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                # Where there are no locks a living writer cannot be told from a dead one.
                if try_lock(descriptor, without_locks=alone):
                    shutil.rmtree(scratch, ignore_errors=True)
            finally:
                os.close(descriptor)
