"""The PSF store: mixtures of Gaussians of each band over the detector."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from fpgpu.errors import (
    FpgpuError,
    LayoutError,
    NotInStoreError,
    StoreFormatError,
)
from fpgpu.stores.disk import StrPath
from fpgpu.stores.hdf5.reading import reading_errors
from fpgpu.stores.names import check_band
from fpgpu.stores.psfs.file import open_psf, replace_band
from fpgpu.stores.psfs.format import (
    BandPSF,
    Float,
    Parameters,
    check_mixtures,
    flat_parameters,
    read_band,
    warn_of_lost_light,
)

__all__ = ["PSFStore"]

CHUNK = 1 << 20


class PSFStore:
    """PSF of each band, as forcepho stores it.

    Each band is read and checked once, when it is first asked for.

    Parameters
    ----------
    h5file : path
        The HDF5 file; it need not exist before something is added or read.

    Examples
    --------
    >>> with PSFStore("stores/psf.h5") as psf:
    ...     psf.bands
    ['F200W', 'F444W']
    """

    def __init__(self, h5file: StrPath) -> None:
        self.h5file = h5file
        self._path = Path(h5file)
        self._lock = threading.RLock()
        self._handle: h5py.File | None = None
        self._read: dict[str, BandPSF] = {}

    # --- reading -----------------------------------------------------------------------------

    @property
    def data(self) -> "h5py.File":
        """The open file, the same at every access.

        Raises
        ------
        MissingStoreError, StoreFormatError, StoreBusyError
            If there is no such file, it is no HDF5 file, or a writer holds it.
        """
        with self._lock:
            if not self._handle:
                self._handle = open_psf(self._path)
            return self._handle

    @property
    def bands(self) -> list[str]:
        """Bands in the file."""
        with self._lock, reading_errors(self._path):
            return [str(name) for name in self.data]

    def n_psf_per_source(self, band: str) -> int:
        """Count the Gaussians of one source.

        Parameters
        ----------
        band : str
            The band.

        Returns
        -------
        int
            Over all radii.

        Raises
        ------
        NotInStoreError, StoreFormatError, IntegrityError
            If the store has no such band, or it cannot be used or is damaged.
        """
        return self._band(band).n_psf

    def n_radii(self, band: str) -> int:
        """Count the radii of a profile that the mixtures are made for.

        Parameters
        ----------
        band : str
            The band.

        Returns
        -------
        int
            Its ``sersic_bin`` are 0 to one less; 1 where the PSF is the same for all radii.

        Raises
        ------
        NotInStoreError, StoreFormatError, IntegrityError
            If the store has no such band, or it cannot be used or is damaged; if a radius has no
            Gaussian at some location, so that its light would be lost.
        """
        try:
            return self._band(band).n_radii
        except LayoutError as exc:
            raise StoreFormatError(f"{self._path}: band {band}: {exc}; write it again") from exc

    def locations(self, band: str) -> Float | None:
        """Give the detector positions of a band's mixtures.

        Parameters
        ----------
        band : str
            The band.

        Returns
        -------
        ndarray of float64, shape (n_locations, 2), or None
            Zero-based pixels (x, y); None where the file does not give them.

        Raises
        ------
        NotInStoreError, StoreFormatError, IntegrityError
            If the store has no such band, or it cannot be used or is damaged.
        """
        locations = self._band(band).locations
        return None if locations is None else locations.copy()

    def table(self, band: str, out: Parameters | None = None) -> Parameters:
        """Give all mixtures of a band.

        Parameters
        ----------
        band : str
            The band.
        out : ndarray of PSF_DTYPE, shape (n_locations, n_psf), optional
            Where to put them, for instance in a staging slot.

        Returns
        -------
        ndarray of PSF_DTYPE, shape (n_locations, n_psf)
            In the order of `locations`.

        Raises
        ------
        LayoutError
            If `out` has another shape or dtype.
        NotInStoreError, StoreFormatError, IntegrityError
            If the store has no such band, or it cannot be used or is damaged.
        """
        parameters = self._band(band).parameters
        if out is None:
            return parameters.copy()
        if out.shape != parameters.shape or out.dtype != parameters.dtype:
            raise LayoutError(
                f"out has shape {out.shape} and dtype {out.dtype}; the PSFs of {band} need "
                f"{parameters.shape} of {parameters.dtype}"
            )
        np.copyto(out, parameters)
        return out

    def lookup(self, band: str, xy: npt.ArrayLike | None = None) -> Parameters:
        """Give the mixture nearest to a detector position.

        Parameters
        ----------
        band : str
            The band.
        xy : sequence of two floats, optional
            Zero-based pixel; None gives the first mixture of the band.

        Returns
        -------
        ndarray of PSF_DTYPE, shape (n_psf,)
            All radii one after the other, lengths in pixels.

        Raises
        ------
        LayoutError
            If `xy` is not two finite numbers.
        NotInStoreError, StoreFormatError, IntegrityError
            If the store has no such band, or it cannot be used or is damaged, or `xy` is given and
            the band has several mixtures without locations.
        """
        if xy is None:
            first: Parameters = self._band(band).parameters[0].copy()
            return first
        position = _floats(xy)
        if position.shape != (2,):
            raise LayoutError(f"xy is {xy!r}; expected two numbers, x and y in pixels, or None")
        found: Parameters = self.lookup_many(band, position[None])[0]
        return found

    def lookup_many(self, band: str, xy: npt.ArrayLike) -> Parameters:
        """Give the mixtures nearest to many detector positions.

        Parameters
        ----------
        band : str
            The band.
        xy : array_like of float, shape (n, 2)
            Zero-based pixels.

        Returns
        -------
        ndarray of PSF_DTYPE, shape (n, n_psf)
            One mixture a position.

        Raises
        ------
        LayoutError
            If `xy` has another shape or values that are not finite.
        NotInStoreError, StoreFormatError, IntegrityError
            As for `lookup`.
        """
        psf = self._band(band)
        positions = _floats(xy)
        if positions.ndim != 2 or positions.shape[1] != 2:
            raise LayoutError(f"xy has shape {positions.shape}; expected (n, 2) pixels")
        if not np.isfinite(positions).all():
            bad = int(np.flatnonzero(~np.isfinite(positions).all(axis=1))[0])
            raise LayoutError(f"xy[{bad}] is {positions[bad]}; expected finite pixels")
        if psf.locations is None:
            if len(psf.parameters) > 1:
                raise StoreFormatError(
                    f"{self._path}: band {band}: has {len(psf.parameters)} mixtures but no "
                    "detector_locations, so the nearest cannot be told; use xy=None for the first, "
                    "or write the band again with add_psf and locations"
                )
            nearest = np.zeros(len(positions), np.intp)
        else:
            nearest = _nearest(positions, psf.locations)
        # As words: NumPy copies structs one by one.
        words = psf.parameters.view(np.uint32)
        return words.take(nearest, axis=0).view(psf.parameters.dtype)

    def get_local_psf(self, band: str = "F090W", source: Any = None, wcs: Any = None) -> Parameters:
        """Give the mixture at a source's place on the detector.

        Parameters
        ----------
        band : str
            The band.
        source : object with `ra` and `dec`
            Degrees; needed with `wcs`.
        wcs : SkyWCS, astropy.wcs.WCS or gwcs.WCS, optional
            Of the exposure; None gives the first mixture of the band.

        Returns
        -------
        ndarray of PSF_DTYPE, shape (n_psf,)
            As `lookup` gives it.

        Raises
        ------
        LayoutError
            If the source has no position, or none on the detector plane of this WCS.
        NotInStoreError, StoreFormatError, IntegrityError
            As for `lookup`.
        """
        if wcs is None:
            return self.lookup(band)
        if not (hasattr(source, "ra") and hasattr(source, "dec")):
            raise LayoutError(f"source is {source!r}; with a WCS it needs ra and dec in degrees")
        to_pixel = getattr(wcs, "world_to_pixel", None)
        if to_pixel is None or hasattr(wcs, "world_to_pixel_values"):
            to_pixel = wcs.world_to_pixel_values
        xy = _floats([np.squeeze(value) for value in to_pixel(source.ra, source.dec)])
        if not np.isfinite(xy).all():
            raise LayoutError(
                f"source at ra {source.ra}, dec {source.dec} has no pixel by the WCS of its "
                f"exposure ({xy})"
            )
        return self.lookup(band, xy)

    def _band(self, band: str) -> BandPSF:
        """Read a band once."""
        with self._lock:
            if band not in self._read:
                place = f"{self._path}: band {band}"
                data = self.data
                with reading_errors(self._path):
                    if not isinstance(band, str) or band not in data:
                        bands = ", ".join(data) or "none"
                        raise NotInStoreError(f"{self._path}: no band {band!r}; bands: {bands}")
                    if not isinstance(data.get(band, getlink=True), h5py.HardLink):
                        raise StoreFormatError(
                            f"{place}: is a link to another place; such links are not followed"
                        )
                    group = data[band]
                    if not hasattr(group, "keys"):
                        raise StoreFormatError(f"{place}: is a dataset; expected a group")
                    self._read[band] = read_band(group, place)
            return self._read[band]

    # --- writing -----------------------------------------------------------------------------

    def add_psf(
        self, band: str, parameters: npt.ArrayLike, locations: npt.ArrayLike | None = None
    ) -> None:
        """Add or replace the PSF of a band; a new file replaces the old one when it is complete.

        Parameters
        ----------
        band : str
            The band.
        parameters : structured array, shape (n_locations, n_psf) or (n_locations, n_radii, n_gauss)
            Mixtures with fields `PSF_COLS` and ``sersic_bin``, or ``gauss_params`` (amp, x, y, Cxx,
            Cyy, Cxy) and ``sersic_bin``; without the first axis for one location. Every location
            has Gaussians of each ``sersic_bin``, the number of a radius of the profile, from 0 on;
            of 0 alone where the PSF is the same for all radii. The amplitudes of each sum to 1: a
            warning is logged where they do not, with the sum.
        locations : array_like of float, shape (n_locations, 2), optional
            Zero-based detector pixels (x, y); needed with several locations.

        Raises
        ------
        ExposureNameError
            If the band cannot be stored.
        LayoutError
            If mixtures or locations have wrong shapes or values.
        StoreWriteError, StoreFormatError
            If the file cannot be written, or the existing one is no HDF5 file; it is as it was.
        StoreBusyError
            If another writer has not ended in ten seconds.
        """
        band = check_band(band)
        places = None if locations is None else np.atleast_2d(_floats(locations, "locations"))
        flat = flat_parameters(parameters, None if places is None else len(places))
        check_mixtures(flat)
        _ = BandPSF(flat, None).n_radii
        places = _checked_locations(places, len(flat))
        warn_of_lost_light(flat, f"{self._path}: band {band}")
        with self._lock:
            replace_band(self._path, band, flat, places)
            self.close()

    # --- housekeeping ------------------------------------------------------------------------

    def close(self) -> None:
        """Close the file; the next access opens it again."""
        with self._lock:
            if self._handle is not None:
                self._handle.close()
            self._handle = None
            self._read.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.h5file,)

    def __contains__(self, band: object) -> bool:
        return band in self.bands

    def __iter__(self) -> Iterator[str]:
        return iter(self.bands)

    def __len__(self) -> int:
        return len(self.bands)

    def __repr__(self) -> str:
        if not self._path.exists():
            return f"<PSFStore {self._path}: no such file>"
        try:
            content = ", ".join(self.bands) or "no bands"
        except FpgpuError as exc:
            content = type(exc).__name__
        return f"<PSFStore {self._path}: {content}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _floats(values: Any, name: str = "xy") -> Float:
    """Return positions as an array; `name` is the caller's argument, for messages."""
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as exc:
        raise LayoutError(f"{name} is {values!r}; expected pixels as numbers") from exc


def _checked_locations(places: Float | None, n_locations: int) -> Float | None:
    """Refuse locations that do not fit their mixtures."""
    if places is None:
        if n_locations > 1:
            raise LayoutError(
                f"{n_locations} mixtures without locations; give their detector pixels (x, y)"
            )
        return None
    if places.shape != (n_locations, 2) or not np.isfinite(places).all():
        raise LayoutError(
            f"locations have shape {places.shape}; expected ({n_locations}, 2) finite pixels, "
            "(x, y) of each mixture"
        )
    return places


def _nearest(positions: Float, locations: Float) -> npt.NDArray[np.intp]:
    """Return the number of the nearest location of each position, the first one of equals."""
    nearest = np.empty(len(positions), np.intp)
    step = max(1, CHUNK // len(locations))
    for start in range(0, len(positions), step):
        offset = positions[start : start + step, None] - locations
        distance = np.hypot(offset[..., 0], offset[..., 1])
        nearest[start : start + step] = distance.argmin(axis=1)
    return nearest
