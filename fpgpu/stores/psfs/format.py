"""PSF mixtures as they are stored: the two documented layouts, and what makes a mixture valid."""

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from fpgpu.errors import IntegrityError, LayoutError, StoreFormatError
from fpgpu.layout import MAXRADII, PSF_COLS, PSF_DTYPE
from fpgpu.stores.hdf5.reading import checked_storage, has_sound_type, read_attribute, refuse_links
from fpgpu.stores.pixels.records import CHECKSUM, update_checksum

__all__ = ["BandPSF", "check_mixtures", "flat_parameters", "read_band", "warn_of_lost_light"]

logger = logging.getLogger(__name__)

Parameters = npt.NDArray[Any]
Float = npt.NDArray[np.float64]

MAX_BYTES = 1 << 30
"""More than this is no PSF; a damaged file can claim any size."""

MOST_LOST = 0.01
"""Share of the light by which amplitudes may differ from 1 without a word."""

DOCUMENTED_DTYPE = np.dtype([("gauss_params", np.float32, len(PSF_COLS)), ("sersic_bin", np.int32)])
"""One Gaussian in the layout that forcepho's documentation describes."""


@dataclass(frozen=True)
class BandPSF:
    """The PSF of one band over the detector.

    Attributes
    ----------
    parameters : ndarray of PSF_DTYPE, shape (n_locations, n_psf)
        Mixtures of Gaussians, pixels; all radii of a location one after the other.
    locations : ndarray of float64, shape (n_locations, 2), or None
        Detector positions (x, y), zero-based pixels; None where the file does not give them.
    """

    parameters: Parameters
    locations: Float | None

    @property
    def n_psf(self) -> int:
        """Gaussians of one source."""
        return int(self.parameters.shape[1])

    @cached_property
    def n_radii(self) -> int:
        """Radii of the profile that the mixtures are for: every location has all of them."""
        bins = self.parameters["sersic_bin"]
        number = int(bins.max()) + 1
        for radius in range(number):
            without = np.flatnonzero(~(bins == radius).any(axis=1))
            if without.size:
                raise LayoutError(
                    f"location {without[0]} has no Gaussian of sersic_bin {radius}, other bins go"
                    f" up to {number - 1}: the light of that radius would be lost; every radius"
                    " needs one at every location"
                )
        return number

    @property
    def checksum(self) -> np.bytes_:
        """Of all numbers, for an attribute that forcepho ignores."""
        checksum = update_checksum(self.parameters.tobytes())
        if self.locations is not None:
            checksum = update_checksum(self.locations.tobytes(), checksum)
        return np.bytes_(checksum)  # of a fixed length: HDF5 keeps other text in a heap


def read_band(group: Any, place: str) -> BandPSF:
    """Read and check the PSF of one band."""
    refuse_links(group, place)
    datasets = {name: group[name] for name in group}
    name = next((n for n in ("parameters", "psfs") if n in datasets), None)
    if name is None:
        raise StoreFormatError(
            f"{place}: holds {', '.join(datasets) or 'nothing'}; expected a dataset 'parameters' "
            "or 'psfs' of PSF mixtures"
        )
    stored = datasets[name]
    locations = datasets.get("detector_locations")
    try:
        values = _read_dataset(stored, f"{place}/{name}")
        n_stated = (
            stored.shape[:1] if name == "parameters" else getattr(locations, "shape", ())[-1:]
        )
        parameters = flat_parameters(values, *n_stated)
        found = BandPSF(parameters, _read_locations(locations, len(parameters), place))
        if CHECKSUM in group.attrs and read_attribute(group.attrs, CHECKSUM) != found.checksum:
            raise IntegrityError(
                f"{place}: does not match its checksum: it is damaged, or another program has "
                "changed it; restore the file from a copy, write the band again with add_psf, or, "
                f"if the change was meant, delete the attribute {CHECKSUM} of the band"
            )
        check_mixtures(parameters)
    except LayoutError as exc:
        raise StoreFormatError(f"{place}/{name}: {exc}") from exc
    if "n_psf_per_source" in group.attrs:
        # Kernels would rely on it.
        stated, n_psf = read_attribute(group.attrs, "n_psf_per_source"), parameters.shape[1]
        if not np.array_equal(np.ravel(stated), [n_psf]):
            raise StoreFormatError(
                f"{place}: attribute n_psf_per_source is {stated}, but there are {n_psf} Gaussians "
                "a location"
            )
    if found.locations is not None and not np.isfinite(found.locations).all():
        raise StoreFormatError(f"{place}/detector_locations: holds values that are not finite")
    warn_of_lost_light(parameters, place)
    return found


def flat_parameters(mixtures: npt.ArrayLike, n_locations: int | None = None) -> Parameters:
    """Bring mixtures of either layout into the one that kernels read.

    Parameters
    ----------
    mixtures : structured array
        Fields `PSF_COLS` and ``sersic_bin``, or ``gauss_params`` (amp, x, y, Cxx, Cyy, Cxy) and
        ``sersic_bin``, in any byte order; shape (n_locations, n_psf) or (n_locations, n_radii,
        n_gauss); without the first axis for one location.
    n_locations : int, optional
        How many locations there are, where that is known.

    Returns
    -------
    ndarray of PSF_DTYPE, shape (n_locations, n_psf)
        A new array.

    Raises
    ------
    LayoutError
        If the fields or the shape are others.
    """
    array = np.asarray(mixtures)
    names = array.dtype.names or ()
    if array.ndim not in (1, 2, 3) or 0 in array.shape:
        raise LayoutError(
            f"mixtures of shape {array.shape}; expected (n_locations, n_psf) or (n_locations, "
            "n_radii, n_gauss), none of them 0"
        )
    flat = np.empty(array.shape, PSF_DTYPE)
    try:
        if set(names) == set(PSF_DTYPE.names or ()):
            columns = {name: array[name] for name in PSF_COLS}
        elif set(names) == set(DOCUMENTED_DTYPE.names or ()):
            columns = {name: array["gauss_params"][..., i] for i, name in enumerate(PSF_COLS)}
        else:
            raise LayoutError(
                f"mixtures with fields {', '.join(names) or array.dtype}; expected "
                f"{', '.join(PSF_COLS)}, sersic_bin or gauss_params, sersic_bin"
            )
        for name, column in columns.items():
            flat[name] = column
        with np.errstate(invalid="ignore"):
            flat["sersic_bin"] = array["sersic_bin"]
        if not np.array_equal(flat["sersic_bin"], array["sersic_bin"]):
            raise LayoutError("mixtures whose sersic_bin are not whole numbers of an int32")
    except (TypeError, ValueError, IndexError) as exc:
        if isinstance(exc, LayoutError):
            raise
        raise LayoutError(f"mixtures of {array.dtype} cannot be used: {exc}") from exc
    is_one = array.ndim == 1
    if array.ndim == 2 and n_locations != len(array):
        # (n_radii, n_gauss) of one location, where each row is a radius of its own.
        bins = flat["sersic_bin"]
        is_one = bool((bins == bins[:, :1]).all()) and len(set(bins[:, 0])) == len(bins)
    return flat.reshape(1 if is_one else len(array), -1)


def check_mixtures(parameters: Parameters) -> None:
    """Refuse mixtures that no kernel can evaluate."""
    for name in PSF_COLS:
        _refuse(~np.isfinite(parameters[name]), parameters, f"{name} is not finite")
    cxx, cyy, cxy = (parameters[name].astype(np.float64) for name in ("Cxx", "Cyy", "Cxy"))
    indefinite = ~((cxx > 0) & (cyy > 0) & (cxx * cyy > cxy * cxy))
    _refuse(indefinite, parameters, "the covariance matrix is not positive definite")
    bins = parameters["sersic_bin"]
    _refuse(
        (bins < 0) | (bins >= MAXRADII), parameters, f"sersic_bin is not in 0 .. {MAXRADII - 1}"
    )


def warn_of_lost_light(parameters: Parameters, place: str) -> None:
    """Log a warning where the Gaussians of a radius do not hold all the light of a source."""
    bins, amplitudes = parameters["sersic_bin"], parameters["amp"].astype(np.float64)
    present = np.unique(bins)
    sums = np.stack([np.where(bins == number, amplitudes, 0).sum(axis=1) for number in present])
    off = np.where([(bins == number).any(axis=1) for number in present], abs(sums - 1), 0)
    if off.max() > MOST_LOST:
        row, location = np.unravel_index(np.argmax(off), off.shape)
        logger.warning(
            "%s: the amplitudes of sersic_bin %d at location %d sum to %.6g; expected about 1:"
            " fluxes are wrong by this factor unless that is meant (%d of %d sums are like that)",
            place, present[row], location, sums[row, location],
            np.count_nonzero(off > MOST_LOST), off.size,
        )  # fmt: skip


def _refuse(bad: npt.NDArray[np.bool_], parameters: Parameters, why: str) -> None:
    """Raise for the first Gaussian that is bad."""
    if bad.any():
        location, number = (int(i) for i in np.argwhere(bad)[0])
        values = ", ".join(f"{n} {parameters[n][location, number]}" for n in PSF_DTYPE.names or ())
        raise LayoutError(
            f"location {location}, Gaussian {number}: {why} ({values}); "
            f"{int(bad.sum())} of {bad.size} Gaussians are like that"
        )


def _read_dataset(stored: Any, place: str) -> npt.NDArray[Any]:
    """Read a dataset if that is safe."""
    if not isinstance(stored, h5py.Dataset):  # a group, or a type of values
        raise StoreFormatError(f"{place}: expected a dataset")
    checked_storage(stored)
    if stored.nbytes > MAX_BYTES:
        raise StoreFormatError(f"{place}: shape {stored.shape} is too large for a PSF")
    if not has_sound_type(stored.id.get_type(), stored.dtype):
        raise StoreFormatError(
            f"{place}: the type of its values, {stored.dtype}, is damaged or not made of numbers"
        )
    values: npt.NDArray[Any] = stored[()]
    return values


def _read_locations(stored: Any, n_locations: int, place: str) -> Float | None:
    """Read detector positions as (n_locations, 2)."""
    if stored is None:
        return None
    place = f"{place}/detector_locations"
    if not isinstance(stored, h5py.Dataset) or stored.dtype.kind not in "fiu":
        raise StoreFormatError(f"{place}: expected a dataset of numbers")
    if stored.shape != (2, n_locations):
        raise StoreFormatError(
            f"{place}: has shape {stored.shape}; expected (2, {n_locations}), x and y of each "
            "mixture"
        )
    return np.ascontiguousarray(np.asarray(_read_dataset(stored, place), np.float64).T)
