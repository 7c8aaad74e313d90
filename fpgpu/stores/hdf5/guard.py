"""Keeping HDF5 from following damaged string attributes.

Strings of variable length, as forcepho writes them, lie in *global heaps*; an attribute only holds
``(length, address of the heap, index in it)``. HDF5 (2.0 at least) believes these: a heap whose
free space has size zero makes it loop for ever, an index that the heap does not have makes it
read through a null pointer. So where such attributes are read, HDF5 reads the file through an
object of ours, and each heap is checked before HDF5 gets to see it.

Layout: HDF5 File Format Specification 3.0, section III.E, "Disk Format: Level 1E - Global Heap".
"""

import io
import math
import os
import struct
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import h5py

from fpgpu.stores.disk import open_regular

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["HDF5_ERRORS", "attributes_of", "opened_guarded"]

HDF5_ERRORS = (
    ArithmeticError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What h5py raises when a file is damaged."""

SIGNATURE = b"GCOL"
COLLECTION = struct.Struct("<4sB3xQ")
OBJECT = struct.Struct("<HHIQ")
REFERENCE = struct.Struct("<IQI")
_LARGEST_HEADER = 1 << 16


def _objects(offset: int, heap: memoryview) -> Iterator[tuple[int, int]]:
    """Yield index and size of the objects in a heap."""
    position = COLLECTION.size
    while position + OBJECT.size <= len(heap):
        index, _, _, size = OBJECT.unpack_from(heap, position)
        # The size of free space, object 0, counts its own head; others are padded to 8 bytes.
        step = size if index == 0 else OBJECT.size + -(-size // 8) * 8
        if step < OBJECT.size or position + step > len(heap):
            raise OSError(f"object {index} of the global heap at {offset} has size {size}")
        if index:
            yield index, size
        position += step


class _Checked(io.RawIOBase):
    """A file as h5py wants one, of which HDF5 gets no global heap that would do it harm.

    HDF5 calls it, and an exception must not travel through HDF5's own code, which may go on to
    call again. So an error is kept, HDF5 gets zeros, which are no valid metadata, and
    `opened_guarded` raises the error when HDF5 is out of the way.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._size = os.fstat(descriptor).st_size
        self._descriptor = descriptor
        self.error: BaseException | None = None
        self._position = 0
        self._headers: list[bytes] = []

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill a buffer; bytes past the end, and all after an error, are zero."""
        view = memoryview(buffer).cast("B")
        start = self._position
        try:
            if self.error is None:
                n_read = os.preadv(self._descriptor, [view], start) if start < self._size else 0
                view[n_read:] = bytes(len(view) - n_read)
                self._look(start, view)
        except BaseException as exc:  # noqa: BLE001 (raised by `opened_guarded`; an interrupt, too)
            # Its frames lead to those of h5py: see `opened_guarded`.
            self.error = exc.with_traceback(None)
        if self.error is not None:
            view[:] = bytes(len(view))
        self._position += len(view)
        return len(view)

    def _look(self, offset: int, block: memoryview) -> None:
        """Refuse a global heap that would make HDF5 hang or crash."""
        if bytes(block[:4]) == SIGNATURE:
            size = COLLECTION.unpack_from(block)[2] if len(block) >= COLLECTION.size else 0
            # HDF5 reads the beginning first, to learn the size, and then the whole.
            if size <= len(block):
                self._check_heap(offset, block[:size])
        elif len(block) <= _LARGEST_HEADER:
            self._headers.append(bytes(block))

    def _check_heap(self, offset: int, heap: memoryview) -> None:
        """Check a heap and whatever refers to it in the headers that were read before."""
        sizes = dict(_objects(offset, heap))
        address = offset.to_bytes(8, "little")
        for header in self._headers:
            found = header.find(address)
            while found != -1:
                start = found - 4
                if 0 <= start <= len(header) - REFERENCE.size:
                    length, _, index = REFERENCE.unpack_from(header, start)
                    if index not in sizes or sizes[index] < length:
                        raise OSError(
                            f"an attribute of {length} bytes is said to be object {index} of the "
                            f"global heap at {offset}, which has no such object"
                        )
                found = header.find(address, found + 1)


def attributes_of(node: h5py.Group | h5py.Dataset, *, strings: bool) -> dict[str, Any]:
    """Return the attributes of a group or dataset that are numbers or, if asked for, strings.

    Strings only of a file that was opened by `opened_guarded`.
    """
    found = {}
    for index in range(h5py.h5a.get_num_attrs(node.id)):
        attribute = h5py.h5a.open(node.id, index=index)
        kind = attribute.get_type()
        is_string = isinstance(kind, h5py.h5t.TypeStringID)
        is_number = kind.get_class() in {h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.ENUM}
        if is_string and kind.is_variable_str() and kind.get_super().get_size() != 1:
            raise OSError(f"attribute {attribute.name!r} is a string of wide characters")
        # Lists of hundreds of numbers are not ours, or not any more.
        small = math.prod(attribute.shape or ()) * kind.get_size() <= _LARGEST_HEADER
        if small and (is_number or (is_string and strings)):
            name = attribute.name.decode("utf-8", "surrogateescape")
            found[name] = node.attrs[name]
    return found


@contextmanager
def opened_guarded(filename: str) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading metadata, its global heaps being checked."""
    descriptor = open_regular(filename)
    try:
        file = _Checked(descriptor)
        try:
            with h5py.File(file, "r") as h5:
                yield h5
        except Exception as exc:
            # Frames of h5py hold a property list that refers to `file`. If somebody keeps the
            # error, and with it these frames, HDF5 closes that list when Python is gone, and
            # crashes.
            traceback.clear_frames(exc.__traceback__)
            if file.error is not None:
                raise file.error from exc
            raise
        if file.error is not None:
            raise file.error
    finally:
        os.close(descriptor)
