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

__all__ = ["HDF5_ERRORS", "HeapGuard", "RandomAccess", "attributes_of", "opened", "opened_guarded"]

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


class HeapGuard:
    """Looks at every block that HDF5 reads from one file."""

    def __init__(self) -> None:
        self._headers: list[bytes] = []

    def look(self, offset: int, block: memoryview) -> None:
        """Check a block that HDF5 is about to get.

        Raises
        ------
        OSError
            If it is a global heap that would make HDF5 hang or crash.
        """
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


class RandomAccess(io.RawIOBase):
    """A file object over a descriptor, as h5py wants one, whose heaps are checked.

    HDF5 calls it, and an exception must not travel through HDF5's own code, which may go on to
    call again. So an error is kept, HDF5 gets zeros, which are no valid metadata, and `opened`
    raises the error when HDF5 is out of the way.

    Parameters
    ----------
    descriptor : int
        The file, opened for reading.

    Attributes
    ----------
    base_size : int
        Length of the file in bytes.
    size : int
        Length to tell.
    error : BaseException or None
        Why something could not be read.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.base_size = self.size = os.fstat(descriptor).st_size
        self._descriptor = descriptor
        self.error: BaseException | None = None
        self._position = 0
        self._guard = HeapGuard()

    def readable(self) -> bool:
        """Whether bytes can be read: yes."""
        return True

    def seekable(self) -> bool:
        """Whether the position can be set: yes."""
        return True

    def tell(self) -> int:
        """Return the position of the next read or write."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position of the next read or write."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill a buffer; bytes past the end, and all after an error, are zero."""
        view = memoryview(buffer).cast("B")
        try:
            if self.error is None:
                self._read(self._position, view)
        except BaseException as exc:  # noqa: BLE001 (raised by `opened`; an interrupt, too)
            # Its frames lead to those of h5py: see `opened`.
            self.error = exc.with_traceback(None)
        if self.error is not None:
            view[:] = bytes(len(view))
        self._position += len(view)
        return len(view)

    def _read(self, start: int, view: memoryview) -> None:
        """Fill memory with what is at `start`, unless HDF5 should not see it."""
        n_read = os.preadv(self._descriptor, [view], start) if start < self.base_size else 0
        view[n_read:] = bytes(len(view) - n_read)
        self._amend(start, view)
        self._guard.look(start, view)

    def _amend(self, start: int, view: memoryview) -> None:
        """Change what was read at `start`; nothing, in a file that is only read."""


def attributes_of(node: h5py.Group | h5py.Dataset, *, strings: bool) -> dict[str, Any]:
    """Return the attributes of a group or dataset that are numbers or strings.

    Parameters
    ----------
    node : h5py.Group or h5py.Dataset
        Of a file that was opened by `opened_guarded`, if `strings`.
    strings : bool
        Whether to return strings too.

    Raises
    ------
    OSError
        If a string's type is one that HDF5 would read beyond its end for.
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
def opened(file: RandomAccess, mode: str, **options: Any) -> Iterator[h5py.File]:
    """Open a file object with HDF5, and raise what went wrong in it.

    Parameters
    ----------
    file : RandomAccess
        The file object.
    mode, **options
        As for `h5py.File`.

    Yields
    ------
    h5py.File
        The opened file.
    """
    try:
        with h5py.File(file, mode, **options) as h5:
            yield h5
    except Exception as exc:
        # Frames of h5py hold a property list that refers to `file`. If somebody keeps the error,
        # and with it these frames, HDF5 closes that list when Python is gone, and crashes.
        traceback.clear_frames(exc.__traceback__)
        if file.error is not None:
            raise file.error from exc
        raise
    if file.error is not None:
        raise file.error


@contextmanager
def opened_guarded(filename: str) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading metadata, its global heaps being checked.

    Parameters
    ----------
    filename : str
        The file; links from it to other files cannot be followed.

    Yields
    ------
    h5py.File
        Open for reading.
    """
    descriptor = open_regular(filename)
    try:
        with opened(RandomAccess(descriptor), "r") as h5:
            yield h5
    finally:
        os.close(descriptor)
