"""From a frame to exposures: what all FITS readers share.

An image of the size of a store's exposures gives one exposure; a larger one, when tiles are asked
for, gives one after the other, and only the part of the files that a tile covers is read for it.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.errors import UnusableExposureError, WCSError
from fpgpu.ingest.astrometry import Astrometry, choose_wcs
from fpgpu.ingest.cutting import cut, size_misfit
from fpgpu.ingest.exposure import Exposure, ImageNameSet
from fpgpu.ingest.fitsfile import FitsImage
from fpgpu.ingest.flags import flags_for
from fpgpu.ingest.frame import Frame, leave_out
from fpgpu.ingest.pixelarea import area_map, nominal_area, solid_angle
from fpgpu.ingest.tiles import Box
from fpgpu.ingest.units import electrons_per_second, factor_between, is_time, settle_units
from fpgpu.ingest.weights import Weigher

__all__ = ["assemble"]

Images = npt.NDArray[Any]


def assemble(frame: Frame) -> Iterator[Exposure]:
    """Read a frame as one exposure, or as tiles; images are ``[x, y]``, in the byte order of the
    file.

    Raises
    ------
    UnusableExposureError
        When an image is missing, of the wrong kind or shape, or has no usable pixel, or when the
        size is no multiple of the super-pixel.
    WCSError
        When there is no usable WCS.
    """
    wcs = _astrometry(frame)
    weigher = _weigher(frame)
    frame.notes += weigher.notes()
    band, expID = frame.name(frame.part)
    if not isinstance(frame.header.get("FILTER"), str):
        frame.header["FILTER"] = band

    def read(box: Box) -> Exposure:
        return _read(frame, box, weigher, wcs, (band, expID))

    def tile_name(tile: str) -> str:
        return frame.name(f"{frame.part}_{tile}".lstrip("_"))[1]

    yield from cut(str(frame.path), frame.shape, frame.options, read, tile_name)


def _weigher(frame: Frame) -> Weigher:
    """Settle the units, and find where the uncertainties come from."""
    options = frame.options
    header = frame.header
    electrons, stated = electrons_per_second(header), header.get("ABMAG")
    if options.abmag is not None:
        header["ABMAG"] = (options.abmag, "[mag] AB magnitude of 1 BUNIT, as given")
    elif options.do_fluxcal:
        frame.notes += settle_units(
            header,
            str(frame.path),
            lambda: _nominal_solid_angle(frame),
            pixel_area=options.pixel_area,
            tolerance=frame.area_tolerance,
        )
    if "wht" in frame.layers and is_time(frame.layers["wht"]):
        frame.weights_are = "exptime"
    weigher = Weigher.choose(frame)
    if weigher.power:
        factor = _factor(frame, weigher.noise, weigher.power, stated)
        weigher.unit = factor ** (1 / weigher.power)
    if "bkg" in frame.layers:
        frame.bkg_factor = _factor(frame, frame.layers["bkg"], 1, stated)
    weigher.measure_sky(frame.science, electrons)
    return weigher


def _factor(frame: Frame, layer: FitsImage, power: int, stated: object) -> float:
    """What brings a companion into the unit of the image, with a note where that is not 1."""
    factor = factor_between(layer, frame.header, power, stated)
    if factor != 1:
        own, image = (
            f"BUNIT {hdr.get('BUNIT') or 'missing'}, ABMAG {hdr.get('ABMAG', 'missing')}"
            for hdr in (layer.header, frame.header)
        )
        frame.notes.append(
            f"{layer.where} is in another unit ({own}) than the image ({image}): its values are "
            f"multiplied by {factor:.6g}"
        )
    return factor


def _nominal_solid_angle(frame: Frame) -> float:
    """Give the steradians of the pixel that the map of areas is relative to, by the WCS."""
    area, layer = solid_angle(frame.header), frame.layers.get("area")
    if layer is None:
        return area
    x, y = frame.shape[0] // 2, frame.shape[1] // 2
    relative = float(layer.read_numbers(Box(x, x + 1, y, y + 1))[0, 0])
    if not 0 < relative < math.inf:
        raise WCSError(f"{layer.where} is {relative} in the middle")
    return area / relative


def _read(
    frame: Frame, box: Box, weigher: Weigher, wcs: Astrometry, key: tuple[str, str]
) -> Exposure:
    """Read a part of all images."""
    im = frame.science.read_numbers(box)
    mask = _mask(frame, box)
    bkg, area = (
        None if layer is None else layer.read_numbers(box)
        for layer in (frame.layers.get("bkg"), frame.layers.get("area"))
    )
    if bkg is not None and frame.bkg_factor != 1:
        bkg = bkg * frame.bkg_factor
    provenance, notes = wcs.provenance() | weigher.provenance(), [*wcs.notes, *frame.notes]
    if area is None and frame.has_distortion:
        nominal, source = nominal_area(frame.header)
        area = area_map(frame.header, box, nominal)
        provenance["area_relative_to"] = source
        if source == "CRPIX":
            notes.append("no IDCSCALE: pixel areas are relative to the one at the reference pixel")
    telescope = str(frame.header.get("TELESCOP", "")).strip().upper()
    flags: dict[str, int] = {}
    if mask is not None and mask.dtype == bool:
        flags = {"masked": int(np.count_nonzero(mask))}
    elif mask is not None:
        flags = flags_for(telescope).count(mask)
    return Exposure(
        im=im,
        ierr=weigher.read(box, im),
        mask=mask,
        bkg=bkg,
        hdr=frame.header.copy(),
        band=key[0],
        expID=key[1],
        names=ImageNameSet(
            frame.path.name, weigher.noise.file.path.name, frame.origin("mask"), frame.origin("bkg")
        ),
        area=area,
        gwcs=wcs.gwcs,
        wcs_choice=wcs.kind,
        sip=wcs.sip,
        flags=flags,
        bitmask=frame.bitmask,
        telescope=telescope,
        provenance=provenance,
        notes=notes,
    )


def _mask(frame: Frame, box: Box) -> Images | None:
    """Read the data-quality flags; a separate mask may also be floats, bad where not zero."""
    layer = frame.layers.get("mask")
    if layer is None:
        return None
    mask = layer.read_flags(box)
    if mask.dtype.kind in "iub":
        return mask
    if layer.file is frame.file or mask.dtype.kind != "f":
        raise UnusableExposureError(
            f"{layer.where} has dtype {mask.dtype}; expected integers, one bit a flag; "
            f"{leave_out('mask')}"
        )
    return np.asarray(mask != 0)


def _astrometry(frame: Frame) -> Astrometry:
    """Choose the WCS and check the size; where both are at fault, one message says both."""
    misfit = size_misfit(frame.shape, frame.options)
    try:
        wcs = choose_wcs(frame)
    except WCSError as error:
        if misfit:
            raise type(error)(f"{error}; also, {misfit}") from error
        raise
    if misfit:
        raise UnusableExposureError(f"{frame.path}: {misfit}")
    return wcs
