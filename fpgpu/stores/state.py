"""One state of a store, as it was when it was opened: which exposures, and where they are.

Opening takes no lock, writes nothing and never waits. What was opened stays: a commit replaces the
store's file, and the files that it refers to are never changed. A file without an index, forcepho's
or one of fpgpu 0.1, may be changed in place by its program; then reading on is an error.
"""

import difflib
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

import h5py

from fpgpu.errors import (
    MissingStoreError,
    NotInStoreError,
    StoreConflictError,
    StoreError,
    StoreFormatError,
)
from fpgpu.stores.disk import Signature, StrPath, inside, open_regular, read_errors, signature
from fpgpu.stores.hdf5.extents import Extent, locate
from fpgpu.stores.hdf5.guard import attributes_of, opened_guarded
from fpgpu.stores.hdf5.reading import member, opened_for_reading, reading_errors
from fpgpu.stores.index import FOOTER_BYTES, Index, Row, split_tail
from fpgpu.stores.metadata.record import Record, read_place
from fpgpu.stores.metadata.skyrecords import Key, SkyColumns, SkyRecord
from fpgpu.stores.pixels.geometry import Geometry
from fpgpu.stores.pixels.records import CalibrationRecord
from fpgpu.stores.pixels.scan import scan

__all__ = ["SHARDS_ENDING", "State", "open_state"]

logger = logging.getLogger(__name__)

SHARDS_ENDING = ".shards"


@dataclass(eq=False)
class State:
    """What a store held at one instant.

    Attributes
    ----------
    store : Path
        Real path of its file, which need not exist.
    signature : Signature or None
        Of that file; None where there is none.
    geometry : Geometry or None
        Of every image; None where there is no file.
    stored : Index or None
        The index that the file carries; None in one that another program wrote.
    """

    store: Path
    signature: Signature | None = None
    geometry: Geometry | None = None
    stored: Index | None = None
    _extents: dict[Key, Extent] = field(default_factory=dict, repr=False)
    _calibrations: dict[Key, CalibrationRecord] = field(default_factory=dict, repr=False)

    @property
    def folder(self) -> Path:
        """The folder that the store's files are named in."""
        return self.store.parent

    @property
    def exists(self) -> bool:
        """Whether there is a file."""
        return self.signature is not None

    @property
    def is_foreign(self) -> bool:
        """Whether there is a file that carries no index."""
        return self.exists and self.stored is None

    @cached_property
    def index(self) -> Index:
        """What the store holds; of a file without an index, what is found in it."""
        if self.stored is not None:
            return self.stored
        if self.geometry is None:
            raise MissingStoreError(f"{self.store}: no such store; check the path")
        with self._opened(self.store) as h5:
            rows = {row.key: row for row in scan(h5, self.store)}
        nothing = SkyRecord(bytes(32), (0, 0))
        return Index(
            self.geometry,
            "",
            rows=rows,
            columns=SkyColumns.of([nothing] * len(rows)),
            calibrations=(b"",) * len(rows),
        )

    def place(self, key: Key) -> str:
        """Name an exposure for messages."""
        return f"{self.store}: {key[0]}/{key[1]}"

    def row(self, key: Key) -> Row:
        """Return the row of an exposure with pixels."""
        row = self.index.rows.get(key)
        if row is None or not row.file:
            raise self.missing(*key)
        return row

    def missing(self, band: str, expID: str | None = None) -> NotInStoreError:
        """Make the error for a band or an exposure that is not there, with what comes close."""
        exposures: dict[str, list[str]] = {}
        for row in self.index.rows.values():
            if row.file:
                exposures.setdefault(row.band, []).append(row.expID)
        if expID is None or band not in exposures:
            found, wanted, known = "band", str(band), sorted(exposures)
        else:
            found, wanted = f"exposure in band {band}", str(expID)
            known = sorted(exposures[band])
        close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
        if close:
            hint = f"did you mean {' or '.join(map(repr, close))}?"
        elif known:
            hint = (
                f"it holds {len(known)}: {', '.join(known[:5])}{', ...' if len(known) > 5 else ''}"
            )
        else:
            hint = "it is empty"
        return NotInStoreError(f"{self.store}: no {found} named {wanted!r}; {hint}")

    def extent(self, key: Key) -> Extent:
        """Return where the pixels of an exposure are, looked up once."""
        found = self._extents.get(key)
        if found is None:
            row = self.row(key)
            if row.offset < 0 or self.geometry is None:
                with self.dataset(key):
                    return self._extents[key]
            shape = (*self.geometry.grid, self.geometry.n_values)
            path = self._file(row)
            own = self.signature if path == self.store else None
            found = Extent(str(path), shape, row.offset, row.size, own)
            self._extents[key] = found
        return found

    @contextmanager
    def dataset(self, key: Key) -> Iterator[h5py.Dataset]:
        """Open the dataset of an exposure; HDF5 can read it, whatever it is compressed with."""
        row = self.row(key)
        path = self._file(row)
        with self._opened(path) as h5:
            dataset = self._member(h5, row)
            found = locate(dataset)
            geometry = self.geometry
            expected = geometry and (*geometry.grid, geometry.n_values)
            if geometry is None or found.shape != expected:
                raise StoreFormatError(
                    f"{self.place(key)} has shape {found.shape}; {geometry} need {expected}"
                )
            self._extents.setdefault(key, found)
            yield dataset

    def calibration(self, key: Key) -> CalibrationRecord:
        """Return how the pixels of an exposure were made."""
        row = self.row(key)
        known = self._calibrations.get(key) or self.index.calibration(key)
        if known is not None:
            return known
        path = self._file(row)
        with reading_errors(path), opened_guarded(str(path)) as h5:
            self._require_unchanged(path)
            dataset = self._member(h5, row)
            found = self._calibrations[key] = CalibrationRecord.from_dataset(*key, dataset)
            return found

    def record(self, key: Key) -> Record:
        """Read the record of an exposure's metadata, after checking it."""
        row = self.index.rows.get(key)
        if row is None or row.meta is None:
            raise NotInStoreError(f"{self.place(key)}: has no metadata in this store")
        path = inside(self.folder, row.meta.file, self.place(key))
        with read_errors(path), os.fdopen(open_regular(path), "rb", buffering=0) as stream:
            if path == self.store and signature(stream.fileno()) != self.signature:
                raise StoreConflictError(f"{path}: has changed; open the store again")
            record = read_place(stream.fileno(), row.meta, self.place(key))
        if record.key != key:
            raise StoreFormatError(f"{self.place(key)}: its record is of {record.key}")
        return record

    def _member(self, h5: h5py.File, row: Row) -> h5py.Dataset:
        """Return the dataset of an exposure in an open file."""
        dataset = member(h5, row.path.strip("/").split("/"))
        if not isinstance(dataset, h5py.Dataset):
            place = f"{self.place(row.key)} lies in {self._file(row)}"
            raise StoreFormatError(f"{place}, which has no {row.path}")
        return dataset

    def _file(self, row: Row) -> Path:
        """Return the file with the pixels of an exposure."""
        if row.file == self.store.name:
            return self.store
        return inside(self.folder, row.file, self.place(row.key))

    @contextmanager
    def _opened(self, path: Path) -> Iterator[h5py.File]:
        """Open a file with HDF5; the store's own must still be the one of this state."""
        with opened_for_reading(path) as h5:
            self._require_unchanged(path)
            yield h5

    def _require_unchanged(self, path: Path) -> None:
        """Refuse the store's own file where it is not the one of this state any more."""
        if path == self.store and signature(path) != self.signature:
            raise StoreConflictError(
                f"{path}: another program has changed it since it was opened; open it again"
            )

    @classmethod
    def opened(cls, path: Path) -> Self:
        """Open a file that is there."""
        with os.fdopen(open_regular(path), "rb", buffering=0) as stream:
            found = signature(stream.fileno())
            index = _stored_index(stream.fileno(), found.size, path)
        if index is not None:
            return cls(path, found, index.geometry, index)
        with opened_for_reading(path) as h5:
            return cls(path, found, Geometry.of_store(path, attributes_of(h5, strings=False)))


def open_state(path: StrPath, *, missing_ok: bool = False) -> State:
    """Open a store as it is now."""
    try:
        store = Path(path).resolve()
        _refuse_unfinished(store)
        return State.opened(store)
    except (FileNotFoundError, NotADirectoryError) as exc:
        if missing_ok:
            return State(Path(path).resolve())
        raise MissingStoreError(f"{path}: no such store; check the path") from exc
    except StoreError:
        raise
    except (OSError, RuntimeError, ValueError) as exc:
        raise StoreFormatError(f"{path}: cannot be opened: {exc}") from exc


def _stored_index(descriptor: int, size: int, path: Path) -> Index | None:
    """Read the index behind the HDF5 part of a file; None where none belongs to it."""
    tail = split_tail(os.pread(descriptor, FOOTER_BYTES, max(0, size - FOOTER_BYTES)), size)
    if tail is None:
        return None
    content = os.pread(descriptor, tail.n_index, tail.n_before)
    is_whole = hashlib.sha256(content).digest() == tail.digest
    if is_whole and any(tail.before):
        before = os.pread(descriptor, tail.n_before, 0)
        is_whole = hashlib.sha256(before).digest() == tail.before
    if not is_whole:
        logger.warning(
            "%s: does not match the index that it carries: it is damaged, or another program was "
            "stopped while it wrote into it; it is read without the index", path,
        )  # fmt: skip
        return None
    return Index.decode(memoryview(content), path)


def _refuse_unfinished(store: Path) -> None:
    """Refuse a store that fpgpu 0.1 was killed in, which that version alone can settle."""
    for left in (store.with_name(f"{store.name}.journal"), store.with_name(".fpgpu-publish.json")):
        if os.path.lexists(left):
            raise StoreFormatError(
                f"{store}: fpgpu 0.1 was killed while it changed this store and has left "
                f"{left.name}; open the store once with fpgpu 0.1 (pip install 'fpgpu<0.2'), which "
                "puts it in order"
            )
