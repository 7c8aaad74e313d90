"""The rollback journal of a store: what its file was before a change.

Before the first byte of a store's file changes, the bytes that will change and the file's length
are made durable in a *journal* beside it (``pixels.h5.journal``). The journal is removed after the
change is durable, which is the instant that the change happens. Whoever finds one whose writer is
dead puts the old state back first.

Each instant of a change, and what a crash there leaves:

========================================  ====================================================
writing ``.journal.part``                 the store as it was; the part is no journal yet
renamed to ``.journal``                   the store as it was; rolling back changes nothing
pixels and metadata being written         a mixture, which the journal undoes
all synced, journal still there           the new state, undone: nobody was told it is durable
journal unlinked                          the new state
========================================  ====================================================

The journal appears by a rename after it was synced, so it is whole or absent. One that is there
and does not match its checksum was damaged later; guessing would be dangerous, so it is refused.
"""

import hashlib
import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fpgpu.errors import StoreFormatError
from fpgpu.stores.files.sync import fsync

__all__ = ["Journal", "Saved", "journal_path", "write_all"]

MAGIC = b"FPGPUJ1\n"
HEADER = struct.Struct("<8sQQQ")
RANGE = struct.Struct("<QQ")
DIGEST_SIZE = hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True)
class Saved:
    """Bytes of one range of the file before and after the change."""

    offset: int
    old: bytes
    new: bytes


@dataclass(frozen=True, slots=True)
class Journal:
    """All that is needed to undo one change of a file.

    Attributes
    ----------
    old_length, new_length : int
        Length of the file in bytes before and after the change, the second not the smaller.
    ranges : sequence of Saved
        What changes below the old end. The new bytes are kept too, to tell a file that this change
        left half-way from one that somebody put or changed here afterwards.
    """

    old_length: int
    new_length: int
    ranges: Sequence[Saved]

    def write(self, store: Path) -> None:
        """Make the journal durable beside a store; from here on the change can be undone."""
        target = journal_path(store)
        part = target.with_name(target.name + ".part")
        content = self._to_bytes()
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                write_all(descriptor, content, 0)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(part, target)  # noqa: PTH104 (the crash tests count these calls)
            fsync(store.parent)
        except BaseException:
            for path in (part, target):
                with suppress(OSError):
                    os.unlink(path)  # noqa: PTH108
            raise

    @classmethod
    def read(cls, store: Path) -> "Journal":
        """Read the journal beside a store.

        Raises
        ------
        StoreFormatError
            If it is damaged.
        """
        path = journal_path(store)
        content = path.read_bytes()
        body, digest = content[:-DIGEST_SIZE], content[-DIGEST_SIZE:]
        if hashlib.sha256(body).digest() != digest or not body.startswith(MAGIC):
            raise StoreFormatError(
                f"{path}: this record of an unfinished change is damaged, so the change cannot be "
                "undone; restore the store from a copy, or remove this file and run verify()"
            )
        _, old_length, new_length, n_ranges = HEADER.unpack_from(body)
        position = HEADER.size + n_ranges * RANGE.size
        ranges = []
        for offset, length in RANGE.iter_unpack(body[HEADER.size : position]):
            middle, end = position + length, position + 2 * length
            ranges.append(Saved(offset, body[position:middle], body[middle:end]))
            position = end
        return cls(old_length, new_length, ranges)

    def roll_back(self, descriptor: int, store: Path) -> None:
        """Put the old bytes and the old length back, durably, and remove the journal.

        Raises
        ------
        StoreFormatError
            If the file is not the one that the journal was written for; nothing is changed.
        """
        if not self._fits(descriptor):
            raise StoreFormatError(
                f"{store}: is not the file that {journal_path(store).name} beside it was written "
                "for (it was replaced, or changed by another program, after a writer died); if "
                "this file is the one you want, remove the journal and run verify()"
            )
        for saved in self.ranges:
            # Only what did change: at a limit of file size the rest could not be written at all.
            if os.pread(descriptor, len(saved.old), saved.offset) != saved.old:
                write_all(descriptor, saved.old, saved.offset)
        os.ftruncate(descriptor, self.old_length)
        os.fsync(descriptor)
        os.unlink(journal_path(store))  # noqa: PTH108
        fsync(store.parent)

    def _fits(self, descriptor: int) -> bool:
        """Whether every byte of the file is as before or as after the change."""
        if not self.old_length <= os.fstat(descriptor).st_size <= self.new_length:
            return False
        for saved in self.ranges:
            found = np.frombuffer(os.pread(descriptor, len(saved.old), saved.offset), np.uint8)
            old, new = np.frombuffer(saved.old, np.uint8), np.frombuffer(saved.new, np.uint8)
            if found.size != old.size or not np.all((found == old) | (found == new)):
                return False
        return True

    def _to_bytes(self) -> bytes:
        """Serialise: header, table of ranges, old and new bytes of each, SHA-256 of all that."""
        head = HEADER.pack(MAGIC, self.old_length, self.new_length, len(self.ranges))
        table = b"".join(RANGE.pack(saved.offset, len(saved.old)) for saved in self.ranges)
        body = head + table + b"".join(saved.old + saved.new for saved in self.ranges)
        return body + hashlib.sha256(body).digest()


def journal_path(store: Path) -> Path:
    """Return where the journal of a store lies while it is being changed."""
    return store.with_name(store.name + ".journal")


def write_all(descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all bytes at an offset; the system may take them in several goes."""
    view = memoryview(data)
    while view:
        n_written = os.pwrite(descriptor, view, offset)
        view, offset = view[n_written:], offset + n_written
