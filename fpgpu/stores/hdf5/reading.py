"""Opening HDF5 files that others wrote, and whether HDF5 can read a value of them without harm.

A damaged file may describe a number whose bits do not fit into its bytes. HDF5 then writes beyond
the memory it was given, which ends the interpreter; so types are looked at before values are read.
And HDF5 follows what a file says to any place: raw data in other files, datasets made of others, a
pipe. So only plain members of regular files are opened.
"""

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fpgpu.errors import FpgpuError, MissingStoreError, StoreBusyError, StoreFormatError
from fpgpu.stores.hdf5.guard import HDF5_ERRORS

__all__ = [
    "bytes_in",
    "checked_storage",
    "has_sound_type",
    "member",
    "open_for_reading",
    "opened_for_reading",
    "read_attribute",
    "reading_errors",
    "refuse_links",
]

# What file systems without locks answer.
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL, errno.EBADF}


@contextmanager
def reading_errors(path: Path | str) -> Iterator[None]:
    """Turn whatever h5py raises on a damaged file into one error that names the file."""
    try:
        yield
    except FpgpuError:
        raise
    except BlockingIOError as exc:
        raise StoreBusyError(
            f"{path}: another program is writing this file ({exc}); try again when it is done"
        ) from exc
    except FileNotFoundError as exc:
        raise MissingStoreError(f"{path}: no such file") from exc
    except HDF5_ERRORS as exc:
        raise StoreFormatError(
            f"{path}: cannot be read as an HDF5 store: {type(exc).__name__}: {exc}; "
            "it is damaged or of another kind"
        ) from exc


def open_for_reading(path: Path) -> h5py.File:
    """Open a regular file for reading, also where the file system has no locks.

    Not with ``swmr=True``: there HDF5 reads metadata of a wrong checksum a hundred times more,
    waiting twice as long each time, so that a damaged file stops the process for good.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 (its error is the one wanted)
        raise StoreFormatError(f"{path}: is no regular file")
    try:
        return h5py.File(path, "r")
    except OSError as exc:
        if exc.errno not in _NO_LOCKS:
            raise
        return h5py.File(path, "r", locking=False)


@contextmanager
def opened_for_reading(path: Path) -> Iterator[h5py.File]:
    """Open a file as `open_for_reading`, for a ``with`` block whose errors name it."""
    with reading_errors(path), open_for_reading(path) as h5:
        yield h5


def member(h5: h5py.File, parts: Sequence[str]) -> Any:
    """Return a group or dataset of a file, None where there is none; links are not followed."""
    node: Any = h5
    for part in parts:
        if not isinstance(node, h5py.Group) or part in {"", ".", ".."}:
            return None
        if not isinstance(node.get(part, getlink=True), h5py.HardLink):
            return None
        node = node[part]
    return node


def checked_storage(dataset: h5py.Dataset) -> h5py.Dataset:
    """Return a dataset whose values lie in its own file, in one piece or in chunks."""
    plist = dataset.id.get_create_plist()
    if (
        plist.get_layout() not in {h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED}
        or plist.get_external_count()
    ):
        raise StoreFormatError(
            f"{dataset.file.filename}: {dataset.name} is no plain or chunked dataset of this file; "
            "virtual datasets and raw data in other files are not followed"
        )
    return dataset


def refuse_links(group: h5py.Group, place: object) -> None:
    """Refuse a group of which a member is a link to another place."""
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise StoreFormatError(
                f"{place}: {name} is a link to another place; such links are not followed"
            )


def bytes_in(node: Any, most: int) -> bytes | None:
    """Return the bytes that a dataset holds; None where it holds something else, or more."""
    if not isinstance(node, h5py.Dataset) or node.dtype != np.uint8:
        return None
    if node.ndim != 1 or node.size > most:
        return None
    content: bytes = checked_storage(node)[()].tobytes()
    return content


def has_sound_type(type_id: h5py.h5t.TypeID, dtype: np.dtype[Any]) -> bool:
    """Tell whether a stored type and the NumPy type it is read as have the same layout.

    False for types that cannot be read safely, and for text of variable length.
    """
    if type_id.get_size() != dtype.itemsize:
        return False
    if isinstance(type_id, h5py.h5t.TypeCompoundID):
        fields: Mapping[str, Any] = dtype.fields or {}
        members = [
            (type_id.get_member_name(i).decode(), type_id.get_member_offset(i), i)
            for i in range(type_id.get_nmembers())
        ]
        end = 0
        for name, offset, i in sorted(members, key=lambda member: member[1]):
            if name not in fields or fields[name][1] != offset or offset < end:
                return False
            if not has_sound_type(type_id.get_member_type(i), fields[name][0]):
                return False
            end = offset + fields[name][0].itemsize
        return end <= dtype.itemsize
    if isinstance(type_id, h5py.h5t.TypeArrayID):
        return has_sound_type(type_id.get_super(), dtype.base)
    return dtype.kind in "biufS"


def read_attribute(attributes: h5py.AttributeManager, name: str) -> Any:
    """Read an attribute if that is safe."""
    stored = attributes.get_id(name)
    is_text = isinstance(stored.get_type(), h5py.h5t.TypeStringID)
    if not is_text and not has_sound_type(stored.get_type(), stored.dtype):
        raise ValueError(f"attribute {name!r} has a damaged type")
    return attributes[name]
