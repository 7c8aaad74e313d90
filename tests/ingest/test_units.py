"""Whatever unit an image is in, its fluxes are those that astropy's units give."""

import warnings

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, VarianceUncertainty
from astropy.wcs import WCS

from fpgpu import PixelStore, exposure_from_arrays, exposure_from_ccddata
from fpgpu.errors import UnusableExposureError
from fpgpu.fluxes import flux_calibration
from fpgpu.ingest.inputs import CalibrationOptions, Input, ReadOptions
from fpgpu.ingest.pipeline import ingest
from fpgpu.ingest.readers import read_exposure, read_exposures
from tests.ingest.hstfiles import write_flc
from tests.ingest.jwstfiles import PIXEL_SR, write_cal, write_i2d

PIXEL = 1e-5 * u.deg
AREA = (PIXEL**2).to(u.sr)
CARDS = {
    "FILTER": "F200W", "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.1, "CRVAL2": 2.2,
    "CRPIX1": 16.5, "CRPIX2": 16.5, "CD1_1": -1e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-5,
}  # fmt: skip
random = np.random.default_rng(5)
DATA = random.normal(10, 1, (32, 24)).astype("f4")
ERR = random.uniform(1, 2, DATA.shape).astype("f4")


def write_plain(path, sci=None, layers=None, **cards):
    header = fits.Header({**CARDS, **cards})
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(DATA if sci is None else sci, header, name="SCI")]
    for name, image in ({"ERR": ERR} if layers is None else layers).items():
        hdus.append(
            image
            if isinstance(image, fits.ImageHDU | fits.CompImageHDU)
            else fits.ImageHDU(image, name=name)
        )
    fits.HDUList(hdus).writeto(path)
    return path


def stored(tmp_path, item, **options):
    """Flux and inverse uncertainty of the one exposure of an input, [y, x]."""
    report = ingest([item], tmp_path / "stores", **options)
    assert report.ok, report.refused[0].reason
    with PixelStore(tmp_path / "stores" / "pixels.h5") as pixels:
        flux, ierr = pixels.read_exposure(*next(iter(pixels)))
    return flux.T, ierr.T


PER_PIXEL = {
    "nJy": u.nJy, "uJy": u.uJy, "mJy": u.mJy, "Jy": u.Jy, "kJy": u.kJy, "MJy": u.MJy,
    "10.0*nanoJansky": 10 * u.nJy, "microJy": u.uJy, "1e-9 Jy": u.nJy, "10**-6 Jy": u.uJy,
    "nJy/pix": u.nJy, "uJy pixel-1": u.uJy, "W m-2 Hz-1": u.W / u.m**2 / u.Hz,
    "erg/s/cm2/Hz": u.erg / u.s / u.cm**2 / u.Hz,
    "nanomaggy": 1e-9 * u.AB, "nanomaggies": 1e-9 * u.AB, "nmgy": 1e-9 * u.AB, "maggies": u.AB,
}  # fmt: skip
PER_AREA = {
    "MJy/sr": u.MJy / u.sr, "mJy/sr": u.mJy / u.sr, "mJy sr-1": u.mJy / u.sr,
    "MJy.sr-1": u.MJy / u.sr, "MJy sr**-1": u.MJy / u.sr, "kJy/sr": u.kJy / u.sr,
    "uJy/arcsec2": u.uJy / u.arcsec**2, "Jy arcsec^-2": u.Jy / u.arcsec**2,
    "nanomaggies/arcsec2": 1e-9 * u.AB / u.arcsec**2,
}  # fmt: skip


@pytest.mark.parametrize("text", [*PER_PIXEL, *PER_AREA])
@pytest.mark.parametrize("reader", ["plain", "jwst", "arrays"])
def test_units_are_told_apart_by_their_case_in_every_reader(tmp_path, text, reader):
    one = 1 * {**PER_PIXEL, **PER_AREA}[text]
    expected = (one * (AREA if text in PER_AREA else 1)).to_value(u.nJy)
    cards = {"BUNIT": text, "PIXAR_SR": AREA.value}
    if reader == "arrays":
        header = {**CARDS, "PIXAR_SR": AREA.value}
        exposure = exposure_from_arrays(DATA, ERR, header=header, expID="e", unit=text)
    else:
        path = write_plain(
            tmp_path / "e.fits", layers={"ERR": ERR, "DQ": DATA.astype("i2")}, **cards
        )
        if reader == "jwst":
            for name, value in {"TELESCOP": "JWST", "EXP_TYPE": "NRC_IMAGE"}.items():
                fits.setval(path, name, value=value, ext=0)
        exposure = read_exposure(path)
        assert exposure.provenance["reader"] == reader
    factor, units = flux_calibration(exposure.hdr)
    assert units == "nJy"
    assert factor == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("text", ["MJY/SR", "mjy/sr", "MJy/SR", "JY", "njy", "mJanskies"])
def test_a_flux_density_that_is_misspelled_is_refused(tmp_path, text):
    path = write_plain(tmp_path / "e.fits", BUNIT=text, PIXAR_SR=AREA.value)
    with pytest.raises(UnusableExposureError, match=r"spelled .* MJy megajansky.*--abmag"):
        read_exposure(path)
    exposure = read_exposure(path, ReadOptions(abmag=28.9))
    assert flux_calibration(exposure.hdr) == (pytest.approx(10), "nJy")
    flux, _ = stored(tmp_path, path, do_fluxcal=False)
    np.testing.assert_array_equal(flux, DATA)


@pytest.mark.parametrize(
    "text", ["mag", "mag(AB)", "mag/arcsec2", "dex", "ABmag", "STmag", "mag(AB)/arcsec2", "mag_AB"]
)
def test_logarithms_are_no_fluxes(tmp_path, text):
    path = write_plain(tmp_path / "e.fits", BUNIT=text)
    with pytest.raises(UnusableExposureError, match="logarithmic"):
        read_exposure(path)


@pytest.mark.parametrize("text", ["", "DN/s", "K", "furlong", "counts"])
def test_what_is_no_light_stays_in_its_unit_with_a_note(tmp_path, text):
    exposure = read_exposure(write_plain(tmp_path / "e.fits", BUNIT=text))
    assert f"BUNIT is {text or 'missing'}" in exposure.notes[0]
    assert flux_calibration(exposure.hdr) == (1, "counts")


def test_a_flux_density_per_wavelength_needs_the_wavelength(tmp_path):
    text = "1e-20 erg/s/cm2/Angstrom"
    path = write_plain(tmp_path / "e.fits", BUNIT=text, PHOTPLAM=15369.0)
    expected = (1e-20 * u.erg / u.s / u.cm**2 / u.AA).to_value(
        u.nJy, u.spectral_density(15369 * u.AA)
    )
    assert flux_calibration(read_exposure(path).hdr)[0] == pytest.approx(expected, rel=1e-9)
    note = read_exposure(write_plain(tmp_path / "f.fits", BUNIT=text)).notes[0]
    assert "PHOTPLAM" in note
    assert "--abmag" in note


def test_a_beam_is_the_gaussian_of_its_axes(tmp_path):
    cards = {"BUNIT": "mJy/beam", "BMAJ": 2e-4, "BMIN": 1e-4, "BPA": 30.0}
    beam = 2 * np.pi * (2e-4 * u.deg) * (1e-4 * u.deg) / (8 * np.log(2))
    expected = (1 * u.mJy / u.beam).to_value(u.nJy / u.sr, u.beam_angular_area(beam)) * AREA.value
    factor, units = flux_calibration(read_exposure(write_plain(tmp_path / "e.fits", **cards)).hdr)
    assert (factor, units) == (pytest.approx(expected, rel=1e-6), "nJy")


@pytest.mark.parametrize("axis", [None, 0.0, -1e-4, "big", True])
def test_a_beam_without_size_is_refused(tmp_path, axis):
    cards = {"BUNIT": "Jy/beam", "BMAJ": 1e-4} | ({} if axis is None else {"BMIN": axis})
    with pytest.raises(UnusableExposureError, match="BMIN"):
        read_exposure(write_plain(tmp_path / "e.fits", **cards))


def test_abmag_goes_before_bunit_and_a_contradiction_is_told(tmp_path):
    path = write_plain(tmp_path / "e.fits", BUNIT="uJy", ABMAG=28.9)
    exposure = read_exposure(path)
    assert flux_calibration(exposure.hdr) == (pytest.approx(10), "nJy")
    assert exposure.notes == ["BUNIT is uJy, but by ABMAG one of it is 10 nJy; ABMAG is taken"]
    assert read_exposure(write_plain(tmp_path / "f.fits", BUNIT="uJy", ABMAG=23.9)).notes == []


@pytest.mark.parametrize(("text", "factor"), [("mJy", 1e6), ("nJy", 1.0), ("Jy", 1e9)])
def test_companions_are_converted_to_the_unit_of_the_image(tmp_path, text, factor):
    err, bkg = fits.ImageHDU(ERR, name="ERR"), fits.ImageHDU(DATA / 2, name="BKG")
    err.header["BUNIT"], bkg.header["BUNIT"] = text, text
    path = write_plain(tmp_path / "e.fits", layers={"ERR": err, "BKG": bkg}, BUNIT="uJy")
    flux, ierr = stored(tmp_path, path)
    np.testing.assert_allclose(flux, 1e3 * DATA - factor * DATA / 2, rtol=1e-5)
    np.testing.assert_allclose(ierr, 1 / (factor * ERR), rtol=1e-5)


def test_weights_may_have_a_unit_of_their_own(tmp_path):
    wht = fits.ImageHDU(ERR**-2, name="WHT")
    wht.header["BUNIT"] = "nJy-2"
    _, ierr = stored(tmp_path, write_plain(tmp_path / "e.fits", layers={"WHT": wht}, BUNIT="uJy"))
    np.testing.assert_allclose(ierr, 1 / ERR, rtol=1e-5)


@pytest.mark.parametrize("cards", [{"ABMAG": 28.9}, {"ABMAG": 28.9, "BUNIT": "DN/s"}])
def test_companions_with_a_unit_of_an_image_with_a_zero_point_are_converted(tmp_path, cards):
    err, bkg = fits.ImageHDU(ERR, name="ERR"), fits.ImageHDU(DATA / 2, name="BKG")
    err.header["BUNIT"] = bkg.header["BUNIT"] = "uJy"
    path = write_plain(tmp_path / "e.fits", layers={"ERR": err, "BKG": bkg}, **cards)
    flux, ierr = stored(tmp_path, path)
    np.testing.assert_allclose(flux, 10 * DATA - 1e3 * DATA / 2, rtol=1e-5)
    np.testing.assert_allclose(ierr, 1 / (1e3 * ERR), rtol=1e-5)
    notes = read_exposure(path).notes
    assert [note for note in notes if "ERR is in another unit" in note and "by 100" in note]
    assert [note for note in notes if "BKG is in another unit" in note and "by 100" in note]


def test_a_companion_may_have_a_zero_point_of_its_own(tmp_path):
    err = fits.ImageHDU(ERR, name="ERR")
    err.header["ABMAG"] = 23.9
    path = write_plain(tmp_path / "e.fits", layers={"ERR": err}, BUNIT="nJy")
    np.testing.assert_allclose(stored(tmp_path, path)[1], 1 / (1e3 * ERR), rtol=1e-5)
    same = write_plain(tmp_path / "f.fits", layers={"ERR": err}, ABMAG=23.9)
    for options in (ReadOptions(), ReadOptions(abmag=28.9)):
        exposure = read_exposure(same, options)
        np.testing.assert_allclose(exposure.ierr.T, 1 / ERR, rtol=1e-6)
        assert exposure.notes == []


@pytest.mark.parametrize("name", ["ERR", "BKG"])
@pytest.mark.parametrize("text", ["UJY", "KJY/SR", "ABmag"])
def test_a_misspelled_unit_of_a_companion_is_refused(tmp_path, name, text):
    layers = {"ERR": fits.ImageHDU(ERR, name="ERR"), "BKG": fits.ImageHDU(DATA, name="BKG")}
    layers[name].header["BUNIT"] = text
    path = write_plain(tmp_path / "e.fits", layers=layers, BUNIT="nJy")
    with pytest.raises(UnusableExposureError, match=f"extension {name}: BUNIT is .*correct it, or"):
        read_exposure(path)


def test_a_conversion_between_image_and_companion_is_told(tmp_path):
    err = fits.ImageHDU(ERR, name="ERR")
    err.header["BUNIT"] = "mJy/sr"
    cards = {"BUNIT": "MJy/sr", "PIXAR_SR": AREA.value}
    path = write_plain(tmp_path / "e.fits", layers={"ERR": err}, **cards)
    factor = (1 * u.mJy / u.sr).to_value(u.MJy / u.sr)
    exposure = read_exposure(path)
    np.testing.assert_allclose(exposure.ierr.T, 1 / (factor * ERR), rtol=1e-5)
    assert f"multiplied by {factor:.6g}" in exposure.notes[-1]


@pytest.mark.parametrize("text", ["s", "SECONDS", "min"])
def test_weights_in_a_unit_of_time_are_exposure_times(tmp_path, text):
    wht = fits.ImageHDU(np.full_like(ERR, 100), name="WHT")
    wht.header["BUNIT"] = text
    path = write_plain(tmp_path / "e.fits", layers={"WHT": wht}, BUNIT="nJy")
    exposure = read_exposure(path)
    sigma = 1.482602218505602 * np.median(np.abs(DATA - np.median(DATA)))
    np.testing.assert_allclose(exposure.ierr, 1 / sigma, rtol=1e-5)
    assert exposure.provenance["uncertainties"] == "exptime"
    ivm = read_exposure(path, ReadOptions(weight="ivm"))
    np.testing.assert_allclose(ivm.ierr, 10, rtol=1e-6)


@pytest.mark.parametrize("unit", ["uJy", None])
@pytest.mark.parametrize("power", [1, 2, -2])
def test_a_file_of_ccddata_says_what_its_uncertainties_are(tmp_path, power, unit):
    kind = {1: StdDevUncertainty, 2: VarianceUncertainty, -2: InverseVariance}[power]
    values = ERR.astype(float) ** power * (1.0 if unit is None else 1e-3**power)
    meta = fits.Header({"FILTER": "F200W"})
    ccd = CCDData(DATA, unit="nJy", uncertainty=kind(values), wcs=WCS(CARDS), meta=meta)
    ccd.write(tmp_path / "c.fits")
    if unit is not None:
        fits.setval(tmp_path / "c.fits", "BUNIT", value=f"{unit}{power}", ext=("UNCERT", 1))
    item = Input(tmp_path / "c.fits", options=ReadOptions(extensions={"err": "UNCERT"}))
    _, ierr = stored(tmp_path, item)
    np.testing.assert_allclose(ierr, 1 / ERR, rtol=1e-5)


def test_further_axes_of_length_1_are_left_out(tmp_path):
    cards = {
        "BUNIT": "uJy", "WCSAXES": 4, "CTYPE3": "FREQ", "CRVAL3": 1e9, "CRPIX3": 1.0,
        "CDELT3": 1e6, "CTYPE4": "STOKES", "CRVAL4": 1.0, "CRPIX4": 1.0, "CDELT4": 1.0,
    }  # fmt: skip
    layers = {"ERR": ERR[None]}
    path = write_plain(tmp_path / "e.fits", sci=DATA[None, None], layers=layers, **cards)
    flux, ierr = stored(tmp_path, path)
    np.testing.assert_allclose(flux, 1e3 * DATA, rtol=1e-6)
    np.testing.assert_allclose(ierr, 1e-3 / ERR, rtol=1e-6)
    tiles = list(read_exposures(Input(path, options=ReadOptions(tile=16))))
    np.testing.assert_array_equal(tiles[0].im.T, DATA[:16, :16])
    assert [card for card in tiles[0].hdr if card.startswith("NAXIS")] == [
        "NAXIS", "NAXIS1", "NAXIS2",
    ]  # fmt: skip
    several = write_plain(tmp_path / "f.fits", sci=np.stack([DATA, DATA]))
    with pytest.raises(UnusableExposureError, match="no 2-dimensional image"):
        read_exposure(several)


def test_companions_of_another_kind_of_unit_are_refused(tmp_path):
    err = fits.ImageHDU(ERR, name="ERR")
    err.header["BUNIT"] = "electron"
    path = write_plain(tmp_path / "e.fits", layers={"ERR": err}, BUNIT="uJy")
    with pytest.raises(UnusableExposureError, match="ERR is in electron, but the image in uJy"):
        read_exposure(path)


# --- arrays ---


@pytest.mark.parametrize("unit", [u.uJy, u.nJy, u.nmgy, u.MJy / u.sr, u.Jy / u.arcsec**2])
def test_a_quantity_keeps_its_unit(tmp_path, unit):
    exposure = exposure_from_arrays(DATA * unit, ERR * unit, header=CARDS, expID="e")
    flux, ierr = stored(tmp_path, exposure)
    one = 1e-9 * u.AB if unit == u.nmgy else 1 * unit
    factor = (one if one.unit.is_equivalent(u.nJy) else one * AREA).to_value(u.nJy)
    np.testing.assert_allclose(flux, DATA * factor, rtol=2e-6)
    np.testing.assert_allclose(ierr, 1 / (ERR * factor), rtol=2e-6)


def test_quantities_of_several_units_are_brought_to_one(tmp_path):
    exposure = exposure_from_arrays(
        DATA * u.uJy, ERR * u.nJy, bkg=DATA / 4 * u.mJy, header=CARDS, expID="e", unit="nJy"
    )
    flux, ierr = stored(tmp_path, exposure)
    np.testing.assert_allclose(flux, 1e3 * DATA - 1e6 * DATA / 4, rtol=1e-5)
    np.testing.assert_allclose(ierr, 1 / ERR, rtol=1e-5)


def test_units_of_arrays_that_contradict_each_other_are_refused():
    with pytest.raises(UnusableExposureError, match="err is in s, the image in uJy"):
        exposure_from_arrays(DATA * u.uJy, ERR * u.s, header=CARDS, expID="e")
    with pytest.raises(UnusableExposureError, match="take ABMAG out of the header"):
        exposure_from_arrays(DATA * u.uJy, ERR, header={**CARDS, "ABMAG": 28.9}, expID="e")
    same = exposure_from_arrays(DATA * u.uJy, ERR, header={**CARDS, "ABMAG": 23.9}, expID="e")
    assert flux_calibration(same.hdr)[0] == pytest.approx(1000)


def test_what_masked_arrays_mask_has_no_weight():
    hidden = DATA > 10
    for data in (np.ma.array(DATA, mask=hidden), np.ma.array(DATA)):
        exposure = exposure_from_arrays(data, ERR, header=CARDS, expID="e", unit="nJy")
        expected = np.where(np.ma.getmaskarray(data), 0, 1 / ERR)
        np.testing.assert_array_equal(exposure.ierr, expected.T)


@pytest.mark.parametrize("unit", ["nJy", "uJy", "mJy"])
@pytest.mark.parametrize("power", [1, 2, -2])
def test_uncertainties_of_ccddata_are_of_each_kind_and_unit(tmp_path, power, unit):
    kind = {1: StdDevUncertainty, 2: VarianceUncertainty, -2: InverseVariance}[power]
    values = (ERR.astype(float) * u.uJy).to_value(unit) ** power
    if power < 0:
        values[3, 4] = 0
    uncertainty = kind(values, unit=u.Unit(unit) ** power)
    ccd = CCDData(DATA, unit="uJy", uncertainty=uncertainty, wcs=WCS(CARDS))
    flux, ierr = stored(tmp_path, exposure_from_ccddata(ccd, band="F200W", expID="c"))
    expected = 1 / (1e3 * ERR)
    if power < 0:
        expected[3, 4] = 0
    np.testing.assert_allclose(flux, 1e3 * DATA, rtol=1e-6)
    np.testing.assert_allclose(ierr, expected, rtol=1e-6)


def test_ccddata_without_a_unit_is_in_counts_whatever_its_header_says():
    meta = fits.Header({"BUNIT": "nJy", "FILTER": "F200W"})
    uncertainty = VarianceUncertainty(ERR**2)
    ccd = CCDData(DATA, unit="", uncertainty=uncertainty, wcs=WCS(CARDS), meta=meta)
    assert flux_calibration(exposure_from_ccddata(ccd, expID="c").hdr) == (1, "counts")


# --- the area of a pixel ---


def write_mosaic(path, times):
    write_i2d(path)
    fits.setval(path, "PIXAR_SR", value=times * PIXEL_SR, ext=("SCI", 1))
    return path


@pytest.mark.parametrize("times", [4, 0.25, 1.2, 0.9])
def test_a_mosaic_whose_pixel_area_is_not_that_of_its_wcs_is_refused(tmp_path, times):
    path = write_mosaic(tmp_path / "jw_i2d.fits", times)
    figures = rf"PIXAR_SR is {times * PIXEL_SR:.6g} sr, but .* {PIXEL_SR:.6g} sr.*--pixel-area"
    with pytest.raises(UnusableExposureError, match=figures):
        read_exposure(path)
    for choice, expected in (("header", times * PIXEL_SR), ("wcs", PIXEL_SR)):
        exposure = read_exposure(path, ReadOptions(pixel_area=choice))
        factor = flux_calibration(exposure.hdr)[0]
        assert factor == pytest.approx((expected * u.MJy).to_value(u.nJy), rel=1e-5)
        assert any("PIXAR_SR" in note for note in exposure.notes) == (choice == "wcs")


def test_small_differences_of_the_pixel_area_are_told_or_nothing(tmp_path):
    notes = read_exposure(write_mosaic(tmp_path / "a_i2d.fits", 1.03)).notes
    assert [note for note in notes if "a factor of 1.03; PIXAR_SR is taken" in note]
    notes = read_exposure(write_mosaic(tmp_path / "b_i2d.fits", 1.002)).notes
    assert not [note for note in notes if "PIXAR_SR" in note]


def test_a_plain_image_with_the_pixel_area_of_another_is_refused(tmp_path):
    cards = {"BUNIT": "MJy/sr", "PIXAR_SR": 4 * AREA.value}
    path = write_plain(tmp_path / "e.fits", **cards)
    with pytest.raises(UnusableExposureError, match="a factor of 4; say which is right"):
        read_exposure(path)
    assert flux_calibration(read_exposure(path, ReadOptions(pixel_area="wcs")).hdr)[
        0
    ] == pytest.approx((1 * u.MJy / u.sr * AREA).to_value(u.nJy), rel=1e-6)


def test_the_area_of_the_nominal_pixel_is_that_of_the_map(tmp_path):
    """The WCS gives the pixel in the middle, which AREA says is larger than the nominal one."""
    path = write_cal(tmp_path / "jw_cal.fits")
    with fits.open(path, mode="update") as hdus:
        hdus["AREA"].data *= 2
        wcs = WCS(hdus["SCI"].header)
        ny, nx = hdus["SCI"].data.shape
        middle = hdus["AREA"].data[ny // 2, nx // 2]
    corners = wcs.all_pix2world(
        [nx / 2 - 1, nx / 2, nx / 2 - 1], [ny / 2 - 1, ny / 2 - 1, ny / 2], 0
    )
    step = np.deg2rad(np.array(corners)[:, 1:] - np.array(corners)[:, :1])
    step[0] *= np.cos(np.deg2rad(corners[1][0]))
    expected = abs(np.linalg.det(step)) / middle
    exposure = read_exposure(path, ReadOptions(pixel_area="wcs"))
    assert exposure.hdr["PIXAR_SR"] == pytest.approx(expected, rel=1e-3)


# --- images without a factor, and without pixels ---


@pytest.mark.parametrize(("keyword", "ext"), [("PHOTFLAM", 1), ("PHOTPLAM", 1), ("EXPTIME", 0)])
@pytest.mark.parametrize("value", [0.0, None])
def test_hst_images_without_a_zero_point_go_in_as_they_are(tmp_path, keyword, ext, value):
    path = write_flc(tmp_path / "j9_flc.fits", amplitude=0, chips=(1,))
    with fits.open(path, mode="update") as hdus:
        del hdus[ext].header[keyword]
        if value is not None:
            hdus[ext].header[keyword] = value
        expected = hdus["SCI"].data.astype("f4")
    if (keyword, value) != ("PHOTFLAM", None):
        with pytest.raises(UnusableExposureError, match="--no-fluxcal"):
            list(read_exposures(Input(path)))
    as_it_is = CalibrationOptions(do_fluxcal=False)
    exposure = next(read_exposures(Input(path, calibration=as_it_is)))
    np.testing.assert_array_equal(exposure.im.T, expected)
    assert "ABMAG" not in exposure.hdr


def test_uncalibrated_jwst_images_go_in_as_they_are(tmp_path):
    path = write_cal(tmp_path / "jw_rate.fits", unit="DN/s")
    with pytest.raises(UnusableExposureError, match=r"BUNIT is DN/s.*--no-fluxcal"):
        read_exposure(path)
    as_it_is = CalibrationOptions(do_fluxcal=False)
    with fits.open(path) as hdus:
        np.testing.assert_array_equal(
            next(read_exposures(Input(path, calibration=as_it_is))).im.T, hdus["SCI"].data
        )


@pytest.mark.parametrize(
    ("dtype", "zero"), [("i2", 0), ("u2", 1 << 15), ("u4", 1 << 31), ("i4", 0), ("u1", 0)]
)
@pytest.mark.parametrize("layer", ["SCI", "ERR"])
def test_undefined_integers_have_no_weight(tmp_path, dtype, zero, layer):
    values = (DATA * 10).astype(dtype)
    undefined = np.iinfo(dtype).max
    values[7, 9] = undefined
    hdu = fits.ImageHDU(values, fits.Header(CARDS | {"BUNIT": "nJy"}), name="SCI")
    hdu.header["BLANK"] = undefined - zero
    other = fits.ImageHDU(DATA, fits.Header(CARDS | {"BUNIT": "nJy"}), name="SCI")
    other.name, hdu.name = ("ERR", "SCI") if layer == "SCI" else ("SCI", "ERR")
    path = tmp_path / "e.fits"
    fits.HDUList([fits.PrimaryHDU(), hdu, other]).writeto(path)
    _, ierr = stored(tmp_path, path)
    assert list(zip(*np.nonzero(ierr == 0), strict=True)) == [(7, 9)]


def test_undefined_integers_with_a_scale_have_no_weight(tmp_path):
    hdu = fits.ImageHDU(
        (DATA * 100).astype("i2"), fits.Header(CARDS | {"BUNIT": "nJy"}), name="SCI"
    )
    hdu.data[7, 9] = -5
    hdu.header["BSCALE"], hdu.header["BZERO"], hdu.header["BLANK"] = 0.01, 32768.0, -5
    path = tmp_path / "e.fits"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits.HDUList([fits.PrimaryHDU(), hdu, fits.ImageHDU(ERR, name="ERR")]).writeto(path)
    with fits.open(path) as hdus:
        truth = hdus["SCI"].data
    flux, ierr = stored(tmp_path, path)
    assert np.isnan(truth[7, 9])
    assert list(zip(*np.nonzero(ierr == 0), strict=True)) == [(7, 9)]
    np.testing.assert_allclose(flux[ierr > 0], truth[ierr > 0], rtol=1e-6)


@pytest.mark.parametrize(("dtype", "zero"), [("i2", 0), ("u2", 1 << 15), ("u4", 1 << 31)])
def test_undefined_flags_are_bad_whichever_bits_are(tmp_path, dtype, zero):
    flags = np.zeros(DATA.shape, dtype)
    flags[7, 9], flags[1, 2], flags[3, 4] = np.iinfo(dtype).max - 1, 4, 2
    hdu = fits.ImageHDU(flags, name="DQ")
    hdu.header["BLANK"] = int(np.iinfo(dtype).max) - 1 - zero
    path = write_plain(tmp_path / "e.fits", layers={"ERR": ERR, "DQ": hdu}, BUNIT="nJy")
    _, ierr = stored(tmp_path, path, bitmask=4)
    assert list(zip(*np.nonzero(ierr == 0), strict=True)) == [(1, 2), (7, 9)]


def constant(name, value, bitpix=None):
    hdu = fits.ImageHDU(name=name)
    hdu.header.update({"NPIX1": DATA.shape[1], "NPIX2": DATA.shape[0], "PIXVALUE": value})
    if bitpix is not None:
        hdu.header["BITPIX"] = bitpix
    return hdu


@pytest.mark.parametrize("bitpix", [None, 16, -32, -64])
def test_constant_arrays_are_images(tmp_path, bitpix):
    layers = {
        "ERR": constant("ERR", 4.04, bitpix),
        "DQ": constant("DQ", 0),
        "AREA": constant("AREA", 2, bitpix),
    }
    flux, ierr = stored(tmp_path, write_plain(tmp_path / "e.fits", layers=layers, BUNIT="nJy"))
    np.testing.assert_allclose(flux, 2 * DATA, rtol=1e-6)
    np.testing.assert_allclose(ierr, 1 / 4.04 / 2, rtol=1e-6)


def test_a_constant_array_of_another_size_is_refused(tmp_path):
    hdu = constant("ERR", 1.0)
    hdu.header["NPIX1"] = 10
    path = write_plain(tmp_path / "e.fits", layers={"ERR": hdu}, BUNIT="nJy")
    with pytest.raises(UnusableExposureError, match="ERR has 10 x 32 pixels"):
        read_exposure(path)
    for key, value in (("NPIX1", 1 << 40), ("NPIX1", -4), ("NPIX2", "many"), ("PIXVALUE", "x")):
        fits.setval(path, key, value=value, ext=("ERR", 1))
        with pytest.raises(UnusableExposureError, match="no 2-dimensional image"):
            read_exposure(path)
        fits.setval(path, key, value=1, ext=("ERR", 1))


def test_an_extension_without_data_is_none(tmp_path):
    layers = {"ERR": fits.ImageHDU(name="ERR"), "WHT": ERR**-2, "DQ": fits.ImageHDU(name="DQ")}
    path = write_plain(tmp_path / "e.fits", layers=layers, BUNIT="nJy")
    assert "extension ERR has no data and was left out" in read_exposure(path).notes
    _, ierr = stored(tmp_path, path)
    np.testing.assert_allclose(ierr, 1 / ERR, rtol=1e-6)
    path = write_plain(tmp_path / "f.fits", layers={"ERR": fits.ImageHDU(name="ERR")})
    with pytest.raises(UnusableExposureError, match=r"ERR .*found .*ERR \(without data\)"):
        read_exposure(path)


def test_reads_of_a_ramp_are_no_exposures(tmp_path):
    path = write_flc(
        tmp_path / "ibcd_ima.fits", amplitude=0, INSTRUME="WFC3", DETECTOR="IR", ROOTNAME="IBCD01"
    )
    with pytest.raises(UnusableExposureError, match=r"2 reads of one ramp .*ibcd01_flt\.fits"):
        list(read_exposures(Input(path)))
