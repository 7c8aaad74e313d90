"""Where exposures lie inside a pixel store: ``band/expID/data``.

An expID with slashes makes nested groups. In a sharded store the exposure's group is an external
link to another HDF5 file; such links are followed for reading and never written through.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fpgpu.errors import FpgpuError, NotInStoreError, StoreConflictError, StoreFormatError
from fpgpu.stores.hdf5.change import Pixels, Placement
from fpgpu.stores.hdf5.guard import HDF5_ERRORS, attributes_of
from fpgpu.stores.names import DATASET_NAME, check_no_collision
from fpgpu.stores.pixels.links import Link, opened_link

__all__ = [
    "find_link",
    "list_bands",
    "list_exposures",
    "list_links",
    "not_in_store",
    "opened_dataset",
    "put_exposure",
]

_DATA = DATASET_NAME.encode()


@contextmanager
def opened_dataset(h5: h5py.File, band: str, expID: str) -> Iterator[h5py.Dataset | None]:
    """Open the dataset of an exposure; None when the store has no such exposure.

    Parameters
    ----------
    h5 : h5py.File
        The store.
    band, expID : str
        The exposure.

    Yields
    ------
    h5py.Dataset or None
        Of the store's own file or of a shard, which is closed again at the end.

    Raises
    ------
    MissingStoreError, StoreFormatError
        If the exposure lies in another file, which is not there, is outside the folder of the
        store, or cannot be read.
    """
    parts = [band, *expID.split("/"), DATASET_NAME]
    with ExitStack() as files:
        node = None if set(parts) & {"", ".", ".."} else _walk(h5, parts, files)
        yield node if isinstance(node, h5py.Dataset) else None


def list_bands(h5: h5py.File) -> list[str]:
    """Return the bands that have an exposure, in the order of their names.

    Of each the first exposure is looked for, not all: opening a store costs the same whatever it
    holds.
    """
    with ExitStack() as files:
        groups = [(band, _walk(h5, [band], files)) for band in h5]
        return [
            band
            for band, group in groups
            if isinstance(group, h5py.Group)
            and next(_exposures_below(group.id, "", set()), None) is not None
        ]


def list_exposures(h5: h5py.File) -> dict[str, list[str]]:
    """Return the expIDs of every band, both in the order of their names."""
    return {band: list(links) for band, links in list_links(h5).items()}


def list_links(h5: h5py.File) -> dict[str, dict[str, Link | None]]:
    """Return for every exposure where it lies: None for the store's own file.

    Other files are not looked into, for opening thousands of them would take long.
    """
    bands: dict[str, dict[str, Link | None]] = {}
    with ExitStack() as files:
        for band in h5:
            group = _walk(h5, [band], files)
            if isinstance(group, h5py.Group):
                away = _link(h5.id, band.encode("utf-8", "surrogateescape"))
                found = {
                    path: away and Link(away.filename, f"{away.path}/{path}", away.is_dataset)
                    if link is None or away
                    else link
                    for path, link in _exposures_below(group.id, "", set())
                }
                if found:
                    bands[band] = found
    return bands


def find_link(h5: h5py.File, band: str, expID: str) -> Link | None:
    """Return where an exposure lies, if that is another file and the store says so directly."""
    node: Any = h5
    for part in [band, *expID.split("/"), DATASET_NAME]:
        raw = part.encode()
        if not isinstance(node, h5py.Group) or not node.id.links.exists(raw):
            return None
        link = _link(node.id, raw)
        if link is not None:
            return link
        node = node.get(part)
    return None


def not_in_store(
    path: Path, exposures: Mapping[str, Sequence[str]], band: str, expID: str | None
) -> NotInStoreError:
    """Make the error for a band or an exposure that is not there, with what comes close."""
    if expID is None or band not in exposures:
        found, wanted, known = "band", str(band), list(exposures)
    else:
        found, wanted, known = f"exposure in band {band}", str(expID), list(exposures[band])
    close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    if close:
        hint = f"did you mean {' or '.join(map(repr, close))}?"
    elif known:
        hint = f"it holds {len(known)}: {', '.join(known[:5])}{', ...' if len(known) > 5 else ''}"
    else:
        hint = "it is empty"
    return NotInStoreError(f"{path}: no {found} named {wanted!r}; {hint}")


def put_exposure(
    h5: h5py.File, band: str, expID: str, pixels: Pixels, attributes: Mapping[str, Any]
) -> Placement:
    """Make the dataset of an exposure, in place of an older one, all but its pixels.

    Raises
    ------
    ExposureNameError, StoreConflictError
        If the name collides with another exposure or with something that is none.
    StoreFormatError
        If the older one is damaged so that HDF5 cannot remove it.
    """
    _refuse_collisions(h5, band, expID)
    # The new dataset is complete before the old one is unlinked, and `old` stays open until this
    # function returns: HDF5 frees the old space last of all and cannot put anything new into it.
    dataset = _allocate(h5, pixels)
    for name, value in attributes.items():
        dataset.attrs[name] = value
    *parents, last = [band, *expID.split("/")]
    group = h5
    for part in parents:
        group = group.require_group(part)
    if isinstance(group.get(last, getlink=True), h5py.ExternalLink | h5py.SoftLink):
        del group[last]
    group = group.require_group(last)
    old = None
    link = group.get(DATASET_NAME, getlink=True)
    if link is not None:
        if isinstance(link, h5py.HardLink):
            old = group[DATASET_NAME]
            _refuse_damaged(old)
        del group[DATASET_NAME]
    group[DATASET_NAME] = dataset
    return Placement(dataset.id.get_offset(), pixels, _space_of(old))


def _walk(node: Any, parts: Sequence[str], files: ExitStack, *, in_shard: bool = False) -> Any:
    """Go down from a group by names, into another file where a link of the store says so.

    Returns None where there is nothing of that name. Links within a file are not followed: what
    they lead to has its own place.
    """
    for position, part in enumerate(parts):
        if not isinstance(node, h5py.Group):
            return None
        link = node.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            place = f"{node.file.filename}: {'/'.join([node.name.strip('/'), part]).lstrip('/')}"
            if in_shard:
                raise StoreFormatError(
                    f"{place} is a link to {link.filename!r}; a shard holds its exposure itself"
                )
            target = Link(link.filename, link.path)
            inner = [name for name in link.path.split("/") if name] + list(parts[position + 1 :])
            shard = opened_link(node.file, target, place, files)
            return _walk_shard(shard, inner, files, f"{place} lies in {shard.filename}")
        if not isinstance(link, h5py.HardLink):
            return None
        node = node[part]
    return node


def _walk_shard(shard: h5py.File, parts: Sequence[str], files: ExitStack, place: str) -> Any:
    """Go down in a shard, which must have what the store says it has."""
    try:
        node = _walk(shard, parts, files, in_shard=True)
    except FpgpuError:
        raise
    except HDF5_ERRORS as exc:
        raise StoreFormatError(f"{place}, which cannot be read: {exc}") from exc
    if node is None:
        raise StoreFormatError(f"{place}, which has no {'/'.join(parts)}")
    return node


def _link(group: h5py.h5g.GroupID, raw: bytes) -> Link | None:
    """Return the link of a group to another file, None for a member that is in the file."""
    if group.links.get_info(raw).type != h5py.h5l.TYPE_EXTERNAL:
        return None
    return _external(group, raw)


def _external(group: h5py.h5g.GroupID, raw: bytes) -> Link:
    """Return what a link to another file says."""
    filename, path = (v.decode("utf-8", "surrogateescape") for v in group.links.get_val(raw))
    return Link(filename, path, raw == _DATA)


def _exposures_below(
    group: h5py.h5g.GroupID, prefix: str, seen: set[int]
) -> Iterator[tuple[str, Link | None]]:
    """Yield the expIDs in a group and where they lie; low-level calls, for stores of thousands.

    Links inside the file are left out: what they lead to has its own place. Groups in `seen`
    are not entered, for a damaged file may hold a group that holds itself.
    """
    for raw in group:
        path = prefix + raw.decode("utf-8", "surrogateescape")
        kind = group.links.get_info(raw).type
        if kind == h5py.h5l.TYPE_EXTERNAL and raw != _DATA:
            yield path, _external(group, raw)
        elif kind == h5py.h5l.TYPE_HARD:
            found = h5py.h5o.get_info(group, raw)
            if found.type == h5py.h5o.TYPE_GROUP and found.addr not in seen:
                seen.add(found.addr)
                child = h5py.h5g.open(group, raw)
                if _is_exposure(child):
                    yield path, _link(child, _DATA)
                yield from _exposures_below(child, path + "/", seen)


def _is_exposure(group: h5py.h5g.GroupID) -> bool:
    """Whether a group directly holds pixels."""
    if not group.links.exists(_DATA):
        return False
    is_hard = group.links.get_info(_DATA).type == h5py.h5l.TYPE_HARD
    return not is_hard or h5py.h5o.get_info(group, _DATA).type == h5py.h5o.TYPE_DATASET


def _refuse_collisions(h5: h5py.File, band: str, expID: str) -> None:
    """Refuse a place that is taken by, inside of, or around something else."""
    parts = [band, *expID.split("/")]
    existing: set[str] = set()
    group = h5
    for level, part in enumerate(parts):
        link = group.get(part, getlink=True)
        if link is None:
            break
        is_last = level == len(parts) - 1
        here = "/".join(parts[: level + 1])
        if not isinstance(link, h5py.HardLink):
            if is_last:
                break
            raise StoreConflictError(
                f"{here} is a link to another file or group; exposures are not written through it"
            )
        if h5py.h5o.get_info(group.id, part.encode()).type != h5py.h5o.TYPE_GROUP:
            raise StoreConflictError(f"{here} is no group, so {band}/{expID} cannot be put there")
        group = group[part]
        if level == 0 and _is_exposure(group.id):
            raise StoreConflictError(f"{here} holds pixels directly, so it is no band")
        if is_last:
            existing.update(path for path, _ in _exposures_below(group.id, expID + "/", set()))
            if DATASET_NAME in group and not _is_exposure(group.id):
                raise StoreConflictError(f"{here}/{DATASET_NAME} is there and is no dataset")
        elif _is_exposure(group.id):
            existing.add("/".join(parts[1 : level + 1]))
    check_no_collision(expID, existing)


def _refuse_damaged(dataset: h5py.Dataset) -> None:
    """Refuse to unlink a dataset whose metadata HDF5 could not remove without losing its mind."""
    try:
        attributes_of(dataset, strings=True)
    except HDF5_ERRORS as exc:
        raise StoreFormatError(
            f"{dataset.name}: the attributes of the exposure to be replaced are damaged ({exc}); "
            "add the exposures to a new store"
        ) from exc


def _allocate(h5: h5py.File, pixels: Pixels) -> h5py.Dataset:
    """Make an unnamed contiguous dataset whose space exists at once and is not filled."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    dtype = h5py.h5t.py_create(np.dtype(pixels.dtype), logical=True)
    space = h5py.h5s.create_simple(pixels.shape)
    return h5py.Dataset(h5py.h5d.create(h5.id, None, dtype, space, dcpl=plist))


def _space_of(dataset: h5py.Dataset | None) -> list[tuple[int, int]]:
    """Return the contiguous storage of a dataset as offset and length."""
    if dataset is None:
        return []
    offset = dataset.id.get_offset()
    return [] if offset is None else [(offset, dataset.id.get_storage_size())]
