"""Links from a pixel store to exposures in other files of its folder, and which are followed.

HDF5 would open whatever file a link names, by absolute paths, through folders above, even a pipe
or the store itself. A store is input like any other file, so its links are read here, checked, and
followed by opening the file that was checked.
"""

import os
import stat
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import h5py

from fpgpu.errors import MissingStoreError, StoreFormatError
from fpgpu.stores.files.intent import SHARDS_ENDING
from fpgpu.stores.hdf5.guard import HDF5_ERRORS
from fpgpu.stores.hdf5.handles import open_for_reading

__all__ = [
    "Link",
    "identities",
    "identity",
    "opened_link",
    "owned_shard",
    "shards_folder",
    "vetted",
]


class Link(NamedTuple):
    """Where an exposure lies that is not in the store's own file.

    Attributes
    ----------
    filename : str
        The file, relative to the folder of the store.
    path : str
        The exposure's group in that file, or its dataset.
    is_dataset : bool
        Whether `path` is the dataset itself.
    """

    filename: str
    path: str
    is_dataset: bool = False


def shards_folder(store: Path) -> Path:
    """Return the folder that holds the shards of a pixel store: ``pixels.shards`` beside it."""
    return store.with_suffix(SHARDS_ENDING)


def vetted(store: Path, link: Link, place: str) -> Path:
    """Return the real path of the file that a link names.

    Parameters
    ----------
    store : pathlib.Path
        Real path of the file that holds the link.
    link : Link
        The link.
    place : str
        File and exposure, for messages.

    Raises
    ------
    StoreFormatError
        If it is no regular file inside the folder of the store, or is the store itself.
    MissingStoreError
        If there is no such file.
    """
    where = f"{place} lies in {link.filename!r}"
    name = PurePosixPath(link.filename)
    if not link.filename or name.is_absolute() or ".." in name.parts or "\0" in link.filename:
        raise StoreFormatError(
            f"{where}, which is outside the folder of the store; such links are not followed"
        )
    path = store.parent / name
    try:
        real = path.resolve(strict=True)
        kind = real.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise MissingStoreError(
            f"{place} lies in {path}, which does not exist; put it back or add the exposure again"
        ) from exc
    except (OSError, RuntimeError) as exc:
        raise StoreFormatError(f"{place} lies in {path}, which cannot be looked at: {exc}") from exc
    if not real.is_relative_to(store.parent):
        raise StoreFormatError(
            f"{where}, which leads to {real}, outside the folder of the store; such links are not "
            "followed"
        )
    if real == store:
        raise StoreFormatError(f"{where}, which is the store itself; such links are not followed")
    if not stat.S_ISREG(kind):
        raise StoreFormatError(f"{where}, which is no regular file")
    return real


def owned_shard(store: Path, filename: str) -> Path | None:
    """Return the real path of a shard that a store may delete: one in its own folder of shards.

    Files elsewhere were put there by others, who may need them.
    """
    try:
        path = (store.parent / filename).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return None
    return path if path.is_relative_to(shards_folder(store)) and path.is_file() else None


def identity(path: str | Path) -> tuple[int, int] | None:
    """Return what is the same for all names of a file; None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 (of thousands of names in a row)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def identities(store: Path, filenames: Iterable[str]) -> set[tuple[int, int] | None]:
    """Return the identities of files that a store links to."""
    home = f"{store.parent}/"
    return {identity(home + filename) for filename in filenames} - {None}


def opened_link(h5: h5py.File, link: Link, place: str, files: ExitStack) -> h5py.File:
    """Open the file that a link of an open store names, after checking it.

    Parameters
    ----------
    h5 : h5py.File
        The store.
    link : Link
        The link.
    place : str
        File and exposure, for messages.
    files : contextlib.ExitStack
        Closes the file.

    Raises
    ------
    MissingStoreError, StoreFormatError
        As `vetted`, or if it is no HDF5 file.
    """
    path = vetted(Path(h5.filename), link, place)
    try:
        return files.enter_context(open_for_reading(path))
    except FileNotFoundError as exc:
        raise MissingStoreError(f"{place} lies in {path}, which does not exist any more") from exc
    except HDF5_ERRORS as exc:
        raise StoreFormatError(f"{place} lies in {path}, which cannot be read: {exc}") from exc
