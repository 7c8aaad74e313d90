"""Taking exposures out of a store folder, out of the pixel store and the meta store at once."""

import fnmatch
from collections.abc import Collection, Iterable
from pathlib import Path

from fpgpu.errors import NotInStoreError
from fpgpu.stores.commit import Change, commit, holding
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.metadata.skyrecords import Key
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.state import State
from fpgpu.stores.views import write_views

__all__ = ["matching", "remove"]


def remove(folder: str | Path, patterns: Iterable[str], *, dry_run: bool = False) -> list[Key]:
    """Take exposures out of a store folder.

    Pixels and metadata go in one instant; a process killed at any moment leaves all exposures or
    none of those to be removed. Their shards are deleted a week later. Where all exposures lie in
    one file, `fpgpu.stores.upkeep.forms.consolidate` gives their space back.

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
        with PixelStore(place.pixels, mode="r") as pixels, MetaStore(place.meta) as meta:
            return matching(patterns, dict.fromkeys([*pixels, *meta]), place.path)
    chosen: list[Key] = []

    def change(state: State) -> Change:
        chosen[:] = matching(patterns, state.index.rows, place.path)
        return Change(drop=chosen)

    with holding(place.pixels):
        commit(place.pixels, change)
        write_views(place.pixels)
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
