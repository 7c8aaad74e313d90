"""What is done to an exposure between its reader and a store, as the calibration options ask."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.calibration import MaskCounts, calibrate_images
from fpgpu.errors import StoreFormatError, UnusableExposureError
from fpgpu.ingest.exposure import Exposure
from fpgpu.ingest.flags import flags_for
from fpgpu.ingest.inputs import CalibrationOptions
from fpgpu.stores.mosaics import TilePlace

__all__ = ["BACKGROUND_KEYWORD", "is_empty_tile", "prepare", "require_weight"]

BACKGROUND_KEYWORD = "TWEAKBG"
"""Header keyword of the background offset; give it to a patch as ``background_keyword``."""


_ROWS = 64


def prepare(exposure: Exposure, calibration: CalibrationOptions) -> None:
    """Settle the bad bits, the background offset and the cap of the S/N of an exposure, in place.

    Arrays are replaced, not written to.
    """
    if calibration.bitmask is not None:
        exposure.bitmask = flags_for(exposure.telescope).parse(calibration.bitmask) or None
        if exposure.bitmask is None:
            # To a store, as to forcepho, a bitmask of 0 means that none was given.
            exposure.mask = None
            exposure.names = exposure.names._replace(mask=None)
    if calibration.background_offset is not None:
        comment = "background to subtract, unit of the store"
        exposure.hdr[BACKGROUND_KEYWORD] = (calibration.background_offset, comment)
    if calibration.max_snr is not None:
        exposure.ierr = _capped(exposure, calibration.max_snr)
        exposure.provenance["max_snr"] = calibration.max_snr


def require_weight(exposure: Exposure, calibration: CalibrationOptions) -> None:
    """Refuse a prepared exposure without any weight, or note it, as the options ask."""
    counts = _without_weight(exposure)
    if counts is None:
        return
    found = f"no pixel has any weight: {counts}, all others with an inverse uncertainty of 0"
    if calibration.no_weight == "refuse":
        raise UnusableExposureError(
            f"{exposure.band}/{exposure.expID}: {found}; check uncertainties, mask and bitmask, or "
            "store it with zero weight by --no-weight store"
        )
    exposure.notes.append(f"{found}; it is stored with zero weight")


def is_empty_tile(exposure: Exposure) -> bool:
    """Tell whether a prepared exposure is a tile without weight, which a mosaic does without."""
    try:
        place = TilePlace.read(exposure.hdr)
    except StoreFormatError as error:
        raise UnusableExposureError(
            f"{exposure.band}/{exposure.expID}: MOSAIC in the header is what says that an exposure "
            f"is a tile, but {error}; take that card out, or give it another name"
        ) from error
    return place is not None and _without_weight(exposure) is not None


def _without_weight(exposure: Exposure) -> MaskCounts | None:
    """Count the masked pixels of an exposure without weight; None where any pixel has some.

    Most exposures have one in the first rows.
    """
    counts = MaskCounts()
    images = (exposure.im, exposure.ierr, exposure.mask, exposure.bkg, exposure.area)
    for start in range(0, exposure.shape[1], _ROWS):
        rows: list[Any] = [i if i is None else i[:, start : start + _ROWS] for i in images]
        _, weight, of_rows = calibrate_images(*rows[:4], bitmask=exposure.bitmask, area=rows[4])
        if weight.any():
            return None
        counts += of_rows
    return counts


def _capped(exposure: Exposure, max_snr: float) -> npt.NDArray[np.floating]:
    """Inverse uncertainties with the signal-to-noise ratio capped.

    Calibration multiplies the flux and divides the inverse uncertainty by the same number, so
    the ratio before it is that after it.
    """
    flux = exposure.im if exposure.bkg is None else exposure.im - exposure.bkg
    with np.errstate(all="ignore"):
        over = (exposure.ierr > 0) & np.isfinite(exposure.ierr) & (flux * exposure.ierr > max_snr)
        over &= np.isfinite(flux)
        capped = exposure.ierr.astype(exposure.ierr.dtype.newbyteorder("="))
        capped[over] = max_snr / flux[over]
    return capped
