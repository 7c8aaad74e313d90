"""Files that change all at once or not at all.

New contents are written in a *scratch folder* beside their target, made durable, and renamed into
place. Where several files change together, an intent record names the renames before the first
one happens, so that whoever comes after a crash can finish them. Readers need no lock: while the
record is there, what they see may be half old and half new, and `recover` settles it.

A scratch folder is held by a lock that dies with its process, so what a killed writer left is told
from what a living one is writing. All of this assumes a file system where rename is atomic and
``flock`` works on folders, as local ones and modern network ones do.
"""

import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypedDict

from fpgpu.errors import IntegrityError, MissingStoreError, StoreConflictError, StoreWriteError
from fpgpu.stores.files.sync import (
    StrPath,
    digest,
    fsync,
    locked,
    prepare,
    real_path,
    try_lock,
    write_errors,
)

__all__ = ["Signature", "publish", "recover", "scratch_folder", "signature", "write_beside"]

logger = logging.getLogger(__name__)

RECORD_NAME = ".fpgpu-publish.json"
SCRATCH_PREFIX = ".fpgpu-scratch-"


class Move(TypedDict):
    """One rename of the intent record; no temporary means that the target is removed."""

    target: str
    temporary: str | None
    sha256: str | None


class Signature(NamedTuple):
    """What tells that a file is still the one that was looked at."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @property
    def content(self) -> tuple[int, int]:
        """Size and modification time alone: these survive a copy that keeps times."""
        return self.size, self.mtime_ns


def signature(path: StrPath | int) -> Signature:
    """Return the signature of a file, given by path or open file descriptor.

    Raises
    ------
    MissingStoreError
        If there is no such file.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 (also takes a descriptor)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise MissingStoreError(f"{path}: no such file") from exc
    return Signature(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@contextmanager
def write_beside(target: StrPath, still_right: Callable[[], bool] | None = None) -> Iterator[Path]:
    """Replace a file by a new one, all at once, when the block ends without an error.

    Parameters
    ----------
    target : path
        The file to create or replace. Where it is a symbolic link, the file it points to is
        replaced and the link stays. Permissions of an existing file are kept.
    still_right : callable, optional
        Asked while no other writer can replace files of this folder; False gives the new content
        up, because what it was made from is out of date.

    Yields
    ------
    pathlib.Path
        Where to write the new content: a path with the target's file name in a scratch folder on
        the same file system. It does not exist yet.

    Raises
    ------
    StoreWriteError
        If the new content cannot be written or made durable; the target is as it was before.
    StoreConflictError
        If `still_right` said no.
    """
    final = real_path(target)
    with scratch_folder(final.parent) as scratch:
        temporary = scratch / final.name
        with write_errors(final):
            yield temporary
            prepare(temporary, final)
            with locked(final.parent):
                if still_right is not None and not still_right():
                    raise StoreConflictError(f"{final}: was changed by somebody else; try again")
                os.replace(temporary, final)  # noqa: PTH105 (the crash tests count these calls)
        with write_errors(final, "it is replaced, but a power failure may bring the old one back"):
            fsync(final.parent)


@contextmanager
def scratch_folder(folder: StrPath) -> Iterator[Path]:
    """Make a folder for temporaries inside `folder`, removed with its content at the end.

    What killed writers left in `folder` is finished or removed first.

    Raises
    ------
    StoreWriteError
        If `folder` does not exist or cannot be written.
    StoreBusyError
        If another process holds `folder` for longer than a publication takes.
    """
    folder = Path(folder)
    with write_errors(folder), locked(folder):
        _recover_locked(folder)
        _remove_abandoned(folder)
        scratch, descriptor = _new_scratch(folder)
    try:
        yield scratch
    finally:
        # A publication that failed half-way is finished from these temporaries by the next reader.
        if scratch.name not in _pending_scratches(folder):
            shutil.rmtree(scratch, ignore_errors=True)
        os.close(descriptor)


def publish(
    files: Mapping[StrPath, StrPath | None], still_right: Callable[[], bool] | None = None
) -> None:
    """Replace several files of one folder, all of them or none, whatever happens in between.

    Parameters
    ----------
    files : mapping of target to temporary
        The complete new content of each target, written in a `scratch_folder` of the targets'
        folder; `None` removes the target. Symbolic links are followed as by `write_beside`.
    still_right : callable, optional
        As for `write_beside`.

    Raises
    ------
    StoreWriteError
        If a step failed. Before the intent record is durable nothing has changed; after that the
        change is completed by the next `recover`, and the message says so.
    StoreConflictError
        If `still_right` said no.
    """
    moves = {
        real_path(target): None if temp is None else Path(temp) for target, temp in files.items()
    }
    folders = {target.parent for target in moves}
    if len(folders) != 1:
        listing = ", ".join(sorted(map(str, folders)))
        raise StoreWriteError(
            f"files that change together must lie in one folder; found {listing or 'no files'}"
        )
    folder = folders.pop()
    for temporary in moves.values():
        if temporary is not None and not _in_scratch(temporary, folder):
            raise StoreWriteError(
                f"{temporary}: temporaries must be written in a scratch folder of {folder}"
            )
    with write_errors(folder), locked(folder):
        _recover_locked(folder)
        if still_right is not None and not still_right():
            names = ", ".join(target.name for target in moves)
            raise StoreConflictError(
                f"{folder}: {names} were changed by somebody else since they were read; open the "
                "store again and repeat the change"
            )
        for target, temporary in moves.items():
            if temporary is not None:
                prepare(temporary, target)
        record = _write_record(folder, moves)
        try:
            _roll_forward(folder, record)
        except OSError as exc:
            raise StoreWriteError(
                f"{folder}: a change of {', '.join(t.name for t in moves)} stopped half-way "
                f"({exc}); it is completed when the store is next opened with write permission"
            ) from exc


def recover(folder: StrPath) -> bool:
    """Finish or undo a publication that a crash interrupted in `folder`.

    Parameters
    ----------
    folder : path
        The folder, or any file in it. Costs one look for the record when nothing is pending.

    Returns
    -------
    bool
        Whether something was pending.

    Raises
    ------
    StoreWriteError
        If something is pending and the folder cannot be written.
    IntegrityError
        If a temporary that the record names was damaged or removed after some files were already
        replaced, so that neither the old nor the new state can be had.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        folder = folder.parent
    if not os.path.lexists(folder / RECORD_NAME):
        return False
    outcome = "an interrupted change is pending here and must be completed by someone who can write"
    with write_errors(folder, outcome), locked(folder):
        return _recover_locked(folder)


# --- the intent record -----------------------------------------------------------------------


def _write_record(folder: Path, moves: Mapping[Path, Path | None]) -> list[Move]:
    """Make the list of renames durable; from here on the change will happen."""
    entries: list[Move] = []
    for target, temporary in moves.items():
        source = None if temporary is None else f"{temporary.parent.name}/{temporary.name}"
        checksum = None if temporary is None else digest(temporary)
        entries.append({"target": target.name, "temporary": source, "sha256": checksum})
    text = json.dumps(entries)
    whole = {"entries": entries, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    scratch = next((t.parent for t in moves.values() if t is not None), folder)
    draft = scratch / RECORD_NAME.replace(".json", ".draft")
    draft.write_text(json.dumps(whole))
    fsync(draft)
    os.replace(draft, folder / RECORD_NAME)  # noqa: PTH105
    fsync(folder)
    return entries


def _read_record(folder: Path) -> list[Move] | None:
    """Return the entries of a pending record, None when there is none or it is not whole."""
    try:
        whole = json.loads((folder / RECORD_NAME).read_bytes())
        entries: list[Move] = whole["entries"]
        checksum = hashlib.sha256(json.dumps(entries).encode()).hexdigest()
        if checksum == whole["sha256"] and all(_stays_inside(folder, e) for e in entries):
            return entries
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    return None


def _stays_inside(folder: Path, entry: Move) -> bool:
    """Whether an entry touches only the folder's own files and scratch folders."""
    temporary = entry["temporary"]
    return Path(entry["target"]).name == entry["target"] and (
        temporary is None or _in_scratch(folder / temporary, folder)
    )


def _in_scratch(temporary: Path, folder: Path) -> bool:
    """Whether a temporary lies directly in a scratch folder of `folder`."""
    parent = temporary.resolve().parent
    return parent.name.startswith(SCRATCH_PREFIX) and parent.parent == folder


def _pending_scratches(folder: Path) -> set[str]:
    """Return the names of scratch folders that a pending record still needs."""
    entries = _read_record(folder) or []
    return {Path(entry["temporary"]).parts[0] for entry in entries if entry["temporary"]}


def _recover_locked(folder: Path) -> bool:
    """Settle a pending record; the folder's lock is held."""
    if not os.path.lexists(folder / RECORD_NAME):
        return False
    entries = _read_record(folder)
    if entries is None:
        logger.warning("%s: a damaged record of a change was removed", folder)
    elif all(_is_new(folder, entry) or _is_ready(folder, entry) for entry in entries):
        logger.warning("%s: an interrupted change was completed", folder)
        scratches = _pending_scratches(folder)
        _roll_forward(folder, entries)
        for name in scratches:
            shutil.rmtree(folder / name, ignore_errors=True)
        return True
    elif any(_is_new(folder, entry) and entry["temporary"] for entry in entries):
        lost = [e["target"] for e in entries if not (_is_new(folder, e) or _is_ready(folder, e))]
        raise IntegrityError(
            f"{folder}: an interrupted change cannot be completed, the new content of "
            f"{', '.join(lost)} is gone or damaged and other files are already replaced; restore "
            f"the files from a copy, or remove {RECORD_NAME} to go on with them as they are"
        )
    else:
        logger.warning("%s: an interrupted change was undone, its temporaries are gone", folder)
    os.unlink(folder / RECORD_NAME)  # noqa: PTH108
    fsync(folder)
    return True


def _is_ready(folder: Path, entry: Move) -> bool:
    """Whether the rename of an entry can still be done."""
    if entry["temporary"] is None:
        return True
    temporary = folder / entry["temporary"]
    return temporary.is_file() and digest(temporary) == entry["sha256"]


def _is_new(folder: Path, entry: Move) -> bool:
    """Whether the target of an entry already has its new content."""
    target = folder / entry["target"]
    if entry["temporary"] is None:
        return not os.path.lexists(target)
    return target.is_file() and digest(target) == entry["sha256"]


def _roll_forward(folder: Path, entries: list[Move]) -> None:
    """Do the renames and removals of a record that were not done yet, then remove the record."""
    for entry in entries:
        target = folder / entry["target"]
        # Where the temporary is gone the rename has happened.
        with suppress(FileNotFoundError):
            if entry["temporary"] is None:
                os.unlink(target)  # noqa: PTH108
            else:
                os.replace(folder / entry["temporary"], target)  # noqa: PTH105
    fsync(folder)
    os.unlink(folder / RECORD_NAME)  # noqa: PTH108
    fsync(folder)


# --- scratch folders and locks ---------------------------------------------------------------


def _new_scratch(folder: Path) -> tuple[Path, int]:
    """Create a scratch folder and hold its lock until the descriptor is closed."""
    scratch = folder / f"{SCRATCH_PREFIX}{secrets.token_hex(8)}"
    scratch.mkdir()
    descriptor = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY)
    try_lock(descriptor, without_locks=True)
    return scratch, descriptor


def _remove_abandoned(folder: Path) -> None:
    """Remove scratch folders whose writer is dead; the folder's lock is held."""
    with os.scandir(folder) as entries:
        scratches = [Path(e.path) for e in entries if e.name.startswith(SCRATCH_PREFIX)]
    for scratch in scratches:
        with suppress(OSError):
            descriptor = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                # Where there are no locks a living writer cannot be told from a dead one.
                if try_lock(descriptor, without_locks=False):
                    shutil.rmtree(scratch, ignore_errors=True)
            finally:
                os.close(descriptor)
