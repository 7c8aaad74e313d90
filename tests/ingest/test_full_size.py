"""A full-size file written by the pipeline's own models goes in and comes back."""

import asdf
import numpy as np
import pytest
from astropy.wcs import WCS
from stdatamodels.jwst import datamodels

from fpgpu import MetaStore, PixelStore
from fpgpu.ingest.pipeline import ingest
from fpgpu.ingest.readers import read_exposure

SIZE = 2048
PIXAR_SR = 2.29e-14


@pytest.fixture(scope="module")
def true_gwcs(shared_data):
    with asdf.open(shared_data / "gwcs" / "nrcb5-wcs.asdf", lazy_load=False, memmap=False) as tree:
        return tree["wcs"]


@pytest.fixture(scope="module")
def images():
    """Science, uncertainty, flags and area as the pipeline has them: ``[y, x]``."""
    random = np.random.default_rng(11)
    science = random.normal(0.2, 1, (SIZE, SIZE)).astype(np.float32)
    error = random.uniform(0.05, 2, (SIZE, SIZE)).astype(np.float32)
    flags = (random.random((SIZE, SIZE)) < 0.01) * random.integers(1, 2**32, (SIZE, SIZE))
    area = random.uniform(0.97, 1.03, (SIZE, SIZE)).astype(np.float32)
    science[5, 7], error[9, 11], error[13, 17] = np.nan, np.nan, 0
    return science, error, flags.astype(np.uint32), area


@pytest.fixture(scope="module")
def cal_file(images, true_gwcs, tmp_path_factory):
    path = tmp_path_factory.mktemp("full") / "jw05398001001_02101_00001_nrcblong_cal.fits"
    science, error, flags, area = images
    with datamodels.ImageModel(data=science, err=error, dq=flags, area=area) as model:
        model.meta.telescope = "JWST"
        model.meta.instrument.name = "NIRCAM"
        model.meta.instrument.detector = "NRCBLONG"
        model.meta.instrument.filter = "F444W"
        model.meta.instrument.pupil = "CLEAR"
        model.meta.bunit_data = model.meta.bunit_err = "MJy/sr"
        model.meta.photometry.pixelarea_steradians = PIXAR_SR
        model.meta.wcs = true_gwcs
        model.save(path)
    return path


@pytest.fixture(scope="module")
def stores(cal_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("stores")
    report = ingest([cal_file], out)
    assert report.ok, report.rows[0].reason
    return out, report.rows[0]


def test_positions_of_the_stored_gwcs_are_those_of_the_original(stores, true_gwcs):
    folder, row = stores
    x, y = np.meshgrid(np.linspace(-0.4, SIZE - 0.6, 25), np.linspace(-0.4, SIZE - 0.6, 25))
    with MetaStore(folder / "meta.json", use_gwcs=True) as meta:
        sky = meta.sky_wcs(row.band, row.expID)
        assert sky.kind == "gwcs"
        ra, dec = sky.pixel_to_world(x, y)
    expected_ra, expected_dec = true_gwcs(x, y)
    np.testing.assert_allclose(ra, expected_ra, rtol=0, atol=1e-9)
    np.testing.assert_allclose(dec, expected_dec, rtol=0, atol=1e-9)


def test_the_refit_is_within_a_thousandth_of_a_pixel(cal_file, stores, true_gwcs):
    exposure = read_exposure(cal_file)
    x, y = np.meshgrid(np.linspace(0, SIZE - 1, 23), np.linspace(0, SIZE - 1, 23))
    refit = WCS(exposure.sip.to_header(), fix=False).all_pix2world(x, y, 0)
    ra, dec = true_gwcs(x, y)
    separation = np.hypot((refit[0] - ra) * np.cos(np.deg2rad(dec)), refit[1] - dec) * 3600
    pixel = np.sqrt(PIXAR_SR) * np.rad2deg(1) * 3600
    assert separation.max() / pixel < 1e-3
    assert stores[1].sip_residual < 1e-3


def test_pixels_come_back_exactly(images, stores):
    folder, row = stores
    science, error, flags, area = (image.T for image in images)
    factor = 1e15 * PIXAR_SR
    with np.errstate(all="ignore"):
        flux = science * np.float32(factor) * area
        ierr = (1 / error) * np.float32(1 / factor) / area
    masked = ~np.isfinite(science) | ~np.isfinite(1 / np.where(error == 0, np.nan, error))
    masked |= (flags & 1) != 0
    flux[masked] = ierr[masked] = 0
    with PixelStore(folder / "pixels.h5", mode="r") as pixels:
        stored_flux, stored_ierr = pixels.read_exposure(row.band, row.expID)
    np.testing.assert_array_equal(stored_flux, flux)
    np.testing.assert_array_equal(stored_ierr, ierr)
    assert row.n_masked == masked.sum()


def test_the_key_comes_from_filter_and_file(stores, cal_file):
    assert (stores[1].band, stores[1].expID) == ("F444W", cal_file.name.removesuffix(".fits"))
    assert (stores[1].wcs_kind, stores[1].bitmask) == ("gwcs", 1)
