"""Taking exposures out of a store folder, out of the pixel store and the meta store at once."""

import fnmatch
from collections.abc import Collection, Iterable
from pathlib import Path

from fpgpu.errors import NotInStoreError
from fpgpu.stores.alone import alone_in
from fpgpu.stores.files.publish import Together, recover
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.shards.mainfile import MainFile, put_links
from fpgpu.stores.shards.publishing import forget, publish_shards
from fpgpu.stores.upkeep.copying import copy_exposure, new_store_file, refuse_unequal

__all__ = ["matching", "remove"]

Key = tuple[str, str]


def remove(folder: str | Path, patterns: Iterable[str], *, dry_run: bool = False) -> list[Key]:
    """Take exposures out of a store folder.

    Pixel and meta store change in one instant; a process killed at any moment leaves all
    exposures or none of those to be removed. Shards are deleted afterwards. Where exposures lie
    in one file, that file is written anew without them, so that their space is given back.

    Parameters
    ----------
    folder : path
        The store folder.
    patterns : iterable of str, or str
        Exposures ``band/expID``, or patterns of them with ``*``, ``?`` and ``[...]``, where ``*``
        matches slashes, too.
    dry_run : bool, optional
        Only tell what would be removed.

    Returns
    -------
    list of (band, expID)
        What was removed, or would be.

    Raises
    ------
    NotInStoreError
        If a pattern matches nothing; nothing is removed then.
    MissingStoreError
        If the folder holds no stores.
    StoreBusyError, StoreWriteError, StoreConflictError
        If somebody else is changing the store or it cannot be written; it is as it was before.
    """
    place = StoreFolder(Path(folder)).require()
    if dry_run:
        return _found(place, patterns)
    with alone_in(place.path):
        recover(place.path)
        chosen = _found(place, patterns)
        main = MainFile(place.pixels.resolve())
        if any(link is None for link in main.links.values()):
            _rewrite_without(place, main, set(chosen))
        else:
            publish_shards(place.path, [], chosen, alone=True)
        return chosen


def matching(patterns: Iterable[str], known: Collection[Key], folder: object) -> list[Key]:
    """Return the exposures that patterns mean.

    Parameters
    ----------
    patterns : iterable of str
        As for `remove`.
    known : collection of (band, expID)
        All that there are.
    folder : object
        Its text names the store in messages.

    Returns
    -------
    list of (band, expID)
        In the order of `known`, each once.

    Raises
    ------
    NotInStoreError
        If a pattern matches nothing.
    """
    if isinstance(patterns, str):
        patterns = [patterns]
    names = {"/".join(key): key for key in known}
    chosen: set[str] = set()
    for pattern in patterns:
        # Names may hold brackets and stars themselves.
        found = [pattern] if pattern in names else fnmatch.filter(names, pattern)
        if not found:
            bands = {key[0] for key in known}
            hint = (
                f"for all of the band write '{pattern}/*'"
                if pattern in bands
                else "'fpgpu info --exposures' lists what there is; quote patterns, or the shell "
                "expands them"
            )
            raise NotInStoreError(f"{folder}: no exposure matches {pattern!r}; {hint}")
        chosen.update(found)
    return [key for name, key in names.items() if name in chosen]


def _found(place: StoreFolder, patterns: Iterable[str]) -> list[Key]:
    """Return the exposures of either store that patterns mean."""
    with PixelStore(place.pixels, mode="r") as pixels, MetaStore(place.meta) as meta:
        known = dict.fromkeys([*pixels, *meta])
    return matching(patterns, known, place.path)


def _rewrite_without(place: StoreFolder, main: MainFile, chosen: set[Key]) -> None:
    """Write the main file anew, without some exposures, together with the meta store."""
    kept = {key: link for key, link in main.links.items() if key not in chosen}
    own = [key for key, link in kept.items() if link is None]
    links = {key: link for key, link in kept.items() if link is not None}
    geometry = main.required_geometry()

    def write(draft: Path) -> None:
        with PixelStore(main.path, mode="r") as old:
            with new_store_file(draft, geometry, main.path) as h5:
                for key in own:
                    copy_exposure(old, h5, *key, None)
                put_links(h5, links)
            with PixelStore(draft, mode="r") as new:
                refuse_unequal(old, new, own)

    with MetaStore(place.meta) as meta:
        for key in chosen:
            forget(meta, key)
        together = Together(
            files={main.path: write},
            discard=main.unneeded(kept),
            still_right=main.is_still,
            alone=True,
        )
        meta.write_to_file(place.meta, together)
