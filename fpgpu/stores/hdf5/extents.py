"""Reading super-pixels from their place in a file, without HDF5.

HDF5 serves one thread at a time and costs more than the read itself for small windows. A dataset
that is one plain run of bytes is therefore looked up once, as an `Extent`; after that its windows
are read with ``preadv`` straight into the caller's memory. What is stored any other way (chunked,
compressed, of another type or byte order, in raw files outside, or not allocated yet) is left to
HDF5 and gives the same values.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from fpgpu.errors import LayoutError, StoreError, StoreFormatError
from fpgpu.stores.files.publish import Signature, signature
from fpgpu.stores.hdf5.filters import require_filters
from fpgpu.superpixels import Window

__all__ = [
    "Extent",
    "Selection",
    "checked_out",
    "locate",
    "read_lists",
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
    offset : int or None
        Byte at which they begin; None where only HDF5 can read them.
    signature : Signature
        Of the file, when this was looked up.
    """

    filename: str
    shape: tuple[int, int, int]
    offset: int | None
    signature: Signature


def locate(dataset: h5py.Dataset) -> Extent:
    """Look up where a dataset of super-pixels lies.

    Parameters
    ----------
    dataset : h5py.Dataset
        Three axes of real numbers; the file is held so that nobody changes it meanwhile.

    Raises
    ------
    StoreFormatError
        If it cannot be super-pixels.
    MissingExtraError
        If they are compressed in a way that needs a package that is not there.
    """
    filename = dataset.file.filename
    if len(dataset.shape or ()) != 3 or dataset.dtype.kind != "f":
        raise StoreFormatError(
            f"{filename}: {dataset.name} has shape {dataset.shape} and dtype {dataset.dtype}; "
            "expected real numbers with axes (super-pixel x, super-pixel y, values)"
        )
    require_filters(dataset)
    found = signature(filename)
    return Extent(filename, dataset.shape, _plain_offset(dataset, found.size), found)


def _plain_offset(dataset: h5py.Dataset, file_size: int) -> int | None:
    """Return where the bytes begin, if they are one run of little-endian float32 in this file."""
    plist = dataset.id.get_create_plist()
    is_plain = (
        plist.get_layout() == h5py.h5d.CONTIGUOUS
        and plist.get_nfilters() == 0
        and plist.get_external_count() == 0
        and dataset.id.get_type().equal(h5py.h5t.IEEE_F32LE)
        # A dataset without storage can report an offset all the same.
        and dataset.id.get_space_status() == h5py.h5d.SPACE_STATUS_ALLOCATED
        and dataset.file.driver == "sec2"
    )
    offset: int | None = dataset.id.get_offset() if is_plain else None
    n_bytes = dataset.size * PLAIN.itemsize
    if offset is None or dataset.id.get_storage_size() != n_bytes or offset + n_bytes > file_size:
        return None
    return offset


def read_selection(extent: Extent, selection: Selection, out: npt.NDArray[np.float32]) -> bool:
    """Read some super-pixels, and nothing else, into an array.

    Parameters
    ----------
    extent : Extent
        With an offset.
    selection : Window or ndarray of int, shape (n, 2)
        Inside the extent's grid. Neighbours in the file that follow each other are read at once.
    out : ndarray of float32, shape (x1 - x0, y1 - y0, values) or (n, values)
        As `checked_out` accepts it.

    Returns
    -------
    bool
        False if the file is not, or not any more, the one that was looked up; what `out` holds
        is then undefined.

    Raises
    ------
    StoreError
        If the operating system cannot read the file.
    """
    if isinstance(selection, Window):
        return _read_runs(extent, _window_runs(extent, selection, out))
    return read_lists([extent], [len(selection)], selection, out)


def read_lists(
    extents: Sequence[Extent],
    counts: Sequence[int],
    places: npt.NDArray[np.integer[Any]],
    out: npt.NDArray[np.float32],
) -> bool:
    """Read lists of super-pixels of several exposures, one after the other, into an array.

    Parameters
    ----------
    extents : sequence of Extent
        With an offset and of one shape.
    counts : sequence of int
        How many super-pixels of each.
    places : ndarray of int, shape (n, 2)
        Indices of all of them along x and y, inside the grid. Neighbours in the file that follow
        each other are read at once.
    out : ndarray of float32, shape (n, values)
        C-contiguous.

    Returns
    -------
    bool
        False if a file is not, or not any more, the one that was looked up; what `out` holds is
        then undefined.

    Raises
    ------
    StoreError
        If the operating system cannot read a file.
    """
    if out.size == 0:
        return True
    _, nsy, n_values = extents[0].shape
    n_bytes = n_values * PLAIN.itemsize
    numbers = places[:, 0].astype(np.int64) * nsy + places[:, 1].astype(np.int64)
    offsets = np.repeat([extent.offset or 0 for extent in extents], counts) + numbers * n_bytes
    is_first = np.concatenate([[True], offsets[1:] != offsets[:-1] + n_bytes])
    ends = np.cumsum(counts)
    is_first[ends[ends < len(places)]] = True
    starts = np.flatnonzero(is_first)
    bounds = [*(starts * n_bytes).tolist(), out.nbytes]
    memory = map(out.data.cast("B").__getitem__, map(slice, bounds[:-1], bounds[1:]))
    runs = zip(offsets[starts].tolist(), memory, strict=True)
    last_runs, done = np.searchsorted(starts, ends).tolist(), 0
    for _, group in groupby(zip(extents, last_runs, strict=True), key=_file_of):
        *_, (extent, last) = group
        if not _read_runs(extent, islice(runs, last - done)):
            return False
        done = last
    return True


def _file_of(item: tuple[Extent, int]) -> tuple[str, Signature]:
    """Tell which state of which file an extent is of."""
    return item[0].filename, item[0].signature


def _read_runs(extent: Extent, runs: Iterable[tuple[int, memoryview]]) -> bool:
    """Read contiguous pieces of a file; False if it is not, or not any more, that of the extent."""
    try:
        descriptor = os.open(extent.filename, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise StoreError(f"{extent.filename}: cannot be opened for reading: {exc}") from exc
    try:
        if signature(descriptor) != extent.signature:
            return False
        for offset, run in runs:
            # Here, not in a function: of the thousand runs of a patch each call is felt.
            n_read = os.preadv(descriptor, (run,), offset)
            if n_read < len(run) and not _read_rest(descriptor, offset, run, n_read):
                return False
        # A writer that came while we were reading has changed the time of the file.
        return signature(descriptor) == extent.signature
    except OSError as exc:
        raise StoreError(f"{extent.filename}: cannot be read: {exc}") from exc
    finally:
        os.close(descriptor)


def _window_runs(
    extent: Extent, window: Window, out: npt.NDArray[np.float32]
) -> Iterator[tuple[int, memoryview]]:
    """Yield file offset and memory of each contiguous piece of a window."""
    _, nsy, n_values = extent.shape
    column = nsy * n_values * PLAIN.itemsize
    start = (extent.offset or 0) + window.x0 * column + window.y0 * n_values * PLAIN.itemsize
    if out.size == 0:
        return
    if window.shape[1] == nsy and out.flags.c_contiguous:
        yield start, out.data.cast("B")
        return
    for i, part in enumerate(out):
        yield start + i * column, part.data.cast("B")


def _read_rest(descriptor: int, offset: int, run: memoryview, n_read: int) -> bool:
    """Go on after a read that was cut short; False at a premature end."""
    while n_read:
        run, offset = run[n_read:], offset + n_read
        if not len(run):
            return True
        n_read = os.preadv(descriptor, (run,), offset)
    return False


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
