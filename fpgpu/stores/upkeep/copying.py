"""Copying exposures between stores: the same bits, compared with their checksums on the way."""

import secrets
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fpgpu.errors import IntegrityError
from fpgpu.stores.disk import write_all, write_errors
from fpgpu.stores.hdf5.guard import opened_guarded
from fpgpu.stores.hdf5.reading import reading_errors
from fpgpu.stores.metadata.entries import MetaEntry
from fpgpu.stores.metadata.skyrecords import Key
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.pixels.geometry import Geometry
from fpgpu.stores.pixels.reading import bytes_checksum, strips
from fpgpu.stores.pixels.records import update_checksum
from fpgpu.stores.shard import Item, Shard, shard_of, store_id
from fpgpu.stores.state import State

__all__ = ["copied", "copied_to_shard", "same_exposure"]


def copied(state: State, key: Key, home: str, metadata: MetaEntry | None) -> Item:
    """Prepare to copy an exposure of a state of a store into a new file, as it is."""
    calibration = state.calibration(key)
    with state.dataset(key) as dataset:
        dtype, path = dataset.dtype.newbyteorder("<"), Path(dataset.file.filename)
    with reading_errors(path), opened_guarded(str(path)) as h5:
        node = h5[state.row(key).path]
        attributes = {name: _attribute(node.attrs, name) for name in node.attrs}

    def write(descriptor: int, offset: int) -> None:
        checksum = update_checksum(b"")
        for strip in strips(state, key):
            checksum = update_checksum(strip, checksum)
            little = np.ascontiguousarray(strip, dtype)
            write_all(descriptor, little.data, offset)
            offset += little.nbytes
        if calibration.checksum not in {None, checksum}:
            raise IntegrityError(
                f"{state.place(key)}: has checksum {checksum}; {calibration.checksum} was "
                "stored with it; add the exposure again or remove it"
            )

    id_ = state.row(key).id or secrets.token_hex(8)
    return Item(calibration, metadata, home, id_, dtype, write, attributes)


def copied_to_shard(
    state: State, key: Key, store: Path, geometry: Geometry, metadata: MetaEntry | None
) -> Shard:
    """Copy an exposure into a new shard of a store."""
    with write_errors(store.parent, "nothing of the exposure was left"):
        item = copied(state, key, store_id(store), metadata)
        return shard_of(store, geometry, item, secrets.token_hex(8))


def same_exposure(a: PixelStore, b: PixelStore, key: Key) -> bool:
    """Whether two stores hold the same bits and record of an exposure."""
    if a.record(*key) != b.record(*key):
        return False
    return bytes_checksum(a.state, key) == bytes_checksum(b.state, key)


def _attribute(attributes: h5py.AttributeManager, name: str) -> Any:
    """Return an attribute that another program has written, as it can be written again."""
    value = attributes[name]
    is_text = isinstance(value, np.ndarray) and value.dtype.kind == "O"
    return value.tolist() if is_text else value
