"""Files, folders, patterns, and sets of files that are one exposure."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS

from fpgpu.demo.telescope import Pointing
from fpgpu.errors import MissingFileError, UnusableExposureError
from fpgpu.ingest.find import companions_of, find_inputs
from fpgpu.ingest.inputs import Input, ReadOptions
from fpgpu.ingest.memory import exposure_from_arrays
from fpgpu.ingest.readers import read_exposures

SHAPE = (64, 48)


@dataclass
class DirEntry:
    """A path that is neither a str nor a Path, as `os.scandir` gives."""

    name: str

    def __fspath__(self):
        return self.name


random = np.random.default_rng(5)
SCI = random.normal(1, 1, SHAPE[::-1]).astype(np.float32)
ERR = random.uniform(0.5, 1.5, SHAPE[::-1]).astype(np.float32)


def write(path, data, header=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(data, header).writeto(path)
    return path


def science(path):
    header = fits.Header({"FILTER": "F160W", "BUNIT": "nJy"})
    header.update(Pointing(150, 2, 30, 0.06, SHAPE).gwcs().to_fits_sip(degree=4))
    return write(path, SCI, header)


def read(path, **options):
    (item,) = find_inputs([path], ReadOptions(**options))
    (exposure,) = read_exposures(item)
    return exposure


def test_the_files_of_a_set_are_one_exposure(tmp_path):
    path = science(tmp_path / "goods_f160w_drz_sci.fits")
    mask = np.zeros(SHAPE[::-1], np.uint8)
    mask[4, 7] = 1
    write(tmp_path / "goods_f160w_drz_rms.fits", ERR)
    write(tmp_path / "goods_f160w_drz_mask.fits.gz", mask)
    write(tmp_path / "goods_f160w_drz_bkg.fits", np.full_like(SCI, 0.25))
    write(tmp_path / "other_f160w_drz_rms.fits", ERR)
    inputs = find_inputs([tmp_path / "goods_*.fits*"])
    assert len(inputs) == 1
    assert {path.name for path in inputs[0].files} == {
        f"goods_f160w_drz_{end}" for end in ("sci.fits", "rms.fits", "mask.fits.gz", "bkg.fits")
    }
    exposure = read(path)
    np.testing.assert_array_equal(exposure.im, SCI.T)
    np.testing.assert_array_equal(exposure.ierr, (1 / ERR).T)
    np.testing.assert_array_equal(exposure.mask, mask.T)
    assert (exposure.bkg == 0.25).all()
    assert exposure.names == tuple(
        f"goods_f160w_drz_{end}" for end in ("sci.fits", "rms.fits", "mask.fits.gz", "bkg.fits")
    )


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [("ivm", {}, "ivm"), ("wht", {}, "ivm"), ("wht", {"weight": "exptime"}, "exptime")],
)
def test_weights_are_inverse_variances_unless_the_user_says_otherwise(
    tmp_path, name, options, kind
):
    path = science(tmp_path / "a_sci.fits")
    wht = ERR.copy()
    wht[:5] = 0
    write(tmp_path / f"a_{name}.fits", wht)
    exposure = read(path, **options)
    assert exposure.provenance["uncertainties"] == kind
    assert any("taken as" in note for note in exposure.notes)
    assert np.isnan(exposure.ierr[:, :5]).all()
    if kind == "ivm":
        np.testing.assert_allclose(exposure.ierr[:, 5:], np.sqrt(wht.T[:, 5:]), rtol=1e-6)


def test_weights_beside_errors_tell_where_there_are_data(tmp_path):
    path = science(tmp_path / "a_sci.fits")
    wht = np.ones_like(ERR)
    wht[3, 4] = 0
    write(tmp_path / "a_err.fits", ERR)
    write(tmp_path / "a_wht.fits", wht)
    exposure = read(path)
    assert np.flatnonzero(np.isnan(exposure.ierr)).size == 1
    assert np.isnan(exposure.ierr[4, 3])


def test_a_mask_of_floats_is_bad_where_it_is_not_zero(tmp_path):
    path = science(tmp_path / "A_SCI.fits")
    write(tmp_path / "A_ERR.fits", ERR)
    mask = np.zeros_like(ERR)
    mask[3, 4], mask[5, 6] = 1, np.nan
    write(tmp_path / "A_MASK.fits", mask)
    exposure = read(path)
    assert exposure.mask.dtype == bool
    assert exposure.flags == {"masked": 2}
    assert exposure.mask[4, 3]
    assert exposure.mask[6, 5]


def test_only_a_word_of_the_name_counts(tmp_path):
    for name in ("scifi.fits", "a_scim.fits"):
        science(tmp_path / name)
        assert companions_of(tmp_path / name) == {}
    assert companions_of(tmp_path / "nowhere_sci.fits") == {}


def test_a_companion_of_another_size_is_refused(tmp_path):
    path = science(tmp_path / "a_sci.fits")
    write(tmp_path / "a_err.fits", ERR[:, :-8])
    with pytest.raises(UnusableExposureError, match=r"a_err\.fits.*has 56 x 48 pixels"):
        read(path)


def test_a_companion_with_several_images_is_refused(tmp_path):
    path = science(tmp_path / "a_sci.fits")
    images = [fits.ImageHDU(ERR), fits.ImageHDU(ERR)]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(tmp_path / "a_err.fits")
    with pytest.raises(UnusableExposureError, match=r"a_err\.fits: has 2 images"):
        read(path)


def test_a_folder_gives_all_its_files_in_order(cal_file, tmp_path):
    for name in ("b/2.fits", "b/1.fits.gz", "a.FITS", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    found = [item.path.relative_to(tmp_path).as_posix() for item in find_inputs([tmp_path])]
    assert found == ["a.FITS", "b/1.fits.gz", "b/2.fits"]
    assert len(find_inputs([tmp_path, tmp_path / "**" / "*.fits"])) == 3


@pytest.mark.parametrize("name", ["", "*_cal.fits"])
def test_folders_and_patterns_without_files_are_refused(tmp_path, name):
    with pytest.raises(MissingFileError, match="no "):
        find_inputs([tmp_path / name])


@pytest.mark.parametrize("items", ["", [""], ["a_cal.fits", ""]])
def test_an_empty_name_is_not_the_current_folder(tmp_path, monkeypatch, items):
    (tmp_path / "a_cal.fits").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingFileError, match="an input is an empty name"):
        find_inputs(items)


def test_a_pattern_that_makes_no_sense_is_no_file(tmp_path):
    (tmp_path / "jw_cal.txt").touch()
    with pytest.raises(MissingFileError, match=r"jw\*\*cal\.fits: (cannot be used|no file)"):
        find_inputs([tmp_path / "jw**cal.fits"])


def test_names_given_one_by_one_stay_as_they_are(tmp_path):
    item = Input(tmp_path / "a.fits", options=ReadOptions(pad=True))
    assert find_inputs([item, "b.fits", "b.fits"]) == [item, Input("b.fits"), Input("b.fits")]


def test_a_link_that_leaves_the_folder_is_refused_and_one_that_stays_is_not(cal_file, tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "file.fits").write_bytes(cal_file.read_bytes())
    (inside / "away.fits").symlink_to(outside / "file.fits")
    (inside / "deep").symlink_to(outside)
    (inside / "stays.fits").symlink_to("file.fits")
    for where in (inside, inside / "*"):
        results = {}
        for item in find_inputs([where]):
            try:
                results[item.path.name] = len(list(read_exposures(item)))
            except UnusableExposureError as error:
                results[item.path.name] = str(error)
        assert results["file.fits"] == results["stays.fits"] == 1
        assert "symbolic link that leaves" in results["away.fits"]
        if where == inside:
            assert "symbolic link that leaves" in results["deep"]
    # Named itself, it is wanted.
    (item,) = find_inputs([inside / "away.fits"])
    assert len(list(read_exposures(item))) == 1


def test_a_companion_that_is_a_link_out_of_the_folder_is_refused(tmp_path):
    science(tmp_path / "in" / "a_sci.fits")
    write(tmp_path / "err.fits", ERR)
    (tmp_path / "in" / "a_err.fits").symlink_to(tmp_path / "err.fits")
    (item,) = find_inputs([tmp_path / "in"])
    with pytest.raises(UnusableExposureError, match=r"a_err\.fits: is a symbolic link"):
        list(read_exposures(item))


def test_one_name_is_one_input_not_its_characters(tmp_path, monkeypatch):
    path = science(tmp_path / "a" / "goods_sci.fits")
    monkeypatch.chdir(tmp_path)
    for single in (str(path), path, Input(path), "a/*.fits", "a", Path("a"), DirEntry("a")):
        assert [item.path.resolve() for item in find_inputs(single)] == [path]
        assert find_inputs(single) == find_inputs([single])
    with pytest.raises(MissingFileError, match=r"^\*.fits: no file matches"):
        find_inputs("*.fits")
    for wrong in (5, None, b"a", np.ones((4, 4))):
        with pytest.raises(TypeError, match="cannot be ingested"):
            find_inputs(wrong)


def test_one_image_in_memory_is_one_input(tmp_path):
    gwcs = Pointing(150, 2, 30, 0.06, SHAPE).gwcs()
    wcs = WCS(gwcs.to_fits_sip(degree=4))
    image = CCDData(SCI, unit="nJy", wcs=wcs, uncertainty=StdDevUncertainty(ERR))
    image.meta.update({"FILTER": "F160W", "FILENAME": "x.fits"})
    exposure = exposure_from_arrays(SCI, ERR, band="F160W", expID="x", wcs=wcs, unit="nJy")
    for single in (image, exposure):
        (item,) = find_inputs(single)
        assert item.exposure is not None
        assert item.exposure.shape == SHAPE
