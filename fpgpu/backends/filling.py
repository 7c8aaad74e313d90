"""Filling an array of a backend with what is read into staging memory, piece by piece."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.backends.base import Backend
from fpgpu.backends.memory import Array

__all__ = ["fill_rows", "rows_in_slot"]

Read = Callable[[int, int, npt.NDArray[Any]], object]


def rows_in_slot(backend: Backend, out: Array) -> int:
    """Count the rows of an array that one staging slot holds.

    Parameters
    ----------
    backend : Backend
        Where the array lives.
    out : array, shape (n, ...)
        Not empty.

    Returns
    -------
    int
        All of them where nothing has to be staged.
    """
    n_rows = int(out.shape[0])
    if backend.in_host_memory:
        return n_rows
    return min(n_rows, int(backend.staging_settings.slot_bytes // (out.nbytes // n_rows)))


def fill_rows(backend: Backend, out: Array, read: Read, *, fresh: bool = False) -> None:
    """Read rows straight into staging memory and upload them; in host memory, into their place.

    Parameters
    ----------
    backend : Backend
        Where the array lives.
    out : array, shape (n, ...)
        What to fill, C-contiguous.
    read : callable
        ``read(start, stop, to)`` puts the rows ``start:stop`` into a host array of their shape.
    fresh : bool, optional
        Whether nothing on the device has used `out` yet.

    Raises
    ------
    StagingBusyError
        When no staging slot came free in time.
    """
    if not out.nbytes:
        return
    if backend.in_host_memory:
        read(0, out.shape[0], out)
        return
    step = rows_in_slot(backend, out)
    for start in range(0, out.shape[0], max(step, 1)):
        piece = out[start : start + max(step, 1)]
        stop = start + piece.shape[0]
        if not step:  # the backend cuts what is longer than a slot
            row = np.empty(piece.shape, piece.dtype)
            read(start, stop, row)
            backend.upload(row, out=piece, fresh=fresh)
            continue
        with backend.stage(piece.nbytes) as slot:
            read(start, stop, slot.view(piece.shape, piece.dtype))
            backend.upload(slot, out=piece, fresh=fresh)
