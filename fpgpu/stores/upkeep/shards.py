"""Shards that are made of exposures which a store holds already."""

from pathlib import Path

from fpgpu.stores.files.intent import is_pending
from fpgpu.stores.hdf5.filters import Compression
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.metadata.entries import MetaEntry
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.pixels.geometry import Geometry
from fpgpu.stores.pixels.links import identity
from fpgpu.stores.shards.entry import StoredEntry, write_entry
from fpgpu.stores.shards.files import linked_files
from fpgpu.stores.shards.writing import durable_shard
from fpgpu.stores.upkeep.copying import copy_exposure, new_store_file, refuse_unequal

__all__ = ["copy_to_shard", "discard_unlinked", "known_entry"]

Key = tuple[str, str]


def copy_to_shard(
    old: PixelStore,
    store: Path,
    geometry: Geometry,
    key: Key,
    entry: StoredEntry,
    compression: Compression | None,
) -> Path:
    """Copy an exposure of any store into a new shard of a store, and compare."""

    def write(draft: Path) -> None:
        with new_store_file(draft, geometry) as h5:
            write_entry(h5, entry)
            copy_exposure(old, h5, *key, compression)
        with PixelStore(draft, mode="r") as new:
            refuse_unequal(old, new, [key])

    return durable_shard(store, *key, write)


def known_entry(meta: MetaStore, key: Key) -> MetaEntry | None:
    """Return what a meta store holds of an exposure; None where it holds nothing."""
    return meta.entry(*key) if key in meta else None


def discard_unlinked(store: Path, made: list[Path]) -> None:
    """Delete new shards of a change that failed, unless it will be completed."""
    if is_pending(store.parent):
        return
    known = linked_files(store)
    for path in made:
        if identity(path) not in known:
            path.unlink(missing_ok=True)
