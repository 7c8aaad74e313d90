"""The pixel store: every exposure's fluxes and inverse uncertainties in super-pixel order."""

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import h5py
import numpy as np
import numpy.typing as npt

from fpgpu import fluxes, superpixels
from fpgpu.backends.base import Backend
from fpgpu.backends.memory import Array
from fpgpu.errors import LayoutError, StoreWriteError
from fpgpu.stores.hdf5.guard import attributes_of
from fpgpu.stores.hdf5.handles import store_file
from fpgpu.stores.pixels import sending, writing
from fpgpu.stores.pixels.geometry import Geometry, ImageGrid
from fpgpu.stores.pixels.reading import ExposureReader, Verification
from fpgpu.stores.pixels.records import CalibrationRecord
from fpgpu.superpixels import Window

__all__ = ["PixelStore", "Verification"]

FloatArray = npt.NDArray[np.floating[Any]]


class PixelStore(ImageGrid):
    """Exposures of one size in an HDF5 file, as forcepho keeps them.

    Dataset ``band/expID/data`` has shape ``(nx / s, ny / s, 2 * s**2)`` for images ``[x, y]`` of
    ``nx`` by ``ny`` pixels and super-pixels of ``s`` pixels a side; the last axis holds the fluxes,
    then the inverse uncertainties. A new store whose size is given is made at once and remembers
    it; one that is only named is made by the first `add_exposure`.

    A killed process or a full disk leaves the file as it was before a change or as it is after.
    Replacing an exposure leaves the space of the old one unused in the file; ``fpgpu consolidate``
    takes it out. One object may be used by many threads, and many processes may use one file.
    Exposures may lie in other files of the folder that the file links to (the sharded form, see
    `fpgpu.stores.shards`), and are read the same.

    Parameters
    ----------
    h5file : path
        The HDF5 file.
    nside_full : int or (int, int), optional
        Pixels along x and y of every image; 2048 in a new store.
    super_pixel_size : int, optional
        Pixels along each side of a super-pixel; 8 in a new store.
    pix_dtype : dtype
        ``float32``, or ``float64``: of the values as they are written (their precision is that of
        float32 all the same), and to which those that are read are converted.
    mode : {"a", "r"}
        ``"a"`` adds exposures, creating the file if need be; ``"r"`` only reads a store that is
        there.
    timeout : float
        Seconds to wait for another thread or process that is changing the file.

    Attributes
    ----------
    h5file : path
        As given.
    shape : (int, int)
        Pixels of every image along x and y.
    super_pixel_size : int
        Pixels along each side of a super-pixel.
    pix_dtype : numpy.dtype
        Of values read and written.
    reader : ExposureReader
        What finds the exposures in the file.

    Raises
    ------
    MissingStoreError
        If the file is missing and `mode` is ``"r"``.
    StoreFormatError
        If the file is no pixel store.
    StoreConflictError
        If an argument was given and differs from what the file holds.
    """

    def __init__(
        self,
        h5file: str | os.PathLike[str],
        nside_full: int | Sequence[int] | None = None,
        super_pixel_size: int | None = None,
        pix_dtype: npt.DTypeLike = np.float32,
        *,
        mode: Literal["a", "r"] = "a",
        timeout: float = 10.0,
    ) -> None:
        if mode not in {"a", "r"}:
            raise LayoutError(f"mode must be 'a' or 'r', not {mode!r}")
        self.h5file = h5file
        self.mode = mode
        self.timeout = timeout
        dtype = np.dtype(pix_dtype)
        if dtype not in (np.float32, np.float64):
            raise LayoutError(f"pix_dtype must be float32 or float64, not {dtype}")
        path = Path(h5file).resolve()
        self._file = store_file(path)
        if mode == "r" or path.exists():
            with self._file.reading(timeout) as h5:
                geometry = Geometry.of_store(h5file, attributes_of(h5, strings=False))
            geometry.refuse_conflict(h5file, nside_full, super_pixel_size)
        else:
            geometry = Geometry.of_arguments(nside_full, super_pixel_size)
            if (nside_full, super_pixel_size) != (None, None):
                writing.create(self._file, geometry, timeout)
        super().__init__(geometry, dtype)
        self.reader = ExposureReader(self._file, geometry, dtype, timeout)

    # --- writing -----------------------------------------------------------------------------

    def flux_calibration(self, hdr: Any) -> tuple[float, str]:
        """Return the factor from image values to fluxes: `fpgpu.fluxes.flux_calibration`.

        Parameters
        ----------
        hdr : mapping
            FITS header of the image.

        Returns
        -------
        factor : float
            What to multiply the image by.
        units : str
            ``"nJy"``, or ``"counts"`` when the header has no calibration.
        """
        return fluxes.flux_calibration(hdr)

    def add_exposure(
        self,
        imset: Any,
        bitmask: int | None = None,
        do_fluxcal: bool = False,
        *,
        backend: Backend | None = None,
    ) -> CalibrationRecord:
        """Add an exposure, or replace it; the image set is not changed.

        One of which no pixel has any weight is stored all the same, with a warning.

        Parameters
        ----------
        imset : ImageSet, Exposure or any object with their attributes
            `im`, `ierr`, `mask`, `bkg` ``[x, y]``, `hdr`, `band`, `expID`, `names`, and optionally
            `area` (relative pixel areas ``[x, y]``) and `provenance` (more attributes to store).
        bitmask : int, optional
            Bits of the mask that make a pixel unusable; all of them when not given or, as in
            forcepho, 0.
        do_fluxcal : bool
            Multiply by the header's flux calibration.
        backend : Backend, optional
            Where to compute, with the same bits; NumPy by default.

        Returns
        -------
        record : CalibrationRecord
            What was done, as it is stored.

        Raises
        ------
        ExposureNameError
            If a name is not allowed, or collides with that of another exposure.
        LayoutError
            If the image has another size than the store's, or arrays do not fit each other.
        UnusableExposureError
            If calibrated values are not finite, or the image set lacks an attribute.
        StoreConflictError, StoreBusyError, StoreWriteError
            If the store cannot take it; the store is as it was before.
        """
        if self.mode == "r":
            raise StoreWriteError(f"{self.h5file}: was opened with mode='r'; open it with mode='a'")
        name = os.fspath(self.h5file)
        record, pixels = writing.prepared(
            imset, self._geometry, bitmask, do_fluxcal, self.pix_dtype, backend, name
        )
        writing.put(self._file, self._geometry, record, pixels, self.timeout)
        return record

    # --- reading -----------------------------------------------------------------------------

    @property
    def data(self) -> h5py.File:
        """The file as h5py shows it, opened when first asked for and again after a change.

        While it is open no other process can change the store; `close` lets them.
        """
        return self._file.data(self, self.timeout)

    def close(self) -> None:
        """Close `data`, unless another store object of this process uses it; no more is held."""
        self._file.release(self)

    @property
    def bands(self) -> list[str]:
        """Bands that have exposures, in the order of their names."""
        return self.reader.bands()

    def exposures(self, band: str) -> list[str]:
        """Return the expIDs of a band, in the order of their names.

        Parameters
        ----------
        band : str
            The band.

        Returns
        -------
        expIDs : list of str
            At least one.

        Raises
        ------
        NotInStoreError
            If no exposure has this band.
        """
        listing = self.reader.listing()
        if band not in listing:
            raise self.reader.missing(band)
        return list(listing[band])

    def read_exposure(
        self, band: str, expID: str, *, backend: Backend | None = None
    ) -> tuple[Array, Array]:
        """Read an exposure back as images.

        Parameters
        ----------
        band, expID : str
            The exposure.
        backend : Backend, optional
            In whose memory the images are to be; NumPy's by default.

        Returns
        -------
        im, ierr : array of pix_dtype, shape (nx, ny)
            Fluxes and inverse uncertainties ``[x, y]``, in the units that `record` states.
        """
        nsx, nsy = self._geometry.grid
        stored = self.read_window(band, expID, Window(0, nsx, 0, nsy), backend=backend)
        images = superpixels if backend is None else backend
        return images.images_from_superpixels(stored, self.super_pixel_size)

    def read_window(
        self,
        band: str,
        expID: str,
        window: Sequence[int],
        out: Array | None = None,
        *,
        backend: Backend | None = None,
    ) -> Array:
        """Read a rectangle of super-pixels, and nothing else of the file.

        Parameters
        ----------
        band, expID : str
            The exposure.
        window : Window or (x0, x1, y0, y1)
            Super-pixel indices, half open.
        out : array of pix_dtype, shape (x1 - x0, y1 - y0, 2 * size**2), optional
            Where to put them, for instance pinned memory; each ``out[i]`` C-contiguous.
        backend : Backend, optional
            In whose memory they are to be, through its staging memory; NumPy's by default.

        Returns
        -------
        superpixels : array of pix_dtype, shape (x1 - x0, y1 - y0, 2 * size**2)
            Fluxes, then inverse uncertainties, of each super-pixel.

        Raises
        ------
        NotInStoreError
            If there is no such exposure.
        LayoutError
            If the window leaves the image or `out` does not fit.
        MissingStoreError, StoreFormatError, StoreBusyError
            If the file is gone, damaged or being changed.
        """
        window = Window.of(window)
        if backend is None:
            return self.reader.read_window(band, expID, window, out)
        window = window.checked(self._geometry.grid)
        return sending.window_on(self.reader, band, expID, window, backend, out)

    def read_superpixels(
        self,
        band: str,
        expID: str,
        places: npt.ArrayLike,
        out: Array | None = None,
        *,
        backend: Backend | None = None,
    ) -> Array:
        """Read a list of super-pixels, and nothing else of the file.

        Parameters
        ----------
        band, expID : str
            The exposure.
        places : array_like of int, shape (n, 2)
            Index of each along x and y; quickest in row-major order.
        out : array of pix_dtype, shape (n, 2 * size**2), optional
            Where to put them, C-contiguous.
        backend : Backend, optional
            In whose memory they are to be, through its staging memory; NumPy's by default.

        Returns
        -------
        superpixels : array of pix_dtype, shape (n, 2 * size**2)
            As `read_window` gives them; it raises the same errors.
        """
        if backend is None:
            return self.reader.read_superpixels(band, expID, places, out)
        return sending.superpixels_on(self.reader, band, expID, np.asarray(places), backend, out)

    def record(self, band: str, expID: str) -> CalibrationRecord:
        """Return how an exposure was calibrated.

        Parameters
        ----------
        band, expID : str
            The exposure.

        Returns
        -------
        record : CalibrationRecord
            As complete as the writer of the exposure made it.

        Raises
        ------
        NotInStoreError
            If there is no such exposure.
        """
        return self.reader.record(band, expID)

    def verify(self, band: str | None = None, expID: str | None = None) -> Verification:
        """Recompute checksums: of all exposures, those of a band, or one.

        Parameters
        ----------
        band, expID : str, optional
            What to check, if not everything.

        Returns
        -------
        verification : Verification
            What was verified, and what has no checksum because forcepho wrote it.

        Raises
        ------
        IntegrityError
            If bytes do not match; names all such exposures.
        NotInStoreError
            If there is no such band or exposure.
        """
        return self.reader.verify(band, expID)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Iterate over ``(band, expID)``."""
        listing = self.reader.listing()
        return iter([(band, expID) for band, expIDs in listing.items() for expID in expIDs])

    def __len__(self) -> int:
        """Count the exposures."""
        return sum(map(len, self.reader.listing().values()))

    def __contains__(self, exposure: object) -> bool:
        """Whether there is an exposure ``(band, expID)``, or ``"band/expID"``."""
        parts = exposure.split("/", 1) if isinstance(exposure, str) else exposure
        match parts:
            case [str(band), str(expID)]:
                return self.reader.holds(band, expID)
        return False

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the store's handle."""
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle how to open the store, so that a worker process opens it for itself."""
        opened = functools.partial(PixelStore, mode=self.mode, timeout=self.timeout)
        return opened, (self.h5file, None, None, self.pix_dtype)

    def __repr__(self) -> str:
        """Tell the file, its size of images, and what it holds."""
        nx, ny = self.shape
        if self._file.path.exists():
            bands = {band: len(expIDs) for band, expIDs in self.reader.listing().items()}
            content = ", ".join(f"{band}: {n}" for band, n in bands.items()) or "empty"
        else:
            content = "not created yet"
        return f"<PixelStore {os.fspath(self.h5file)!r} {nx}x{ny} ({content})>"
