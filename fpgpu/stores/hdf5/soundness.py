"""Whether HDF5 can read a value without harm.

A damaged file may describe a number whose bits do not fit into its bytes. HDF5 then writes beyond
the memory it was given, which ends the interpreter; so types are looked at before values are read.
"""

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

__all__ = ["has_sound_type", "read_attribute"]


def has_sound_type(type_id: h5py.h5t.TypeID, dtype: np.dtype[Any]) -> bool:
    """Tell whether a stored type and the NumPy type it is read as have the same layout.

    Parameters
    ----------
    type_id : h5py.h5t.TypeID
        As stored.
    dtype : numpy.dtype
        What h5py makes of it.

    Returns
    -------
    bool
        False for types that cannot be read safely, and for text of variable length.
    """
    if type_id.get_size() != dtype.itemsize:
        return False
    if isinstance(type_id, h5py.h5t.TypeCompoundID):
        fields: Mapping[str, Any] = dtype.fields or {}
        members = [
            (type_id.get_member_name(i).decode(), type_id.get_member_offset(i), i)
            for i in range(type_id.get_nmembers())
        ]
        end = 0
        for name, offset, i in sorted(members, key=lambda member: member[1]):
            if name not in fields or fields[name][1] != offset or offset < end:
                return False
            if not has_sound_type(type_id.get_member_type(i), fields[name][0]):
                return False
            end = offset + fields[name][0].itemsize
        return end <= dtype.itemsize
    if isinstance(type_id, h5py.h5t.TypeArrayID):
        return has_sound_type(type_id.get_super(), dtype.base)
    return dtype.kind in "biufS"


def read_attribute(attributes: h5py.AttributeManager, name: str) -> Any:
    """Read an attribute if that is safe.

    Parameters
    ----------
    attributes : h5py.AttributeManager
        Of a group or dataset.
    name : str
        The attribute.

    Returns
    -------
    object
        Its value.

    Raises
    ------
    ValueError
        If its type is damaged.
    """
    stored = attributes.get_id(name)
    is_text = isinstance(stored.get_type(), h5py.h5t.TypeStringID)
    if not is_text and not has_sound_type(stored.get_type(), stored.dtype):
        raise ValueError(f"attribute {name!r} has a damaged type")
    return attributes[name]
