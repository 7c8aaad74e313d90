"""Text files by band and expID, known piece by piece: each is read, kept or replaced alone.

A file of a meta store is a *frame* (braces, names, separators) around one piece of text an
exposure. Its index says where each piece is and which digest it has. So one piece is read without
the others, and a new file is put together from ranges of the old one and the pieces that are new.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fpgpu.stores.files.publish import Signature, signature
from fpgpu.stores.files.sync import fsync

__all__ = ["JSON_FRAME", "FileIndex", "Frame", "Names", "OldFile", "content_digest", "write_pieces"]

Key = tuple[str, str]
Names = Mapping[str, list[str]]

DIGEST_BYTES = 32
BUFFER = 1 << 20


def content_digest(content: bytes | memoryview) -> bytes:
    """Return the SHA-256 of bytes."""
    return hashlib.sha256(content).digest()


@dataclass(frozen=True)
class Frame:
    """What stands around the pieces of a file.

    Attributes
    ----------
    head, tail : bytes
        Before and after everything.
    band, exposure : callable
        From a name to what stands before its exposures, or before its piece.
    between, close : bytes
        Between two exposures or two bands, and after the last exposure of a band.
    """

    head: bytes
    tail: bytes
    band: Callable[[str], bytes]
    exposure: Callable[[str], bytes]
    between: bytes = b""
    close: bytes = b""

    def steps(
        self, names: Names, runs: Mapping[str, int] = MappingProxyType({})
    ) -> Iterator[tuple[bytes, Key | None]]:
        """Give the frame's bytes before each piece, and at last those after all of them.

        Of as many pieces at the start of a band as `runs` says, only the first is given.
        """
        gap = self.head
        for i, (band, expIDs) in enumerate(names.items()):
            gap += (self.between if i else b"") + self.band(band)
            run = runs.get(band, 0)
            for j, expID in [*enumerate(expIDs[: min(run, 1)]), *enumerate(expIDs[run:], run)]:
                yield gap + (self.between if j else b"") + self.exposure(expID), (band, expID)
                gap = b""
            gap += self.close
        yield gap + self.tail, None


JSON_FRAME = Frame(
    head=b"{",
    tail=b"}",
    band=lambda name: json.dumps(name).encode() + b": {",
    exposure=lambda name: json.dumps(name).encode() + b": ",
    between=b", ",
    close=b"}",
)
"""The file that ``json.dumps`` makes of a dict of dicts of strings."""


@dataclass(frozen=True)
class FileIndex:
    """Which content a file has, and where in it each piece is.

    Attributes
    ----------
    size, mtime_ns : int
        Of the file when it was written.
    names : mapping of str to list of str, or None
        The expIDs of every band, in the file's order; None for a file known only as a whole.
    head : bytes
        What the file's frame begins with.
    spans : ndarray of int64, shape (n, 2)
        First byte of each piece, and the one after its last.
    digests : ndarray of uint8, shape (n, 32)
        SHA-256 of each piece; of the whole file where there are no names.
    """

    size: int
    mtime_ns: int
    names: Names | None
    head: bytes
    spans: npt.NDArray[np.int64] = field(repr=False)
    digests: npt.NDArray[np.uint8] = field(repr=False)

    def __post_init__(self) -> None:
        n = 1 if self.names is None else sum(map(len, self.names.values()))
        if self.spans.shape != (n, 2) or self.digests.shape != (n, DIGEST_BYTES):
            raise ValueError(
                f"{n} pieces, but spans of shape {self.spans.shape} and digests of shape "
                f"{self.digests.shape}"
            )

    @classmethod
    def of_whole(cls, content: bytes, seen: Signature) -> "FileIndex":
        """Describe a file in which the pieces are not known."""
        return cls(
            seen.size,
            seen.mtime_ns,
            None,
            b"",
            np.array([[0, len(content)]], np.int64),
            np.frombuffer(content_digest(content), np.uint8).reshape(1, -1),
        )

    @cached_property
    def rows(self) -> dict[Key, int]:
        """Which row is of which exposure."""
        keys = ((band, e) for band, expIDs in (self.names or {}).items() for e in expIDs)
        return {key: row for row, key in enumerate(keys)}

    def span(self, row: int) -> tuple[int, int]:
        """Return the first byte of a piece and the one after its last."""
        start, stop = self.spans[row].tolist()
        return start, stop

    def is_piece(self, row: int, content: bytes | memoryview) -> bool:
        """Whether bytes are those of a piece."""
        return content_digest(content) == bytes(self.digests[row])

    def matches(self, seen: Signature) -> bool:
        """Whether a file looks unchanged without being read."""
        return (self.size, self.mtime_ns) == seen.content

    def matches_content(self, content: bytes, frame: Frame) -> bool:
        """Whether a file has this content, whenever it was written."""
        if len(content) != self.size:
            return False
        view = memoryview(content)
        if self.names is None:
            return self.is_piece(0, view)
        position = 0
        for row, (gap, key) in enumerate(frame.steps(self.names)):
            if view[position : position + len(gap)] != gap:
                return False
            position += len(gap)
            if key is None:
                return position == self.size
            start, stop = self.span(row)
            if start != position or stop < start or not self.is_piece(row, view[start:stop]):
                return False
            position = stop
        return False


class OldFile(Protocol):
    """A file that pieces are taken from."""

    @property
    def index(self) -> FileIndex:
        """Where the pieces are."""

    def copy(self, start: int, stop: int, descriptor: int) -> None:
        """Append a range of bytes to an open file."""


def write_pieces(
    path: Path,
    frame: Frame,
    names: Names,
    pieces: Mapping[Key, bytes],
    old: OldFile | None,
) -> FileIndex:
    """Write a new file from new pieces and those of an old file.

    What stands together in the old file and stays together is copied in one go.

    Parameters
    ----------
    path : pathlib.Path
        The file to create.
    frame : Frame
        What stands around the pieces.
    names : mapping of str to list of str
        The expIDs of every band, in the new order.
    pieces : mapping of (band, expID) to bytes
        The new pieces; all others are in the old file.
    old : OldFile or None
        The old file, with the same kind of frame.

    Returns
    -------
    FileIndex
        Of the new file, which is durable.
    """
    runs = {} if old is None else _runs(names, pieces, old.index)
    writer = _Writer(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    spans, digests = [np.empty((0, 2), np.int64)], [np.empty((0, DIGEST_BYTES), np.uint8)]
    try:
        for gap, key in frame.steps(names, runs):
            if key is None:
                writer.write(gap)
            elif old is None or key in pieces:
                writer.write(gap)
                start = writer.position
                writer.write(pieces[key])
                spans.append(np.array([[start, writer.position]], np.int64))
                digest = content_digest(pieces[key])
                digests.append(np.frombuffer(digest, np.uint8).reshape(1, -1))
            else:
                row = old.index.rows[key]
                n_rows = runs.get(key[0], 1) if key[1] == names[key[0]][0] else 1
                spans.append(writer.take(gap, old, row, n_rows, key[0]))
                digests.append(old.index.digests[row : row + n_rows])
        writer.flush()
    finally:
        os.close(writer.descriptor)
    fsync(path)
    seen = signature(path)
    return FileIndex(
        seen.size, seen.mtime_ns, names, frame.head, np.concatenate(spans), np.concatenate(digests)
    )


def _runs(names: Names, pieces: Mapping[Key, bytes], old: FileIndex) -> dict[str, int]:
    """Count the pieces that each band begins with as it did in an old file."""
    replaced = {key[0] for key in pieces if key in old.rows}
    runs = {}
    for band, expIDs in (old.names or {}).items():
        if band not in replaced and names.get(band, [])[: len(expIDs)] == expIDs:
            runs[band] = len(expIDs)
    return runs


class _Writer:
    """Writes bytes and ranges of an old file; neighbouring ranges are joined before."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.position = 0
        self._buffer = bytearray()
        self._range: tuple[OldFile, int, int] | None = None
        self._last: tuple[int, str] | None = None

    def write(self, content: bytes) -> None:
        """Write bytes."""
        self._copy_range()
        self._buffer += content
        self.position += len(content)
        self._last = None
        if len(self._buffer) > BUFFER:
            self._write_buffer()

    def take(
        self, gap: bytes, old: OldFile, row: int, n_rows: int, band: str
    ) -> npt.NDArray[np.int64]:
        """Write a gap and pieces of an old file that follow each other; return where they are."""
        spans = old.index.spans[row : row + n_rows]
        start, stop = int(spans[0, 0]), int(spans[-1, 1])
        # Two pieces that follow each other in one band have the same gap in every file.
        if self._range is not None and self._last == (row - 1, band):
            self._range = old, self._range[1], stop
            self.position += len(gap)
        else:
            self.write(gap)
            self._write_buffer()
            self._range = old, start, stop
        moved: npt.NDArray[np.int64] = spans + (self.position - start)
        self._last = row + n_rows - 1, band
        self.position += stop - start
        return moved

    def flush(self) -> None:
        """Write what was held back."""
        self._copy_range()
        self._write_buffer()

    def _copy_range(self) -> None:
        if self._range is not None:
            old, start, stop = self._range
            old.copy(start, stop, self.descriptor)
            self._range = None

    def _write_buffer(self) -> None:
        view = memoryview(bytes(self._buffer))
        while view:
            view = view[os.write(self.descriptor, view) :]
        self._buffer.clear()
