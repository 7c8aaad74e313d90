"""JWST stage-2 files: units, flags, area, WCS, and what is refused."""

import numpy as np
import pytest
from astropy.io import fits

from fpgpu.errors import UnusableExposureError
from fpgpu.ingest.inputs import ReadOptions
from fpgpu.ingest.pipeline import ingest
from fpgpu.ingest.readers import read_exposure

FITS_WCS = ReadOptions(wcs="fits")


def without(name):
    """Remove an extension."""
    return lambda hdus: hdus.pop(hdus.index_of(name))


def with_card(extension, keyword, value):
    """Change a header card; None removes it."""

    def change(hdus):
        if value is None:
            del hdus[extension].header[keyword]
        else:
            hdus[extension].header[keyword] = value

    return change


def with_data(extension, data):
    """Replace the pixels of an extension."""

    def change(hdus):
        hdus[extension] = fits.ImageHDU(data, hdus[extension].header, extension)

    return change


def test_images_are_those_of_the_file_transposed(cal_file):
    exposure = read_exposure(cal_file, FITS_WCS)
    with fits.open(cal_file) as hdus:
        np.testing.assert_array_equal(exposure.im, hdus["SCI"].data.T)
        np.testing.assert_array_equal(exposure.mask, hdus["DQ"].data.T)
        np.testing.assert_array_equal(exposure.area, hdus["AREA"].data.T)
        inverse = np.float32(1) / hdus["ERR"].data.T.astype(np.float32)
    np.testing.assert_array_equal(exposure.ierr, inverse)
    assert exposure.ierr.dtype == np.float32
    assert exposure.mask.dtype == np.uint32
    assert exposure.im.shape == exposure.shape == (64, 48)


def test_the_header_is_that_of_the_image_with_what_only_the_primary_says(cal_file):
    exposure = read_exposure(cal_file, FITS_WCS)
    assert exposure.band == "F200W"
    assert exposure.expID == cal_file.name.removesuffix(".fits")
    assert exposure.hdr["DETECTOR"] == "NRCB1"
    assert exposure.hdr["BUNIT"] == "MJy/sr"
    assert (exposure.hdr["NAXIS1"], exposure.hdr["NAXIS2"]) == (64, 48)
    with fits.open(cal_file) as hdus:
        region = hdus["SCI"].header["S_REGION"]
    assert len(region) > 80
    assert fits.Header.fromstring(exposure.hdr.tostring())["S_REGION"] == region


def test_do_not_use_is_the_bad_bit_and_flags_are_counted(cal_file):
    exposure = read_exposure(cal_file, FITS_WCS)
    assert exposure.bitmask == 1
    with fits.open(cal_file) as hdus:
        quality = hdus["DQ"].data
    assert exposure.flags["DO_NOT_USE"] == np.count_nonzero(quality & 1)
    assert exposure.flags["JUMP_DET"] == np.count_nonzero(quality & 4)
    assert exposure.flags["REFERENCE_PIXEL"] == 64 * 48 - 56 * 40


def test_names_are_those_of_the_file(cal_file):
    names = read_exposure(cal_file, FITS_WCS).names
    assert names == (cal_file.name, cal_file.name, cal_file.name, None)


def test_a_file_without_area_map_goes_in_with_a_note(changed):
    exposure = read_exposure(changed(without("AREA")), FITS_WCS)
    assert exposure.area is None
    assert any("AREA" in note for note in exposure.notes)


@pytest.mark.parametrize("name", ["ERR", "DQ", "SCI"])
def test_a_file_without_an_image_that_it_needs_is_refused(changed, name):
    path = changed(without(name))
    with pytest.raises(UnusableExposureError, match=rf"changed_cal\.fits.*{name}"):
        read_exposure(path, FITS_WCS)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("BUNIT", "DN/s"),
        ("BUNIT", None),
        ("PIXAR_SR", None),
        ("PIXAR_SR", -1.0),
        ("PIXAR_SR", 0),
        ("PIXAR_SR", "big"),
        ("PIXAR_SR", True),
    ],
)
def test_units_without_a_way_to_nanojansky_are_refused(changed, keyword, value):
    path = changed(with_card("SCI", keyword, value))
    with pytest.raises(UnusableExposureError, match=rf"changed_cal\.fits: {keyword}"):
        read_exposure(path, FITS_WCS)


def test_a_zero_point_makes_the_unit_irrelevant(changed):
    def change(hdus):
        hdus["SCI"].header["ABMAG"] = 28.0
        del hdus["SCI"].header["PIXAR_SR"]

    assert read_exposure(changed(change), FITS_WCS).hdr["ABMAG"] == 28.0


@pytest.mark.parametrize("name", ["ERR", "DQ", "AREA"])
def test_extensions_of_another_shape_are_refused(changed, name):
    path = changed(with_data(name, np.ones((48, 72), np.int32)))
    with pytest.raises(UnusableExposureError, match=f"extension {name} has 72 x 48 pixels"):
        read_exposure(path, FITS_WCS)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1.0])
def test_uncertainties_that_leave_no_pixel_are_refused(changed, value, tmp_path):
    path = changed(with_data("ERR", np.full((48, 64), value, np.float32)))
    with pytest.raises(
        UnusableExposureError,
        match=r"no pixel has any weight: .* of 3072 pixels masked",
    ):
        ingest([path], tmp_path / "stores", wcs="fits", strict=True)


def test_flags_that_are_no_integers_are_refused(changed):
    path = changed(with_data("DQ", np.zeros((48, 64), np.float32)))
    with pytest.raises(UnusableExposureError, match="extension DQ has dtype >f4"):
        read_exposure(path, FITS_WCS)


def test_uncertainties_may_be_integers_or_doubles(changed):
    data = np.full((48, 64), 4)
    for dtype, result in ((np.int16, np.float32), (np.int32, np.float64), (np.float64, np.float64)):
        path = changed(with_data("ERR", data.astype(dtype)), f"{np.dtype(dtype)}_cal.fits")
        ierr = read_exposure(path, FITS_WCS).ierr
        assert ierr.dtype == result
        assert (ierr == 0.25).all()


def test_a_missing_filter_is_told_with_the_file(changed):
    path = changed(with_card(0, "FILTER", None))
    with pytest.raises(UnusableExposureError, match=r"changed_cal\.fits: the header has no usable"):
        read_exposure(path, FITS_WCS)


@pytest.mark.parametrize(
    ("wheel", "pupil", "band"),
    [
        ("F444W", "CLEAR", "F444W"),
        ("F444W", "F470N", "F470N"),  # NIRCam: a narrow filter behind a wide one
        ("F150W2", "F162M", "F162M"),
        ("CLEAR", "F200W", "F200W"),  # NIRISS: its filters are spread over both wheels
        ("F430M", "CLEARP", "F430M"),
        ("F480M", "NRM", "F480M"),
        ("F210M", "MASKRND", "F210M"),  # NIRCam: a coronagraph
        ("F1065C", None, "F1065C"),  # MIRI has no pupil wheel
    ],
)
def test_the_band_is_the_narrowest_filter_in_the_light_path(changed, wheel, pupil, band):
    def change(hdus):
        hdus[0].header["FILTER"], hdus[0].header["PUPIL"] = wheel, pupil
        if pupil is None:
            del hdus[0].header["PUPIL"]

    exposure = read_exposure(changed(change), FITS_WCS)
    assert exposure.band == band
    assert exposure.hdr["FILTER"] == band


def test_a_size_that_does_not_fit_is_refused_unless_padded(changed):
    def cut(hdus):
        for name in ("SCI", "ERR", "DQ", "AREA"):
            hdus[name] = fits.ImageHDU(hdus[name].data[:45, :61], hdus[name].header, name)

    path = changed(cut)
    with pytest.raises(UnusableExposureError, match=r"61 x 45 pixels are no multiple.*--pad"):
        read_exposure(path, FITS_WCS)
    exposure = read_exposure(path, ReadOptions(wcs="fits", pad=True))
    assert exposure.shape == (64, 48)
    assert (exposure.ierr[61:] == 0).all()
    assert (exposure.hdr["NAXIS1"], exposure.hdr["NAXIS2"]) == (64, 48)
    with fits.open(path) as hdus:
        assert exposure.hdr["CRPIX1"] == hdus["SCI"].header["CRPIX1"]
