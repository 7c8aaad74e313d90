"""Readers are chosen by content, and new ones can be added."""

import shutil

import numpy as np
import pytest
from astropy.io import fits

from fpgpu.errors import FpgpuError, MissingFileError, UnusableExposureError, WCSError
from fpgpu.ingest import readers
from fpgpu.ingest.inputs import CalibrationOptions, Input, ReadOptions
from fpgpu.ingest.readers import (
    InputFile,
    Reader,
    choose_reader,
    read_exposure,
    read_exposures,
    register_reader,
)

FITS_WCS = ReadOptions(wcs="fits")


@pytest.fixture
def own_readers(monkeypatch):
    """Registrations of one test only."""
    monkeypatch.setattr(readers, "_registered", {})


def chosen(path) -> str:
    with InputFile(path) as file:
        return choose_reader(file).name


def test_the_name_of_a_file_does_not_matter(cal_file, golden, tmp_path):
    jwst, plain = tmp_path / "exp_f090w.fits.gz", tmp_path / "jw01_cal.dat"
    shutil.copy(cal_file, jwst)
    shutil.copy(golden / "tiny" / "exp_f090w_00.fits.gz", plain)
    assert (chosen(jwst), chosen(plain)) == ("jwst", "plain")
    assert read_exposure(plain, FITS_WCS).provenance["reader"] == "plain"


def test_a_primary_image_with_uncertainties_is_a_plain_exposure(golden, tmp_path):
    with fits.open(golden / "tiny" / "exp_f090w_00.fits.gz") as hdus:
        header = hdus["SCI"].header.copy()
        del header["EXTNAME"]
        image = fits.PrimaryHDU(hdus["SCI"].data, header)
        fits.HDUList([image, fits.ImageHDU(hdus["ERR"].data, name="ERR")]).writeto(
            tmp_path / "one.fits"
        )
    exposure = read_exposure(tmp_path / "one.fits")
    assert (exposure.band, exposure.expID) == ("F090W", "one")
    assert exposure.mask is None
    assert exposure.flags == {}
    assert exposure.bitmask is None
    assert exposure.names == ("one.fits", "one.fits", None, None)


def test_a_file_of_no_known_kind_is_refused(tmp_path):
    path = tmp_path / "table.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(np.zeros(3, [("a", "f4")]))]).writeto(path)
    with pytest.raises(UnusableExposureError, match=r"table\.fits: no reader knows"):
        read_exposure(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(MissingFileError, match=r"nowhere\.fits"):
        read_exposure(tmp_path / "nowhere.fits")
    with pytest.raises(UnusableExposureError, match="cannot be read"):
        read_exposure(tmp_path)
    with pytest.raises(UnusableExposureError, match="cannot be read"):
        read_exposure("a\0b.fits")


@pytest.mark.parametrize("content", [b"", b"not a FITS file", bytes(10_000), b"#ASDF 1.0.0\n"])
def test_garbage_is_refused_whatever_its_name(tmp_path, content):
    path = tmp_path / "jw01_cal.fits"
    path.write_bytes(content)
    with pytest.raises(UnusableExposureError, match=r"cal\.fits.*cannot be read as (FITS|ASDF)"):
        read_exposure(path)


def test_a_registered_reader_is_asked_first_and_may_read_other_formats(
    own_readers, golden, tmp_path
):
    template = read_exposure(golden / "tiny" / "exp_f090w_00.fits.gz")

    def read(file, options):
        assert options is FITS_WCS
        return template

    register_reader(Reader("roman", lambda file: file.head.startswith(b"#ASDF"), read))
    path = tmp_path / "r.asdf"
    path.write_bytes(b"#ASDF 1.0.0\n")
    assert read_exposure(path, FITS_WCS) is template
    assert template.provenance["reader"] == "roman"
    assert chosen(golden / "tiny" / "exp_f090w_00.fits.gz") == "plain"


def test_a_reader_may_give_several_exposures_one_at_a_time(own_readers, cal_file):
    made = []

    def read(file, options):
        for name in ("first", "second", "third"):
            exposure = template.copy()
            exposure.expID = name
            made.append(name)
            yield exposure

    template = read_exposure(cal_file, FITS_WCS)
    register_reader(Reader("several", lambda file: file.path == cal_file, read))
    exposures = read_exposures(Input(cal_file, calibration=CalibrationOptions(bitmask="HOT")))
    first = next(exposures)
    assert (first.expID, first.provenance["reader"], first.bitmask) == ("first", "several", 2048)
    assert made == ["first"]
    assert [exposure.expID for exposure in exposures] == ["second", "third"]
    with pytest.raises(UnusableExposureError, match="holds several exposures"):
        read_exposure(cal_file)


def test_an_installed_package_can_bring_a_reader(monkeypatch, golden):
    class EntryPoint:
        value = "package:reader"

        def __init__(self, found):
            self.load = lambda: found

    def installed(found):
        monkeypatch.setattr(readers, "entry_points", lambda group: [EntryPoint(found)])
        readers._installed.cache_clear()

    path = golden / "tiny" / "exp_f090w_00.fits.gz"
    try:
        installed(Reader("theirs", lambda file: True, None))
        assert chosen(path) == "theirs"
        installed("no reader")
        with pytest.raises(FpgpuError, match="package:reader"):
            chosen(path)
    finally:
        readers._installed.cache_clear()


def test_a_reader_takes_the_place_of_an_earlier_one_of_its_name(own_readers, golden):
    path = golden / "tiny" / "exp_f090w_00.fits.gz"
    for answer in (True, False):
        register_reader(Reader("mine", lambda file, answer=answer: answer, None))
        assert chosen(path) == ("mine" if answer else "plain")


def test_a_file_without_wcs_is_refused(golden, tmp_path):
    path = tmp_path / "blind.fits"
    with fits.open(golden / "tiny" / "exp_f090w_00.fits.gz") as hdus:
        header = hdus["SCI"].header
        for keyword in ("CTYPE1", "CTYPE2"):
            del header[keyword]
        hdus.writeto(path)
    with pytest.raises(WCSError, match=r"blind\.fits"):
        read_exposure(path)


@pytest.mark.parametrize("name", ["ERR", "BKG", "DQ"])
def test_a_plain_file_with_images_of_different_shapes_is_refused(golden, tmp_path, name):
    path = tmp_path / "odd.fits"
    with fits.open(golden / "tiny" / "exp_f090w_00.fits.gz") as hdus:
        hdus[name] = fits.ImageHDU(np.ones((128, 120), np.int16), name=name)
        hdus.writeto(path)
    with pytest.raises(UnusableExposureError, match=rf"odd\.fits: extension {name} has 120 x 128"):
        read_exposure(path)


def test_hostile_file_names_cannot_leave_the_store(cal_file, tmp_path):
    for name in ("...fits", "..fits", "a\\b.fits"):
        path = tmp_path / name
        shutil.copy(cal_file, path)
        if name == "...fits":
            with pytest.raises(ValueError, match=r"leave its place"):
                read_exposure(path, FITS_WCS)
    with pytest.raises(ValueError, match="backslash"):
        read_exposure(tmp_path / "a\\b.fits", FITS_WCS)


def test_random_damage_anywhere_in_a_jwst_file_is_an_error_or_an_exposure(
    cal_file, tmp_path, long_form
):
    random = np.random.default_rng(8)
    content = cal_file.read_bytes()
    headers = [at for at in range(0, len(content), 2880) if content[at:].startswith(b"XTENSION")]
    asdf_start = content.rindex(b"#ASDF 1.0.0")
    path = tmp_path / "hit_cal.fits"
    n_read, messages = 0, []
    for trial in range(600 if long_form else 25):
        damaged = bytearray(content)
        for _ in range(3):
            # In turn anywhere, in the gWCS, and in the headers, which are small targets.
            place = (
                random.integers(len(content)),
                random.integers(asdf_start, len(content)),
                random.choice(headers) + random.integers(2880),
            )[trial % 3]
            damaged[place] = random.integers(32, 127)
        path.write_bytes(damaged)
        try:
            assert read_exposure(path).shape == (64, 48)
            n_read += 1
        except FpgpuError as error:
            messages.append(str(error))
    assert n_read
    assert messages
    assert all("hit_cal.fits" in message for message in messages)
