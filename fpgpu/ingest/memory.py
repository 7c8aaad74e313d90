"""Exposures from images in memory: NumPy arrays, and CCDData of astropy."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.errors import UnusableExposureError, WCSError
from fpgpu.fluxes import image_unit
from fpgpu.ingest.cards import refuse_contradictions, replace_wcs
from fpgpu.ingest.exposure import Exposure, ImageNameSet, inverse_of
from fpgpu.ingest.flags import flags_for
from fpgpu.ingest.naming import header_to_id
from fpgpu.ingest.pixelarea import solid_angle
from fpgpu.ingest.refit import refit_gwcs, refit_header, refit_native
from fpgpu.ingest.units import settle_units, zero_point_conflict
from fpgpu.sky.cards import has_lookup
from fpgpu.sky.wcs import SkyWCS
from fpgpu.stores.names import check_band, check_expID

__all__ = ["exposure_from_arrays", "exposure_from_ccddata"]

_IN_MEMORY = "memory"


def exposure_from_arrays(
    data: npt.ArrayLike,
    err: npt.ArrayLike,
    *,
    band: str | None = None,
    expID: str,
    header: Any = None,
    wcs: Any = None,
    mask: npt.ArrayLike | None = None,
    bkg: npt.ArrayLike | None = None,
    area: npt.ArrayLike | None = None,
    unit: Any = None,
    do_fluxcal: bool = True,
) -> Exposure:
    """Make an exposure of NumPy arrays, to be given to `fpgpu.ingest`.

    Parameters
    ----------
    data : array_like or Quantity, shape (ny, nx)
        Image ``[y, x]``, as astropy reads FITS images. Not copied. What a masked array masks, here
        or below, is bad; a Quantity has its own unit.
    err : array_like or Quantity, shape (ny, nx)
        Standard deviations in the same unit, or one that is converted to it.
    band : str, optional
        The band; FILTER of the header by default.
    expID : str
        Name of the exposure.
    header : astropy.io.fits.Header or mapping, optional
        Copied. ABMAG in it is the AB magnitude of one unit.
    wcs : astropy.wcs.WCS or gwcs.WCS, optional
        Goes before that of the header.
    mask : array_like of bool or integers, shape (ny, nx), optional
        Bad pixels, or flags.
    bkg : array_like or Quantity, shape (ny, nx), optional
        Background to subtract, in the same unit, or one that is converted to it.
    area : array_like, shape (ny, nx), optional
        Area of each pixel relative to the nominal one.
    unit : str or astropy.units.UnitBase, optional
        Unit of the image: a flux density, or a surface brightness; by default that of `data`, or
        BUNIT of the header.
    do_fluxcal : bool, optional
        Whether the unit must make sense; to be kept as it is, it need not.

    Returns
    -------
    Exposure
        With images ``[x, y]``, views of those given.

    Raises
    ------
    UnusableExposureError
        When an array is no image or of another shape, the band is not known, or units contradict
        each other.
    WCSError
        When there is no usable WCS.
    ExposureNameError
        When a name cannot be used in a store.

    Examples
    --------
    >>> from astropy.wcs import WCS
    >>> wcs = WCS({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -1e-5, "CDELT2": 1e-5})
    >>> data = np.ones((16, 24)) * u.uJy  # [y, x]
    >>> image = exposure_from_arrays(data, 0.1 * data, band="F200W", expID="mine", wcs=wcs)
    >>> image.shape, image.hdr["BUNIT"]
    ((24, 16), 'uJy')
    """
    where = f"exposure {expID}"
    hdr, left_out = _header(header)
    refuse_contradictions(hdr, where)
    _settle_unit(where, hdr, getattr(data, "unit", None) if unit is None else unit)
    im = _image(where, "data", _values(where, "data", data, hdr))
    hdr["NAXIS1"], hdr["NAXIS2"] = im.shape
    if band is not None:
        hdr["FILTER"] = check_band(band)
    band = header_to_id(hdr, "memory.fits")[0]
    layers = {"err": err, "mask": mask, "bkg": bkg, "area": area}
    images = {
        name: _image(where, name, _values(where, name, image, hdr), im.shape)
        for name, image in layers.items()
        if image is not None
    }
    ierr = inverse_of(images["err"])
    for image in (data, err, mask, bkg, area):
        if np.any(masked := getattr(image, "mask", False)):
            ierr = np.where(np.transpose(masked), 0, ierr)
    telescope = str(hdr.get("TELESCOP", "")).strip().upper()
    exposure = Exposure(
        im=im,
        ierr=ierr,
        mask=images.get("mask"),
        bkg=images.get("bkg"),
        hdr=hdr,
        band=band,
        expID=check_expID(expID),
        names=ImageNameSet(
            *(_IN_MEMORY if name in images else None for name in ("err", "err", "mask", "bkg"))
        ),
        area=images.get("area"),
        telescope=telescope,
        notes=left_out,
    )
    _place(exposure, wcs, where)
    if do_fluxcal:
        exposure.notes += settle_units(hdr, where, lambda: solid_angle(hdr))
    if exposure.mask is not None and exposure.mask.dtype != bool:
        exposure.flags = flags_for(telescope).count(exposure.mask)
    return exposure


def exposure_from_ccddata(
    ccd: Any, *, band: str | None = None, expID: str | None = None, do_fluxcal: bool = True
) -> Exposure:
    """Make an exposure of a CCDData or NDData of astropy.

    Parameters
    ----------
    ccd : astropy.nddata.CCDData or NDData
        With uncertainty (standard deviation, variance or inverse variance), unit and WCS.
        Its mask is bool; its flags, where it has any, are integers and join the mask.
    band : str, optional
        The band; FILTER of its header by default.
    expID : str, optional
        Name of the exposure; FILENAME of its header without ``.fits`` by default.
    do_fluxcal : bool, optional
        As for `exposure_from_arrays`.

    Returns
    -------
    Exposure

    Raises
    ------
    UnusableExposureError
        When it is no NDData, has no uncertainty, no name, or cannot be used.
    WCSError
        When it has no usable WCS.

    Examples
    --------
    >>> from astropy.nddata import CCDData, StdDevUncertainty
    >>> from astropy.wcs import WCS
    >>> wcs = WCS({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -1e-5, "CDELT2": 1e-5})
    >>> ccd = CCDData(np.ones((16, 24)), StdDevUncertainty(np.ones((16, 24))), wcs=wcs, unit="nJy")
    >>> exposure_from_ccddata(ccd, band="F200W", expID="mine").shape
    (24, 16)
    """
    from astropy.nddata import NDData, StdDevUncertainty
    from astropy.units import UnitsError

    if not isinstance(ccd, NDData):
        raise UnusableExposureError(
            f"a {type(ccd).__name__} was given as CCDData; arrays go to exposure_from_arrays"
        )
    header = ccd.meta
    name = expID or str(header.get("FILENAME", ""))
    if not name:
        raise UnusableExposureError(
            "a CCDData has no FILENAME in its header; give its exposure a name (expID)"
        )
    if expID is None:
        expID = header_to_id({"FILTER": band or header.get("FILTER")}, name)[1]
    if ccd.uncertainty is None:
        raise UnusableExposureError(
            f"exposure {expID}: the CCDData has no uncertainty; an exposure without cannot be "
            "fitted"
        )
    try:
        # No weight is an infinite deviation, and a negative variance none at all.
        with np.errstate(divide="ignore", invalid="ignore"):
            err = ccd.uncertainty.represent_as(StdDevUncertainty)
        scale = 1.0 if err.unit is None else float(err.unit.to(ccd.unit))
    except (TypeError, UnitsError) as error:
        raise UnusableExposureError(
            f"exposure {expID}: the uncertainty of the CCDData gives no standard deviations in "
            f"its unit, {ccd.unit}: {error}"
        ) from error
    mask = None if ccd.mask is None else np.asarray(ccd.mask, bool)
    if (flags := getattr(ccd, "flags", None)) is not None:
        mask = (np.asarray(flags) != 0) | (False if mask is None else mask)
    return exposure_from_arrays(
        ccd.data,
        np.asarray(err.array) * scale if scale != 1 else err.array,
        band=band,
        expID=expID,
        header=header,
        wcs=ccd.wcs,
        mask=mask,
        unit=ccd.unit,
        do_fluxcal=do_fluxcal,
    )


def _header(cards: Any) -> tuple[Any, list[str]]:
    """Make a header, without what no card can hold, as a dict or an array, but with a note."""
    from astropy.io.fits import Header

    # A header is a mapping, too, whose cards have comments.
    if isinstance(cards, Header) or not isinstance(cards, Mapping):
        return Header(cards or {}), []
    header, left_out = Header(), list[str]()
    for key, value in cards.items():
        try:
            header.append((key, value), end=True)
        except ValueError:
            left_out.append(f"{key} ({type(value).__name__})")
    if not left_out:
        return header, []
    return header, [f"left out of the header, as no FITS card can hold it: {', '.join(left_out)}"]


def _settle_unit(where: str, hdr: Any, unit: Any) -> None:
    """Write the unit of the values into the header, which must not say another."""
    if unit is None:
        return
    hdr["BUNIT"] = str(unit)
    conflict = zero_point_conflict(hdr)
    if conflict is not None:
        raise UnusableExposureError(
            f"{where}: {conflict}; take ABMAG out of the header, or leave the unit out"
        )


def _values(where: str, name: str, image: Any, hdr: Any) -> Any:
    """The values of an image, in the unit of the header where it has one of its own."""
    from astropy.units import UnitsError

    own = getattr(image, "unit", None)
    if own is None or own == hdr.get("BUNIT"):
        return image
    try:
        return image.to_value(image_unit(hdr.get("BUNIT")))
    except (UnitsError, TypeError) as error:
        raise UnusableExposureError(
            f"{where}: {name} is in {own}, the image in {hdr.get('BUNIT') or 'no unit'}: {error}"
        ) from error


def _image(
    where: str, name: str, image: npt.ArrayLike, shape: tuple[int, ...] | None = None
) -> npt.NDArray[Any]:
    """Check an image and turn it to ``[x, y]``."""
    array = np.asarray(image)
    kinds = "iub" if name == "mask" else "iuf"
    if array.ndim != 2 or array.dtype.kind not in kinds:
        raise UnusableExposureError(
            f"{where}: {name} has shape {array.shape} and dtype {array.dtype}; expected "
            f"{'bool or integers' if name == 'mask' else 'real numbers'}, shape (ny, nx)"
        )
    if shape is not None and array.T.shape != shape:
        raise UnusableExposureError(
            f"{where}: {name} has shape {array.shape}, but data has {shape[::-1]}"
        )
    # The reciprocal of half precision would have but three digits.
    return (array.astype(np.float32) if array.dtype == np.float16 else array).T


def _place(exposure: Exposure, wcs: Any, where: str) -> None:
    """Put the WCS where stores look for it."""
    hdr, shape = exposure.hdr, exposure.shape
    residual: float | None = None
    try:
        if wcs is None:
            if has_lookup(hdr):
                raise WCSError("its distortion is in look-up tables; give the WCS itself (wcs)")
            notes, residual = refit_header(hdr, shape)
        elif (sky := SkyWCS.from_native(wcs, shape)).kind == "fits":
            notes, residual = refit_native(hdr, wcs, shape)
        else:
            sip = refit_gwcs(sky, shape)
            notes, residual, exposure.wcs_choice = [], sip.residual, "gwcs"
            replace_wcs(hdr, sip)
            if sky.frame is None:
                exposure.sip, exposure.gwcs = sip, wcs
            else:
                notes = [f"the refit of the gWCS was turned from {sky.frame.name} into ICRS"]
    except WCSError as error:
        raise WCSError(f"{where}: {error}") from error
    if residual is not None:
        exposure.provenance["sip_residual_px"] = residual
    exposure.notes += notes
    exposure.provenance["wcs"] = exposure.wcs_choice
