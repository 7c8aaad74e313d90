"""Writing forcepho's views of a store, after the commits of a run."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import suppress

from fpgpu.errors import StoreError
from fpgpu.stores.commit import Change, commit, holding
from fpgpu.stores.disk import StrPath, after_commit, real_path, write_errors
from fpgpu.stores.metadata.gwcs import joined
from fpgpu.stores.metadata.skyrecords import Key
from fpgpu.stores.metafiles import meta_paths, write_json, write_view
from fpgpu.stores.state import State

__all__ = ["write_views"]

logger = logging.getLogger(__name__)


def write_views(store: StrPath, *, asdf: bool = True) -> None:
    """Write forcepho's ``meta.json``, and ``meta.asdf`` where there are gWCS, as the store is now.

    Files that a user has changed are taken over first.
    """
    main = real_path(store)
    paths = meta_paths(main)
    if paths is None:
        return
    with holding(main):
        state = commit(main, lambda _: Change())
        if not state.exists:
            return
        index = state.index
        keys = [key for key, row in index.rows.items() if row.meta is not None]
        with_gwcs = [key for key in keys if index.has_gwcs(key)]
        with after_commit("pixels.h5 is complete, and 'fpgpu views' writes forcepho's files again"):
            write_json(main, paths.json, ((key, text) for key, text, _ in _records(state, keys)))
            if not with_gwcs:
                with write_errors(paths.asdf), suppress(FileNotFoundError):
                    paths.asdf.unlink()
            elif asdf:
                found = _records(state, with_gwcs)
                parts = [(key, gwcs) for key, _, gwcs in found if gwcs is not None]
                if parts:
                    write_view(main, paths.asdf, joined(parts))


def _records(state: State, keys: Iterable[Key]) -> Iterator[tuple[Key, str, bytes | None]]:
    """Yield headers and gWCS; what cannot be read is left out, so that the others can be had."""
    for key in keys:
        try:
            record = state.record(key)
        except StoreError as exc:
            logger.warning("%s", exc)
        else:
            yield key, record.text or "", record.gwcs
