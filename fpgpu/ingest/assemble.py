"""From the extensions of a FITS file to an `Exposure`: what all FITS readers share."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.errors import UnusableExposureError, WCSError
from fpgpu.ingest.astrometry import Astrometry, choose_wcs
from fpgpu.ingest.exposure import Exposure, ImageNameSet, pad_exposure
from fpgpu.ingest.fitsfile import FitsFile
from fpgpu.ingest.flags import flags_for
from fpgpu.ingest.inputs import ReadOptions
from fpgpu.ingest.naming import name_exposure

__all__ = ["assemble", "inverse_uncertainty"]


def assemble(file: FitsFile, science: str, options: ReadOptions) -> Exposure:
    """Read SCI, ERR, DQ, BKG and AREA and everything that the header and WCS say.

    Parameters
    ----------
    file : FitsFile
        The opened file.
    science : str
        Name of the extension with the science image.
    options : ReadOptions
        How to read.

    Returns
    -------
    Exposure
        Images as ``[x, y]`` views in the byte order of the file, padded when asked.

    Raises
    ------
    UnusableExposureError
        When an image is missing, of the wrong kind or shape, or has no usable pixel, or when the
        size is no multiple of the super-pixel.
    WCSError
        When there is no usable WCS.
    """
    im = file.image(science)
    if im is None:
        raise UnusableExposureError(f"{file.path}: has no extension {science}")
    shape = im.shape
    _require_numbers(file, science, im)
    header = file.merged_header(science)
    header["NAXIS1"], header["NAXIS2"] = shape
    band, expID = name_exposure(
        header,
        file.path,
        pattern=options.expID,
        framedir=options.framedir,
        split_by_detector=options.split_by_detector,
        band_names=options.band_names,
    )
    wcs = _astrometry(file, header, shape, options)
    mask = _quality(file, shape)
    telescope = str(header.get("TELESCOP", "")).strip().upper()
    bkg, area = file.image("BKG", shape), file.image("AREA", shape)
    exposure = Exposure(
        im=im,
        ierr=inverse_uncertainty(file, shape),
        mask=mask,
        bkg=None if bkg is None else _require_numbers(file, "BKG", bkg),
        hdr=header,
        band=band,
        expID=expID,
        names=_names(file, mask is not None, bkg is not None),
        area=None if area is None else _require_numbers(file, "AREA", area),
        gwcs=wcs.gwcs,
        wcs_choice=wcs.kind,
        sip=wcs.sip,
        flags={} if mask is None else flags_for(telescope).count(mask),
        telescope=telescope,
        provenance=_provenance(wcs),
        notes=wcs.notes,
    )
    if options.pad:
        pad_exposure(exposure, options.super_pixel_size)
    return exposure


def inverse_uncertainty(file: FitsFile, shape: tuple[int, int]) -> npt.NDArray[Any]:
    """Read ERR and give its reciprocal.

    Parameters
    ----------
    file : FitsFile
        The opened file.
    shape : tuple of int
        (nx, ny) of the science image.

    Returns
    -------
    ndarray of float32 or float64, shape (nx, ny)
        ``1 / ERR`` in the precision of the file: infinite where ERR is 0, 0 where it is infinite.

    Raises
    ------
    UnusableExposureError
        When ERR is missing, or positive and finite nowhere.
    """
    err = file.image("ERR", shape)
    if err is None:
        raise UnusableExposureError(
            f"{file.path}: has no extension ERR (found {', '.join(file.names())}); "
            "an exposure without uncertainties cannot be fitted"
        )
    _require_numbers(file, "ERR", err)
    if not np.any(np.isfinite(err) & (err > 0)):
        raise UnusableExposureError(
            f"{file.path}: extension ERR has no finite positive value; no pixel could be used"
        )
    if err.dtype.kind != "f":
        err = err.astype(np.float32 if err.dtype.itemsize <= 2 else np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ierr: npt.NDArray[Any] = 1 / err
    return ierr


def _astrometry(
    file: FitsFile, header: Any, shape: tuple[int, int], options: ReadOptions
) -> Astrometry:
    """Choose the WCS and check the size; where both are at fault, one message says both."""
    misfit = _size_misfit(shape, options)
    try:
        wcs = choose_wcs(
            str(file.path),
            header,
            None if options.wcs == "fits" else file.table_bytes("ASDF"),
            options.wcs,
            shape,
            options.wcs_tolerance,
        )
    except WCSError as error:
        if misfit:
            raise type(error)(f"{error}; also, {misfit}") from error
        raise
    if misfit:
        raise UnusableExposureError(f"{file.path}: {misfit}")
    return wcs


def _provenance(wcs: Astrometry) -> dict[str, str | float | int]:
    """What is stored beside the pixels about the WCS."""
    known: dict[str, str | float | int] = {"wcs": wcs.kind}
    if wcs.sip is not None:
        known["sip_residual_px"] = wcs.sip.residual
    return known


def _size_misfit(shape: tuple[int, int], options: ReadOptions) -> str | None:
    """Say why the size does not fit the super-pixels, unless it does or will be padded."""
    size = options.super_pixel_size
    if options.pad or not (shape[0] % size or shape[1] % size):
        return None
    return (
        f"{shape[0]} x {shape[1]} pixels are no multiple of the super-pixel ({size}); "
        "use --pad to add pixels of zero weight"
    )


def _quality(file: FitsFile, shape: tuple[int, int]) -> npt.NDArray[Any] | None:
    """Read DQ, which must hold integers."""
    mask = file.image("DQ", shape)
    if mask is not None and mask.dtype.kind not in "iu":
        raise UnusableExposureError(
            f"{file.path}: extension DQ has dtype {mask.dtype}; expected integers, one bit a flag"
        )
    return mask


def _require_numbers(file: FitsFile, name: str, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Refuse an image that does not hold real numbers."""
    if image.dtype.kind not in "iuf":
        raise UnusableExposureError(
            f"{file.path}: extension {name} has dtype {image.dtype}; expected real numbers"
        )
    return image


def _names(file: FitsFile, has_mask: bool, has_background: bool) -> ImageNameSet:
    """Name the file as the origin of each image that it has."""
    name = file.path.name
    return ImageNameSet(
        im=name,
        err=name,
        mask=name if has_mask else None,
        bkg=name if has_background else None,
    )
