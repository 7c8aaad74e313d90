"""Making shards part of their store: pixel and meta store change in one instant."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from fpgpu.errors import NotInStoreError, StoreConflictError, StoreWriteError
from fpgpu.stores.files.publish import Together, recover
from fpgpu.stores.files.sync import write_errors
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.pixels.geometry import Geometry
from fpgpu.stores.pixels.links import Link, shards_folder, vetted
from fpgpu.stores.shards.files import Shard
from fpgpu.stores.shards.mainfile import MainFile, refuse_collisions, write_main

__all__ = ["forget", "publish_shards"]

Key = tuple[str, str]


def publish_shards(
    folder: str | Path,
    shards: Iterable[Shard],
    removed: Iterable[Key] = (),
    *,
    alone: bool = False,
    also: Mapping[Path, Callable[[Path], None]] | None = None,
) -> None:
    """Make shards part of a store, and take exposures out of it, all in one instant.

    The main file ``pixels.h5``, ``meta.json``, ``meta.asdf`` and the sidecar become the new state
    together: a process killed at any moment leaves all of them as before or as after. The files of
    replaced and removed shards are deleted after that. Where the store is a single file it is kept
    as it is, under another name, and linked to.

    One process publishes at a time; hold `fpgpu.stores.alone.alone_in` to be sure. Where somebody
    else has changed the store meanwhile, nothing is changed. No locks of the file system are
    needed.

    Parameters
    ----------
    folder : path
        The store folder.
    shards : iterable of Shard
        From `write_shard` or `read_shard`; an exposure that is there already is replaced.
    removed : iterable of (band, expID), optional
        What is taken out of both stores.
    alone : bool, optional
        The caller holds the folder against all other writers, so that leftovers of killed ones
        can be removed where the file system has no locks.
    also : mapping of path to callable, optional
        Other files of the folder that are replaced in the same instant, and how each is written to
        the path it is given.

    Raises
    ------
    ExposureNameError
        If an exposure collides with another one.
    StoreConflictError
        If a shard has another size of images than the store, is in another folder, two are of the
        same exposure, or the store was changed meanwhile.
    NotInStoreError
        If an exposure to be removed is in neither store.
    MissingStoreError, StoreFormatError
        If a shard or a file of the store is gone or damaged.
    StoreWriteError
        If the change could not be made; the message says what the outcome is.
    """
    place = StoreFolder(Path(folder).resolve())
    shards, removed = list(shards), list(removed)
    recover(place.path)
    main = MainFile(place.pixels.resolve())
    geometry = _geometry(main, shards)
    new = {shard.key: shard.link for shard in shards}
    if len(new) < len(shards):
        raise StoreConflictError(f"{place.path}: two shards of the same exposure are to be added")
    gone = set(removed)
    links = {**{key: link for key, link in main.links.items() if key not in gone}, **new}
    refuse_collisions(new, links)
    had_meta = place.meta.exists()
    with MetaStore(place.meta if had_meta else None) as meta:
        for key in removed:
            if not forget(meta, key) and key not in main.links:
                raise NotInStoreError(f"{place.path}: has no {'/'.join(key)}; nothing was removed")
        entries = {shard.key: shard.meta_entry() for shard in shards}
        for key in [key for key, entry in entries.items() if entry is None]:
            forget(meta, key)
        meta.add_prepared(*(entry for entry in entries.values() if entry is not None))
        with write_errors(main.path):
            whole = _all_linked(main, links)
        meta.write_to_file(
            place.meta,
            Together(
                files={
                    main.path: lambda draft: write_main(draft, geometry, whole, main.path),
                    **(also or {}),
                },
                discard=main.unneeded(whole),
                still_right=lambda: main.is_still() and place.meta.exists() == had_meta,
                alone=alone,
            ),
        )


def _geometry(main: MainFile, shards: list[Shard]) -> Geometry:
    """Return the one geometry of a store and the shards that go into it."""
    known = main.geometry
    for shard in shards:
        geometry = Geometry(shard.shape, shard.super_pixel_size)
        known = known or geometry
        if geometry != known:
            raise StoreConflictError(
                f"{shard.file}: holds {geometry}, but {main.path} holds {known}; all images of a "
                "store have one size"
            )
        file = vetted(main.path, shard.link, f"{main.path}: {shard.band}/{shard.expID}")
        if not file.is_relative_to(shards_folder(main.path)) or shard.folder != main.path.parent:
            raise StoreConflictError(
                f"{file}: is no shard of {main.path}; expected one in {shards_folder(main.path)}"
            )
    if known is None:
        raise StoreWriteError(f"{main.path}: there is no store yet and nothing to put into one")
    return known


def _all_linked(main: MainFile, links: Mapping[Key, Link | None]) -> dict[Key, Link]:
    """Return links to all exposures; what lies in the main file itself is set aside with it."""
    base: Link | None = None
    whole = {}
    for key, link in links.items():
        if link is None:
            base = base or main.set_aside()
            link = base._replace(path=f"/{key[0]}/{key[1]}")
        whole[key] = link
    return whole


def forget(meta: MetaStore, key: Key) -> bool:
    """Take an exposure out of a meta store; False where it is not there."""
    band, expID = key
    if key not in meta:
        return False
    del meta.headers[band][expID]
    if not meta.headers[band]:
        del meta.headers[band]
    return True
