"""Super-pixels of a store in the memory of a backend."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.backends.base import Backend
from fpgpu.backends.filling import fill_rows, rows_in_slot
from fpgpu.backends.memory import Array
from fpgpu.errors import LayoutError, StoreBusyError
from fpgpu.stores.pixels.reading import ExposureReader
from fpgpu.superpixels import Window

__all__ = ["superpixels_on", "window_on"]


def window_on(
    reader: ExposureReader, band: str, expID: str, window: Window, backend: Backend, out: Array
) -> Array:
    """Read a window of super-pixels into a backend's memory.

    Parameters
    ----------
    reader : ExposureReader
        Of the store; it gives float32.
    band, expID : str
        The exposure.
    window : Window
        Super-pixel indices, within the image.
    backend : Backend
        Where they go.
    out : array of float32, shape (x1 - x0, y1 - y0, 2 * size**2), or None
        Where to put them.

    Returns
    -------
    array of float32
        Of the backend.

    Raises
    ------
    LayoutError
        When `out` does not fit.
    StoreBusyError
        When the exposure changed while it was read.
    """

    def read(start: int, stop: int, to: npt.NDArray[np.float32]) -> None:
        rows = Window(window.x0 + start, window.x0 + stop, window.y0, window.y1)
        reader.read_window(band, expID, rows, to)

    shape = (*window.shape, reader.n_values)
    return _read_on(reader, band, expID, backend, shape, read, out)


def superpixels_on(
    reader: ExposureReader,
    band: str,
    expID: str,
    places: npt.NDArray[np.integer[Any]],
    backend: Backend,
    out: Array,
) -> Array:
    """Read a list of super-pixels into a backend's memory.

    Parameters
    ----------
    reader : ExposureReader
        Of the store; it gives float32.
    band, expID : str
        The exposure.
    places : ndarray of int, shape (n, 2)
        Index of each along x and y.
    backend : Backend
        Where they go.
    out : array of float32, shape (n, 2 * size**2), or None
        Where to put them.

    Returns
    -------
    array of float32
        Of the backend.

    Raises
    ------
    LayoutError
        When `out` does not fit.
    StoreBusyError
        When the exposure changed while it was read.
    """

    def read(start: int, stop: int, to: npt.NDArray[np.float32]) -> None:
        reader.read_superpixels(band, expID, places[start:stop], to)

    shape = (len(places), reader.n_values)
    return _read_on(reader, band, expID, backend, shape, read, out)


def _read_on(
    reader: ExposureReader,
    band: str,
    expID: str,
    backend: Backend,
    shape: tuple[int, ...],
    read: Callable[[int, int, npt.NDArray[np.float32]], None],
    out: Array | None,
) -> Array:
    """Read all rows, of one state of the exposure."""
    if reader.dtype != np.float32:
        raise LayoutError(f"a backend holds float32, but the store was opened with {reader.dtype}")
    fresh = out is None
    if out is None:
        out = backend.empty(shape, np.float32)
    complaint = backend.complaint(out)
    if complaint or out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
        found = complaint or f"it has dtype {out.dtype} and shape {out.shape}"
        raise LayoutError(
            f"super-pixels cannot be read into out: {found}; expected C-contiguous float32 {shape}"
        )
    files = reader.files_of(band, expID)
    if not out.nbytes or rows_in_slot(backend, out) == shape[0]:
        fill_rows(backend, out, read, fresh=fresh)
    elif files:
        fill_rows(backend, out, read, fresh=fresh)
        if reader.files_of(band, expID) != files:
            raise StoreBusyError(f"{reader.path}: {band}/{expID} changed while it was read; again")
    else:  # HDF5 does not tell when these change
        whole = np.empty(shape, np.float32)
        read(0, shape[0], whole)
        backend.upload(whole, out=out, fresh=fresh)
    return out
