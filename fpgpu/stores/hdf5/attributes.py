"""Copying attributes from one HDF5 file to another, with their types."""

import h5py
import numpy as np

__all__ = ["copy_attributes"]


def copy_attributes(old: h5py.Group | h5py.Dataset, new: h5py.Group | h5py.Dataset) -> None:
    """Copy the attributes that the new node does not have yet.

    Parameters
    ----------
    old, new : h5py.Group or h5py.Dataset
        Nodes of two files.
    """
    for name in old.attrs:
        if name in new.attrs:
            continue
        stored = old.attrs.get_id(name)
        space = stored.get_space()
        made = h5py.h5a.create(new.id, stored.name, stored.get_type(), space)
        if space.get_simple_extent_type() != h5py.h5s.NULL:
            values = np.empty(stored.shape, stored.dtype)
            stored.read(values)
            made.write(values)
