"""The main job on a real NIRCam file, whose gWCS its cutout forgot to move."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from fpgpu import MetaStore, PixelStore
from fpgpu.ingest.pipeline import ingest

KEY = ("F444W", "nrcalong_f444w_cal_cutout")
CHANGED_BY_PADDING = {"NAXIS1", "NAXIS2"}


@pytest.fixture(scope="module")
def cutout(shared_data):
    return shared_data / "nircam" / "nrcalong_f444w_cal_cutout.fits"


@pytest.fixture(scope="module")
def science(cutout):
    """SCI, ERR, DQ, AREA as ``[x, y]``, and the SCI header."""
    with fits.open(cutout) as hdus:
        images = {name: hdus[name].data.T.copy() for name in ("SCI", "ERR", "DQ", "AREA")}
        return images, hdus["SCI"].header.copy()


@pytest.fixture(scope="module")
def ingested(cutout, tmp_path_factory):
    out = tmp_path_factory.mktemp("stores")
    report = ingest([cutout], out, wcs="fits", pad=True)
    assert report.ok, report.rows[0].reason
    return out, report.rows[0]


@pytest.fixture(scope="module")
def stored(ingested):
    with PixelStore(ingested[0] / "pixels.h5", mode="r") as pixels:
        return pixels.read_exposure(*KEY)


def masked_in(images):
    with np.errstate(all="ignore"):
        ierr = 1 / images["ERR"]
    bad = ~np.isfinite(images["SCI"]) | ~np.isfinite(ierr) | (ierr < 0)
    return bad | ((images["DQ"] & 1) != 0)


def test_at_first_it_is_refused_for_its_wcs_and_nothing_is_written(cutout, tmp_path):
    report = ingest([cutout], tmp_path / "stores")
    assert [row.status for row in report.rows] == ["refused"]
    reason = report.rows[0].reason
    assert "gWCS and FITS WCS disagree by 412.3 px" in reason
    assert "--wcs gwcs or --wcs fits" in reason
    assert "100 x 100 pixels are no multiple of the super-pixel (8); use --pad" in reason
    assert not (tmp_path / "stores").exists()


def test_fluxes_are_the_float32_chain_exactly(science, stored):
    images, header = science
    flux, ierr = stored
    good = ~masked_in(images)
    factor = 1e15 * header["PIXAR_SR"]
    sci, err, area = (images[k].astype(np.float32) for k in ("SCI", "ERR", "AREA"))
    np.testing.assert_array_equal(flux[:100, :100][good], (sci * np.float32(factor) * area)[good])
    weight = (np.float32(1) / err) * np.float32(1 / factor) / area
    np.testing.assert_array_equal(ierr[:100, :100][good], weight[good])
    assert good.sum() > 9000


def test_fluxes_are_sci_times_the_solid_angle_of_the_pixel(science, stored):
    images, header = science
    good = ~masked_in(images)
    solid_angle = images["AREA"].astype(np.float64) * header["PIXAR_SR"] * u.sr
    flux = images["SCI"].astype(np.float64) * u.Unit(header["BUNIT"]) * solid_angle
    np.testing.assert_allclose(stored[0][:100, :100][good], flux.to_value(u.nJy)[good], rtol=3e-7)


def test_masked_and_added_pixels_have_no_weight(science, stored, ingested):
    images, _ = science
    flux, ierr = stored
    masked = masked_in(images)
    assert flux.shape == (104, 104)
    assert (ierr[:100, :100][masked] == 0).all()
    for edge in (np.s_[100:], np.s_[:, 100:]):
        assert (flux[edge] == 0).all()
        assert (ierr[edge] == 0).all()
    assert ingested[1].n_masked == masked.sum()
    assert ingested[1].flags["DO_NOT_USE"] == np.count_nonzero(images["DQ"] & 1)


def test_the_header_in_the_store_is_the_merged_one_and_forcepho_can_read_it(ingested, cutout):
    with MetaStore(ingested[0] / "meta.json") as meta:
        header = meta.headers[KEY[0]][KEY[1]]
        again = fits.Header.fromstring(header.tostring())
    science, primary = fits.getheader(cutout, "SCI"), fits.getheader(cutout, 0)
    assert (again["NAXIS1"], again["NAXIS2"], again["FILTER"]) == (104, 104, "F444W")
    for keyword in set(science) - CHANGED_BY_PADDING - {"", "COMMENT", "HISTORY"}:
        assert again[keyword] == science[keyword], keyword
    for keyword in ("DETECTOR", "TELESCOP", "PROGRAM", "FILENAME", "EFFEXPTM"):
        assert again[keyword] == primary[keyword]


def test_padding_leaves_every_pixel_where_it_was_on_the_sky(ingested, cutout):
    with MetaStore(ingested[0] / "meta.json") as meta:
        ra, dec = meta.sky_wcs(*KEY).pixel_to_world([0, 99, 50.5], [0, 99, 7])
    with fits.open(cutout) as hdus:
        expected = WCS(hdus["SCI"].header, fix=False).all_pix2world([0, 99, 50.5], [0, 99, 7], 0)
    np.testing.assert_allclose((ra, dec), expected, rtol=0, atol=1e-12)


def test_either_way_on_is_open(cutout, tmp_path):
    row = ingest([cutout], tmp_path, wcs="gwcs", pad=True).rows[0]
    assert (row.status, row.wcs_kind) == ("stored", "gwcs")
    assert row.sip_residual < 1e-3
    with MetaStore(tmp_path / "meta.json", use_gwcs=True) as meta:
        by_gwcs = meta.sky_wcs(*KEY).pixel_to_world([0.0, 99], [0.0, 50])
    with MetaStore(tmp_path / "meta.json") as meta:
        by_header = meta.sky_wcs(*KEY).pixel_to_world([0.0, 99], [0.0, 50])
    np.testing.assert_allclose(by_header, by_gwcs, rtol=0, atol=1e-8)
