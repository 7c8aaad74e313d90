"""JWST products as the pipeline's own data models write them, small."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from stdatamodels.jwst import datamodels

from fpgpu.demo.telescope import Pointing
from fpgpu.sky.sip import fit_sip
from fpgpu.sky.wcs import SkyWCS

PIXEL_SR = float(np.deg2rad(0.03 / 3600) ** 2)
DO_NOT_USE, HOT = 1, 1 << 11


def pointing(shape=(64, 48), scale=0.063) -> Pointing:
    return Pointing(53.1, -27.8, 40.0, scale, shape)


def linear_gwcs(shape, scale=0.03) -> Any:
    """The gWCS of a resampled image: a scale, a turn and a gnomonic projection."""
    from astropy import units as u
    from astropy.coordinates import ICRS
    from astropy.modeling import models
    from gwcs import WCS
    from gwcs import coordinate_frames as frames

    step = scale / 3600
    transform = (
        (models.Shift(-(shape[0] - 1) / 2) & models.Shift(-(shape[1] - 1) / 2))
        | models.AffineTransformation2D([[-step, 0], [0, step]], translation=[0, 0])
        | models.Pix2Sky_TAN()
        | models.RotateNative2Celestial(53.1, -27.8, 180)
    )
    detector = frames.Frame2D(name="detector", unit=(u.pix, u.pix))
    world = frames.CelestialFrame(name="world", reference_frame=ICRS())
    wcs = WCS(forward_transform=transform, input_frame=detector, output_frame=world)
    wcs.bounding_box = tuple((-0.5, n - 0.5) for n in shape)
    return wcs


def write_cal(path: Path, instrument="NIRCAM", shape=(64, 48), gwcs=None, **meta) -> Path:
    """Write a stage-2 image; `meta` goes into ``instrument`` or ``exposure`` of the model."""
    model = _filled(datamodels.ImageModel(shape[::-1]), shape)
    model.dq = np.zeros(shape[::-1], np.uint32)
    model.dq[5, 6], model.dq[7, 8] = DO_NOT_USE, HOT
    model.area = pointing(shape).area_map().T
    return _save(model, path, gwcs or pointing(shape).gwcs(), shape, instrument, meta)


def write_i2d(path: Path, shape=(128, 96), **meta) -> Path:
    """Write a stage-3 mosaic: context and weights, no DQ; a corner without data, a hole."""
    model = _filled(datamodels.ImageModel(shape[::-1]), shape)
    model.con = np.ones((1, *shape[::-1]), np.int32)
    model.wht = np.full(shape[::-1], 500, np.float32)
    model.data[:20, :30], model.err[:20, :30], model.wht[:20, :30] = np.nan, np.nan, 0
    model.wht[50, 60] = 0
    model.meta.resample.pointings = 1
    return _save(model, path, linear_gwcs(shape), shape, "NIRCAM", meta)


def _filled(model: Any, shape: tuple[int, int]) -> Any:
    random = np.random.default_rng(sum(shape))
    model.data = random.normal(0.2, 0.05, shape[::-1]).astype(np.float32)
    model.err = random.uniform(0.04, 0.06, shape[::-1]).astype(np.float32)
    for name in ("var_poisson", "var_rnoise", "var_flat"):
        model[name] = (model.err**2 / 3).astype(np.float32)
    return model


def _save(model: Any, path: Path, gwcs: Any, shape, instrument: str, meta: dict) -> Path:
    known = {
        "NIRCAM": ("NRCALONG", "F444W", "CLEAR", "NRC_IMAGE"),
        "NIRISS": ("NIS", "CLEAR", "F200W", "NIS_IMAGE"),
        "MIRI": ("MIRIMAGE", "F770W", None, "MIR_IMAGE"),
    }
    detector, wheel, pupil, kind = known[instrument]
    model.meta.telescope = "JWST"
    model.meta.instrument.name = instrument
    model.meta.instrument.detector = detector
    model.meta.instrument.filter = meta.get("filter", wheel)
    model.meta.instrument.pupil = meta.get("pupil", pupil)
    model.meta.exposure.type = meta.get("exp_type", kind)
    model.meta.bunit_data = model.meta.bunit_err = meta.get("unit", "MJy/sr")
    model.meta.photometry.pixelarea_steradians = PIXEL_SR
    model.meta.wcs = gwcs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(str(path))
    # As the pipeline does: the gWCS approximated in the keywords that FITS software reads.
    with fits.open(path, mode="update") as hdus:
        hdus["SCI"].header.update(fit_sip(SkyWCS.from_gwcs(gwcs, shape), shape).to_header())
    return path
