"""``meta.json`` and ``meta.asdf`` beside an indexed store: views for forcepho, or a user's files.

A view carries a seal, the SHA-256 of the store's id and of all else in it, where its format ignores
it: so it is known in a copy, too, which may have each file as it was at another moment. Size and
time of the latest are kept in ``.commit/views.json``, which saves reading them. Any other file is a
user's: a header was tweaked, or `MetaStore.write_to_file` of another program made it. It is never
overwritten; the next commit takes its content over.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from fpgpu.errors import MissingStoreError
from fpgpu.stores.disk import StrPath, read_errors, read_regular, signature, write_beside
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.index import Entry, Index, Row
from fpgpu.stores.metadata.catalog import ExposureCatalog
from fpgpu.stores.metadata.record import Record
from fpgpu.stores.metadata.skyrecords import UNKNOWN_SHAPE, Key, text_digest
from fpgpu.stores.metadata.source import FileSource, MetaPaths
from fpgpu.stores.shard import (
    COMMIT_FOLDER,
    commit_folder,
    shards_folder,
    store_id,
    write_records,
)
from fpgpu.stores.state import State, open_state

__all__ = [
    "are_known",
    "json_text",
    "leave_views",
    "meta_paths",
    "new_entries",
    "state_beside",
    "taken_over",
    "write_json",
    "write_view",
]

RECORDS_FILE = "views.json"
_REMEMBERED = 4
"""Of each view the one in place, and some newer ones: a note is made before its file is there."""

_SEAL = re.compile(rb"#fpgpu [0-9a-f]{64}\n")
_SEAL_BITS = 256
_TO_BLANKS = bytes.maketrans(b"01", b" \t")


def meta_paths(store: Path) -> MetaPaths | None:
    """Return the meta files that belong to a pixel store; only one called pixels.h5 has any."""
    folder = StoreFolder(store.parent)
    return MetaPaths.of(folder.meta) if store.name == folder.pixels.name else None


def state_beside(json_path: StrPath) -> State | None:
    """Return the state of the indexed store that a meta file belongs to, if it does."""
    path = Path(json_path)
    folder = StoreFolder(path.parent)
    if path.name != folder.meta.name or not folder.pixels.is_file():
        return None
    state = open_state(folder.pixels)
    return None if state.stored is None else state


def are_known(state: State, paths: MetaPaths) -> bool:
    """Whether the meta files beside a store, those that exist, hold nothing that it does not."""
    notes = _notes(state.store)
    return all(_is_known(state, path, notes) for path in paths)


def leave_views(state: State, gone: Collection[Key]) -> None:
    """Take exposures out of forcepho's views before they change.

    forcepho so never sees new pixels with old headers. The file of gWCS goes altogether: it is
    made again with the next views.
    """
    paths = meta_paths(state.store)
    if paths is None or not gone:
        return
    if paths.json.exists():
        texts = FileSource(paths).names
        if any(expID in texts.get(band, {}) for band, expID in gone):
            for band, expID in gone:
                texts.get(band, {}).pop(expID, None)
            pieces = (
                ((band, expID), text) for band in texts for expID, text in texts[band].items()
            )
            write_json(state.store, paths.json, pieces)
    if any(state.index.rows[key].meta and state.index.has_gwcs(key) for key in gone):
        with suppress(FileNotFoundError):
            paths.asdf.unlink()


def taken_over(state: State, index: Index) -> Index:
    """Return an index into which the meta files of a user, or of another program, have gone.

    It is returned as it is when all is known.
    """
    paths = meta_paths(state.store)
    if paths is None or not paths.json.exists():
        return index
    notes = _notes(state.store)
    json_known, asdf_known = (_is_known(state, path, notes) for path in paths)
    if json_known and asdf_known and not state.is_foreign:
        return index
    # A view of the gWCS, or none, leaves them as the store has them.
    source = FileSource(paths, asdf=not asdf_known)
    catalog = ExposureCatalog(source, use_gwcs=False)
    wanted = []
    for key in catalog:
        old = index.sky(key) if key in index.rows else None
        if old is None or not asdf_known or old.digest != text_digest(source.text(key)):
            wanted.append(key)
    # Of a file whose index is gone, what was recovered knows where the records are.
    known = replace(state, stored=index)
    put = new_entries(known, index, catalog, wanted, keep_gwcs=asdf_known)
    taken = {
        path.name: hashlib.sha256(read_regular(path)[0]).hexdigest()
        for path in paths
        if path.exists()
    }
    return index.changed(put, taken=taken)


def new_entries(
    state: State,
    index: Index,
    catalog: ExposureCatalog,
    keys: Iterable[Key],
    *,
    keep_gwcs: bool = False,
) -> dict[Key, Entry]:
    """Write new records of the metadata of exposures, and return their rows.

    With `keep_gwcs` the gWCS, and what came from it, stay as the store has them.
    """
    home, records = store_id(state.store), []
    for key in keys:
        entry = catalog.entry(*key)
        gwcs, sky = entry.gwcs_bytes(), entry.record
        old = index.sky(key) if keep_gwcs and key in index.rows else None
        if old is not None and old.has_gwcs:
            gwcs = state.record(key).gwcs
            same = old.shape == sky.shape or sky.shape == UNKNOWN_SHAPE
            sky = replace(
                sky,
                has_gwcs=True,
                gwcs_outline=old.gwcs_outline if same else None,
                sip=old.sip if same else None,
            )
        row = index.rows.get(key)
        records.append(Record(key, row.id if row else "", home, entry.text, gwcs, sky))
    if not records:
        return {}
    places = write_records(state.store, records)
    entries = {}
    for record, place in zip(records, places, strict=True):
        known = index.entry(record.key) if record.key in index.rows else Entry(Row(*record.key))
        entries[record.key] = known._replace(row=known.row._replace(meta=place), sky=record.sky)
    return entries


def write_json(store: Path, path: Path, texts: Iterable[tuple[Key, str]]) -> None:
    """Write the view of the headers."""
    write_view(store, path, json_text(texts).encode("ascii"))


def json_text(texts: Iterable[tuple[Key, str]]) -> str:
    """Return headers as forcepho has them, the exposures of a band one after the other."""
    bands: dict[str, dict[str, str]] = {}
    for (band, expID), text in texts:
        bands.setdefault(band, {})[expID] = text
    return json.dumps(bands)


def write_view(store: Path, path: Path, content: bytes) -> None:
    """Replace a view, which is sealed; its size and time are noted before."""

    def note() -> bool:
        notes = _notes(store)
        found = signature(draft)
        earlier = notes.get(path.name, [])
        with suppress(MissingStoreError):  # attempts that failed must not push out what is there
            there = signature(path)
            earlier.sort(key=lambda note: note != [there.size, there.mtime_ns])
        notes[path.name] = [[found.size, found.mtime_ns], *earlier][:_REMEMBERED]
        target = commit_folder(store) / RECORDS_FILE
        if target.is_symlink():  # not ours: what it leads to is left alone
            target.unlink()
        with write_beside(target) as record:
            record.write_text(json.dumps(notes))
        return True

    with write_beside(path, note) as draft:
        draft.write_bytes(_sealed(content, store_id(store)))


def _sealed(content: bytes, home: str) -> bytes:
    """Put the seal into a view of the store of this id."""
    digest = hashlib.sha256(home.encode() + content).hexdigest()
    if content.startswith(b"{"):  # JSON has no comments; blanks and tabs at its end mean nothing
        return content + f"{int(digest, 16):0{_SEAL_BITS}b}".encode().translate(_TO_BLANKS)
    head, _, tree = content.partition(b"%YAML")
    return b"".join((head, b"#fpgpu ", digest.encode(), b"\n%YAML", tree))


def _is_sealed(content: bytes, home: str) -> bool:
    """Whether a file is as fpgpu has written it for the store of this id."""
    is_json = content.startswith(b"{")
    bare = content[:-_SEAL_BITS] if is_json else _SEAL.sub(b"", content, count=1)
    return _sealed(bare, home) == content


def _notes(store: Path) -> dict[str, list[list[Any]]]:
    """Read which views fpgpu has written; none where the file is missing or damaged.

    What cannot be read for now is an error: it must not be replaced by less.
    """
    path = shards_folder(store) / COMMIT_FOLDER / RECORDS_FILE
    try:
        with read_errors(path):
            found = json.loads(read_regular(path)[0])
        return {
            name: [list(note[:2]) for note in notes if [*map(type, note[:2])] == [int, int]]
            for name, notes in found.items()
        }
    except (MissingStoreError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _is_known(state: State, path: Path, notes: Mapping[str, list[list[Any]]]) -> bool:
    """Whether a meta file is not there, is a view, or was taken over."""
    try:
        found = signature(path)
    except MissingStoreError:
        return True
    if [found.size, found.mtime_ns] in notes.get(path.name, []):
        return True
    content = read_regular(path)[0]
    home = state.stored.store_id if state.stored else store_id(state.store)
    taken = state.stored.taken.get(path.name) if state.stored else None
    return _is_sealed(content, home) or hashlib.sha256(content).hexdigest() == taken
