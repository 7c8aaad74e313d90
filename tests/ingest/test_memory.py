"""Images in memory are exposures like those of files."""

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import (
    CCDData,
    InverseVariance,
    NDData,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)
from astropy.wcs import WCS

from fpgpu import PixelStore, exposure_from_arrays, exposure_from_ccddata
from fpgpu.demo.telescope import Pointing
from fpgpu.errors import UnusableExposureError, WCSError
from fpgpu.fluxes import flux_calibration
from fpgpu.ingest.pipeline import ingest
from fpgpu.sky.wcs import SkyWCS
from tests.ingest.hstfiles import write_flc

SHAPE = (64, 48)
POINTING = Pointing(150, 2, 30, 0.06, SHAPE)
random = np.random.default_rng(6)
DATA = random.normal(1, 1, SHAPE[::-1]).astype(np.float32)
ERR = random.uniform(0.5, 1.5, SHAPE[::-1]).astype(np.float32)
MASK = random.random(SHAPE[::-1]) < 0.1
HEADER = POINTING.gwcs().to_fits_sip(degree=4)
X, Y = np.meshgrid([0.0, 31, 63], [0.0, 20, 47])


def made(**changes):
    arguments = {"band": "F200W", "expID": "mine", "header": HEADER, "unit": "uJy"} | changes
    return exposure_from_arrays(DATA, ERR, **arguments)


def test_arrays_go_into_a_store_as_they_are(tmp_path):
    exposure = made(mask=MASK, bkg=np.full_like(DATA, 0.5), unit=u.nJy)
    report = ingest([exposure], tmp_path)
    assert report.ok
    with PixelStore(tmp_path / "pixels.h5") as pixels:
        flux, ierr = pixels.read_exposure("F200W", "mine")
    good = ~MASK.T
    np.testing.assert_allclose(flux[good], (DATA.T - 0.5)[good], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ierr[good], (1 / ERR.T)[good], rtol=1e-6)
    assert (ierr[~good] == 0).all()


def test_the_users_objects_are_not_changed():
    header = HEADER.copy()
    before = header.tostring(), DATA.copy()
    made(header=header)
    assert header.tostring() == before[0]
    np.testing.assert_array_equal(DATA, before[1])


@pytest.mark.parametrize(
    ("unit", "header", "expected"),
    [
        (u.nJy, {}, 1),
        ("uJy", {}, 1000),
        (10 * u.nJy, {}, 10),
        ("MJy/sr", {"PIXAR_SR": 1e-13}, 100),
        ("MJy/sr", {}, 1e15 * POINTING.pixel_steradian),
        ("Jy/arcsec2", {}, 1e9 * (POINTING.pixel_steradian * u.sr).to_value(u.arcsec**2)),
        (None, {"ABMAG": 31.4}, 1),
    ],
)
def test_units_are_those_of_astropy(unit, header, expected):
    exposure = made(unit=unit, header={**HEADER, **header})
    factor, units = flux_calibration(exposure.hdr)
    assert units == "nJy"
    assert factor == pytest.approx(expected, rel=2e-3 if "/" in str(unit) else 1e-9)


@pytest.mark.parametrize("kind", ["header", "fits", "gwcs"])
def test_the_wcs_may_be_of_any_kind(kind):
    gwcs = POINTING.gwcs()
    if kind == "header":
        exposure, truth = made(), SkyWCS.from_header(HEADER)
    elif kind == "fits":
        exposure, truth = made(header=None, wcs=WCS(HEADER)), SkyWCS.from_header(HEADER)
    else:
        exposure, truth = made(header=None, wcs=gwcs), SkyWCS.from_gwcs(gwcs, SHAPE)
        assert exposure.gwcs is gwcs
        assert exposure.provenance["sip_residual_px"] < 1e-6
    stored = SkyWCS.from_header(exposure.hdr).pixel_to_world(X, Y)
    np.testing.assert_allclose(stored, truth.pixel_to_world(X, Y), rtol=0, atol=1e-9)


def test_a_wcs_with_look_up_tables_is_refitted(tmp_path):
    path = write_flc(tmp_path / "a_flc.fits")
    with fits.open(path) as hdus:
        wcs = WCS(hdus["SCI", 1].header, fobj=hdus)
        header = hdus["SCI", 1].header
        data = hdus["SCI", 1].data
        exposure = exposure_from_arrays(data, data, band="F606W", expID="a", wcs=wcs)
        with pytest.raises(WCSError, match="give the WCS itself"):
            exposure_from_arrays(data, data, band="F606W", expID="a", header=header)
    stored = SkyWCS.from_header(exposure.hdr)
    back = stored.world_to_pixel(*wcs.all_pix2world(X, Y, 0))
    assert np.hypot(back[0] - X, back[1] - Y).max() < 1.2 * exposure.provenance["sip_residual_px"]


@pytest.mark.parametrize(
    "uncertainty",
    [
        StdDevUncertainty(ERR),
        StdDevUncertainty(ERR * 1000, unit="nJy"),
        VarianceUncertainty(ERR.astype(float) ** 2),
        InverseVariance(ERR.astype(float) ** -2),
    ],
)
def test_ccddata_brings_all_its_parts(uncertainty):
    ccd = CCDData(DATA, unit="uJy", uncertainty=uncertainty, mask=MASK, wcs=WCS(HEADER))
    ccd.meta["FILTER"], ccd.meta["FILENAME"] = "F277W", "c.fits"
    exposure = exposure_from_ccddata(ccd)
    assert (exposure.band, exposure.expID) == ("F277W", "c")
    np.testing.assert_allclose(exposure.ierr, 1 / ERR.T, rtol=1e-5)
    np.testing.assert_array_equal(exposure.mask, MASK.T)
    assert flux_calibration(exposure.hdr)[0] == pytest.approx(1000, rel=1e-9)


@pytest.mark.parametrize("layer", ["err", "mask", "bkg", "area"])
def test_what_a_masked_layer_does_not_know_is_bad(layer):
    values = np.zeros_like(MASK) if layer == "mask" else np.ones_like(DATA)
    images = {"err": ERR, layer: np.ma.array(values, mask=MASK)}
    exposure = exposure_from_arrays(DATA, band="F200W", expID="a", header=HEADER, **images)
    np.testing.assert_array_equal(exposure.ierr == 0, MASK.T)


def test_nddata_is_taken_like_ccddata_and_nothing_else():
    uncertainty = VarianceUncertainty(ERR.astype(float) ** 2)
    image = NDData(DATA, unit="uJy", uncertainty=uncertainty, mask=MASK, wcs=WCS(HEADER))
    exposure = exposure_from_ccddata(image, band="F277W", expID="c")
    np.testing.assert_allclose(exposure.ierr, 1 / ERR.T, rtol=1e-5)
    np.testing.assert_array_equal(exposure.mask, MASK.T)
    assert flux_calibration(exposure.hdr)[0] == pytest.approx(1000, rel=1e-9)
    with pytest.raises(UnusableExposureError, match=r"ndarray .* exposure_from_arrays"):
        exposure_from_ccddata(DATA, band="F277W", expID="c")


def test_ingest_takes_ccddata(tmp_path):
    ccd = CCDData(DATA, unit="nJy", uncertainty=StdDevUncertainty(ERR), wcs=WCS(HEADER))
    ccd.meta["FILTER"], ccd.meta["FILENAME"] = "F277W", "c.fits"
    report = ingest([ccd, made()], tmp_path)
    assert [(row.band, row.expID) for row in report.rows] == [("F277W", "c"), ("F200W", "mine")]


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"band": None}, UnusableExposureError, "FILTER"),
        ({"expID": "../x"}, ValueError, "leave its place"),
        ({"mask": DATA}, UnusableExposureError, "mine: mask has .* expected bool or integers"),
        ({"bkg": DATA[:-1]}, UnusableExposureError, "mine: bkg has shape"),
        ({"header": None}, WCSError, "mine: "),
    ],
)
def test_what_cannot_be_used_is_refused(changes, error, match):
    with pytest.raises(error, match=match):
        made(**changes)


def test_errors_without_a_use_are_refused(tmp_path):
    without = exposure_from_arrays(DATA, DATA * 0, band="F200W", expID="e", header=HEADER)
    with pytest.raises(UnusableExposureError, match=r"F200W/e: no pixel has any weight"):
        ingest([without], tmp_path, strict=True)
    ccd = CCDData(DATA, unit="nJy", wcs=WCS(HEADER))
    with pytest.raises(UnusableExposureError, match="no FILENAME"):
        exposure_from_ccddata(ccd)
    with pytest.raises(UnusableExposureError, match="exposure c: the CCDData has no uncertainty"):
        exposure_from_ccddata(ccd, band="F200W", expID="c")
    ccd.uncertainty = UnknownUncertainty(ERR)
    with pytest.raises(UnusableExposureError, match=r"exposure c: .* no standard deviations"):
        exposure_from_ccddata(ccd, band="F200W", expID="c")
    # CCDData refuses such a unit at first, and not when the uncertainty is changed later.
    ccd.uncertainty = StdDevUncertainty(ERR)
    ccd.uncertainty.unit = None
    ccd.uncertainty._unit = u.s
    with pytest.raises(UnusableExposureError, match=r"in its unit, nJy: .*not convertible"):
        exposure_from_ccddata(ccd, band="F200W", expID="c")


def test_what_no_card_can_hold_is_left_out_with_a_note():
    meta = {"FILTER": "F200W", "history": {"x": 1}, "EXPTIME": 5.0}
    uncertainty = StdDevUncertainty(np.ones((16, 24)))
    wcs = WCS({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -1e-5, "CDELT2": 1e-5})
    ccd = CCDData(np.ones((16, 24)), uncertainty, unit="nJy", wcs=wcs, meta=meta)
    exposure = exposure_from_ccddata(ccd, expID="c")
    assert exposure.hdr["EXPTIME"] == 5
    assert "history (dict)" in exposure.notes[0]


def test_a_comment_that_does_not_fit_is_cut_without_a_warning(tmp_path):
    ccd = exposure_from_arrays(
        np.ones((16, 24)), np.ones((16, 24)), band="F200W", expID="e" * 60, unit="nJy",
        wcs=WCS({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -1e-5, "CDELT2": 1e-5}),
    )  # fmt: skip
    ccd.hdr["ORIGIN"] = ("e" * 50, "a comment that is too long")
    assert ingest([ccd], tmp_path / "stores").ok
