"""The pixel store: every exposure's fluxes and inverse uncertainties in super-pixel order."""

import functools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Self

import h5py
import numpy as np
import numpy.typing as npt

from fpgpu import fluxes, superpixels
from fpgpu.backends.base import Backend
from fpgpu.backends.memory import Array
from fpgpu.errors import (
    ExposureNameError,
    LayoutError,
    StoreWriteError,
    UnusableExposureError,
    WCSError,
)
from fpgpu.stores.commit import Change, commit, commit_shards, discard
from fpgpu.stores.disk import Signature, signature
from fpgpu.stores.hdf5.reading import open_for_reading, reading_errors
from fpgpu.stores.metadata.entries import MetaEntry, new_entry
from fpgpu.stores.names import check_no_collision
from fpgpu.stores.pixels.geometry import Geometry, ImageGrid
from fpgpu.stores.pixels.preparing import require_image_set
from fpgpu.stores.pixels.reading import ExposureReader, Verification
from fpgpu.stores.pixels.records import CalibrationRecord
from fpgpu.stores.shard import Shard, write_exposure
from fpgpu.stores.state import State, open_state
from fpgpu.superpixels import Window

__all__ = ["PixelStore", "Verification"]


class PixelStore(ImageGrid):
    """Exposures of one size in an HDF5 file, as forcepho keeps them.

    Dataset ``band/expID/data`` has shape ``(nx / s, ny / s, 2 * s**2)`` for images ``[x, y]`` of
    ``nx`` by ``ny`` pixels and super-pixels of ``s`` pixels a side; the last axis holds the fluxes,
    then the inverse uncertainties. A new store whose size is given is made at once and remembers
    it; one that is only named is made by the first `add_exposure`.

    A store that was opened stays as it was then, whatever others write later; this object's own
    `add_exposure` shows. Each exposure is a file of its own below ``STEM.shards`` that never
    changes, and the store's file, which links to them, is replaced as a whole: a killed process or
    a full disk leaves it as it was before a change or as it is after. Stores that forcepho wrote,
    all in one file, are read the same, and become this form when an exposure is added. One object
    may be used by many threads, and any number of processes may use one store.

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
        Seconds to wait for another writer.

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

    Raises
    ------
    MissingStoreError
        If the file is missing and `mode` is ``"r"``.
    StoreFormatError
        If the file is no pixel store.
    StoreConflictError
        If an argument was given and differs from what the file holds.

    Examples
    --------
    >>> with PixelStore("stores/pixels.h5", mode="r") as pixels:
    ...     band, expID = next(iter(pixels))
    ...     im, ierr = pixels.read_exposure(band, expID)
    >>> im.shape == ierr.shape == pixels.shape
    True
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
        state = open_state(h5file, missing_ok=mode == "a")
        geometry = state.geometry
        if geometry is None:
            geometry = Geometry.of_arguments(nside_full, super_pixel_size)
            if (nside_full, super_pixel_size) != (None, None):
                state = commit(h5file, lambda _: Change(geometry=geometry), timeout=timeout)
        if state.geometry is not None:
            geometry = state.geometry
            geometry.refuse_conflict(h5file, nside_full, super_pixel_size)
        super().__init__(geometry, dtype)
        self._batch: list[Shard] | None = None
        self._handle: h5py.File | None = None
        self._seen: Signature | None = None
        self._show(state)

    def _show(self, state: State) -> None:
        """Go over to a new state."""
        self._reader = ExposureReader(state, self.pix_dtype)

    @property
    def reader(self) -> ExposureReader:
        """What reads the state that was opened; of a store that there was not, the first one."""
        if not self._reader.state.exists:
            self._show(open_state(self.h5file, missing_ok=True))
        return self._reader

    @property
    def state(self) -> State:
        """What the store held when it was opened, or after the last `add_exposure`."""
        return self.reader.state

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
        require_image_set(imset)
        metadata = _metadata(imset)
        store = self.state.store
        if self.state.exists:
            check_no_collision(imset.expID, self.reader.listing().get(imset.band, []))
        shard = write_exposure(
            store,
            self._geometry,
            imset,
            bitmask=bitmask,
            do_fluxcal=do_fluxcal,
            dtype=self.pix_dtype,
            backend=backend,
            metadata=metadata,
        )
        if self._batch is not None:
            self._batch.append(shard)
        else:
            self._commit([shard])
        return shard.record

    @contextmanager
    def batch(self) -> Iterator[Self]:
        """Commit once for all exposures that are added in a ``with`` block, when it ends.

        What was added before an error ended the block is committed, too.

        Yields
        ------
        PixelStore
            This store.

        Raises
        ------
        StoreConflictError, StoreBusyError, StoreWriteError
            If the store cannot take them; it is as it was before.
        """
        if self._batch is not None:
            yield self
            return
        self._batch = []
        try:
            yield self
        finally:
            shards, self._batch = self._batch, None
            if shards:
                self._commit(shards)

    def _commit(self, shards: list[Shard]) -> None:
        """Make shards part of the store; nothing is left of them when that fails."""
        known = self.state
        store = known.store
        try:
            self._show(commit_shards(store, shards, timeout=self.timeout, known=known))
        except BaseException:
            discard(store, shards)
            raise

    # --- reading -----------------------------------------------------------------------------

    @property
    def data(self) -> h5py.File:
        """The file as h5py shows it, opened when first asked for and again after a change.

        While it is open, other programs of this process cannot open it with ``swmr=True``; `close`
        lets them.
        """
        found = signature(self.state.store)
        if not self._handle or self._seen != found:
            self.close()
            with reading_errors(self.state.store):
                self._handle = open_for_reading(self.state.store)
            self._seen = found
        return self._handle

    def close(self) -> None:
        """Close `data`; nothing else is held open."""
        if self._handle:
            self._handle.close()
        self._handle = None

    @property
    def bands(self) -> list[str]:
        """Bands that have exposures, in the order of their names."""
        return list(self.reader.listing())

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
            raise self.state.missing(band)
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
        MissingStoreError, StoreFormatError, StoreConflictError
            If the file is gone, damaged, or was changed by another program.
        """
        return self.reader.read(band, expID, Window.of(window), out, backend)

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
        return self.reader.read(band, expID, places, out, backend)

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
        return self.state.calibration((band, expID))

    def pixel_id(self, band: str, expID: str) -> str:
        """Return what tells these pixels from those of another time that the exposure was written.

        Parameters
        ----------
        band, expID : str
            The exposure.

        Returns
        -------
        str
            As `MetaStore.pixel_id` gives it for the metadata that belong to them; empty where
            another program wrote them.

        Raises
        ------
        NotInStoreError
            If there is no such exposure.
        """
        return self.state.row((band, expID)).id

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
        if self.state.exists:
            bands = {band: len(expIDs) for band, expIDs in self.reader.listing().items()}
            content = ", ".join(f"{band}: {n}" for band, n in bands.items()) or "empty"
        else:
            content = "not created yet"
        return f"<PixelStore {os.fspath(self.h5file)!r} {nx}x{ny} ({content})>"


def _metadata(imset: Any) -> MetaEntry | None:
    """Return what is kept of header and WCS; None where the header is not fit for a meta store."""
    try:
        return new_entry(imset)
    except (ExposureNameError, UnusableExposureError, WCSError):
        return None
