"""The one commit: a new ``pixels.h5``, links and index together, takes the place of the old one.

The steps, each in a function below in this order; ``docs/commit.md`` says what a crash leaves at
each of them:

1. take the lease, which keeps writers apart that live and can talk to each other;
2. look for the highest number that was claimed and remove the drafts of other writers, so that
   none of them can commit any more;
3. read the state there is; take over what another program or a user has written;
4. write the new file beside, and make it durable;
5. claim the next number, which only one can;
6. let exposures that are replaced or removed leave forcepho's views;
7. rename the new file over the old one.

Whoever finds at 5 or 7 that another writer was quicker begins again at 2. Readers know nothing of
all this.
"""

import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py

from fpgpu.errors import (
    FpgpuError,
    NotInStoreError,
    StoreBusyError,
    StoreConflictError,
    StoreFormatError,
)
from fpgpu.stores.disk import (
    StrPath,
    fsync,
    inside,
    new_file,
    open_regular,
    real_path,
    signature,
    signature_if_there,
    write_all,
    write_errors,
)
from fpgpu.stores.hdf5.building import image_of
from fpgpu.stores.index import Entry, Index, Row
from fpgpu.stores.lease import leased
from fpgpu.stores.legacy import shard_record
from fpgpu.stores.metadata.record import Record
from fpgpu.stores.metadata.skyrecords import Key
from fpgpu.stores.metafiles import leave_views, taken_over
from fpgpu.stores.names import DATASET_NAME, NameTree
from fpgpu.stores.pixels.geometry import Geometry
from fpgpu.stores.shard import (
    COMMIT_FOLDER,
    PART_ENDING,
    PIXELS_ENDING,
    Shard,
    commit_folder,
    durable,
    new_path,
    read_shard,
    shards_folder,
    store_id,
    write_records,
)
from fpgpu.stores.state import State, open_state

__all__ = ["KEEP_SECONDS", "Change", "Form", "commit", "commit_shards", "holding"]

KEEP_SECONDS = 7 * 86400.0
"""How long files that were replaced stay, for those who have an older state open."""

_ATTEMPTS = 20
_COPY_CHUNK = 1 << 24
_CLAIM = re.compile(r"claim-(\d{12,})")
_DRAFT = "draft-"

Form = Callable[[Path, Index], None]
"""Writes the main file of a store anew, index and all, to a path that does not exist yet."""


@dataclass(frozen=True)
class Change:
    """What a commit changes.

    Attributes
    ----------
    put : mapping of (band, expID) to Entry
        Exposures that are added, or take the place of others.
    drop : collection of (band, expID)
        Exposures that go.
    geometry : Geometry or None
        Of what is put; the store's, where that is new.
    form : callable or None
        How the main file is written, if it is not of links.
    keep : float
        Seconds for which files that are replaced stay.
    """

    put: Mapping[Key, Entry] = field(default_factory=dict)
    drop: Collection[Key] = ()
    geometry: Geometry | None = None
    form: Form | None = None
    keep: float = KEEP_SECONDS

    def __bool__(self) -> bool:
        """Whether anything changes."""
        return bool(self.put or self.drop or self.form)


def commit(
    store: StrPath,
    change: Callable[[State], Change],
    *,
    timeout: float = 10.0,
    break_lease: bool = False,
    known: State | None = None,
) -> State:
    """Change a store, completely or not at all.

    `change` is asked again, with the state there is then, when another writer was quicker. A state
    that is `known` is not read again if it is still the one.
    """
    main = real_path(store)
    with holding(main, timeout=timeout, break_lease=break_lease), write_errors(main):
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(0.05 * attempt * (1 + secrets.randbelow(4)))
            number = _fence(main)
            with _kept_from_hdf5(main):
                state = known
                if not (state and state.stored and state.signature == signature_if_there(main)):
                    state = open_state(main, missing_ok=True)
                found = _attempt(state, number, change)
            if found is not None:
                return found
    raise StoreBusyError(
        f"{main}: other writers were quicker {_ATTEMPTS} times; try again when they are done"
    )


def commit_shards(
    store: StrPath,
    shards: Sequence[Shard],
    removed: Collection[Key] = (),
    *,
    timeout: float = 10.0,
    known: State | None = None,
) -> State:
    """Make shards part of a store, and take exposures out of it, all at once."""
    main = real_path(store)
    strangers = [shard for shard in shards if shard.store != main]
    if strangers:
        raise StoreConflictError(
            f"{strangers[0].file}: was written for {strangers[0].store}, not for {main}"
        )
    geometries = {shard.geometry for shard in shards}
    if len(geometries) > 1:
        raise StoreConflictError(
            f"{store}: images of several sizes ({', '.join(map(str, geometries))}) cannot be in "
            "one store"
        )
    geometry = next(iter(geometries), None)
    put = {shard.key: shard.entry for shard in shards}
    return commit(store, lambda _: Change(put, removed, geometry), timeout=timeout, known=known)


def discard(store: Path, shards: Iterable[Shard]) -> None:
    """Remove shards of a commit that failed, but those that the store names all the same.

    After the rename an error undoes nothing: a folder that cannot be synced, or an interrupt.
    """
    with suppress(FpgpuError, OSError):
        state = open_state(store, missing_ok=True)
        named = state.index.files if state.exists else frozenset()
        for shard in shards:
            if shard.path not in named:
                shard.file.unlink(missing_ok=True)


@contextmanager
def holding(store: StrPath, *, timeout: float = 1.0, break_lease: bool = False) -> Iterator[None]:
    """Keep other writers out of a store; within the block this thread may commit."""
    main = real_path(store)
    folder = shards_folder(main) / COMMIT_FOLDER
    with write_errors(main.parent, "nothing was changed; give a folder that can be written"):
        is_new = not main.parent.exists()
        commit_folder(main)
    try:
        with leased(folder / "lease", main, timeout=timeout, break_lease=break_lease):
            yield
    finally:
        # Where nothing was made no folder is left behind that is empty.
        with suppress(OSError):
            if not main.exists():
                for empty in (folder, folder.parent, *([main.parent] if is_new else [])):
                    empty.rmdir()


# --- the steps -----------------------------------------------------------------------------------


def _fence(store: Path) -> int:
    """Remove the drafts of other writers; return the number that the next commit is to claim.

    A writer that was stopped after its lease went to another may have claimed a number and wake up
    before its rename, which then finds no draft any more.
    """
    folder = shards_folder(store) / COMMIT_FOLDER
    highest = 0
    for path in folder.iterdir():
        highest = max(highest, _claimed(path))
        if path.name.startswith(_DRAFT):
            path.unlink(missing_ok=True)
    return highest + 1


@contextmanager
def _kept_from_hdf5(store: Path) -> Iterator[None]:
    """Keep HDF5 programs from writing into the file that is to be replaced, as readers do."""
    try:
        descriptor = open_regular(store)
    except FileNotFoundError:
        yield
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise StoreBusyError(
                f"{store}: another program has this file open for writing; close it there"
            ) from exc
        except OSError:  # a file system without locks: HDF5 programs have none there either
            pass
        yield
    finally:
        os.close(descriptor)


def _attempt(state: State, number: int, change: Callable[[State], Change]) -> State | None:
    """Try to make the commit of a number; None when another writer was quicker."""
    store = state.store
    base = _base(state)
    # What is asked for is told of the state as it is taken over.
    before = State(store, state.signature, state.geometry, base) if base else state
    wanted = change(before)
    if base is not None and base is state.stored and not wanted:
        return state
    if base is None:
        if wanted.geometry is None:
            return state  # nothing there, nothing asked
        base = Index(wanted.geometry, store_id(store))
    if wanted.geometry not in {None, base.geometry}:
        raise StoreConflictError(
            f"{store}: holds {base.geometry}, which {wanted.geometry} cannot be added to"
        )
    _refuse_collisions(base, wanted)
    for entry in wanted.put.values():
        if entry.row.file:  # it may have been tidied away since it was written
            inside(store.parent, entry.row.file, "/".join(entry.row.key))
    new = base.changed(wanted.put, wanted.drop, generation=number)
    if wanted.form is None and store.name in new.files:
        new = _moved(state, new)
    expired, replaced = _replaced(base if state.stored is None else state.stored, new, wanted.keep)
    new = replace(new, replaced=replaced)
    _sync_names(store, state.index.files if state.exists else frozenset(), new.files)
    folder = shards_folder(store) / COMMIT_FOLDER
    draft = folder / f"{_DRAFT}{secrets.token_hex(8)}{PIXELS_ENDING}"
    try:
        (wanted.form or write_links)(draft, new)
        if state.exists:
            draft.chmod(store.stat().st_mode & 0o7777)
        if not _claim(folder, number):
            return None
        changed = base.rows.keys() & {*wanted.put, *wanted.drop}
        leave_views(before, [k for k in changed if _identity(base, k) != _identity(new, k)])
        if signature_if_there(store) != state.signature:
            return None
        made = State(store, signature(draft), new.geometry, new)
        try:
            os.rename(draft, store)  # noqa: PTH104 (the commit)
        except FileNotFoundError:
            return None
    finally:
        # After the rename there is none, and the store is as it is to be.
        with suppress(OSError):
            draft.unlink()
    with write_errors(
        store, "the change is made, but a power failure may bring the old state back"
    ):
        fsync(store.parent)
    with suppress(OSError):
        _tidy(store, new, expired, number)
    return made


def _identity(index: Index, key: Key) -> tuple[str, str | None] | None:
    """Return what tells pixels and metadata of an exposure from others; None without it."""
    row = index.rows.get(key)
    return row and (row.id, row.meta and row.meta.digest)


def _base(state: State) -> Index | None:
    """Return the index that a change starts from: what others have written is taken over."""
    if not state.exists:
        return None
    index = state.index
    if state.is_foreign:
        index = replace(index, store_id=store_id(state.store))
        index = index.changed(_recovered(state, index))
    return taken_over(state, index)


def _recovered(state: State, index: Index) -> dict[Key, Entry]:
    """Find out all there is to know of the exposures of a store that carries no index."""
    old: list[Record] = []
    entries: dict[Key, Entry] = {}
    for key, row in index.rows.items():
        path = state.folder / row.file
        if f"-{index.store_id}-" in path.name and path.suffix == PIXELS_ENDING:
            with suppress(StoreFormatError):
                # A shard of ours, in a file of links that another program has written to.
                shard = read_shard(path)
                if (shard.key, shard.store) == (key, state.store):
                    entries[key] = shard.entry
                    continue
        extent = state.extent(key)
        located = row._replace(offset=extent.offset, size=extent.size)
        entries[key] = Entry(located, None, state.calibration(key))
        if path != state.store:
            record = shard_record(path, key, index.store_id)
            old += [] if record is None else [record]
    for record, place in zip(old, write_records(state.store, old) if old else [], strict=True):
        entry = entries[record.key]
        entries[record.key] = entry._replace(row=entry.row._replace(meta=place), sky=record.sky)
    return entries


def _moved(state: State, index: Index) -> Index:
    """Give the pixels of a store of one file another name, as its own is to be replaced."""
    store = state.store
    home = store_id(store)
    path = new_path(store, ("", store.stem), home, secrets.token_hex(8), PIXELS_ENDING)

    def keep(draft: Path) -> None:
        fsync(store)  # another program may just have written it
        if store.stat().st_nlink == 1:
            with suppress(OSError):
                os.link(store, draft)
                return
        with (
            os.fdopen(open_regular(store), "rb") as source,
            new_file(draft) as descriptor,
            os.fdopen(descriptor, "wb", closefd=False) as target,
        ):
            shutil.copyfileobj(source, target, _COPY_CHUNK)

    durable(path, keep)
    name = path.relative_to(store.parent).as_posix()
    size = path.stat().st_size

    def moved(row: Row) -> Row:
        if row.file == store.name:
            row = row._replace(file=name, size=size)
        if row.meta is not None and row.meta.file == store.name:
            row = row._replace(meta=row.meta._replace(file=name))
        return row

    return replace(index, rows={key: moved(row) for key, row in index.rows.items()})


def _refuse_collisions(base: Index, wanted: Change) -> None:
    """Refuse exposures that would lie inside others, and to drop what is not there."""
    gone = set(wanted.drop)
    unknown = next((key for key in wanted.drop if key not in base.rows), None)
    if unknown is not None:
        raise NotInStoreError(f"no exposure {'/'.join(unknown)} that could be removed")
    names: dict[str, NameTree] = {}
    for band, expID in (key for key in wanted.put if key not in base.rows):
        if band not in names:
            names[band] = NameTree(
                [row.expID for row in base.rows.values()
                 if row.band == band and row.key not in gone]
            )  # fmt: skip
        names[band].add(expID)


def _replaced(
    old: Index, new: Index, keep: float
) -> tuple[list[str], tuple[tuple[str, float], ...]]:
    """Tell which files may go now that no state needs them, and which go later."""
    now, used = time.time(), new.files
    since = dict(new.replaced) | dict.fromkeys(old.files - used, now)
    left = {name: when for name, when in since.items() if name not in used}
    expired = [name for name, when in left.items() if now - when >= keep]
    return expired, tuple((name, when) for name, when in left.items() if name not in expired)


def _sync_names(store: Path, old: frozenset[str], new: frozenset[str]) -> None:
    """Make the names of new files durable: their writers did not, or were killed before."""
    folders = {Path(name).parent for name in new - old}
    made = [f for f in folders if not any(name.startswith(f"{f}/") for name in old)]
    folders |= {folder.parent for folder in made}
    for folder in folders:
        fsync(store.parent / folder)


def write_links(draft: Path, index: Index) -> None:
    """Write the main file of a store: a link to each exposure, and the index behind them."""
    # What h5py does for each link, without what it asks before: that takes as long again.
    unicode = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    unicode.set_char_encoding(h5py.h5t.CSET_UTF8)

    def fill(h5: h5py.File) -> None:
        h5.attrs.update(index.geometry.attributes())
        groups: dict[str, h5py.Group] = {}
        for row in index.rows.values():
            if row.file:
                where, _, last = "/".join(row.key).rpartition("/")
                if where not in groups:
                    groups[where] = h5.require_group(where)
                group, target = groups[where], row.path.removesuffix(f"/{DATASET_NAME}")
                if target == row.path:  # a dataset of another name
                    group.require_group(last)[DATASET_NAME] = h5py.ExternalLink(row.file, row.path)
                else:
                    names = last.encode(), os.fsencode(row.file), target.encode()
                    lcpl = None if last.isascii() else unicode
                    group.id.links.create_external(*names, lcpl=lcpl)

    links = image_of(fill)
    with new_file(draft) as descriptor:
        write_all(descriptor, links + index.tail(links), 0)


def _claimed(path: Path) -> int:
    """Return the number that a file claims, 0 for one that claims none."""
    found = _CLAIM.fullmatch(path.name)
    return int(found[1]) if found else 0


def _claim(folder: Path, number: int) -> bool:
    """Claim a number; whether it could be had and is the highest."""
    try:
        os.close(
            os.open(folder / f"claim-{number:012d}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        )
    except FileExistsError:
        return False
    # Lower claims are tidied away, so one that was had says nothing where there is a higher one.
    return number == max(_claimed(path) for path in folder.iterdir())


def _tidy(store: Path, index: Index, expired: Sequence[str], number: int) -> None:
    """Remove what the commit has made superfluous; what cannot be removed is only space."""
    folder = shards_folder(store) / COMMIT_FOLDER
    for name in expired:
        path = store.parent / name
        # What a file says is never enough to delete something.
        if (
            ".." not in path.parts
            and shards_folder(store) in path.parents
            and f"-{index.store_id}-" in path.name
            and path.parent.resolve() == path.parent
            and not path.is_symlink()
        ):
            with suppress(OSError):
                path.unlink()
    for path in folder.iterdir():
        if 0 < _claimed(path) < number or path.match(f"id-*{PART_ENDING}"):
            with suppress(OSError):
                path.unlink()
