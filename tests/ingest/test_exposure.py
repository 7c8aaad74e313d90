"""What an exposure is called, and how it travels."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from fpgpu import Exposure, ImageNameSet, ImageSet, header_to_id
from fpgpu.errors import ExposureNameError, FpgpuError, LayoutError, UnusableExposureError
from fpgpu.ingest.exposure import pad_to
from fpgpu.ingest.inputs import ReadOptions
from fpgpu.ingest.readers import read_exposure
from tests.ingest.test_units import write_plain

HEADER = {"FILTER": "F200W", "DETECTOR": "NRCB3"}

ordinary = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}[A-Za-z0-9_]", fullmatch=True).filter(
    lambda text: text != "data" and not text.lower().endswith((".fits", ".fit", ".fts", ".gz"))
)
endings = st.sampled_from(["", ".fits", ".fit", ".fts", ".fits.gz", ".fits.fz", ".FITS"])


def small_exposure(shape=(10, 8)) -> Exposure:
    pixels = np.arange(np.prod(shape), dtype=">f4").reshape(shape[::-1]).T
    header = fits.Header({"FILTER": "F200W", "NAXIS1": shape[0], "NAXIS2": shape[1]})
    return Exposure(
        im=pixels,
        ierr=pixels + 1,
        mask=np.ones(shape, np.uint32),
        bkg=pixels / 2,
        hdr=header,
        band="F200W",
        expID="e1",
        names=ImageNameSet("e1.fits", "e1.fits", None, None),
        area=np.full(shape, 2, np.float32),
    )


def test_field_names_are_those_of_forcepho():
    assert ImageNameSet._fields == ("im", "err", "mask", "bkg")
    assert ImageSet._fields == ("im", "ierr", "mask", "bkg", "hdr", "band", "expID", "names")


@given(ordinary, endings)
def test_the_fits_ending_is_removed_and_nothing_else(stem, ending):
    assert header_to_id(HEADER, f"/anywhere/{stem}{ending}") == ("F200W", stem)


@pytest.mark.parametrize(
    ("name", "expID"),
    [
        ("b.fitsy.fits", "b.fitsy"),
        ("b.fits.gz", "b"),
        ("b.fits.fits", "b.fits"),
        ("my.fits.backup", "my.fits.backup"),
        ("a.gz", "a.gz"),
        (Path("x") / "b.fit", "b"),
    ],
)
def test_endings_count_at_the_end_only(name, expID):
    assert header_to_id(HEADER, name)[1] == expID


@given(st.lists(ordinary, max_size=3), ordinary, st.sampled_from(["", "/", "//"]), st.booleans())
def test_the_path_below_framedir_is_part_of_the_name(folders, stem, slashes, as_path):
    framedir = "/survey/frames" + slashes
    name = "/".join(["/survey/frames", *folders, f"{stem}.fits"])
    band_and_id = header_to_id(HEADER, name, framedir=Path(framedir) if as_path else framedir)
    assert band_and_id == ("F200W", "/".join([*folders, stem]))


def test_framedir_may_be_relative(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert header_to_id(HEADER, tmp_path / "in/v1/e.fits", framedir="in") == ("F200W", "v1/e")
    assert header_to_id(HEADER, "v1/e.fits", framedir=".") == ("F200W", "v1/e")


@pytest.mark.parametrize("name", ["/other/e.fits", "/survey/frames2/e.fits", "/survey/e.fits"])
def test_a_file_outside_framedir_is_refused(name):
    with pytest.raises(ExposureNameError, match=r"not inside framedir /survey/frames"):
        header_to_id(HEADER, name, framedir="/survey/frames")


def test_a_way_round_through_dots_does_not_leave_framedir_unnoticed():
    with pytest.raises(ExposureNameError, match="not inside"):
        header_to_id(HEADER, "/survey/frames/../e.fits", framedir="/survey/frames")


@pytest.mark.parametrize("name", ["", ".fits", "..", "/survey/.fits.gz", "a\x00b.fits"])
@pytest.mark.parametrize("framedir", [None, "/survey"])
def test_names_that_no_store_can_hold_are_refused(name, framedir):
    with pytest.raises(ExposureNameError):
        header_to_id(HEADER, name, framedir=framedir)


@pytest.mark.parametrize("bad", ["..", "a/b", "", " ", "x\ny"])
def test_a_filter_that_is_no_band_name_is_refused(bad):
    with pytest.raises((ExposureNameError, UnusableExposureError)):
        header_to_id({"FILTER": bad}, "e.fits")


def test_the_band_is_the_filter_in_upper_case():
    assert header_to_id({"FILTER": "f444w"}, "e.fits")[0] == "F444W"
    assert header_to_id({"FILTER": "CLEAR", "PUPIL": "F162M"}, "e.fits")[0] == "CLEAR"


@pytest.mark.parametrize(
    ("detector", "band"), [("NRCB3", "F200WB"), ("NRCA1", "F200WA"), ("nrcalong", "F200WA")]
)
@pytest.mark.parametrize("split", [["F200W"], ("f200w", "F090W"), "F200W"])
def test_a_split_filter_gets_the_module_of_its_detector(detector, band, split):
    header = {"FILTER": "F200W", "DETECTOR": detector}
    assert header_to_id(header, "e.fits", split_by_detector=split)[0] == band
    assert header_to_id(header, "e.fits", split_by_detector=["F090W"])[0] == "F200W"


@pytest.mark.parametrize("detector", [None, "NRC", "", 3])
def test_a_detector_without_a_module_is_refused_when_it_matters(detector):
    header = fits.Header({"FILTER": "F200W"})
    if detector is not None:
        header["DETECTOR"] = detector
    assert header_to_id(header, "e.fits")[0] == "F200W"
    with pytest.raises(UnusableExposureError, match=r"e\.fits.*DETECTOR"):
        header_to_id(header, "e.fits", split_by_detector=["F200W"])


@pytest.mark.parametrize("header", [{}, {"FILTER": 3}, fits.Header({"FILTER": None})])
def test_a_header_without_filter_is_refused(header):
    with pytest.raises(UnusableExposureError, match=r"e\.fits.*FILTER"):
        header_to_id(header, "e.fits")


@pytest.mark.parametrize(
    ("cards", "old"),
    [({}, "none"), ({"FILTER": "r/SDSS"}, "R/SDSS"), ({"FILTER": 814}, "814")],
)
def test_a_filter_that_is_no_band_can_be_renamed(tmp_path, cards, old):
    path = write_plain(tmp_path / "e.fits", BUNIT="nJy")
    fits.delval(path, "FILTER", ext=1)
    for key, value in cards.items():
        fits.setval(path, key, value=value, ext=1)
    with pytest.raises(FpgpuError, match=f"name it with rename_bands, as .'{old.upper()}'"):
        read_exposure(path)
    exposure = read_exposure(path, ReadOptions(band_names={old: "mine"}))
    assert exposure.band == "MINE"
    assert isinstance(exposure.hdr["FILTER"], str)


def test_an_image_set_can_be_pickled():
    images = small_exposure().image_set()
    again = pickle.loads(pickle.dumps(images))
    assert type(again) is ImageSet
    assert again.names == images.names
    assert again.hdr.tostring() == images.hdr.tostring()
    np.testing.assert_array_equal(again.im, images.im)


def test_an_exposure_can_be_pickled():
    again = pickle.loads(pickle.dumps(small_exposure()))
    np.testing.assert_array_equal(again.im, small_exposure().im)
    assert again.shape == (10, 8)


def test_padding_adds_zero_weight_at_the_high_end_only():
    exposure, before = small_exposure((10, 13)), small_exposure((10, 13))
    pad_to(exposure, (16, 16))
    assert exposure.shape == (16, 16)
    for name, value in [("im", 0), ("ierr", 0), ("mask", 0), ("bkg", 0), ("area", 1)]:
        padded, original = getattr(exposure, name), getattr(before, name)
        assert padded.dtype == original.dtype
        np.testing.assert_array_equal(padded[:10, :13], original)
        assert (padded[10:] == value).all()
        assert (padded[:, 13:] == value).all()
    assert (exposure.hdr["NAXIS1"], exposure.hdr["NAXIS2"]) == (16, 16)
    assert "padded from 10 x 13 to 16 x 16" in exposure.notes[0]


def test_padding_leaves_a_fitting_size_alone():
    exposure = small_exposure((16, 8))
    image = exposure.im
    pad_to(exposure, (16, 8))
    assert exposure.im is image
    assert exposure.notes == []


def test_padding_works_without_optional_images():
    exposure = small_exposure((10, 8))
    exposure.mask = exposure.bkg = exposure.area = None
    pad_to(exposure, (16, 8))
    assert exposure.shape == (16, 8)
    assert exposure.mask is None
    with pytest.raises(LayoutError, match="cannot pad 16 x 8 pixels to 8 x 8"):
        pad_to(exposure, (8, 8))
