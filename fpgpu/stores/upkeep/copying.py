"""Copying exposures between stores: the same bits, compared with their checksums on the way."""

import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fpgpu.errors import IntegrityError
from fpgpu.stores.disk import write_all, write_errors
from fpgpu.stores.hdf5.guard import opened_guarded
from fpgpu.stores.hdf5.reading import reading_errors
from fpgpu.stores.index import Entry, Row
from fpgpu.stores.metadata.entries import MetaEntry
from fpgpu.stores.metadata.record import Place, Record, encode
from fpgpu.stores.metadata.records import Key
from fpgpu.stores.names import DATASET_NAME
from fpgpu.stores.pixels.geometry import Geometry
from fpgpu.stores.pixels.reading import ExposureReader
from fpgpu.stores.pixels.records import update_checksum
from fpgpu.stores.shard import (
    PIXELS_ENDING,
    Item,
    Shard,
    durable,
    new_path,
    store_id,
    write_pixel_file,
)
from fpgpu.stores.state import State

__all__ = ["Copy", "copied_to_shard"]


@dataclass(frozen=True)
class Copy:
    """An exposure that goes into a new file as it is.

    Attributes
    ----------
    key : (str, str)
        Band and expID.
    id : str
        Of its pixels.
    item : Item
        For `write_pixel_file`.
    entry : Entry
        Of the exposure where it comes from.
    """

    key: Key
    id: str
    item: Item
    entry: Entry

    @classmethod
    def of(cls, state: State, key: Key, home: str, metadata: MetaEntry | None) -> "Copy":
        """Prepare to copy an exposure of a state of a store.

        Parameters
        ----------
        state : State
            Where it is.
        key : (str, str)
            Band and expID.
        home : str
            Id of the store that it goes to.
        metadata : MetaEntry or None
            What is kept of header and WCS there.
        """
        calibration = state.calibration(key)
        with state.dataset(key) as dataset:
            dtype, path = dataset.dtype.newbyteorder("<"), Path(dataset.file.filename)
        with reading_errors(path), opened_guarded(str(path)) as h5:
            node = h5[state.row(key).path]
            attributes = {name: _attribute(node.attrs, name) for name in node.attrs}
        id_ = state.row(key).id or secrets.token_hex(8)
        record = Record(
            key,
            id_,
            home,
            metadata and metadata.text,
            metadata and metadata.gwcs_bytes(),
            metadata and metadata.record,
            calibration.to_json(),
        )

        def write(descriptor: int, offset: int) -> None:
            checksum = update_checksum(b"")
            for strip in ExposureReader(state, dtype).strips(*key):
                checksum = update_checksum(strip, checksum)
                little = np.ascontiguousarray(strip, dtype)
                write_all(descriptor, little.data, offset)
                offset += little.nbytes
            if calibration.checksum not in {None, checksum}:
                raise IntegrityError(
                    f"{state.place(key)}: has checksum {checksum}; {calibration.checksum} was "
                    "stored with it; add the exposure again or remove it"
                )

        attributes = {**attributes, **calibration.to_attributes()}
        item = Item(key, attributes, dtype, write, encode(record))
        return cls(key, id_, item, Entry(Row(*key), record.sky, calibration))

    def placed(self, file: str, offset: int, at: int, size: int) -> Entry:
        """Return the entry of the exposure in its new file."""
        content = self.item.record or b""
        place = Place(file, at, len(content), hashlib.sha256(content).hexdigest())
        return self.entry._replace(
            row=Row(
                *self.key,
                self.id,
                file,
                f"/{'/'.join(self.key)}/{DATASET_NAME}",
                offset,
                size,
                place if self.entry.sky is not None else None,
            )
        )


def copied_to_shard(
    state: State, key: Key, store: Path, geometry: Geometry, metadata: MetaEntry | None
) -> Shard:
    """Copy an exposure into a new shard of a store.

    Raises
    ------
    IntegrityError
        If it does not match its checksum.
    StoreWriteError
        If it cannot be written; nothing is left of it.
    """
    with write_errors(store.parent, "nothing of the exposure was left"):
        home = store_id(store)
        copy = Copy.of(state, key, home, metadata)
        path = new_path(store, key, home, secrets.token_hex(8), PIXELS_ENDING)
        ((offset, at),), size = durable(
            path, lambda draft: write_pixel_file(draft, geometry, [copy.item])
        )
    name = os.fspath(path.relative_to(store.parent))
    return Shard(store, copy.placed(name, offset, at, size), geometry)


def _attribute(attributes: h5py.AttributeManager, name: str) -> Any:
    """Return an attribute that another program has written, as it can be written again."""
    value = attributes[name]
    is_text = isinstance(value, np.ndarray) and value.dtype.kind == "O"
    return value.tolist() if is_text else value
