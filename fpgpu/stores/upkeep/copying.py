"""Copying exposures from file to file: the same bits, and every attribute."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fpgpu.errors import FpgpuError, IntegrityError, StoreWriteError
from fpgpu.stores.files.sync import fsync
from fpgpu.stores.hdf5.attributes import copy_attributes
from fpgpu.stores.hdf5.change import ALIGNMENT
from fpgpu.stores.hdf5.extents import read_through_hdf5
from fpgpu.stores.hdf5.filters import Compression, require_filters
from fpgpu.stores.hdf5.guard import HDF5_ERRORS, opened_guarded
from fpgpu.stores.names import DATASET_NAME, check_band, check_expID
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.pixels.geometry import Geometry
from fpgpu.superpixels import Window

__all__ = ["copy_exposure", "new_store_file", "refuse_unequal"]

STRIP_BYTES = 8 << 20


@contextmanager
def new_store_file(
    draft: Path, geometry: Geometry, model: Path | None = None
) -> Iterator[h5py.File]:
    """Make a pixel store that nobody else knows of yet, and wait until it is on the disk.

    Parameters
    ----------
    draft : pathlib.Path
        The file; it must not exist.
    geometry : Geometry
        Of the store.
    model : pathlib.Path, optional
        A store whose other root attributes are taken over.

    Yields
    ------
    h5py.File
        Empty but for the root attributes.

    Raises
    ------
    StoreWriteError
        If it cannot be written.
    """
    try:
        # Some file systems have no locks, and a draft needs none.
        with h5py.File(draft, "x", locking=False, **ALIGNMENT) as h5:
            h5.attrs.update(geometry.attributes())
            if model is not None:
                with opened_guarded(str(model)) as other:
                    copy_attributes(other, h5)
            yield h5
        fsync(draft)
    except FpgpuError:
        raise
    except HDF5_ERRORS as exc:
        raise StoreWriteError(
            f"{draft.name}: cannot be written: {exc}; nothing was changed"
        ) from exc


def copy_exposure(
    source: PixelStore, target: h5py.File, band: str, expID: str, compression: Compression | None
) -> None:
    """Copy an exposure with all its attributes into a file that is being made.

    Parameters
    ----------
    source : PixelStore
        The store that has it.
    target : h5py.File
        Where it goes.
    band, expID : str
        The exposure.
    compression : Compression or None
        How to store its values; None as they are.

    Raises
    ------
    ExposureNameError
        If another program gave it a name that fpgpu does not take.
    StoreFormatError
        If it is damaged.
    """
    check_band(band), check_expID(expID)
    # Attributes are read through the guard first: HDF5 itself believes whatever a file says.
    source.record(band, expID)

    def copy(dataset: h5py.Dataset, _: Any) -> None:
        group = target.require_group(f"{band}/{expID}")
        plain = dataset.id.get_create_plist()
        as_it_is = compression is None and not plain.get_external_count()
        if as_it_is or (compression == Compression() and _is_plain(plain)):
            h5py.h5o.copy(dataset.id, b".", group.id, DATASET_NAME.encode())
        else:
            _copy_values(dataset, group, compression or Compression())
        _copy_group_attributes(dataset, group)

    source.reader.visit(band, expID, copy)


def refuse_unequal(old: PixelStore, new: PixelStore, keys: list[tuple[str, str]]) -> None:
    """Read exposures back from a new file and compare them with what they were copied from.

    Raises
    ------
    IntegrityError
        If a bit differs; the new file is not to be used.
    """
    for key in keys:
        pair = old.reader.bytes_checksum(*key), new.reader.bytes_checksum(*key)
        stated = old.record(*key).checksum
        if pair[0] != pair[1]:
            raise IntegrityError(
                f"{'/'.join(key)}: its copy has checksum {pair[1]}, it has {pair[0]}; nothing was "
                "changed; check the disk and the memory of this machine"
            )
        if stated is not None and stated != pair[0]:
            raise IntegrityError(
                f"{old.h5file}: {'/'.join(key)} does not match the checksum that was stored with "
                "it; nothing was changed; add the exposure again or remove it"
            )


def _is_plain(plist: Any) -> bool:
    """Whether values are one run of bytes in the file itself."""
    return bool(plist.get_layout() == h5py.h5d.CONTIGUOUS and not plist.get_external_count())


def _copy_values(dataset: h5py.Dataset, group: h5py.Group, compression: Compression) -> None:
    """Store the values of a dataset in another way, in their own type."""
    require_filters(dataset)
    made = group.create_dataset(
        DATASET_NAME, dataset.shape, dataset.dtype, **compression.options(dataset.shape)
    )
    nsx, nsy, n_values = dataset.shape
    row = nsy * n_values * dataset.dtype.itemsize
    step = max(1, STRIP_BYTES // row)
    if made.chunks:
        step = -(-step // made.chunks[0]) * made.chunks[0]
    for x0 in range(0, nsx, step):
        window = Window(x0, min(x0 + step, nsx), 0, nsy)
        strip = np.empty((*window.shape, n_values), dataset.dtype)
        read_through_hdf5(dataset, window, strip)
        made[window.slices] = strip
    copy_attributes(dataset, made)


def _copy_group_attributes(dataset: h5py.Dataset, group: h5py.Group) -> None:
    """Copy the attributes of the groups around a dataset, as far as their names are the same."""
    old, new = dataset.parent, group
    while old.name != "/" and Path(old.name).name == Path(new.name).name:
        copy_attributes(old, new)
        old, new = old.parent, new.parent
