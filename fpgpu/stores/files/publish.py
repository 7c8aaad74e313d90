"""Files that change all at once or not at all.

New contents are written in a *scratch folder* beside their target, made durable, and renamed into
place. Where several files change together, an intent record names the renames before the first
one happens, so that whoever comes after a crash can finish them. Readers need no lock: while the
record is there, what they see may be half old and half new, and `recover` settles it.

A scratch folder is held by a lock that dies with its process, so what a killed writer left is told
from what a living one is writing. All of this assumes a file system where rename is atomic and
``flock`` works on folders, as local ones and modern network ones do.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fpgpu.errors import MissingStoreError, StoreConflictError, StoreWriteError
from fpgpu.stores.files.intent import (
    in_scratch,
    is_pending,
    is_shard,
    roll_forward,
    settle,
    write_record,
)
from fpgpu.stores.files.scratch import scratch_folder
from fpgpu.stores.files.sync import StrPath, fsync, locked, prepare, real_path, write_errors

__all__ = [
    "Signature",
    "Together",
    "publish",
    "recover",
    "scratch_folder",
    "signature",
    "write_beside",
]


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


@dataclass(frozen=True)
class Together:
    """What else of a folder changes in the same instant as the files of one store.

    Attributes
    ----------
    files : mapping of path to callable
        How each file is written to the path it is given.
    discard : sequence of path
        Files in folders of shards that nothing refers to afterwards: removed last of all.
    still_right : callable
        As for `publish`.
    alone : bool
        As for `scratch_folder`.
    """

    files: Mapping[Path, Callable[[Path], None]] = field(default_factory=dict)
    discard: Sequence[Path] = ()
    still_right: Callable[[], bool] = lambda: True
    alone: bool = False

    def write(self, scratch: Path) -> dict[StrPath, StrPath | None]:
        """Write all files in a scratch folder and return them as `publish` takes them."""
        for target, write in self.files.items():
            write(scratch / target.name)
        return {target: scratch / target.name for target in self.files}


def publish(
    files: Mapping[StrPath, StrPath | None],
    still_right: Callable[[], bool] | None = None,
    discard: Iterable[Path] = (),
) -> None:
    """Replace several files of one folder, all of them or none, whatever happens in between.

    Parameters
    ----------
    files : mapping of target to temporary
        The complete new content of each target, written in a `scratch_folder` of the targets'
        folder; `None` removes the target. Symbolic links are followed as by `write_beside`.
    still_right : callable, optional
        As for `write_beside`.
    discard : iterable of path, optional
        Files in folders of shards, which are removed after the new files are there to stay.

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
        if temporary is not None and not in_scratch(temporary, folder):
            raise StoreWriteError(
                f"{temporary}: temporaries must be written in a scratch folder of {folder}"
            )
    discard = [Path(path) for path in discard]
    strangers = [path for path in discard if not is_shard(folder, path)]
    if strangers:
        raise StoreWriteError(f"{strangers[0]}: is no shard of a store in {folder}; not removed")
    with write_errors(folder), locked(folder):
        settle(folder)
        if still_right is not None and not still_right():
            names = ", ".join(target.name for target in moves)
            raise StoreConflictError(
                f"{folder}: {names} were changed by somebody else since they were read; open the "
                "store again and repeat the change"
            )
        for target, temporary in moves.items():
            if temporary is not None:
                prepare(temporary, target)
        record = write_record(folder, moves, discard)
        try:
            roll_forward(folder, record)
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
    if not is_pending(folder):
        return False
    outcome = "an interrupted change is pending here and must be completed by someone who can write"
    with write_errors(folder, outcome), locked(folder):
        return settle(folder)
