"""Changing an HDF5 file so that at any instant it is as before or as after.

HDF5 edits an `Overlay`; what it changed is then written here, under a rollback `Journal`. Pixel
data do not pass through HDF5 at all: it only allocates their place.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy.typing as npt

from fpgpu.errors import FpgpuError, StoreWriteError
from fpgpu.stores.files.publish import scratch_folder
from fpgpu.stores.files.sync import fsync, locked, write_errors
from fpgpu.stores.hdf5.guard import HDF5_ERRORS, opened
from fpgpu.stores.hdf5.journal import Journal, Saved, journal_path, write_all
from fpgpu.stores.hdf5.overlay import Overlay, Segment

__all__ = ["Edit", "Pixels", "Placement", "change_file", "create_file", "roll_back", "write_draft"]

STRIP_BYTES = 4 << 20
# Datasets of an exposure's size start at a page, as O_DIRECT and GPUDirect reads want them.
ALIGNMENT = {"alignment_threshold": 65536, "alignment_interval": 4096}

Pixels = npt.NDArray[Any]
Edit = Callable[[h5py.File], "Placement"]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an edit wants pixels to be written, and which bytes must not be touched.

    Attributes
    ----------
    offset : int
        Place in the file that HDF5 has allocated for `pixels`.
    pixels : ndarray
        C-contiguous array, written as it is.
    keep : sequence of (int, int)
        Offset and length of data that the edit unlinked: readers may still be reading them.
    """

    offset: int
    pixels: Pixels
    keep: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True, slots=True)
class _Change:
    """All bytes of one change: metadata that HDF5 wrote, and pixels."""

    old_length: int
    new_length: int
    metadata: Sequence[Segment]
    pixels: Segment

    def journal(self, descriptor: int) -> Journal:
        """Collect what is overwritten below the old end of the file."""
        saved = []
        for segment in (*self.metadata, self.pixels):
            length = min(segment.end, self.old_length) - segment.offset
            if length > 0:
                old = os.pread(descriptor, length, segment.offset)
                saved.append(Saved(segment.offset, old, bytes(segment.content[:length])))
        return Journal(self.old_length, self.new_length, saved)

    def write(self, descriptor: int) -> None:
        """Write pixels, metadata and the length, and wait until they are on the disk."""
        view = memoryview(self.pixels.content)
        for start in range(0, len(view), STRIP_BYTES):
            write_all(descriptor, view[start : start + STRIP_BYTES], self.pixels.offset + start)
        for segment in self.metadata:
            write_all(descriptor, segment.content, segment.offset)
        os.ftruncate(descriptor, self.new_length)
        os.fsync(descriptor)


def change_file(descriptor: int, path: Path, edit: Edit) -> None:
    """Apply an edit to a file, completely or not at all.

    Parameters
    ----------
    descriptor : int
        The file, opened for reading and writing and locked exclusively.
    path : pathlib.Path
        Its real path; the journal is written beside it.
    edit : callable
        Gets an open `h5py.File`, changes it and says where pixels belong.

    Raises
    ------
    StoreWriteError
        If the change could not be made; the file is as it was before.
    """
    change = _planned(descriptor, path, edit, "r+")
    with write_errors(path):
        journal = change.journal(descriptor)
    try:
        journal.write(path)
        change.write(descriptor)
        os.unlink(journal_path(path))  # noqa: PTH108 (the crash tests count these calls)
    except BaseException as exc:
        _undo(journal, descriptor, path, exc)
        if isinstance(exc, OSError):
            raise StoreWriteError(
                f"{path}: cannot be written: {exc}; the store is as it was before"
            ) from exc
        raise
    with write_errors(path, "it is changed, but a power failure may bring the old state back"):
        fsync(path.parent)


def create_file(path: Path, edit: Edit) -> bool:
    """Create an HDF5 file with an edit already applied, completely or not at all.

    Parameters
    ----------
    path : pathlib.Path
        Real path of the file, which should not exist.
    edit : callable
        As in `change_file`, on an empty file.

    Returns
    -------
    bool
        False when another process has created the file meanwhile; it is left as it is.

    Raises
    ------
    StoreWriteError
        If it could not be made; there is no file then.
    """
    with scratch_folder(path.parent) as scratch:
        draft = scratch / path.name
        with write_errors(path, "nothing was left"):
            write_draft(draft, edit)
            with locked(path.parent):
                # Every fpgpu writer of a new file looks under this lock.
                if os.path.lexists(path):
                    return False
                # A journal without its store is of one that somebody removed.
                journal_path(path).unlink(missing_ok=True)
                os.rename(draft, path)  # noqa: PTH104 (the crash tests count these calls)
        with write_errors(path, "it is there, but a power failure may take it away"):
            fsync(path.parent)
    return True


def write_draft(draft: Path, edit: Edit) -> None:
    """Write a new HDF5 file with an edit applied, and wait until it is on the disk.

    Parameters
    ----------
    draft : pathlib.Path
        The file, which nobody else knows of; it must not exist.
    edit : callable
        As in `change_file`, on an empty file.

    Raises
    ------
    OSError
        If it cannot be written; part of it may be there.
    """
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        _planned(descriptor, draft, edit, "w").write(descriptor)
    finally:
        os.close(descriptor)


def roll_back(descriptor: int, path: Path) -> None:
    """Undo the change of a dead writer.

    Raises
    ------
    StoreFormatError
        If the journal is damaged or is not of this file.
    StoreWriteError
        If the old state cannot be written back; the journal stays for the next attempt.
    """
    try:
        Journal.read(path).roll_back(descriptor, path)
    except OSError as exc:
        raise StoreWriteError(
            f"{path}: a writer died during a change, and undoing it failed: {exc}; the journal "
            "stays, and the next one to open the store tries again"
        ) from exc


def _planned(descriptor: int, path: Path, edit: Edit, mode: str) -> _Change:
    """Let HDF5 edit an overlay of the file and check what it did."""
    overlay = Overlay(descriptor)
    try:
        with opened(overlay, mode, **ALIGNMENT) as h5:
            placement = edit(h5)
    except FpgpuError:
        raise
    except HDF5_ERRORS as exc:
        raise StoreWriteError(f"{path}: HDF5 cannot make this change: {exc}") from exc
    pixels = Segment(placement.offset, placement.pixels.data.cast("B"))
    metadata = overlay.changes()
    # What HDF5 freed is never reused by the same change, and pixels never overlap metadata; a
    # library that does otherwise must be stopped before it costs data.
    for start, length in [*placement.keep, (pixels.offset, len(pixels.content))]:
        if any(s.offset < start + length and start < s.end for s in metadata):
            raise StoreWriteError(f"{path}: HDF5 {h5py.version.hdf5_version} wrote over pixel data")
    # Never shorter: HDF5 may give back space at the end that readers are still reading.
    new_length = max(overlay.base_size, overlay.size, pixels.end)
    return _Change(overlay.base_size, new_length, metadata, pixels)


def _undo(journal: Journal, descriptor: int, path: Path, cause: BaseException) -> None:
    """Roll a failed change back at once; if even that fails the journal stays for later."""
    if not os.path.lexists(journal_path(path)):
        return
    try:
        journal.roll_back(descriptor, path)
    except OSError as exc:
        raise StoreWriteError(
            f"{path}: a change failed ({cause}) and undoing it failed too ({exc}); the store is "
            "restored when it is next opened with write permission"
        ) from cause
