"""The two forms of a store, one file or a file per exposure, each made of the other."""

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fpgpu.errors import StoreWriteError
from fpgpu.stores.commit import KEEP_SECONDS, Change, commit, holding
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.index import Entry, Index
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.metadata.entries import MetaEntry
from fpgpu.stores.metadata.skyrecords import Key
from fpgpu.stores.shard import Item, Offsets, placed, shards_folder, store_id, write_pixel_file
from fpgpu.stores.state import State
from fpgpu.stores.upkeep.copying import copied, copied_to_shard
from fpgpu.stores.views import write_views

__all__ = ["Consolidated", "consolidate", "split"]

Progress = Callable[[Key], None]


@dataclass(frozen=True)
class Consolidated:
    """What a change of form did.

    Attributes
    ----------
    folder : str
        The store folder.
    form : str
        ``"single"`` or ``"sharded"``.
    n_exposures : int
        Exposures in the store.
    n_copied : int
        How many were written anew.
    bytes_before, bytes_after : int
        Size of the pixel store on disk, with what is kept for those who have it open.
    """

    folder: str
    form: str
    n_exposures: int
    n_copied: int
    bytes_before: int
    bytes_after: int

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as plain types.

        Returns
        -------
        dict
            Ready for JSON.
        """
        return asdict(self)


def consolidate(
    folder: str | Path, *, now: bool = False, on_progress: Progress = lambda key: None
) -> Consolidated:
    """Put all exposures of a store into one file, with their metadata.

    Values stay the same, bit for bit, and are compared with their checksums on the way; what was
    compressed is not any more. A process killed at any moment leaves the store as it was or as it
    is after. The disk holds both for a week, for those who have the store open.

    Parameters
    ----------
    folder : path
        The store folder.
    now : bool, optional
        Remove the old files at once, also those of exposures that were replaced earlier. Whoever
        has the store open must open it again.
    on_progress : callable, optional
        Called with each ``(band, expID)`` that was copied.

    Returns
    -------
    Consolidated
        What was done.

    Raises
    ------
    MissingStoreError
        If the folder holds no stores.
    IntegrityError
        If an exposure does not match its checksum.
    StoreBusyError, StoreWriteError, StoreConflictError
        If somebody else is changing the store or it cannot be written; it is as it was before.
    """

    def change(state: State) -> Change:
        metadata, main = _metadata(state), state.store
        home = store_id(main)
        keys = [key for key, row in state.index.rows.items() if row.file]
        _require_space(main, sum(state.extent(key).n_bytes for key in keys))
        items = [_noting(copied(state, key, home, metadata(key)), on_progress) for key in keys]

        def form(draft: Path, index: Index) -> None:
            def tail(offsets: Offsets, size: int) -> bytes:
                entries = {
                    item.key: placed(item, main.name, offset, at, -1)
                    for item, (offset, at) in zip(items, offsets, strict=True)
                }
                return index.changed(entries).tail(size)

            write_pixel_file(draft, index.geometry, items, tail)

        put = {item.key: placed(item, main.name, -1, -1, -1) for item in items}
        return Change(put, form=form, keep=0.0 if now else KEEP_SECONDS)

    return _changed(folder, "single", change)


def split(folder: str | Path, *, on_progress: Progress = lambda key: None) -> Consolidated:
    """Give each exposure of a store a file of its own: the sharded form, which ingest makes.

    Exposures that have one already keep it.

    Parameters
    ----------
    folder : path
        The store folder.
    on_progress : callable, optional
        Called with each ``(band, expID)`` that was copied.

    Returns
    -------
    Consolidated
        What was done.

    Raises
    ------
    MissingStoreError
        If the folder holds no stores.
    IntegrityError
        If an exposure does not match its checksum.
    StoreBusyError, StoreWriteError, StoreConflictError
        If somebody else is changing the store or it cannot be written; it is as it was before.
    """
    made: dict[Key, Entry] = {}

    def change(state: State) -> Change:
        shared = Counter(row.file for row in state.index.rows.values())
        metadata = _metadata(state)
        for key, row in state.index.rows.items():
            if row.file and shared[row.file] > 1 and key not in made:
                geometry = state.index.geometry
                made[key] = copied_to_shard(state, key, state.store, geometry, metadata(key)).entry
                on_progress(key)
        return Change(made)

    return _changed(folder, "sharded", change, made)


def _changed(
    folder: str | Path,
    form: str,
    change: Callable[[State], Change],
    made: Mapping[Key, Entry] | None = None,
) -> Consolidated:
    """Change the form of a store, and write its views; all exposures are copied, or `made`."""
    main = StoreFolder(Path(folder)).require().pixels.resolve()
    before = _size(main)
    with holding(main):
        state = commit(main, change)
        write_views(main)
    n = sum(bool(row.file) for row in state.index.rows.values())
    n_copied = n if made is None else len(made)
    return Consolidated(str(folder), form, n, n_copied, before, _size(main))


def _metadata(state: State) -> Callable[[Key], MetaEntry | None]:
    """Return what gives the metadata of an exposure of a state; None where it has none."""
    meta = MetaStore.of_state(state)
    return lambda key: meta.entry(*key) if key in meta else None


def _noting(item: Item, on_progress: Progress) -> Item:
    """Return an item that tells when it is written."""

    def write(descriptor: int, offset: int) -> None:
        item.write(descriptor, offset)
        on_progress(item.key)

    return replace(item, write=write)


def _require_space(store: Path, n_bytes: int) -> None:
    """Refuse to begin what the disk has no room for."""
    free = shutil.disk_usage(store.parent).free
    if free < n_bytes:
        raise StoreWriteError(
            f"{store}: {n_bytes} bytes are to be copied, and its disk has {free} left; the old "
            "files can only go when the new one is complete"
        )


def _size(store: Path) -> int:
    """Return the bytes of a pixel store: its main file and all below its shards."""
    files = [store, *(path for path in shards_folder(store).rglob("*") if path.is_file())]
    seen = {(s.st_dev, s.st_ino): s.st_size for s in (path.stat() for path in files)}
    return sum(seen.values())
