"""Shards: an exposure in a file of its own, written by any process and never changed.

A shard is an HDF5 file like a store: the same root attributes and the dataset ``BAND/expID/data``,
and beside that ``BAND/expID/fpgpu_record``, the bytes of its `Record`. It gets its name, which is
never used twice, when it is complete and on the disk. No commit names it yet: `--resume` finds it.
The commit that names it sees to it that its name is on the disk, too.
"""

import json
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from fpgpu.backends.base import Backend
from fpgpu.errors import (
    FpgpuError,
    IntegrityError,
    StoreFormatError,
    StoreWriteError,
    UnusableExposureError,
)
from fpgpu.stores.disk import (
    DRAFT,
    fsync,
    make_folders,
    new_file,
    read_regular,
    write_all,
    write_errors,
)
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.hdf5.building import allocate, built
from fpgpu.stores.hdf5.guard import HDF5_ERRORS
from fpgpu.stores.hdf5.reading import bytes_in, member, opened_for_reading
from fpgpu.stores.index import Entry, Row
from fpgpu.stores.metadata.entries import MetaEntry, new_entry
from fpgpu.stores.metadata.record import LARGEST, Place, Record, decode, encode
from fpgpu.stores.metadata.skyrecords import Key, SkyRecord
from fpgpu.stores.names import DATASET_NAME
from fpgpu.stores.pixels.geometry import Geometry
from fpgpu.stores.pixels.preparing import prepared
from fpgpu.stores.pixels.reading import bytes_checksum
from fpgpu.stores.pixels.records import CalibrationRecord, update_checksum
from fpgpu.stores.state import SHARDS_ENDING, State, open_state

__all__ = [
    "EXTRA",
    "Item",
    "Shard",
    "find_orphans",
    "find_parts",
    "new_path",
    "read_shard",
    "store_id",
    "write_exposure",
    "write_pixel_file",
    "write_records",
    "write_shard",
]

EXTRA = "extra"
"""What the writer of an exposure wanted to find again, as JSON in its calibration record."""

RECORD_NAME = "fpgpu_record"
COMMIT_FOLDER = ".commit"
PIXELS_ENDING, RECORDS_ENDING, PART_ENDING = ".h5", ".records", ".part"
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]")
_LONGEST_STEM = 100


@dataclass(frozen=True)
class Shard:
    """An exposure in a file of its own; small, can be sent between processes.

    Attributes
    ----------
    store : Path
        The main file of the store.
    entry : Entry
        What a commit puts into the index.
    geometry : Geometry
        Of its image.
    """

    store: Path
    entry: Entry
    geometry: Geometry

    @property
    def key(self) -> Key:
        """Band and expID."""
        return self.entry.row.key

    @property
    def band(self) -> str:
        """The band of the exposure."""
        return self.entry.row.band

    @property
    def expID(self) -> str:
        """The name of the exposure in its band."""
        return self.entry.row.expID

    @property
    def path(self) -> str:
        """The file, relative to the store's folder."""
        return self.entry.row.file

    @property
    def file(self) -> Path:
        """The file."""
        return self.store.parent / self.entry.row.file

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels of the image along x and y."""
        return self.geometry.shape

    @property
    def record(self) -> CalibrationRecord:
        """How the pixels were made."""
        if self.entry.calibration is None:
            raise StoreFormatError(f"{self.file}: does not say how its pixels were made")
        return self.entry.calibration

    @property
    def extra(self) -> dict[str, Any]:
        """What the writer of the shard wanted to find again."""
        return dict(json.loads(str(self.record.provenance.get(EXTRA, "{}"))))

    def verify(self) -> None:
        """Recompute the checksum of the pixels."""
        found = bytes_checksum(State.opened(self.file), self.key)
        if found != self.record.checksum:
            raise IntegrityError(
                f"{self.file}: {'/'.join(self.key)} has checksum {found}; "
                f"{self.record.checksum} was stored with it"
            )


@dataclass(frozen=True)
class Item:
    """An exposure that goes into a new HDF5 file.

    Attributes
    ----------
    stated : CalibrationRecord
        How its pixels were made.
    metadata : MetaEntry or None
        Its header and WCS.
    store_id, id : str
        Of the store, and of its pixels.
    dtype : numpy.dtype
        Of its values.
    write : callable
        ``write(descriptor, offset)`` puts the values there.
    more : mapping
        Attributes of its dataset beside those of the calibration.
    checksum : Future of str, optional
        Of the values, while it is still worked out; not asked for before they are written.
    """

    stated: CalibrationRecord
    metadata: MetaEntry | None
    store_id: str
    id: str
    dtype: np.dtype[Any]
    write: Callable[[int, int], None]
    more: Mapping[str, Any] = field(default_factory=dict)
    checksum: Future[str] | None = None

    @property
    def key(self) -> Key:
        """Band and expID."""
        return self.stated.band, self.stated.expID

    @property
    def sky(self) -> SkyRecord | None:
        """Where it is on the sky, None without metadata."""
        return self.metadata and self.metadata.record

    @cached_property
    def calibration(self) -> CalibrationRecord:
        """How its pixels were made, with their checksum."""
        if self.checksum is None:
            return self.stated
        return replace(self.stated, checksum=self.checksum.result())

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of its dataset."""
        return {**self.more, **self.calibration.to_attributes()}

    @cached_property
    def record(self) -> bytes:
        """Its record, as `fpgpu.stores.metadata.record.encode` gives it."""
        meta = self.metadata
        text, gwcs = (meta.text, meta.gwcs_bytes()) if meta else (None, None)
        plain = self.calibration.to_json()
        return encode(Record(self.key, self.id, self.store_id, text, gwcs, self.sky, plain))


def placed(item: Item, file: str, offset: int, at: int, size: int) -> Entry:
    """Return what the index says of an item: where in a file its pixels and its record are."""
    path = f"/{'/'.join(item.key)}/{DATASET_NAME}"
    place = Place.of(file, at, item.record) if item.sky is not None else None
    row = Row(*item.key, item.id, file, path, offset, size, place)
    return Entry(row, item.sky, item.calibration)


Offsets = list[tuple[int, int]]
"""Where the values of each item are (-1 where HDF5 alone can read them), and its record."""


def write_pixel_file(
    path: Path,
    geometry: Geometry,
    items: Sequence[Item],
    tail: Callable[[Offsets, int], bytes] | None = None,
) -> tuple[Offsets, int]:
    """Write exposures into a new HDF5 file, as forcepho has them, and make it durable."""

    def fill(h5: h5py.File) -> Offsets:
        h5.attrs.update(geometry.attributes())
        shape = (*geometry.grid, geometry.n_values)
        places = []
        for item in items:
            group = h5.require_group("/".join(item.key))
            dataset = allocate(group, DATASET_NAME, shape, item.dtype)
            offset = dataset.id.get_offset()
            item.write(descriptor, offset)  # before the rest, which is not known yet
            dataset.attrs.update(item.attributes)
            record = np.frombuffer(item.record, np.uint8)
            stored = group.create_dataset(RECORD_NAME, data=record)
            places.append((offset if item.dtype == plain else -1, stored.id.get_offset()))
        return places

    plain = np.dtype("<f4")
    with new_file(path) as descriptor:
        try:
            places, skeleton = built(fill)
        except HDF5_ERRORS as exc:
            if isinstance(exc, FpgpuError | OSError | MemoryError):
                raise
            raise StoreWriteError(f"{path}: cannot be written as HDF5: {exc}") from exc
        skeleton.write(descriptor)
        end = tail(places, skeleton.size) if tail is not None else b""
        write_all(descriptor, end, skeleton.size)
    return places, skeleton.size + len(end)


def write_exposure(
    store: Path,
    geometry: Geometry,
    imset: Any,
    *,
    bitmask: object = None,
    do_fluxcal: bool = False,
    dtype: npt.DTypeLike = np.float32,
    backend: Backend | None = None,
    extra: Mapping[str, Any] | None = None,
    run_id: str = "",
    metadata: MetaEntry | None = None,
) -> Shard:
    """Write an exposure as a shard of a store: `write_shard`, told all there is to know."""
    calibration, pixels = prepared(
        imset, geometry, bitmask, do_fluxcal, np.dtype(dtype), backend, os.fspath(store)
    )
    if extra:
        try:
            noted = {EXTRA: json.dumps(dict(extra))}
        except (TypeError, ValueError) as exc:
            raise UnusableExposureError(
                f"what is to be recorded with the exposure cannot be written as JSON: {exc}"
            ) from exc
        calibration = replace(calibration, provenance={**calibration.provenance, **noted})
    calibration.to_json()  # refuses what cannot be stored, before anything is written

    def write(descriptor: int, offset: int) -> None:
        write_all(descriptor, pixels.data, offset)

    with (
        write_errors(store.parent, "nothing of the exposure was left"),
        ThreadPoolExecutor(1) as other,
    ):
        checksum = other.submit(update_checksum, pixels)
        token = f"{run_id}{secrets.token_hex(8)}"[:16]
        home, dtype = store_id(store), pixels.dtype
        item = Item(calibration, metadata, home, token, dtype, write, checksum=checksum)
        return shard_of(store, geometry, item, token)


def shard_of(store: Path, geometry: Geometry, item: Item, token: str) -> Shard:
    """Write an exposure into a new file of a store, whose name ends in what nobody else has."""
    path = new_path(store, item.key, store_id(store), token, PIXELS_ENDING)
    ((offset, at),), size = durable(path, lambda draft: write_pixel_file(draft, geometry, [item]))
    name = path.relative_to(store.parent).as_posix()
    return Shard(store, placed(item, name, offset, at, size), geometry)


def write_shard(
    folder: str | os.PathLike[str],
    exposure: Any,
    *,
    bitmask: int | None = None,
    do_fluxcal: bool = False,
    shape: tuple[int, int],
    super_pixel_size: int = 8,
    backend: Backend | None = None,
    extra: Mapping[str, Any] | None = None,
    run_id: str = "",
) -> Shard:
    """Write an exposure as a shard, for a commit to make it part of the store.

    Parameters
    ----------
    folder : path
        The store folder; it is made when missing. Any number of processes may write into it.
    exposure : Exposure, ImageSet or any object with their attributes
        The exposure; not changed.
    bitmask : int, optional
        Bits of the mask that make a pixel unusable; all of them when not given.
    do_fluxcal : bool, optional
        Multiply by the header's flux calibration.
    shape : (int, int)
        Pixels along x and y of every image of the store.
    super_pixel_size : int, optional
        Pixels along each side of a super-pixel.
    backend : Backend, optional
        Where to compute, with the same bits; NumPy by default.
    extra : mapping, optional
        What the caller wants to find again with the shard: what JSON can hold.
    run_id : str, optional
        Up to 8 characters that the id of the pixels, and so the last part of the name, begins
        with.

    Returns
    -------
    Shard
        Small; can be sent to the process that commits it.

    Raises
    ------
    ExposureNameError
        If band or expID is not allowed.
    LayoutError
        If the image has another shape, or arrays do not fit each other.
    UnusableExposureError
        If no pixel has any weight, or something is missing that a store needs.
    WCSError
        If the exposure has no usable WCS.
    StoreWriteError
        If the file cannot be written; nothing is left of it.
    """
    geometry = Geometry.of_arguments(shape, super_pixel_size)
    return write_exposure(
        StoreFolder(Path(folder)).pixels.resolve(),
        geometry,
        exposure,
        bitmask=bitmask,
        do_fluxcal=do_fluxcal,
        backend=backend,
        extra=extra,
        run_id=run_id,
        metadata=new_entry(exposure),
    )


def write_records(store: Path, records: Sequence[Record]) -> list[Place]:
    """Write records of metadata, without pixels, into one new file of a store."""
    contents = [encode(record) for record in records]
    starts = np.cumsum([0, *map(len, contents)]).tolist()
    home = records[0].store_id
    path = new_path(store, ("", "metadata"), home, secrets.token_hex(8), RECORDS_ENDING)

    def write(draft: Path) -> None:
        with new_file(draft) as descriptor:
            write_all(descriptor, b"".join(contents), 0)

    with write_errors(store.parent, "nothing of the metadata was left"):
        durable(path, write)
    name = path.relative_to(store.parent).as_posix()
    return [Place.of(name, at, content) for at, content in zip(starts, contents, strict=False)]


def durable(path: Path, write: Callable[[Path], Any]) -> Any:
    """Write a file beside its place and give it its name when it is on the disk."""
    make_folders(path.parent)
    if path.parent.resolve() != path.parent:
        raise StoreFormatError(
            f"{path.parent}: is a link to {path.parent.resolve()}; shards are not written through "
            "links"
        )
    part = path.with_name(f".{path.name}{PART_ENDING}")
    try:
        result = write(part)
        os.rename(part, path)  # noqa: PTH104 (the crash tests stop at these calls)
    except BaseException:
        for left in (part, path):
            with suppress(OSError):
                left.unlink()
        raise
    return result


def new_path(store: Path, key: Key, home: str, token: str, ending: str) -> Path:
    """Name a file that no other writer uses, whatever the exposure is called."""
    band, expID = (_UNSAFE.sub("_", part)[:_LONGEST_STEM] for part in key)
    band, expID = (f"_{name}" if name[:1] in {".", "-"} else name for name in (band, expID))
    return shards_folder(store) / band / f"{expID}-{home}-{token}{ending}"


def shards_folder(store: Path) -> Path:
    """Return the folder of a store's shards: ``pixels.shards`` beside ``pixels.h5``."""
    return store.with_suffix(SHARDS_ENDING)


def commit_folder(store: Path) -> Path:
    """Return the folder of what writers tell each other, made when it is first needed."""
    folder = shards_folder(store) / COMMIT_FOLDER
    make_folders(folder)
    if folder.resolve() != folder:
        raise StoreFormatError(
            f"{folder}: lies behind a link, in {folder.resolve()}; nothing is written through links"
        )
    return folder


def store_id(store: Path) -> str:
    """Return the id of a store, which the names of its shards carry; made when it is first needed.

    It is in a file that is created with its content, so that all writers of a new store agree. One
    that was lost is that of the index.
    """
    folder = commit_folder(store)
    path = folder / "id"
    while True:
        with suppress(FileNotFoundError):
            found = read_regular(path)[0]
            if not re.fullmatch(rb"[0-9a-f]{16}\s*", found):
                raise StoreFormatError(
                    f"{path}: holds {found[:40]!r}, expected the store's id; remove this file, and "
                    "it is made again"
                )
            return found.decode().strip()
        if path.is_symlink():
            raise StoreFormatError(f"{path}: is a link that leads nowhere; remove it")
        stored = open_state(store, missing_ok=True).stored
        new = stored.store_id if stored is not None else secrets.token_hex(8)
        draft = folder / f"id-{secrets.token_hex(8)}{PART_ENDING}"
        with new_file(draft) as descriptor:
            write_all(descriptor, new.encode(), 0)
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        except OSError:  # no hard links on this file system
            os.replace(draft, path)  # noqa: PTH105
        draft.unlink(missing_ok=True)
        fsync(folder)


def read_shard(path: str | os.PathLike[str]) -> Shard:
    """Read what a shard is, without its pixels."""
    path = Path(path).resolve()
    shards = next((p for p in path.parents if p.suffix == SHARDS_ENDING), None)
    if shards is None:
        raise StoreFormatError(f"{path}: lies in no folder '*{SHARDS_ENDING}' of a store")
    store = shards.with_suffix(PIXELS_ENDING)
    state = State.opened(path) if path.is_file() else open_state(path)
    rows = list(state.index.rows.values())
    if len(rows) != 1 or state.geometry is None:
        raise StoreFormatError(f"{path}: holds {len(rows)} exposures; a shard of fpgpu holds one")
    found = rows[0]
    extent = state.extent(found.key)
    with opened_for_reading(path) as h5:
        stored = member(h5, [*found.path.strip("/").split("/")[:-1], RECORD_NAME])
        content = bytes_in(stored, LARGEST)
        if content is None:
            raise StoreFormatError(f"{path}: has no {RECORD_NAME}, so it is no shard of fpgpu")
        offset = stored.id.get_offset() or 0
    record = decode(content, path)
    if record.key != found.key or record.calibration is None:
        raise StoreFormatError(f"{path}: its record is of {record.key}, its pixels {found.key}")
    name = path.relative_to(store.parent).as_posix()
    row = found._replace(
        id=record.id,
        file=name,
        offset=extent.offset,
        size=extent.size,
        meta=None if record.sky is None else Place.of(name, offset, content),
    )
    calibration = CalibrationRecord.from_json(record.calibration)
    return Shard(store, Entry(row, record.sky, calibration), state.geometry)


def find_orphans(folder: str | os.PathLike[str]) -> list[Path]:
    """List the complete shards of a folder that its store does not name.

    They were written and not committed, by a run that was killed or is still going on, or were
    replaced and are kept for those who read the state before.
    """
    store = StoreFolder(Path(folder)).pixels.resolve()
    state = open_state(store, missing_ok=True)
    index = state.index if state.exists else None
    names = index.files.union(name for name, _ in index.replaced) if index else frozenset()
    known = {os.path.join(store.parent, name) for name in names}  # noqa: PTH118 (of thousands)
    real = {os.path.realpath(path) for path in known}
    return [
        path
        for path in _files_below(store, PIXELS_ENDING, RECORDS_ENDING)
        if str(path) not in known and os.path.realpath(path) not in real
    ]


def find_parts(folder: str | os.PathLike[str]) -> list[Path]:
    """List the files of a folder whose writer has not finished, because it died or still writes."""
    store = StoreFolder(Path(folder)).pixels.resolve()
    drafts = [path for path in store.parent.glob(".*.part*") if DRAFT.fullmatch(path.name)]
    return sorted([*drafts, *_files_below(store, PART_ENDING, f"{PART_ENDING}.json")])


def _files_below(store: Path, *endings: str) -> list[Path]:
    """List files with one of these endings in the folder of shards; links are not followed."""
    return sorted(
        Path(parent) / name
        for parent, _, names in os.walk(shards_folder(store))
        for name in names
        if name.endswith(endings)
    )
