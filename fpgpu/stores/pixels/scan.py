"""The exposures of an HDF5 store without an index: what forcepho, fpgpu 0.1 or another wrote.

Each is a group ``band/expID`` with a dataset ``data``, an expID with slashes being nested groups;
or an external link to such a group in another file. Links are read here, and followed by opening
the file that they name after it was checked, for HDF5 itself would open any.
"""

from collections.abc import Iterator
from pathlib import Path

import h5py

from fpgpu.stores.disk import inside
from fpgpu.stores.hdf5.reading import member, opened_for_reading
from fpgpu.stores.index import Row
from fpgpu.stores.names import DATASET_NAME

__all__ = ["scan"]

_DATA = DATASET_NAME.encode()


def scan(h5: h5py.File, store: Path) -> Iterator[Row]:
    """Yield the exposures of a store, in the order of their names.

    The files of single exposures are not opened, for thousands of them would take long.
    """
    for band in h5:
        raw = band.encode("utf-8", "surrogateescape")
        if h5.id.links.get_info(raw).type == h5py.h5l.TYPE_EXTERNAL:
            file, path = _external(h5.id, raw)
            place = inside(store.parent, file, f"{store}: band {band}")
            with opened_for_reading(place) as other:
                yield from _rows(band, member(other, path.strip("/").split("/")), file)
        else:
            yield from _rows(band, member(h5, [band]), store.name)


def _rows(band: str, group: object, file: str) -> Iterator[Row]:
    """Yield the exposures of a band that lies in a file."""
    if isinstance(group, h5py.Group):
        for expID, link in _below(group.id, "", set()):
            name, path = link or (file, f"{group.name}/{expID}/{DATASET_NAME}")
            yield Row(band, expID, file=name, path=path)


def _below(
    group: h5py.h5g.GroupID, prefix: str, seen: set[int]
) -> Iterator[tuple[str, tuple[str, str] | None]]:
    """Yield the expIDs in a group and where they lie; low-level calls, for stores of thousands.

    Links inside the file are left out: what they lead to has its own place. Groups in `seen`
    are not entered, for a damaged file may hold a group that holds itself.
    """
    for raw in group:
        path = prefix + raw.decode("utf-8", "surrogateescape")
        kind = group.links.get_info(raw).type
        if kind == h5py.h5l.TYPE_EXTERNAL and raw != _DATA:
            file, inner = _external(group, raw)
            yield path, (file, f"{inner}/{DATASET_NAME}")
        elif kind == h5py.h5l.TYPE_HARD:
            found = h5py.h5o.get_info(group, raw)
            if found.type == h5py.h5o.TYPE_GROUP and found.addr not in seen:
                seen.add(found.addr)
                child = h5py.h5g.open(group, raw)
                if child.links.exists(_DATA):
                    link = child.links.get_info(_DATA).type
                    if link == h5py.h5l.TYPE_EXTERNAL:
                        yield path, _external(child, _DATA)
                    elif link == h5py.h5l.TYPE_HARD and _is_dataset(child):
                        yield path, None
                yield from _below(child, path + "/", seen)


def _is_dataset(group: h5py.h5g.GroupID) -> bool:
    """Whether what is called ``data`` in a group are pixels."""
    return bool(h5py.h5o.get_info(group, _DATA).type == h5py.h5o.TYPE_DATASET)


def _external(group: h5py.h5g.GroupID, raw: bytes) -> tuple[str, str]:
    """Return what a link to another file says: the file, and the place in it."""
    file, path = (v.decode("utf-8", "surrogateescape") for v in group.links.get_val(raw))
    return file, path
