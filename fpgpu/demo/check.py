"""An independent look at stored pixels: the input files read again with astropy alone.

Nothing here uses fpgpu's readers, calibration or super-pixel code, so that an error in one of
them cannot hide itself.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.errors import UnusableExposureError

__all__ = ["TOLERANCE", "count_wrong", "read_truth"]

Image = npt.NDArray[np.float64]

# Three roundings to float32 (subtract or area, factor, store) leave at most this relative error.
TOLERANCE = 4 * float(np.finfo(np.float32).eps)


def read_truth(path: str | Path, bitmask: int) -> tuple[Image, Image]:
    """Compute what a store should hold of a file: flux, and 1 / sigma, 0 where it is masked."""
    from astropy.io import fits

    with fits.open(path) as hdus, np.errstate(all="ignore"):
        names = [hdu.name for hdu in hdus]
        if names.count("SCI") != 1 or names.count("ERR") != 1:
            found = f"{names.count('SCI')} extensions SCI and {names.count('ERR')} ERR"
            raise _unknown(path, found)

        def image(name: str, default: float = 0.0) -> Image:
            hdu = hdus[name if name in names else "SCI"]
            values = np.asarray(hdu.data.T, np.float64)
            return values if name in names else np.full_like(values, default)

        science, error, area = image("SCI"), image("ERR"), image("AREA", 1.0)
        factor = _to_nanojansky(path, hdus[0].header, hdus["SCI"].header) * area
        flux, ierr = (science - image("BKG")) * factor, 1 / (error * factor)
        good = np.isfinite(flux) & np.isfinite(ierr) & (error > 0) & (area > 0)
        good &= (image("WHT", 1.0) > 0) & ((image("DQ").astype(np.int64) & bitmask) == 0)
    return flux, np.where(good, ierr, 0.0)


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


def count_wrong(
    truth: tuple[Image, Image], flux: npt.NDArray[np.float32], ierr: npt.NDArray[np.float32]
) -> int:
    """Count the stored pixels that are not the truth to rounding, not finite, or masked wrongly.

    Pixels beyond the truth are padding and must be zero.
    """
    padding = [(0, stored - n) for stored, n in zip(flux.shape, truth[0].shape, strict=True)]
    expected, weight = (np.pad(image, padding) for image in truth)
    beyond = np.pad(np.zeros(truth[0].shape, bool), padding, constant_values=True)
    agrees = np.isclose(flux, expected, rtol=TOLERANCE, atol=0)
    agrees &= np.isclose(ierr, weight, rtol=TOLERANCE, atol=0)
    unused = (ierr == 0) & np.isfinite(flux) & ~(beyond & (flux != 0))
    return int(np.count_nonzero(~np.where(weight > 0, agrees, unused)))
