"""What is done to an exposure between its reader and a store, as the calibration options ask."""

import numpy as np
import numpy.typing as npt

from fpgpu.calibration import Planes
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
    if _has_weight(exposure):
        return
    causes = _causes(_planes(exposure))
    told = ", ".join(
        f"{np.count_nonzero(where)} {cause}" for cause, where in causes.items() if where.any()
    )
    found = f"no pixel has any weight: of {exposure.im.size}, {told}"
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
    return place is not None and not _has_weight(exposure)


def _planes(exposure: Exposure) -> Planes:
    """The images of an exposure."""
    return Planes.checked(
        exposure.im, exposure.ierr, exposure.mask, exposure.bkg, exposure.area, exposure.bitmask
    )


def _has_weight(exposure: Exposure) -> bool:
    """Whether any pixel can be used; most exposures have one in the first rows."""
    planes = _planes(exposure)
    for start in range(0, exposure.shape[1], _ROWS):
        part = planes.map(lambda image, start=start: image[:, start : start + _ROWS])  # type: ignore[misc]
        if not np.logical_or.reduce([*_causes(part).values()]).all():
            return True
    return False


def _causes(planes: Planes) -> dict[str, npt.NDArray[np.bool_]]:
    """Which pixels have no weight, by the cause."""
    finite = np.isfinite(planes.im)
    if planes.bkg is not None:
        finite &= np.isfinite(planes.bkg)
    causes = {
        "have no positive uncertainty that is finite": ~_is_positive(planes.ierr),
        "have no finite value": ~finite,
    }
    if planes.flags is not None:
        causes["are flagged as bad"] = (planes.flags & planes.bad_bits) != 0
    if planes.area is not None:
        causes["have no area"] = ~_is_positive(planes.area)
    return causes


def _is_positive(image: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Which values are positive and finite."""
    positive: npt.NDArray[np.bool_] = (image > 0) & np.isfinite(image)
    return positive


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
