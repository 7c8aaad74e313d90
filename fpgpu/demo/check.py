"""An independent look at stored pixels: the input files read again with astropy alone.

Nothing here uses fpgpu's readers, calibration or super-pixel code, so that an error in one of
them cannot hide itself.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.errors import UnusableExposureError

__all__ = ["Comparison", "Truth", "compare", "read_truth"]

Image = npt.NDArray[np.float64]

# Three roundings to float32 (subtract or area, factor, store) leave at most this relative error.
TOLERANCE = 4 * float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Truth:
    """What a store should hold for one exposure, computed in float64.

    Parameters
    ----------
    flux : ndarray, shape (nx, ny)
        Flux in nJy, indexed ``[x, y]``; unmasked pixels only count.
    ierr : ndarray, shape (nx, ny)
        Inverse uncertainty in 1/nJy; 0 where masked.
    masked : ndarray of bool, shape (nx, ny)
        Pixels that must not be fitted.
    """

    flux: Image
    ierr: Image
    masked: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Comparison:
    """How stored images differ from the truth.

    Parameters
    ----------
    n_pixels : int
        Pixels compared, padding included.
    n_wrong : int
        Pixels that differ by more than float32 rounding, are not finite, or are masked wrongly.
    largest : float
        Largest relative difference of an unmasked flux or inverse uncertainty.
    """

    n_pixels: int
    n_wrong: int
    largest: float


def read_truth(path: str | Path, bitmask: int) -> Truth:
    """Read one exposure file and compute what a store should hold of it."""
    from astropy.io import fits

    with fits.open(path) as hdus, np.errstate(all="ignore"):
        present = Counter(hdu.name for hdu in hdus)
        if present["SCI"] != 1 or present["ERR"] != 1:
            raise _unknown(path, f"{present['SCI']} extensions SCI and {present['ERR']} ERR")
        science = _image(hdus["SCI"])
        error = _image(hdus["ERR"])
        area = _image(hdus["AREA"]) if "AREA" in present else np.ones_like(science)
        background = _image(hdus["BKG"]) if "BKG" in present else np.zeros_like(science)
        quality = hdus["DQ"].data.T if "DQ" in present else np.zeros(science.shape, np.uint32)
        factor = _to_nanojansky(path, hdus[0].header, hdus["SCI"].header)
        flux = (science - background) * factor * area
        ierr = 1 / (error * factor * area)
        good = np.isfinite(flux) & np.isfinite(ierr) & (error > 0) & (area > 0)
        if "WHT" in present:
            good &= _image(hdus["WHT"]) > 0
        masked = ~good | ((quality.astype(np.int64) & bitmask) != 0)
    return Truth(flux, np.where(masked, 0.0, ierr), masked)


def _image(hdu: Any) -> Image:
    """Pixels of an extension as float64, indexed [x, y]."""
    return np.asarray(hdu.data.T, np.float64)


def _to_nanojansky(path: str | Path, primary: Any, science: Any) -> float:
    """Nanojansky for one unit of a science image; 1 where nothing tells."""
    import astropy.units as u

    def value(keyword: str) -> Any:
        return science.get(keyword, primary.get(keyword))

    if value("ABMAG") is not None:
        return float((value("ABMAG") * u.ABmag).to_value(u.nJy))
    unit = u.Unit(value("BUNIT") or "", parse_strict="silent")
    if unit.is_equivalent(u.nJy):
        return float(unit.to(u.nJy))
    if unit.is_equivalent(u.nJy / u.sr) and value("PIXAR_SR") is not None:
        return float((1 * unit * value("PIXAR_SR") * u.sr).to_value(u.nJy))
    if unit.is_equivalent(u.nJy / u.sr) or value("PHOTFLAM") is not None:
        raise _unknown(path, f"BUNIT {value('BUNIT')} without ABMAG or PIXAR_SR")
    return 1.0


def _unknown(path: str | Path, found: str) -> UnusableExposureError:
    return UnusableExposureError(
        f"{path}: has {found}, and the demo checks files with one SCI and one ERR extension in "
        "units of ABMAG, flux density, or surface brightness with PIXAR_SR; put it into stores "
        "with 'fpgpu ingest', and look at them with 'fpgpu plot'"
    )


def compare(
    truth: Truth, flux: npt.NDArray[np.float32], ierr: npt.NDArray[np.float32]
) -> Comparison:
    """Compare images read back from a store with the truth.

    Parameters
    ----------
    truth : Truth
        What the input file says, shape (nx, ny).
    flux : ndarray of float32, shape (mx, my)
        Stored flux in nJy, at least as large as the truth; pixels beyond it are padding and must
        be zero.
    ierr : ndarray of float32, shape (mx, my)
        Stored inverse uncertainty in 1/nJy.

    Returns
    -------
    Comparison
        Counts over all stored pixels.
    """
    nx, ny = truth.flux.shape
    used = ~truth.masked
    wrong = np.ones(flux.shape, bool)
    difference_flux = _relative(flux[:nx, :ny], truth.flux)
    difference_ierr = _relative(ierr[:nx, :ny], truth.ierr)
    agrees = (difference_flux <= TOLERANCE) & (difference_ierr <= TOLERANCE)
    zero_weight = (ierr[:nx, :ny] == 0) & np.isfinite(flux[:nx, :ny])
    wrong[:nx, :ny] = ~np.where(used, agrees, zero_weight)
    for padding in (np.s_[nx:, :], np.s_[:, ny:]):
        wrong[padding] = (flux[padding] != 0) | (ierr[padding] != 0)
    largest = np.maximum(difference_flux, difference_ierr)[used].max(initial=0.0)
    return Comparison(flux.size, int(wrong.sum()), float(largest))


def _relative(found: npt.NDArray[np.float32], expected: Image) -> Image:
    """Relative difference; zero where both are zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = np.abs(found - expected) / np.abs(expected)
    return np.where(found == expected, 0.0, difference)
