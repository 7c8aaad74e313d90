"""The main file of a sharded store: root attributes and one link per exposure."""

import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import h5py

from fpgpu.errors import MissingStoreError, StoreConflictError, StoreFormatError
from fpgpu.stores.files.publish import Signature, signature
from fpgpu.stores.files.sync import fsync
from fpgpu.stores.hdf5.attributes import copy_attributes
from fpgpu.stores.hdf5.guard import HDF5_ERRORS, attributes_of, opened_guarded
from fpgpu.stores.hdf5.handles import store_file
from fpgpu.stores.hdf5.journal import journal_path
from fpgpu.stores.names import DATASET_NAME, NameTree
from fpgpu.stores.pixels import tree
from fpgpu.stores.pixels.geometry import Geometry
from fpgpu.stores.pixels.links import Link, identities, identity, owned_shard, shards_folder

__all__ = ["BASE_PREFIX", "MainFile", "put_links", "refuse_collisions", "write_main"]

Key = tuple[str, str]
TIMEOUT = 10.0
BASE_PREFIX = "base-"
"""Of the name of what was a single file before other exposures came in shards."""


class MainFile:
    """What the main file of a store holds, as it was when it was looked at.

    Parameters
    ----------
    path : pathlib.Path
        Its real path; the file need not exist.

    Attributes
    ----------
    geometry : Geometry or None
        Of the store; None where there is none yet.
    links : dict of (band, expID) to Link or None
        Where each exposure lies; None in the main file itself.

    Raises
    ------
    StoreFormatError
        If it is no pixel store.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.geometry: Geometry | None = None
        self.links: dict[Key, Link | None] = {}
        self._seen: Signature | None = None
        if os.path.lexists(path):
            with store_file(path).reading(TIMEOUT) as h5:
                self._seen = signature(path)
                self.geometry = Geometry.of_store(path, attributes_of(h5, strings=False))
                self.links = {
                    (band, expID): link
                    for band, found in tree.list_links(h5).items()
                    for expID, link in found.items()
                }

    def required_geometry(self) -> Geometry:
        """Return the geometry of a store that should be there.

        Raises
        ------
        MissingStoreError
            If it is not.
        """
        if self.geometry is None:
            raise MissingStoreError(f"{self.path}: no such store; check the path")
        return self.geometry

    def is_still(self) -> bool:
        """Whether the file is as it was, and nobody is in the middle of changing it."""
        if os.path.lexists(journal_path(self.path)):
            return False
        if not os.path.lexists(self.path):
            return self._seen is None
        return self._seen == signature(self.path)

    def set_aside(self) -> Link:
        """Give the file a second name among the shards, so that links can lead to what it holds.

        Returns
        -------
        Link
            To the file; the path inside it is empty.
        """
        home = shards_folder(self.path)
        home.mkdir(exist_ok=True)
        if home.resolve() != home:
            raise StoreFormatError(f"{home}: is a link to {home.resolve()}; expected a folder")
        target = home / f"{BASE_PREFIX}{secrets.token_hex(8)}.h5"
        try:
            os.link(self.path, target)
        except OSError:
            # Not every file system can give a file two names.
            shutil.copyfile(self.path, target)
        fsync(target)
        fsync(home)
        fsync(home.parent)
        return Link(target.relative_to(self.path.parent).as_posix(), "")

    def unneeded(self, links: Mapping[Key, Link | None]) -> list[Path]:
        """Return the shards that the store links to now and not any more with other links."""
        names, kept = (
            {link.filename for link in of.values() if link is not None}
            for of in (self.links, links)
        )
        candidates = {owned_shard(self.path, name) for name in names - kept} - {None}
        if not candidates:
            return []
        still = identities(self.path, kept)
        return sorted(p for p in candidates if p is not None and identity(p) not in still)


def write_main(
    draft: Path, geometry: Geometry, links: Mapping[Key, Link], model: Path | None = None
) -> None:
    """Write a new main file.

    Parameters
    ----------
    draft : pathlib.Path
        The file; it must not exist.
    geometry : Geometry
        Of the store.
    links : mapping of (band, expID) to Link
        Where each exposure lies.
    model : pathlib.Path, optional
        A store, if it exists, whose other root attributes are taken over.

    Raises
    ------
    StoreConflictError
        If names cannot stand beside each other.
    """
    # Nobody else knows of the draft, and some file systems have no locks.
    with h5py.File(draft, "x", locking=False) as h5:
        h5.attrs.update(geometry.attributes())
        if model is not None and model.exists():
            with opened_guarded(str(model)) as other:
                copy_attributes(other, h5)
        put_links(h5, links)


def put_links(h5: h5py.File, links: Mapping[Key, Link]) -> None:
    """Put links to exposures into a main file that is being made.

    Raises
    ------
    StoreConflictError
        If names cannot stand beside each other.
    """
    creation = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    creation.set_create_intermediate_group(1)
    creation.set_char_encoding(h5py.h5t.CSET_UTF8)
    for (band, expID), link in links.items():
        place = f"{band}/{expID}" + (f"/{DATASET_NAME}" if link.is_dataset else "")
        try:
            h5.id.links.create_external(
                _raw(place), _raw(link.filename), _raw(link.path), lcpl=creation
            )
        except HDF5_ERRORS as exc:
            raise StoreConflictError(f"{place} cannot be put into the store: {exc}") from exc


def refuse_collisions(new: Iterable[Key], known: Iterable[Key]) -> None:
    """Refuse exposures that would lie inside others, or others inside them.

    Parameters
    ----------
    new, known : iterable of (band, expID)
        What is added, and all that the store will hold.

    Raises
    ------
    ExposureNameError
        Of the first one that collides.
    """
    expIDs: dict[str, set[str]] = {}
    for band, expID in known:
        expIDs.setdefault(band, set()).add(expID)
    names = {band: NameTree(found) for band, found in expIDs.items()}
    for band, expID in new:
        names[band].add(expID)


def _raw(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
