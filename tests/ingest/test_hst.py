"""HST files: chips, distortion in look-up tables, pixel areas, units, and mosaics with weights."""

import re

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from fpgpu.calibration import calibrate_images
from fpgpu.errors import UnusableExposureError, WCSError
from fpgpu.fluxes import flux_calibration
from fpgpu.ingest.inputs import CalibrationOptions, Input, ReadOptions
from fpgpu.ingest.readers import read_exposures
from fpgpu.sky.wcs import SkyWCS
from tests.ingest.hstfiles import EXPTIME, PHOTFLAM, PHOTPLAM, SIZE, write_drz, write_flc


def read(path, **options):
    return list(read_exposures(Input(path, options=ReadOptions(**options))))


def flux_of_one_electron_per_second() -> float:
    """In nJy, by astropy's units."""
    density = PHOTFLAM * u.erg / u.s / u.cm**2 / u.AA
    return density.to_value(u.nJy, u.spectral_density(PHOTPLAM * u.AA))


@pytest.fixture
def flc(tmp_path):
    return write_flc(tmp_path / "j9_flc.fits")


def test_each_chip_is_an_exposure(flc):
    first, second = read(flc)
    assert (first.band, first.expID) == ("F606W", "j9_flc_sci1")
    assert (second.band, second.expID) == ("F606W", "j9_flc_sci2")
    with fits.open(flc) as hdus:
        for version, exposure in ((1, first), (2, second)):
            np.testing.assert_array_equal(exposure.im, hdus["SCI", version].data.T)
            np.testing.assert_array_equal(exposure.mask, hdus["DQ", version].data.T)
    assert (first.ierr == np.float32(1) / np.float32(7)).all()
    assert first.flags == {"HOTPIX": 1, "DRIZZLEREJECT": 1}
    assert first.provenance["reader"] == "hst"
    assert first.hdr["FILTER"] == "F606W"


def test_a_file_of_one_chip_names_it_too(tmp_path):
    (exposure,) = read(write_flc(tmp_path / "i_flt.fits", chips=(1,)))
    assert exposure.expID == "i_flt_sci1"


def test_bits_are_named_as_hst_does(flc):
    calibration = CalibrationOptions(bitmask="DRIZZLEREJECT+SATPIXEL")
    exposures = list(read_exposures(Input(flc, calibration=calibration)))
    assert [exposure.bitmask for exposure in exposures] == [4096 + 256] * 2


def test_look_up_tables_are_refitted_to_sip(flc):
    x, y = np.meshgrid(np.linspace(-0.5, SIZE[0] - 0.5, 40), np.linspace(-0.5, SIZE[1] - 0.5, 30))
    with fits.open(flc) as hdus:
        for version, exposure in enumerate(read(flc), 1):
            truth = WCS(hdus["SCI", version].header, fobj=hdus)
            assert truth.cpdis1 is not None
            assert truth.det2im1 is not None
            stored = SkyWCS.from_header(exposure.hdr)
            ra, dec = truth.all_pix2world(x, y, 0)
            found = stored.world_to_pixel(ra, dec)
            distance = np.hypot(found[0] - x, found[1] - y).max()
            assert 1e-5 < exposure.provenance["sip_residual_px"] < 5e-3
            assert distance < 1.2 * exposure.provenance["sip_residual_px"]
            plain = WCS(hdus["SCI", version].header, fobj=hdus, naxis=2)
            plain.cpdis1 = plain.cpdis2 = plain.det2im1 = plain.det2im2 = None
            without = plain.all_world2pix(ra, dec, 0)
            assert np.hypot(without[0] - x, without[1] - y).max() > 0.01
            assert not any(key.startswith(("CPDIS", "DP1", "D2IM")) for key in exposure.hdr)


@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
def test_a_refit_is_icrs_whatever_the_frame_of_the_header(flc):
    with fits.open(flc, mode="update") as hdus:
        hdus["SCI", 2].header["RADESYS"] = "FK5"
        hdus["SCI", 2].header["EQUINOX"] = 2000.0
    x, y = np.array([3.0, 200.0]), np.array([90.0, 20.0])
    with fits.open(flc) as hdus:
        truth = WCS(hdus["SCI", 2].header, fobj=hdus).pixel_to_world(x, y).icrs
    header = read(flc)[1].hdr
    assert (header["RADESYS"], header.get("EQUINOX")) == ("ICRS", None)
    found = SkyCoord(*WCS(header).all_pix2world(x, y, 0), unit="deg")
    assert found.separation(truth).arcsec.max() < 0.05 * 5e-3  # of a pixel, as the refit


def test_a_refit_that_misses_is_refused(tmp_path):
    path = write_flc(tmp_path / "j9_flc.fits", amplitude=0.5)
    with pytest.raises(WCSError, match=r"j9_flc\.fits: the SIP refit .* the tolerance is 0\.001"):
        read(path, sip_tolerance=1e-3)
    assert len(read(path, sip_tolerance=0.2)) == 2


@pytest.mark.parametrize("lost", ["WCSDVARR", "D2IMARR"])
def test_a_missing_table_is_refused(flc, tmp_path, lost):
    with fits.open(flc) as hdus:
        kept = [hdu for hdu in hdus if hdu.name != lost]
        fits.HDUList(kept).writeto(tmp_path / "lost_flc.fits")
    with pytest.raises(WCSError, match=rf"lost_flc\.fits: .*'{lost}', 1"):
        read(tmp_path / "lost_flc.fits")


def test_pixel_areas_are_those_of_the_wcs(tmp_path):
    """Compared with the areas of quadrilaterals between astropy's positions of the corners."""
    path = write_flc(tmp_path / "j9_flc.fits", amplitude=0)
    exposure = read(path)[0]
    with fits.open(path) as hdus:
        wcs = WCS(hdus["SCI", 1].header)
    x, y = np.meshgrid(np.arange(SIZE[0] + 1) - 0.5, np.arange(SIZE[1] + 1) - 0.5, indexing="ij")
    ra, dec = (np.deg2rad(value) for value in wcs.all_pix2world(x, y, 0))
    corner = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    a, b = corner[:, 1:, 1:] - corner[:, :-1, :-1], corner[:, :-1, 1:] - corner[:, 1:, :-1]
    area = np.linalg.norm(np.cross(a, b, axis=0), axis=0) / 2
    expected = area / np.deg2rad(0.05 / 3600) ** 2
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(exposure.area, expected, rtol=1e-5)
    assert exposure.provenance["area_relative_to"] == "IDCSCALE"


@pytest.mark.parametrize(
    ("unit", "electrons_per_second"),
    [
        ("ELECTRONS", 1 / EXPTIME),
        ("ELECTRONS/S", 1),
        ("COUNTS", np.mean([2.02, 1.886, 2.017, 2.011]) / EXPTIME),
        ("counts/s", np.mean([2.02, 1.886, 2.017, 2.011])),
    ],
)
def test_fluxes_are_those_that_astropy_units_give(tmp_path, unit, electrons_per_second):
    path = write_flc(tmp_path / "j9_flc.fits", unit=unit, amplitude=0)
    exposure = read(path)[0]
    factor, units = flux_calibration(exposure.hdr)
    expected = electrons_per_second * flux_of_one_electron_per_second()
    assert units == "nJy"
    assert factor == pytest.approx(expected, rel=1e-12)
    flux, ierr, _ = calibrate_images(
        exposure.im, exposure.ierr, exposure.mask, factor=factor, area=exposure.area
    )
    good = exposure.mask == 0
    np.testing.assert_allclose(flux[good], (exposure.im * exposure.area * expected)[good], 1e-6)
    np.testing.assert_allclose(ierr[good], (1 / (7 * exposure.area * expected))[good], rtol=1e-6)


@pytest.mark.parametrize("key", ["PHOTPLAM", "EXPTIME"])
def test_what_is_needed_for_the_zero_point_is_asked_for(flc, key):
    with fits.open(flc, mode="update") as hdus:
        hdu = hdus["SCI", 1] if key == "PHOTPLAM" else hdus[0]
        hdu.header[key] = 0.0
    with pytest.raises(UnusableExposureError, match=rf"j9_flc\.fits: BUNIT.*{key} is 0\.0"):
        read(flc)


@pytest.mark.parametrize(
    ("cards", "band"),
    [
        ({"FILTER1": "CLEAR1L", "FILTER2": "F814W"}, "F814W"),
        ({"FILTER1": "F606W", "FILTER2": "POL0V"}, "F606W+POL0V"),
        ({"FILTER1": None, "FILTER2": None, "FILTER": "F160W", "INSTRUME": "WFC3"}, "F160W"),
    ],
)
def test_the_band_is_what_is_in_the_light_path(tmp_path, cards, band):
    assert read(write_flc(tmp_path / "a_flt.fits", amplitude=0, **cards))[0].band == band


@pytest.mark.parametrize(
    ("cards", "reason"),
    [
        ({"OBSTYPE": "SPECTROSCOPIC"}, "no image of the sky"),
        ({"FILTER1": "G800L"}, "G800L is a grism"),
        ({"FILTER1": None, "FILTER2": None, "FILTER": "G141"}, "G141 is a grism"),
    ],
)
def test_spectra_are_refused(tmp_path, cards, reason):
    with pytest.raises(UnusableExposureError, match=rf"a_flt\.fits.*{reason}"):
        read(write_flc(tmp_path / "a_flt.fits", **cards))


def test_a_chip_without_flags_or_errors_is_refused(flc, tmp_path):
    for name in ("DQ", "ERR"):
        with fits.open(flc) as hdus:
            kept = [hdu for hdu in hdus if (hdu.name, hdu.ver) != (name, 2)]
            fits.HDUList(kept).writeto(tmp_path / f"{name}_flc.fits")
        with pytest.raises(UnusableExposureError, match=rf"{name}_flc\.fits.*{name}"):
            read(tmp_path / f"{name}_flc.fits")


def test_weights_of_a_drizzled_image_are_exposure_times(tmp_path):
    path = write_drz(tmp_path / "j9_drz.fits", sky_sigma=0.05)
    (exposure,) = read(path)
    assert exposure.expID == "j9_drz"
    assert exposure.area is None
    assert exposure.mask is None
    assert exposure.provenance["uncertainties"] == "exptime"
    assert any("exposure time" in note for note in exposure.notes)
    with fits.open(path) as hdus:
        wht, sci = hdus["WHT"].data.T.astype(float), hdus["SCI"].data.T.astype(float)
    assert np.isnan(exposure.ierr[wht == 0]).all()
    # Both halves have their own depth; 30 e/s in one pixel add their own Poisson noise.
    sky = 1 / 0.05 * np.sqrt(wht / EXPTIME)
    quiet = (wht > 0) & (sci <= 0)
    np.testing.assert_allclose(exposure.ierr[quiet], sky[quiet], rtol=0.03)
    bright = np.unravel_index(np.argmax(sci), sci.shape)
    variance = 1 / sky[bright] ** 2 + 30 / wht[bright]
    assert exposure.ierr[bright] == pytest.approx(variance**-0.5, rel=0.03)
    factor, _ = flux_calibration(exposure.hdr)
    assert factor == pytest.approx(flux_of_one_electron_per_second(), rel=1e-12)


def test_a_drizzled_image_may_have_uncertainties_instead_of_weights(tmp_path):
    path = write_drz(tmp_path / "j9_drz.fits")
    with fits.open(path, mode="update") as hdus:
        hdus["WHT"].header["EXTNAME"] = "ERR"
        err = hdus["ERR"].data.astype("f4")
    (exposure,) = read(path)
    with np.errstate(divide="ignore"):
        np.testing.assert_array_equal(exposure.ierr.T, 1 / err)
    assert exposure.area is None
    assert any("no WHT extension" in note for note in exposure.notes)


def test_weights_are_inverse_variances_when_the_user_says_so(tmp_path):
    path = write_drz(tmp_path / "j9_drc.fits")
    (exposure,) = read(path, weight="ivm", err_scale=2.0)
    with fits.open(path) as hdus:
        wht = hdus["WHT"].data.T
    np.testing.assert_allclose(exposure.ierr[wht > 0], np.sqrt(wht[wht > 0]) / 2, rtol=1e-6)
    assert np.isnan(exposure.ierr[wht == 0]).all()
    with pytest.raises(UnusableExposureError, match=r"j9_drc\.fits: has no extension ERR"):
        read(path, weight="err")


def test_tables_of_real_archive_size_are_refitted_within_the_default(tmp_path):
    """Tables of a tenth of a pixel with structure finer than any polynomial."""
    path = write_flc(tmp_path / "j9_flc.fits", amplitude=0.1)
    with fits.open(path, mode="update") as hdus:
        random = np.random.default_rng(3)
        for hdu in hdus:
            if hdu.name == "WCSDVARR":
                hdu.data = hdu.data + random.normal(0, 0.01, hdu.data.shape).astype(">f4")
    for exposure in read(path):
        assert 0.005 < exposure.provenance["sip_residual_px"] < 0.1
        (note,) = (note for note in exposure.notes if "look-up tables" in note)
        assert re.search(r"about [\d.e-]+ px from it at most", note)
