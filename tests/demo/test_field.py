"""The synthetic field has the structure of real JWST files and holds what its truth says."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from stdatamodels.jwst import datamodels

from fpgpu.catalog import UNITS
from fpgpu.demo.field import make_field
from fpgpu.ingest.readers import read_exposure

SHAPE = (96, 80)


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    folder = tmp_path_factory.mktemp("field")
    return make_field(folder, bands=("F115W", "F356W"), n_per_band=2, size=SHAPE, seed=7)


def test_there_is_one_file_per_band_and_dither(field):
    assert len(field.files) == len(set(field.files)) == 4
    filters = [fits.getval(path, "FILTER") for path in field.files]
    assert filters == ["F115W", "F115W", "F356W", "F356W"]
    assert [fits.getval(path, "DETECTOR") for path in field.files[1:3]] == ["NRCB1", "NRCBLONG"]


def test_extensions_are_those_of_a_stage_2_product(field, shared_data):
    real = shared_data / "nircam" / "nrcalong_f444w_cal_cutout.fits"
    with fits.open(real) as theirs, fits.open(field.files[0]) as ours:
        assert [hdu.name for hdu in ours] == [hdu.name for hdu in theirs]
        for a, b in zip(ours[1:-1], theirs[1:-1], strict=True):
            assert a.data.dtype == b.data.dtype
            assert a.header.get("BUNIT") in (None, b.header.get("BUNIT"))
        assert ours["SCI"].header["BUNIT"] == theirs["SCI"].header["BUNIT"]
        for keyword in ("TELESCOP", "INSTRUME", "EXP_TYPE", "DATAMODL", "PUPIL"):
            assert ours[0].header[keyword] == theirs[0].header[keyword]


def test_the_pipelines_own_models_open_the_files_and_see_the_same_wcs(field):
    for path in field.files[::2]:
        gwcs = read_exposure(path).gwcs
        x, y = np.array([(0, 0), (95, 0), (95, 79), (20.5, 40.25)]).T
        with datamodels.open(path) as model:
            assert isinstance(model, datamodels.ImageModel)
            model.validate()
            assert model.meta.instrument.filter == fits.getval(path, "FILTER")
            assert model.data.shape == (80, 96)
            np.testing.assert_array_equal(model.meta.wcs(x, y), gwcs(x, y))


def test_the_inverse_of_the_gwcs_leads_back(field):
    gwcs = read_exposure(field.files[0]).gwcs
    x, y = np.meshgrid(np.linspace(0, 95, 9), np.linspace(0, 79, 9))
    back = gwcs.invert(*gwcs(x, y))
    np.testing.assert_allclose(back, (x, y), rtol=0, atol=1e-3)


def test_the_sip_header_and_the_outline_agree_with_the_gwcs(field):
    for path in field.files:
        gwcs, header = read_exposure(path).gwcs, fits.getheader(path, "SCI")
        x, y = np.meshgrid(np.linspace(0, 95, 9), np.linspace(0, 79, 9))
        sky = gwcs(x, y)
        np.testing.assert_allclose(
            WCS(header, fix=False).all_pix2world(x, y, 0), sky, rtol=0, atol=1e-8
        )
        outline = np.array(header["S_REGION"].split()[2:], float).reshape(4, 2)
        corner = gwcs(-0.5, -0.5, with_bounding_box=False)
        np.testing.assert_allclose(outline[0], corner, rtol=0, atol=1e-8)


def test_exposures_are_dithered_and_turned(field):
    headers = [fits.getheader(path, "SCI") for path in field.files[:2]]
    assert headers[0]["PA_APER"] != headers[1]["PA_APER"]
    assert headers[0]["CRVAL1"] != headers[1]["CRVAL1"]


def test_the_area_map_is_the_size_of_the_pixels_on_the_sky(field):
    with fits.open(field.files[0]) as hdus:
        area, nominal = hdus["AREA"].data.T, hdus["SCI"].header["PIXAR_SR"]
    gwcs = read_exposure(field.files[0]).gwcs
    x, y = np.array([(10, 10), (47, 40), (80, 60), (90, 5)]).T

    def step(dx, dy):
        high = gwcs(x + dx / 2, y + dy / 2, with_bounding_box=False)
        low = gwcs(x - dx / 2, y - dy / 2, with_bounding_box=False)
        dec = (high[1] + low[1]) / 2
        return np.deg2rad((high[0] - low[0]) * np.cos(np.deg2rad(dec))), np.deg2rad(
            high[1] - low[1]
        )

    (ax, ay), (bx, by) = step(1, 0), step(0, 1)
    np.testing.assert_allclose(np.abs(ax * by - ay * bx) / nominal, area[x, y], rtol=2e-5)
    assert area.max() / area.min() > 1.02


def test_fluxes_in_the_images_are_those_of_the_truth(tmp_path):
    field = make_field(tmp_path, bands=("F200W",), n_per_band=1, size=200, n_sources=1, seed=3)
    with fits.open(field.files[0]) as hdus:
        factor = 1e15 * hdus["SCI"].header["PIXAR_SR"] * hdus["AREA"].data.astype(float)
        flux, error = hdus["SCI"].data * factor, hdus["ERR"].data * factor
        x, y = WCS(hdus["SCI"].header, fix=False).all_world2pix(
            *field.truth["ra", "dec"][0].values(), 0
        )
        columns, rows = np.meshgrid(np.arange(200), np.arange(200))
        aperture = (np.hypot(columns - x, rows - y) < 25) & ((hdus["DQ"].data & 1) == 0)
    measured, uncertainty = flux[aperture].sum(), np.sqrt((error[aperture] ** 2).sum())
    assert abs(measured - field.truth["F200W"][0]) < 5 * uncertainty
    assert measured > 20 * uncertainty


def test_defects_are_flagged_and_the_border_is_blind(field):
    with fits.open(field.files[0]) as hdus:
        quality, science, error = (hdus[name].data for name in ("DQ", "SCI", "ERR"))
        border = (quality >> 31) != 0
    assert np.isnan(science[border]).all()
    assert np.isnan(error[border]).all()
    assert np.isfinite(science[~border]).all()
    assert border.sum() == 96 * 80 - 88 * 72
    assert ((quality[~border] & 1) != 0).any()
    assert ((quality[~border] & 4) != 0).any()


def test_the_truth_is_a_catalogue_with_units(field):
    assert field.bands == ["F115W", "F356W"]
    units = {name: str(field.truth[name].unit or "") for name in field.truth.colnames}
    assert units == {**UNITS, "F115W": "nJy", "F356W": "nJy"}


def test_a_seed_gives_the_same_pixels_again(tmp_path):
    images = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        options = {"bands": ("F444W",), "n_per_band": 1, "size": 48, "seed": seed}
        images.append(fits.getdata(make_field(tmp_path / name, **options).files[0], "SCI"))
    np.testing.assert_array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2], equal_nan=True)


def test_a_field_may_lie_at_the_zero_of_right_ascension(tmp_path):
    field = make_field(tmp_path, bands=("F200W",), size=64, center=(0.0, 60.0))
    assert ((field.truth["ra"] >= 0) & (field.truth["ra"] < 360)).all()
    assert all(0 <= fits.getval(path, "CRVAL1", "SCI") < 360 for path in field.files)
    assert np.ptp(np.asarray(field.truth["ra"])) > 300
