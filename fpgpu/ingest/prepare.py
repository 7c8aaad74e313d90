"""What is done to an exposure between its reader and a store, as the calibration options ask."""

import numpy as np
import numpy.typing as npt

from fpgpu.ingest.exposure import Exposure
from fpgpu.ingest.flags import flags_for
from fpgpu.ingest.inputs import CalibrationOptions

__all__ = ["BACKGROUND_KEYWORD", "prepare"]

BACKGROUND_KEYWORD = "TWEAKBG"
"""Header keyword of the background offset; give it to a patch as ``background_keyword``."""


def prepare(exposure: Exposure, calibration: CalibrationOptions) -> None:
    """Settle the bad bits, the background offset and the cap of the S/N, in place.

    Parameters
    ----------
    exposure : Exposure
        As its reader made it. Arrays are replaced, not written to.
    calibration : CalibrationOptions
        What is asked.

    Raises
    ------
    FlagError
        When a flag is unknown to the exposure's observatory.
    """
    if calibration.bitmask is not None:
        exposure.bitmask = flags_for(exposure.telescope).parse(calibration.bitmask) or None
        if exposure.bitmask is None:
            # To a store, as to forcepho, a bitmask of 0 means that none was given.
            exposure.mask = None
            exposure.names = exposure.names._replace(mask=None)
    if calibration.background_offset is not None:
        comment = "background to subtract, in the unit of the store"
        exposure.hdr[BACKGROUND_KEYWORD] = (calibration.background_offset, comment)
    if calibration.max_snr is not None:
        exposure.ierr = _capped(exposure, calibration.max_snr)
        exposure.provenance["max_snr"] = calibration.max_snr


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
