"""A file object that lets HDF5 change a file without touching it.

HDF5 promises nothing about a file whose writer dies. So it never writes one here: it sees the real
file through an overlay that keeps every write in memory, and only after HDF5 has finished without
an error are the changed bytes known, few (metadata; pixels are not among them), and ours to commit.
"""

from typing import TYPE_CHECKING, NamedTuple

from fpgpu.stores.hdf5.guard import RandomAccess

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["Overlay", "Segment"]


class Segment(NamedTuple):
    """Bytes that replace those of the file at `offset`."""

    offset: int
    content: bytearray | memoryview

    @property
    def end(self) -> int:
        """Offset of the first byte after the segment."""
        return self.offset + len(self.content)


class Overlay(RandomAccess):
    """The content of a file with changes that exist only in memory.

    Parameters
    ----------
    descriptor : int
        The real file, opened for reading; nothing is ever written to it.

    Attributes
    ----------
    base_size : int
        Length of the real file in bytes.
    size : int
        Length that the file would have with the changes.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._segments: list[Segment] = []

    def changes(self) -> list[Segment]:
        """Return what was written: disjoint, not adjacent, in order of their offsets."""
        return list(self._segments)

    def writable(self) -> bool:
        """Whether bytes can be written, to memory: yes."""
        return True

    def truncate(self, size: int | None = None) -> int:
        """Set the length that the file would have."""
        self.size = self._position if size is None else size
        return self.size

    def _amend(self, start: int, view: memoryview) -> None:
        """Put what was written over what was read from the real file."""
        end = start + len(view)
        for segment in self._segments:
            low, high = max(start, segment.offset), min(end, segment.end)
            if low < high:
                part = slice(low - segment.offset, high - segment.offset)
                view[low - start : high - start] = segment.content[part]

    def write(self, data: "ReadableBuffer") -> int:
        """Keep bytes in memory, merged with what they touch."""
        view = memoryview(data).cast("B")
        start, end = self._position, self._position + len(view)
        touched: list[Segment] = []
        apart: list[Segment] = []
        for segment in self._segments:
            near = segment.offset <= end and start <= segment.end
            (touched if near else apart).append(segment)
        low = min([start, *(segment.offset for segment in touched)])
        merged = bytearray(max([end, *(segment.end for segment in touched)]) - low)
        for segment in touched:
            merged[segment.offset - low : segment.end - low] = segment.content
        merged[start - low : end - low] = view
        self._segments = sorted([*apart, Segment(low, merged)])
        self._position = end
        self.size = max(self.size, end)
        return len(view)
