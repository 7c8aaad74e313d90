"""Mending what can be mended in a store folder without guessing."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fpgpu.errors import FpgpuError, MissingStoreError, StoreBusyError
from fpgpu.stores.alone import alone_in
from fpgpu.stores.files.publish import recover, scratch_folder
from fpgpu.stores.files.scratch import scratch_folders
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.metadata.store_files import MetaPaths
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.pixels.links import owned_shard
from fpgpu.stores.shards.files import Shard, find_orphans, find_parts, read_shard
from fpgpu.stores.shards.mainfile import MainFile
from fpgpu.stores.shards.publishing import publish_shards

__all__ = ["Repair", "Repaired", "repair"]

Key = tuple[str, str]


@dataclass(frozen=True)
class Repair:
    """One thing that was mended, or left alone for a reason.

    Attributes
    ----------
    where : str
        The exposure or the file.
    what : str
        What was done, or why nothing was.
    done : bool
        Whether something was done.
    """

    where: str
    what: str
    done: bool


@dataclass
class Repaired:
    """What a repair did and what it would not do.

    Attributes
    ----------
    folder : str
        The store folder.
    steps : list of Repair
        In order.
    """

    folder: str
    steps: list[Repair] = field(default_factory=list)

    def did(self, where: object, what: str) -> None:
        """Note something that was done.

        Parameters
        ----------
        where : object
            Its text names the exposure or the file.
        what : str
            What was done.
        """
        self.steps.append(Repair(str(where), what, done=True))

    def left(self, where: object, why: str) -> None:
        """Note something that was left alone.

        Parameters
        ----------
        where : object
            Its text names the exposure or the file.
        why : str
            The reason.
        """
        self.steps.append(Repair(str(where), why, done=False))

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as plain types.

        Returns
        -------
        dict
            Ready for JSON.
        """
        return asdict(self)


def repair(
    folder: str | Path, *, delete_orphans: bool = False, break_lock: bool = False
) -> Repaired:
    """Mend a store folder, as far as that needs no guess.

    Finishes or undoes what a killed writer began and removes its leftovers. A shard that no store
    links to is linked when its exposure is in the store in no other form; it is deleted when the
    store holds the same bits; otherwise it is kept. Headers that the meta store lacks are taken
    from shards, and the sidecar is made again. Exposures are never removed and never replaced.

    Parameters
    ----------
    folder : path
        The store folder.
    delete_orphans : bool, optional
        Delete also those shards that would be kept.
    break_lock : bool, optional
        Go on although another process seems to be changing the stores.

    Returns
    -------
    Repaired
        What was done, and what was left and why.

    Raises
    ------
    MissingStoreError
        If there is no such folder, or it holds nothing of a store.
    StoreBusyError
        If another process is changing the stores.
    StoreFormatError, StoreWriteError
        If a main file of the store cannot be read or written.
    """
    place = StoreFolder(Path(folder).resolve())
    if not place.holds_anything():
        place.require()
    done = Repaired(str(folder))
    with alone_in(place.path, break_lock=break_lock):
        if recover(place.path):
            done.did(place.path.name, "an interrupted change of several files was settled")
        if place.pixels.exists():
            PixelStore(place.pixels).close()  # to look into it undoes what a dead writer left
        _remove_leftovers(place, done)
        _settle_orphans(place, done, delete_orphans)
        _complete_meta(place, done)
        _note_missing(place, done)
    return done


def _remove_leftovers(place: StoreFolder, done: Repaired) -> None:
    """Delete what killed writers of shards and of scratch folders left."""
    for part in find_parts(place.path):
        part.unlink(missing_ok=True)
        done.did(part.relative_to(place.path), "deleted: its writer was killed")
    scratches = scratch_folders(place.path)
    with scratch_folder(place.path, alone=True):
        pass
    left = scratch_folders(place.path)
    for scratch in scratches:
        if scratch in left:
            done.left(scratch.name, "a living process holds it")
        else:
            done.did(scratch.name, "deleted: its writer was killed")


def _settle_orphans(place: StoreFolder, done: Repaired, delete: bool) -> None:
    """Link, delete or keep the shards that the store does not link to."""
    known = MainFile(place.pixels.resolve())
    by_key: dict[Key, list[Shard]] = {}
    for path in find_orphans(place.path):
        name = path.relative_to(place.path)
        try:
            shard = read_shard(path)
            shard.verify()
        except FpgpuError as exc:
            if not known.links or not _all_held(place, path):
                _keep(path, name, f"cannot be used: {exc}", done, delete)
            else:
                path.unlink()
                done.did(name, "deleted: the store holds the same bits of all that is in it")
        else:
            by_key.setdefault(shard.key, []).append(shard)
    chosen: list[Shard] = []
    for key, shards in by_key.items():
        if key in known.links:
            for shard in shards:
                _compare_with_store(place, shard, done, delete)
        elif len({shard.record.checksum for shard in shards}) == 1:
            chosen.append(shards[0])
            for shard in shards[1:]:
                shard.file.unlink()
                done.did(shard.path, f"deleted: holds the same bits as {shards[0].path}")
        else:
            for shard in shards:
                why = f"{len(shards)} shards of {'/'.join(key)} differ, and none is in the store"
                _keep(shard.file, Path(shard.path), why, done, delete)
    for shard in chosen:
        # One by one, so that a name that collides with another does not keep the others out.
        try:
            publish_shards(place.path, [shard], alone=True)
        except StoreBusyError:
            raise
        except FpgpuError as exc:
            done.left(shard.path, f"cannot be linked: {exc}")
        else:
            done.did(shard.path, f"linked as {'/'.join(shard.key)}, which the store lacked")


def _compare_with_store(place: StoreFolder, shard: Shard, done: Repaired, delete: bool) -> None:
    """Delete a shard whose bits the store holds, or keep it."""
    if _holds_same(place, PixelStore(shard.file, mode="r"), shard.key):
        shard.file.unlink()
        done.did(shard.path, f"deleted: the store holds the same bits as {'/'.join(shard.key)}")
    else:
        why = (
            f"the store holds another version of {'/'.join(shard.key)}, and nothing tells which "
            "one is wanted; ingest the exposure again, or use --delete-orphans"
        )
        _keep(shard.file, Path(shard.path), why, done, delete)


def _keep(path: Path, name: Path, why: str, done: Repaired, delete: bool) -> None:
    """Keep a shard, unless it was asked for that such are deleted."""
    if delete:
        path.unlink()
        done.did(name, f"deleted, as asked for; {why}")
    else:
        done.left(name, why)


def _all_held(place: StoreFolder, path: Path) -> bool:
    """Whether the store holds the same bits of every exposure in a file."""
    try:
        other = PixelStore(path, mode="r")
        return bool(len(other)) and all(_holds_same(place, other, key) for key in other)
    except FpgpuError:
        return False


def _holds_same(place: StoreFolder, other: PixelStore, key: Key) -> bool:
    """Whether the store holds the same bits and record of an exposure as another file."""
    try:
        with PixelStore(place.pixels, mode="r") as store:
            return store.record(*key) == other.record(*key) and (
                store.reader.bytes_checksum(*key) == other.reader.bytes_checksum(*key)
            )
    except FpgpuError:
        return False


def _complete_meta(place: StoreFolder, done: Repaired) -> None:
    """Take missing headers from shards, and make the sidecar again."""
    main = MainFile(place.pixels.resolve())
    with MetaStore(place.meta if place.meta.exists() else None) as meta:
        sidecar = MetaPaths.of(place.meta).sidecar
        stale = meta.sidecar_fault() is not None
        added = list(_add_entries(main, meta, done))
        if added or stale:
            meta.write_to_file(place.meta)
    for key in added:
        done.did("/".join(key), "its header was taken from its shard")
    if stale:
        done.did(sidecar.name, "made again")


def _add_entries(main: MainFile, meta: MetaStore, done: Repaired) -> Iterator[Key]:
    """Add the entries that a meta store lacks and shards have; yield their keys."""
    for key, link in main.links.items():
        if key in meta:
            continue
        shard = None if link is None else owned_shard(main.path, link.filename)
        name = "/".join(key)
        if shard is None:
            done.left(name, "no shard tells its header; add the exposure again, or remove it")
            continue
        try:
            entry = read_shard(shard).meta_entry()
        except FpgpuError as exc:
            done.left(name, f"its shard does not tell its header: {exc}")
            continue
        if entry is None:
            done.left(name, "its shard was written without a header; add the exposure again")
            continue
        meta.add_prepared(entry)
        yield key


def _note_missing(place: StoreFolder, done: Repaired) -> None:
    """Say what only a person can decide."""
    main = MainFile(place.pixels.resolve())
    if place.meta.exists():
        with MetaStore(place.meta) as meta:
            for key in meta:
                if key not in main.links:
                    done.left("/".join(key), "has no pixels; add the exposure again, or remove it")
    with suppress(MissingStoreError), PixelStore(place.pixels, mode="r") as store:
        for key in main.links:
            try:
                store.record(*key)
            except FpgpuError as exc:
                done.left("/".join(key), str(exc))
