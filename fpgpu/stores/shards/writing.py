"""Writing one exposure to a shard, in any process and without locks."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fpgpu.backends.base import Backend
from fpgpu.errors import ExposureNameError, StoreFormatError, UnusableExposureError
from fpgpu.stores.files.sync import fsync, write_errors
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.hdf5.change import Placement, write_draft
from fpgpu.stores.metadata.entries import new_entry
from fpgpu.stores.names import check_band, check_expID
from fpgpu.stores.pixels import writing
from fpgpu.stores.pixels.geometry import Geometry
from fpgpu.stores.pixels.tree import put_exposure
from fpgpu.stores.shards.entry import GROUP, stored_entry, write_entry
from fpgpu.stores.shards.files import EXTRA, Shard, new_shard_path, part_of
from fpgpu.superpixels import SUPER_PIXEL_SIZE

__all__ = ["durable_shard", "write_shard"]


def write_shard(
    folder: str | Path,
    exposure: Any,
    *,
    bitmask: int | None = None,
    do_fluxcal: bool = False,
    shape: int | Sequence[int],
    super_pixel_size: int = SUPER_PIXEL_SIZE,
    backend: Backend | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Shard:
    """Calibrate an exposure and write it, durably, to a new file that no store refers to yet.

    Takes no lock and changes no other file, so that any number of processes on any number of
    machines can do it at once in one folder. `publish_shards` makes it part of the store.

    Parameters
    ----------
    folder : path
        The store folder; made when missing.
    exposure : ImageSet, Exposure or any object with their attributes
        As for `PixelStore.add_exposure` and `MetaStore.add_exposure`; not changed.
    bitmask : int, optional
        Bits of the mask that make a pixel unusable; all of them when not given.
    do_fluxcal : bool, optional
        Multiply by the header's flux calibration.
    shape : int or (int, int)
        Pixels of every image of the store along x and y.
    super_pixel_size : int, optional
        Pixels along each side of a super-pixel.
    backend : Backend, optional
        Where to compute, with the same bits; NumPy by default.
    extra : mapping of str to value, optional
        What is to be found again by `read_shard`; anything that JSON can hold, up to some 60 kB.
        It is kept as an attribute, also when the store becomes a single file.

    Returns
    -------
    Shard
        Small; can be sent to the process that publishes it.

    Raises
    ------
    ExposureNameError
        If band or expID is not allowed.
    LayoutError
        If the image has another shape, or arrays do not fit each other.
    UnusableExposureError
        If no pixel has any weight, or something is missing that a store needs.
    WCSError
        If the exposure has no usable WCS.
    StoreWriteError
        If the file cannot be written; nothing is left of it.
    """
    geometry = Geometry.of_arguments(shape, super_pixel_size)
    store = StoreFolder(Path(folder)).pixels
    writing.require_image_set(exposure)
    check_band(exposure.band), check_expID(exposure.expID)
    entry = stored_entry(new_entry(exposure))
    record, pixels = writing.prepared(
        exposure, geometry, bitmask, do_fluxcal, np.dtype(np.float32), backend, str(store)
    )
    if extra:
        record = replace(record, provenance={**record.provenance, EXTRA: _as_json(extra)})
    attributes = record.to_attributes()

    def edit(h5: h5py.File) -> Placement:
        h5.attrs.update(geometry.attributes())
        write_entry(h5, entry)
        return put_exposure(h5, record.band, record.expID, pixels, attributes)

    path = durable_shard(store, record.band, record.expID, lambda draft: write_draft(draft, edit))
    name = path.relative_to(path.parents[2]).as_posix()
    return Shard(
        path.parents[2],
        name,
        record.band,
        record.expID,
        geometry.shape,
        geometry.size,
        record,
    )


def _as_json(extra: Mapping[str, Any]) -> str:
    """Write what a caller wants to find again as text."""
    try:
        return json.dumps(dict(extra))
    except (TypeError, ValueError) as exc:
        raise UnusableExposureError(
            f"what is to be recorded with the exposure cannot be written as JSON: {exc}"
        ) from exc


def durable_shard(store: Path, band: str, expID: str, write: Callable[[Path], None]) -> Path:
    """Write a new shard beside its place, and give it its name when it is on the disk.

    Parameters
    ----------
    store : pathlib.Path
        The main file of the store, which need not exist.
    band, expID : str
        The exposure.
    write : callable
        Writes the file to the path it is given.

    Returns
    -------
    pathlib.Path
        Where it is.

    Raises
    ------
    ExposureNameError
        If the band has a name that a shard needs itself.
    StoreWriteError
        If it cannot be written; nothing is left of it.
    """
    if band == GROUP:
        raise ExposureNameError(f"band {band!r} is a name that fpgpu uses itself; choose another")
    with write_errors(store.parent, "nothing of the exposure was left"):
        store.parent.mkdir(parents=True, exist_ok=True)
        store = store.parent.resolve() / store.name
        path = new_shard_path(store, band, expID)
        _make_folders(path.parent)
        part = part_of(path)
        try:
            write(part)
            fsync(part)
            os.rename(part, path)  # noqa: PTH104 (the crash tests count these calls)
            fsync(path.parent)
        except BaseException:
            for left in (part, path):
                with suppress(OSError):
                    os.unlink(left)  # noqa: PTH108
            raise
    return path


def _make_folders(folder: Path) -> None:
    """Make the folder of a shard durable inside the store folder, not behind a link."""
    missing = [p for p in (folder, folder.parent) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        fsync(made.parent)
    if folder.resolve() != folder:
        raise StoreFormatError(
            f"{folder}: is a link to {folder.resolve()}; shards are not written through links"
        )
