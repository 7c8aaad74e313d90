"""Shards on the disk: what they are called, what they hold, and which belong to no store."""

import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from fpgpu.errors import IntegrityError, MissingStoreError, StoreFormatError
from fpgpu.stores.files.intent import SHARDS_ENDING
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.hdf5.guard import attributes_of, opened_guarded
from fpgpu.stores.hdf5.handles import reading_errors, store_file
from fpgpu.stores.metadata.entries import MetaEntry
from fpgpu.stores.names import DATASET_NAME, check_band, check_expID
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.pixels import tree
from fpgpu.stores.pixels.geometry import Geometry
from fpgpu.stores.pixels.links import Link, identities, identity, shards_folder
from fpgpu.stores.pixels.records import CalibrationRecord
from fpgpu.stores.shards.entry import GROUP, load_entry, read_entry

__all__ = [
    "EXTRA",
    "Shard",
    "find_orphans",
    "find_parts",
    "linked_files",
    "new_shard_path",
    "part_of",
    "read_shard",
    "store_bytes",
    "store_of",
]

EXTRA = "extra"
"""Attribute, as JSON, of what the writer of an exposure wanted to find again."""

ENDING = ".h5"
PART_ENDING = ".part"
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]")
_LONGEST_STEM = 100


@dataclass(frozen=True)
class Shard:
    """An exposure in a file of its own; can be sent between processes.

    Attributes
    ----------
    folder : Path
        The store folder.
    path : str
        The file, relative to `folder`, as the store links to it.
    band, expID : str
        The exposure.
    shape : (int, int)
        Pixels of the image along x and y.
    super_pixel_size : int
        Pixels along each side of a super-pixel.
    record : CalibrationRecord
        How it was calibrated.
    """

    folder: Path
    path: str
    band: str
    expID: str
    shape: tuple[int, int]
    super_pixel_size: int
    record: CalibrationRecord

    @property
    def key(self) -> tuple[str, str]:
        """Band and expID."""
        return self.band, self.expID

    @property
    def extra(self) -> dict[str, Any]:
        """What the writer of the shard wanted to find again."""
        return dict(json.loads(str(self.record.provenance.get(EXTRA, "{}"))))

    @property
    def file(self) -> Path:
        """The file."""
        return self.folder / self.path

    @property
    def link(self) -> Link:
        """How the main file of the store refers to it."""
        return Link(self.path, f"/{self.band}/{self.expID}")

    def meta_entry(self) -> MetaEntry | None:
        """Read what the meta store holds of the exposure.

        Returns
        -------
        MetaEntry or None
            None where the writer knew no header.

        Raises
        ------
        MissingStoreError, StoreFormatError
            If the file is gone or damaged.
        """
        with _opened(self.file) as h5:
            stored = read_entry(h5, self.file)
        return load_entry(stored, self.key, self.file)

    def verify(self) -> None:
        """Recompute the checksum of the pixels.

        Raises
        ------
        IntegrityError
            If it is not the one that was stored.
        MissingStoreError, StoreFormatError
            If the file is gone or cannot be read.
        """
        if self.record.checksum is None:
            return
        with PixelStore(self.file, mode="r") as store:
            _, found = store.reader.checksums(self.band, self.expID)
        if found != self.record.checksum:
            raise IntegrityError(
                f"{self.file}: {self.band}/{self.expID} has checksum {found}; "
                f"{self.record.checksum} was stored with it"
            )


def read_shard(path: str | Path) -> Shard:
    """Read what a shard is, without its pixels.

    Parameters
    ----------
    path : path
        A file in the folder of shards of a store.

    Returns
    -------
    Shard
        For `publish_shards`.

    Raises
    ------
    MissingStoreError
        If there is no such file.
    StoreFormatError
        If it is no shard, is damaged, or lies in no folder of shards.
    ExposureNameError
        If its exposure has a name that no store takes.
    """
    path = Path(path).resolve()
    folder = store_of(path)
    with _opened(path) as h5:
        geometry = Geometry.of_store(path, attributes_of(h5, strings=False))
        exposures = [
            (band, expID)
            for band, found in tree.list_links(h5).items()
            if band != GROUP
            for expID, link in found.items()
            if link is None
        ]
        if len(exposures) != 1:
            raise StoreFormatError(
                f"{path}: holds {len(exposures)} exposures; a shard of fpgpu holds one"
            )
        band, expID = check_band(exposures[0][0]), check_expID(exposures[0][1])
        dataset = h5[f"{band}/{expID}/{DATASET_NAME}"]
        record = CalibrationRecord.from_dataset(band, expID, dataset)
        read_entry(h5, path)
        expected = (*geometry.grid, geometry.n_values)
        if dataset.shape != expected:
            raise StoreFormatError(f"{path}: has shape {dataset.shape}, not {expected}")
    name = path.relative_to(folder).as_posix()
    return Shard(folder, name, band, expID, geometry.shape, geometry.size, record)


def new_shard_path(store: Path, band: str, expID: str) -> Path:
    """Name a file that no other writer uses, whatever the exposure is called.

    Parameters
    ----------
    store : pathlib.Path
        The main file of the store.
    band, expID : str
        The exposure.
    """
    stem = _safe(expID)[:_LONGEST_STEM]
    token = secrets.token_hex(8)
    return shards_folder(store) / _safe(band)[:_LONGEST_STEM] / f"{stem}-{token}{ENDING}"


def part_of(path: Path) -> Path:
    """Name the file in which a shard is written before it gets its own name."""
    return path.with_name(f".{path.name}{PART_ENDING}")


def find_orphans(folder: str | Path) -> list[Path]:
    """List the shards of a folder that its store does not link to.

    They were written and not published, by a run that was killed or is still going on.

    Parameters
    ----------
    folder : path
        The store folder.

    Returns
    -------
    list of Path
        Files, in the order of their names.

    Raises
    ------
    StoreFormatError
        If the store cannot be read.
    """
    store = StoreFolder(Path(folder)).pixels.resolve()
    known = linked_files(store)
    return [path for path in _files_below(store, ENDING) if identity(path) not in known]


def find_parts(folder: str | Path) -> list[Path]:
    """List the shards of a folder whose writer has not finished, because it died or still writes.

    Parameters
    ----------
    folder : path
        The store folder.

    Returns
    -------
    list of Path
        Files, in the order of their names.
    """
    return _files_below(StoreFolder(Path(folder)).pixels.resolve(), PART_ENDING)


def linked_files(store: Path) -> set[tuple[int, int] | None]:
    """Return the identities of all files that a store's main file links to."""
    if not store.exists():
        return set()
    with store_file(store).reading(timeout=10.0) as h5:
        links = [link for found in tree.list_links(h5).values() for link in found.values()]
    return identities(store, {link.filename for link in links if link is not None})


def store_bytes(store: Path) -> int:
    """Return the size of a pixel store on disk: the main file and all that is in its shards."""
    home = shards_folder(store)
    files = [store, *(Path(p) / name for p, _, names in os.walk(home) for name in names)]
    found = {}
    for file in files:
        with suppress(OSError):
            status = file.stat()
            # A file may have two names.
            found[status.st_dev, status.st_ino] = status.st_size
    return sum(found.values())


def store_of(path: Path) -> Path:
    """Return the store folder that a shard belongs to.

    Raises
    ------
    StoreFormatError
        If the path is in no folder of shards.
    """
    home = next((p for p in path.parents if p.name.endswith(SHARDS_ENDING)), None)
    if home is None:
        raise StoreFormatError(
            f"{path}: lies in no folder of shards; expected a path like STORES/pixels"
            f"{SHARDS_ENDING}/BAND/NAME{ENDING}"
        )
    return home.parent


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """Open a shard for reading metadata."""
    if not path.is_file():
        raise MissingStoreError(f"{path}: no such shard")
    with reading_errors(path), opened_guarded(str(path)) as h5:
        yield h5


def _files_below(store: Path, ending: str) -> list[Path]:
    """List the files of a store's folder of shards by their ending; links are not followed."""
    home = shards_folder(store)
    if not home.is_dir():
        return []
    return sorted(
        Path(parent) / name
        for parent, _, names in os.walk(home)
        for name in names
        if name.endswith(ending)
    )


def _safe(name: str) -> str:
    """Turn a name into one that any file system, shell and person can handle."""
    text = _UNSAFE.sub("_", name)
    return "_" + text[1:] if text[0] in ".-" else text
