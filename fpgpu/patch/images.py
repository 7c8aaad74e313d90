"""Pixels of a patch back on their detectors: images, and FITS files with the right WCS."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from fpgpu.errors import LayoutError, StoreWriteError
from fpgpu.patch.astrometry import WcsTable
from fpgpu.patch.plan import ExposurePlan, PatchPlan
from fpgpu.sky.sip import SipFit, fit_sip
from fpgpu.sky.wcs import SkyWCS
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.names import check_band, check_expID
from fpgpu.superpixels import Window, grid_shape

if TYPE_CHECKING:
    from astropy.io.fits import Header
    from astropy.nddata import CCDData

__all__ = ["ExposureImage", "ccd_images", "exposure_images", "write_images"]

Units: TypeAlias = Mapping[tuple[str, str], str]
"""Unit of the stored fluxes by band and expID."""

_KEPT = ("FILTER", "DETECTOR", "INSTRUME", "TELESCOP", "ABMAG", "EXPSTART", "MJD-AVG")
"""Keywords that say what an exposure is; all others are of the whole detector image."""


class ExposureImage(NamedTuple):
    """Part of one exposure as an image.

    Attributes
    ----------
    band, expID : str
        The exposure.
    image : ndarray of float32, shape (nx, ny)
        Values ``[x, y]``.
    origin : (int, int)
        Zero-based pixel (x, y) of the detector at ``image[0, 0]``.
    shape : (int, int)
        Pixels of the whole exposure along x and y.
    """

    band: str
    expID: str
    image: npt.NDArray[np.float32]
    origin: tuple[int, int]
    shape: tuple[int, int]


def exposure_images(
    plan: PatchPlan,
    values: npt.NDArray[np.float32],
    *,
    crop: bool = True,
    fill: float = np.nan,
) -> list[ExposureImage]:
    """Put the pixels of a patch back in their places.

    Parameters
    ----------
    plan : PatchPlan
        Of the patch.
    values : ndarray of float32, shape (n_pixels,)
        One of its pixel arrays.
    crop : bool, optional
        Whether to give the smallest rectangle of super-pixels that holds the pixels of the patch,
        instead of the whole exposure.
    fill : float, optional
        Value of the pixels that are not in the patch.

    Returns
    -------
    list of ExposureImage
        One an exposure, in the order of the plan.

    Raises
    ------
    LayoutError
        When the values are not as many as the plan has pixels.
    """
    if values.shape != (plan.n_pixels,):
        raise LayoutError(f"values have shape {values.shape}; expected ({plan.n_pixels},)")
    pieces = np.split(values, plan.exposure_start[1:])
    return [
        _image(exposure, piece, plan.super_pixel_size, crop, fill)
        for exposure, piece in zip(plan.exposures, pieces, strict=True)
    ]


def _image(
    exposure: ExposurePlan, values: npt.NDArray[np.float32], size: int, crop: bool, fill: float
) -> ExposureImage:
    """Put the pixels of one exposure back in their places."""
    whole = Window(0, grid_shape(exposure.shape, size)[0], 0, grid_shape(exposure.shape, size)[1])
    window = exposure.window if crop else whole
    nsx, nsy = window.shape
    blocks = np.full((nsx, nsy, size, size), fill, np.float32)
    ix, iy = exposure.superpixels.T
    blocks[ix - window.x0, iy - window.y0] = values.reshape(-1, size, size)
    image = blocks.swapaxes(1, 2).reshape(nsx * size, nsy * size)
    origin = window.x0 * size, window.y0 * size
    return ExposureImage(exposure.band, exposure.expID, image, origin, exposure.shape)


def write_images(
    folder: Path,
    name: str,
    images: Sequence[ExposureImage],
    meta: MetaStore,
    *,
    units: Units | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write images of exposures as FITS files.

    The WCS is the one that the patch was packed with, as a gnomonic projection with SIP
    distortion, shifted to the image's own pixels; LTV1 and LTV2 say by how much.
    """
    from astropy.io.fits import PrimaryHDU

    paths = []
    for image, header in zip(images, _headers(images, name, meta, units), strict=True):
        path = folder / check_band(image.band) / f"{check_expID(image.expID)}_{name}.fits"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            PrimaryHDU(image.image.T, header).writeto(path, overwrite=overwrite)
        except OSError as error:
            # A folder that must not be entered does not say what is in it.
            may_look = not overwrite and not isinstance(error, PermissionError)
            hint = (
                ""
                if not (may_look and path.is_file())
                else "; to replace files that exist: overwrite=True"
            )
            raise StoreWriteError(f"{path}: cannot be written: {error}{hint}") from error
        paths.append(path)
    return paths


def ccd_images(
    images: Sequence[ExposureImage],
    name: str,
    meta: MetaStore,
    units: Units,
    ierr: Sequence[ExposureImage] | None = None,
) -> "list[CCDData]":
    """Make images of exposures known to astropy, with WCS, unit, mask and uncertainty."""
    from astropy.nddata import CCDData, InverseVariance
    from astropy.wcs import WCS

    made = []
    for k, header in enumerate(_headers(images, name, meta, units)):
        image, bad, sigma = images[k], np.isnan(images[k].image), None
        if ierr is not None:
            weight = ierr[k].image.astype(np.float64) ** 2
            bad |= ~(weight > 0)
            sigma = InverseVariance(np.where(bad, 0, weight).T)
        unit = _unit(name, units[image.band, image.expID])
        wcs = WCS(header, fix=False)
        made.append(CCDData(image.image.T, sigma, bad.T, wcs=wcs, meta=header, unit=unit))
    return made


def _unit(name: str, stored: str) -> Any:
    """Unit of an array of pixels, as astropy has it; of fluxes in no known unit, none."""
    from astropy import units as u

    if name in ("xpix", "ypix"):
        return u.pix
    try:
        unit = u.Unit({"counts": "count"}.get(stored, stored))
    except ValueError:
        unit = u.dimensionless_unscaled
    return unit**-1 if name == "ierr" else unit


def _headers(
    images: Sequence[ExposureImage], name: str, meta: MetaStore, units: Units | None
) -> "Iterator[Header]":
    """Make the headers of images of exposures."""
    table = WcsTable.of_exposures(meta, [(image.band, image.expID) for image in images])
    for image, solution in zip(images, table.solutions, strict=True):
        header = _header(image, name, solution, meta.headers[image.band][image.expID])
        if units is not None:
            header["BUNIT"] = _unit(name, units[image.band, image.expID]).to_string("fits")
        yield header


def _header(image: ExposureImage, name: str, solution: SipFit | SkyWCS, original: Any) -> "Header":
    """Make the header of one image."""
    fit = solution if isinstance(solution, SipFit) else fit_sip(solution, image.shape)
    header: Header = fit.to_header()
    for axis, start in enumerate(image.origin, start=1):
        header[f"CRPIX{axis}"] -= start
        header[f"LTV{axis}"] = (-start, "shift of pixels from the exposure to here")
    for keyword in _KEPT:
        if keyword in original:
            header[keyword] = (original[keyword], original.comments[keyword])
    header["EXPID"] = (image.expID, "exposure")
    header["CONTENT"] = (name, "array of the patch")
    return header
