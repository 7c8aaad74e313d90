"""Reading super-pixels from their place in a file, without HDF5.

HDF5 serves one thread at a time and costs more than the read itself for small windows. A dataset
that is one plain run of bytes is therefore looked up once, as an `Extent`; after that its windows
are read with ``preadv`` straight into the caller's memory. What is stored any other way (chunked,
compressed, of another type or byte order, or not allocated yet) is left to HDF5 and gives the same
values.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from fpgpu.errors import LayoutError, StoreConflictError, StoreFormatError
from fpgpu.stores.disk import Signature, read_errors, signature
from fpgpu.stores.hdf5.filters import require_filters
from fpgpu.stores.hdf5.reading import checked_storage
from fpgpu.superpixels import Window

__all__ = [
    "Extent",
    "Selection",
    "SuperpixelLists",
    "checked_out",
    "locate",
    "read_selection",
    "read_through_hdf5",
]

PLAIN = np.dtype("<f4")

Selection = Window | npt.NDArray[np.integer[Any]]
"""A rectangle of super-pixels, or a list (n, 2) of their indices along x and y."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Where the super-pixels of one exposure are.

    Attributes
    ----------
    filename : str
        The file that holds them: the store's own, or a shard that it links to.
    shape : (int, int, int)
        Super-pixels along x and y, values in each.
    offset : int
        Byte at which they begin; -1 where only HDF5 can read them.
    size : int
        Of the file; -1 where it is not known.
    signature : Signature or None
        Of the file, when this was looked up, where anybody may change it.
    """

    filename: str
    shape: tuple[int, int, int]
    offset: int
    size: int
    signature: Signature | None = None

    @property
    def n_bytes(self) -> int:
        """Bytes of its super-pixels as float32."""
        return self.shape[0] * self.shape[1] * self.shape[2] * PLAIN.itemsize

    def require_same(self, descriptor: int) -> None:
        """Refuse an open file that is not, or not any more, the one that was looked up."""
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise StoreFormatError(f"{self.filename}: is no regular file")
        if self.size not in {-1, status.st_size}:
            raise StoreFormatError(
                f"{self.filename}: has {status.st_size} bytes, {self.size} were expected: it is "
                "truncated, or another program has changed it; open the store again, and run "
                "'fpgpu verify'"
            )
        if self.signature not in {None, Signature.of(status)}:
            raise StoreConflictError(
                f"{self.filename}: another program has changed it since the store was opened; "
                "open the store again"
            )


def locate(dataset: h5py.Dataset) -> Extent:
    """Look up where a dataset of super-pixels lies."""
    filename = dataset.file.filename
    if len(dataset.shape or ()) != 3 or dataset.dtype.kind != "f":
        raise StoreFormatError(
            f"{filename}: {dataset.name} has shape {dataset.shape} and dtype {dataset.dtype}; "
            "expected real numbers with axes (super-pixel x, super-pixel y, values)"
        )
    checked_storage(dataset)
    require_filters(dataset)
    found = signature(filename)
    return Extent(filename, dataset.shape, _plain_offset(dataset, found.size), found.size, found)


def _plain_offset(dataset: h5py.Dataset, file_size: int) -> int:
    """Return where the bytes begin, if they are one run of little-endian float32 in this file."""
    plist = dataset.id.get_create_plist()
    is_plain = (
        plist.get_layout() == h5py.h5d.CONTIGUOUS
        and plist.get_nfilters() == 0
        and dataset.id.get_type().equal(h5py.h5t.IEEE_F32LE)
        # A dataset without storage can report an offset all the same.
        and dataset.id.get_space_status() == h5py.h5d.SPACE_STATUS_ALLOCATED
    )
    offset: int | None = dataset.id.get_offset() if is_plain else None
    n_bytes = dataset.size * PLAIN.itemsize
    if offset is None or dataset.id.get_storage_size() != n_bytes or offset + n_bytes > file_size:
        return -1
    return offset


def read_selection(extent: Extent, selection: Selection, out: npt.NDArray[np.float32]) -> None:
    """Read some super-pixels, and nothing else, into an array.

    Parameters
    ----------
    extent : Extent
        With an offset.
    selection : Window or ndarray of int, shape (n, 2)
        Inside the extent's grid. Neighbours in the file that follow each other are read at once.
    out : ndarray of float32, shape (x1 - x0, y1 - y0, values) or (n, values)
        As `checked_out` accepts it.

    Raises
    ------
    MissingStoreError, StoreFormatError, StoreConflictError, StoreError
        If the file is gone, damaged, changed, or cannot be read.
    """
    if isinstance(selection, Window):
        _read_runs(extent, _window_runs(extent, selection, out))
    else:
        SuperpixelLists([extent], [len(selection)], selection).read(0, len(selection), out)


class SuperpixelLists:
    """Lists of super-pixels of several exposures: where they lie is worked out once for all reads.

    Parameters
    ----------
    extents : sequence of Extent
        With an offset and of one shape.
    counts : sequence of int
        How many super-pixels of each.
    places : ndarray of int, shape (n, 2)
        Indices of all of them along x and y, inside the grid.
    """

    def __init__(
        self,
        extents: Sequence[Extent],
        counts: Sequence[int],
        places: npt.NDArray[np.integer[Any]],
    ) -> None:
        _, nsy, n_values = extents[0].shape
        self._extents, self._stops = extents, np.cumsum(counts)
        self._bytes_each = n_values * PLAIN.itemsize
        numbers = places[:, 0].astype(np.int64) * nsy + places[:, 1].astype(np.int64)
        begins = np.repeat([extent.offset for extent in extents], counts)
        self._offsets = begins + numbers * self._bytes_each
        # Neighbours in the file that follow each other are read at once.
        is_first = np.concatenate([[True], np.diff(self._offsets) != self._bytes_each])
        is_first[self._stops[self._stops < len(places)]] = True
        self._firsts = np.flatnonzero(is_first)

    def read(self, start: int, stop: int, out: npt.NDArray[np.float32]) -> None:
        """Read those from `start` to `stop`, one after the other, into a C-contiguous array.

        Raises
        ------
        MissingStoreError, StoreFormatError, StoreConflictError, StoreError
            As `read_selection`.
        """
        if start == stop:
            return
        inner = slice(*np.searchsorted(self._firsts, [start + 1, stop]))
        firsts = np.concatenate([[start], self._firsts[inner]])
        bounds = [*((firsts - start) * self._bytes_each).tolist(), out.nbytes]
        memory = map(out.data.cast("B").__getitem__, map(slice, bounds[:-1], bounds[1:]))
        runs = zip(self._offsets[firsts].tolist(), memory, strict=True)
        first, final = np.searchsorted(self._stops, [start, stop - 1], "right").tolist()
        some = slice(first, final + 1)
        last_runs, done = np.searchsorted(firsts, self._stops[some]).tolist(), 0
        for _, group in groupby(zip(self._extents[some], last_runs, strict=True), key=_file_of):
            *_, (extent, last) = group
            _read_runs(extent, islice(runs, last - done))
            done = last


def _file_of(item: tuple[Extent, int]) -> tuple[str, Signature | None]:
    """Tell which state of which file an extent is of."""
    return item[0].filename, item[0].signature


def _read_runs(extent: Extent, runs: Iterable[tuple[int, memoryview]]) -> None:
    """Read contiguous pieces of a file."""
    with read_errors(extent.filename):
        descriptor = os.open(extent.filename, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            extent.require_same(descriptor)
            for offset, run in runs:
                # Here, not in a function: of the thousand runs of a patch each call is felt.
                n_read = os.preadv(descriptor, (run,), offset)
                if n_read < len(run):
                    _read_rest(extent, descriptor, offset, run, n_read)
            if extent.signature is not None:
                # A writer that came while we were reading has changed the time of the file.
                extent.require_same(descriptor)
        finally:
            os.close(descriptor)


def _window_runs(
    extent: Extent, window: Window, out: npt.NDArray[np.float32]
) -> Iterator[tuple[int, memoryview]]:
    """Yield file offset and memory of each contiguous piece of a window."""
    _, nsy, n_values = extent.shape
    column = nsy * n_values * PLAIN.itemsize
    start = (extent.offset) + window.x0 * column + window.y0 * n_values * PLAIN.itemsize
    if out.size == 0:
        return
    if window.shape[1] == nsy and out.flags.c_contiguous:
        yield start, out.data.cast("B")
        return
    for i, part in enumerate(out):
        yield start + i * column, part.data.cast("B")


def _read_rest(extent: Extent, descriptor: int, offset: int, run: memoryview, n_read: int) -> None:
    """Go on after a read that was cut short."""
    while n_read:
        run, offset = run[n_read:], offset + n_read
        if not len(run):
            return
        n_read = os.preadv(descriptor, (run,), offset)
    raise StoreFormatError(
        f"{extent.filename}: ends at byte {offset}, inside the pixels of an exposure; it is "
        "truncated: put it back from a copy, or ingest the exposure again"
    )


def read_through_hdf5(dataset: h5py.Dataset, selection: Selection, out: npt.NDArray[Any]) -> None:
    """Read some super-pixels, whatever way they are stored, into an array."""
    stored = dataset.astype(out.dtype)
    if isinstance(selection, Window):
        out[...] = stored[selection.slices]
    elif len(selection):
        # One rectangle around all of them: chunks are read and inflated once.
        low, high = selection.min(axis=0), selection.max(axis=0) + 1
        rectangle = stored[low[0] : high[0], low[1] : high[1]]
        out[...] = rectangle[tuple((selection - low).T)]


def checked_out(
    out: npt.NDArray[Any] | None, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    """Return `out` if super-pixels can be read into it, or a new array if there is none.

    Raises
    ------
    LayoutError
        If `out` has another shape or dtype, is read-only, or is not contiguous: in a window of each
        x, in a list as a whole.
    """
    if out is None:
        return np.empty(shape, dtype)
    if out.shape != shape or out.dtype != dtype:
        raise LayoutError(
            f"out has shape {out.shape} and dtype {out.dtype}; expected {shape} of {dtype}"
        )
    pieces = out[:1] if out.ndim == 3 else [out]
    if not out.flags.writeable or not all(piece.flags.c_contiguous for piece in pieces):
        raise LayoutError("out must be writeable, and each out[i] C-contiguous")
    return out
