"""The two forms of a store, one file or a file per exposure, each made of the other."""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fpgpu.errors import StoreWriteError
from fpgpu.stores.alone import alone_in
from fpgpu.stores.files.publish import publish, recover, scratch_folder
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.hdf5.filters import Compression
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.pixels.geometry import Geometry
from fpgpu.stores.pixels.links import Link, owned_shard
from fpgpu.stores.shards.entry import stored_entry
from fpgpu.stores.shards.files import store_bytes
from fpgpu.stores.shards.mainfile import BASE_PREFIX, MainFile, write_main
from fpgpu.stores.upkeep.copying import copy_exposure, new_store_file, refuse_unequal
from fpgpu.stores.upkeep.shards import copy_to_shard, discard_unlinked, known_entry

__all__ = ["Consolidated", "consolidate", "split"]

Key = tuple[str, str]
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
        Size of the pixel store on disk.
    compression : str
        How the copied ones are stored; ``"as before"`` where that was not asked for.
    """

    folder: str
    form: str
    n_exposures: int
    n_copied: int
    bytes_before: int
    bytes_after: int
    compression: str

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as plain types.

        Returns
        -------
        dict
            Ready for JSON.
        """
        return asdict(self)


def consolidate(
    folder: str | Path,
    compression: Compression | None = None,
    on_progress: Progress = lambda key: None,
) -> Consolidated:
    """Put all exposures of a store into one file, and nothing else.

    Values and attributes stay the same, bit for bit; they are compared before the old files go.
    The space of exposures that were replaced is given back. A process killed at any moment leaves
    the store as it was or as it is after. While it runs the disk holds both.

    Parameters
    ----------
    folder : path
        The store folder.
    compression : Compression, optional
        How to store the values; as they are when not given.
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
    compression = compression and compression.checked()
    with alone_in(StoreFolder(Path(folder)).require().path):
        main, geometry = _looked_at(folder)
        before = store_bytes(main.path)
        keys = list(main.links)
        _require_space(main.path, before, compression)
        with (
            PixelStore(main.path, mode="r") as old,
            scratch_folder(main.path.parent, alone=True) as scratch,
        ):
            draft = scratch / main.path.name
            with new_store_file(draft, geometry, main.path) as h5:
                for key in keys:
                    copy_exposure(old, h5, *key, compression)
                    on_progress(key)
            with PixelStore(draft, mode="r") as new:
                refuse_unequal(old, new, keys)
            publish({main.path: draft}, main.is_still, discard=main.unneeded({}))
        return _report(folder, main, "single", len(keys), len(keys), before, compression)


def split(
    folder: str | Path,
    compression: Compression | None = None,
    on_progress: Progress = lambda key: None,
) -> Consolidated:
    """Give each exposure of a store a file of its own, self-contained: the sharded form.

    Exposures that have one already keep it, unless their values are to be stored another way.

    Parameters
    ----------
    folder : path
        The store folder.
    compression : Compression, optional
        How to store the values; as they are when not given.
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
    compression = compression and compression.checked()
    place = StoreFolder(Path(folder)).require()
    with alone_in(place.path):
        main, geometry = _looked_at(folder)
        before = store_bytes(main.path)
        kept = {} if compression else _own_shards(main)
        links: dict[Key, Link] = dict(kept)
        made: list[Path] = []
        try:
            with PixelStore(main.path, mode="r") as old, MetaStore(place.meta) as meta:
                for key in main.links:
                    if key not in kept:
                        entry = stored_entry(known_entry(meta, key))
                        path = copy_to_shard(old, main.path, geometry, key, entry, compression)
                        made.append(path)
                        name = path.relative_to(main.path.parent).as_posix()
                        links[key] = Link(name, f"/{key[0]}/{key[1]}")
                        on_progress(key)
            with scratch_folder(main.path.parent, alone=True) as scratch:
                draft = scratch / main.path.name
                write_main(draft, geometry, {key: links[key] for key in main.links}, main.path)
                publish({main.path: draft}, main.is_still, discard=main.unneeded(links))
        except BaseException:
            discard_unlinked(main.path, made)
            raise
        return _report(folder, main, "sharded", len(links), len(made), before, compression)


def _looked_at(folder: str | Path) -> tuple[MainFile, Geometry]:
    """Look at the main file of a store, after finishing what a crash interrupted."""
    place = StoreFolder(Path(folder)).require()
    recover(place.path)
    main = MainFile(place.pixels.resolve())
    return main, main.required_geometry()


def _own_shards(main: MainFile) -> dict[Key, Link]:
    """Return the exposures that have a file of their own already."""
    files: dict[Path, list[Key]] = {}
    for key, link in main.links.items():
        shard = None if link is None else owned_shard(main.path, link.filename)
        if shard is not None and not shard.name.startswith(BASE_PREFIX):
            files.setdefault(shard, []).append(key)
    alone = [keys[0] for keys in files.values() if len(keys) == 1]
    return {key: link for key in alone if (link := main.links[key]) is not None}


def _require_space(store: Path, n_bytes: int, compression: Compression | None) -> None:
    """Refuse to begin what the disk has no room for."""
    free = shutil.disk_usage(store.parent).free
    if (compression is None or compression.name == "none") and free < n_bytes:
        raise StoreWriteError(
            f"{store}: {n_bytes} bytes are to be copied, and its disk has {free} left; the old "
            "files can only go when the new one is complete"
        )


def _report(
    folder: str | Path,
    main: MainFile,
    form: str,
    n_exposures: int,
    n_copied: int,
    before: int,
    compression: Compression | None,
) -> Consolidated:
    return Consolidated(
        str(folder),
        form,
        n_exposures,
        n_copied,
        before,
        store_bytes(main.path),
        "as before" if compression is None else compression.name,
    )
