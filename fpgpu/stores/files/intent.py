"""The record of a change of several files, from which whoever comes after a crash finishes it.

It is made durable before the first rename: from then on the change will happen. A change that its
record shows to be impossible (temporaries gone, nothing replaced yet) is undone instead.
"""

import hashlib
import json
import logging
import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypedDict

from fpgpu.errors import IntegrityError
from fpgpu.stores.files.sync import fsync

__all__ = [
    "RECORD_NAME",
    "SCRATCH_PREFIX",
    "SHARDS_ENDING",
    "Move",
    "in_scratch",
    "is_pending",
    "is_shard",
    "pending_scratches",
    "roll_forward",
    "settle",
    "write_record",
]

logger = logging.getLogger(__name__)

RECORD_NAME = ".fpgpu-publish.json"
SCRATCH_PREFIX = ".fpgpu-scratch-"
SHARDS_ENDING = ".shards"
"""Ending of the folders beside a store, whose files may be discarded by a change."""


class Move(TypedDict):
    """One rename of the intent record; no temporary means that the target is removed.

    The temporary is durable before the record is written, so its status tells that a file is this
    one: to read a large one again would cost more than to write it.
    """

    target: str
    temporary: str | None
    size: int
    inode: int
    mtime_ns: int


def is_pending(folder: Path) -> bool:
    """Whether a change of files of a folder was begun and not finished."""
    return os.path.lexists(folder / RECORD_NAME)


def write_record(
    folder: Path, moves: Mapping[Path, Path | None], discard: Iterable[Path]
) -> list[Move]:
    """Make the list of renames and removals durable; from here on the change will happen."""
    entries: list[Move] = []
    for target, temporary in moves.items():
        entries.append(_move(target.name, temporary))
    for path in discard:
        name = path.relative_to(folder).as_posix()
        entries.append(_move(name, None))
    text = json.dumps(entries)
    whole = {"entries": entries, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    scratch = next((t.parent for t in moves.values() if t is not None), folder)
    draft = scratch / RECORD_NAME.replace(".json", ".draft")
    draft.write_text(json.dumps(whole))
    fsync(draft)
    os.replace(draft, folder / RECORD_NAME)  # noqa: PTH105
    fsync(folder)
    return entries


def _move(target: str, temporary: Path | None) -> Move:
    """Describe a rename, or a removal."""
    if temporary is None:
        return {"target": target, "temporary": None, "size": 0, "inode": 0, "mtime_ns": 0}
    status = temporary.stat()
    return {
        "target": target,
        "temporary": f"{temporary.parent.name}/{temporary.name}",
        "size": status.st_size,
        "inode": status.st_ino,
        "mtime_ns": status.st_mtime_ns,
    }


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
    target, temporary = Path(entry["target"]), entry["temporary"]
    if len(target.parts) > 1:
        return temporary is None and is_shard(folder, folder.resolve() / target)
    return target.name == entry["target"] and (
        temporary is None or in_scratch(folder / temporary, folder)
    )


def is_shard(folder: Path, path: Path) -> bool:
    """Whether a path leads to a file in a folder of shards inside `folder`, by no link."""
    folder = folder.resolve()
    if not path.is_relative_to(folder):
        return False
    inner = path.relative_to(folder)
    return (
        len(inner.parts) > 1
        and inner.parts[0].endswith(SHARDS_ENDING)
        and ".." not in inner.parts
        and path.parent.resolve() == path.parent
    )


def in_scratch(temporary: Path, folder: Path) -> bool:
    """Whether a temporary lies directly in a scratch folder of `folder`."""
    parent = temporary.resolve().parent
    return parent.name.startswith(SCRATCH_PREFIX) and parent.parent == folder


def pending_scratches(folder: Path) -> set[str]:
    """Return the names of scratch folders that a pending record still needs."""
    entries = _read_record(folder) or []
    return {Path(entry["temporary"]).parts[0] for entry in entries if entry["temporary"]}


def settle(folder: Path) -> bool:
    """Settle a pending record; the folder's lock is held."""
    if not is_pending(folder):
        return False
    entries = _read_record(folder)
    if entries is None:
        logger.warning("%s: a damaged record of a change was removed", folder)
    elif all(_is_new(folder, entry) or _is_ready(folder, entry) for entry in entries):
        logger.warning("%s: an interrupted change was completed", folder)
        scratches = pending_scratches(folder)
        roll_forward(folder, entries)
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
    return _is_content(folder / entry["temporary"], entry)


def _is_new(folder: Path, entry: Move) -> bool:
    """Whether the target of an entry already has its new content."""
    target = folder / entry["target"]
    if entry["temporary"] is None:
        return not os.path.lexists(target)
    return _is_content(target, entry)


def _is_content(path: Path, entry: Move) -> bool:
    """Whether a file is the new content; in a copy of the folder its time may tell alone."""
    try:
        status = path.stat()
    except OSError:
        return False
    same = status.st_ino == entry["inode"] or status.st_mtime_ns == entry["mtime_ns"]
    return stat.S_ISREG(status.st_mode) and status.st_size == entry["size"] and same


def roll_forward(folder: Path, entries: list[Move]) -> None:
    """Do the renames and removals of a record that were not done yet, then remove the record."""
    discard = [folder / entry["target"] for entry in entries if "/" in entry["target"]]
    for entry in entries:
        target = folder / entry["target"]
        # Where the temporary is gone the rename has happened.
        with suppress(FileNotFoundError):
            if entry["temporary"] is not None:
                os.replace(folder / entry["temporary"], target)  # noqa: PTH105
            elif target not in discard:
                os.unlink(target)  # noqa: PTH108
    fsync(folder)
    # What the new files do not refer to any more goes after they are there to stay.
    for target in discard:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(target)  # noqa: PTH108
    os.unlink(folder / RECORD_NAME)  # noqa: PTH108
    fsync(folder)
