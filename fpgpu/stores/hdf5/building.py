"""New HDF5 files, made in memory: on a full disk HDF5 may end the interpreter."""

import io
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import h5py
import numpy as np

from fpgpu.stores.disk import write_all

__all__ = ["Skeleton", "allocate", "built", "image_of"]

Result = TypeVar("Result")

# Datasets of an exposure's size start at a page, as O_DIRECT and GPUDirect reads want them.
_ALIGNMENT = {"alignment_threshold": 65536, "alignment_interval": 4096}


class Skeleton(NamedTuple):
    """An HDF5 file without the values of its `allocate`\\ d datasets.

    Attributes
    ----------
    size : int
        Of the file, in bytes.
    pieces : list of (int, bytes)
        What it holds, by offset; all the rest is left alone.
    """

    size: int
    pieces: list[tuple[int, bytes]]

    def write(self, descriptor: int) -> None:
        """Write it into a new file, around values that may be there."""
        os.ftruncate(descriptor, self.size)
        for offset, piece in self.pieces:
            write_all(descriptor, piece, offset)


def built(fill: Callable[[h5py.File], Result]) -> tuple[Result, Skeleton]:
    """Make an HDF5 file in memory."""
    # Memory that has holes: what is allocated and not written takes none.
    with _Memory(os.memfd_create("fpgpu")) as memory:
        try:
            with h5py.File(memory, "w", **_ALIGNMENT) as h5:
                result = fill(h5)
        except AttributeError:  # what h5py may make of an error of the memory's
            if memory.error is None:
                raise
            raise memory.error from None
        descriptor = memory.fileno()
        # Of a page, what HDF5 has written: the rest may be values that are in the file already.
        places = dict.fromkeys(memory.written)
        pieces = [(start, os.pread(descriptor, n_bytes, start)) for start, n_bytes in places]
        return result, Skeleton(os.fstat(descriptor).st_size, pieces)


def image_of(fill: Callable[[h5py.File], object]) -> bytes:
    """Make a small HDF5 file in memory."""
    # HDF5 tells files in memory apart by their name.
    with h5py.File(secrets.token_hex(8), "w", driver="core", backing_store=False) as target:
        fill(target)
        target.flush()
        content: bytes = target.id.get_file_image()
    return content


def allocate(
    group: h5py.Group, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> h5py.Dataset:
    """Make a contiguous dataset that has its place in the file, and no values yet."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    kind = h5py.h5t.py_create(dtype, logical=True)
    space = h5py.h5s.create_simple(shape)
    return h5py.Dataset(h5py.h5d.create(group.id, name.encode(), kind, space, dcpl=plist))


class _Memory(io.FileIO):
    """A file in memory that writes all or raises, and keeps the error: h5py looks at neither."""

    error: BaseException | None = None

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w+b")
        self.written: list[tuple[int, int]] = []

    def write(self, data: Any) -> int:
        with self._kept():
            write_all(self.fileno(), data, self.tell())
            self.written.append((self.tell(), len(data)))
            return self.seek(len(data), os.SEEK_CUR)

    def truncate(self, size: int | None = None) -> int:
        with self._kept():
            return super().truncate(size)

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except BaseException as exc:
            self.error = exc
            raise
