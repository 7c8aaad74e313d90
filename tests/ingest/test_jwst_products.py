"""Products of JWST, written by the pipeline's data models: what is read, what is refused."""

import io
import warnings

import asdf
import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.modeling import models
from gwcs import WCS
from stdatamodels.jwst import datamodels

from fpgpu import MetaStore, PixelStore
from fpgpu.calibration import calibrate_images
from fpgpu.errors import UnusableExposureError, WCSDisagreementError
from fpgpu.fluxes import flux_calibration
from fpgpu.ingest.inputs import Input, ReadOptions
from fpgpu.ingest.pipeline import ingest
from fpgpu.ingest.readers import read_exposure, read_exposures
from fpgpu.sky.wcs import SkyWCS
from fpgpu.stores.mosaics import read_mosaic
from tests.ingest.jwstfiles import (
    DO_NOT_USE,
    PIXEL_SR,
    linear_gwcs,
    pointing,
    write_cal,
    write_i2d,
)


@pytest.mark.parametrize(
    ("instrument", "meta", "shape", "band"),
    [
        ("NIRCAM", {}, (64, 48), "F444W"),
        ("NIRCAM", {"filter": "F150W2", "pupil": "F162M"}, (64, 48), "F162M"),
        ("NIRISS", {}, (64, 48), "F200W"),
        ("NIRISS", {"exp_type": "NIS_AMI", "filter": "F480M", "pupil": "NRM"}, (80, 80), "F480M"),
        ("MIRI", {}, (136, 128), "F770W"),  # SUB128
        ("MIRI", {"exp_type": "MIR_4QPM", "filter": "F1065C"}, (288, 224), "F1065C"),
        ("MIRI", {"exp_type": "MIR_LYOT", "filter": "F2300C"}, (320, 304), "F2300C"),
    ],
)
def test_every_imager_is_read(tmp_path, instrument, meta, shape, band):
    path = write_cal(tmp_path / "jw_cal.fits", instrument, shape, **meta)
    exposure = read_exposure(path)
    assert exposure.band == exposure.hdr["FILTER"] == band
    assert exposure.shape == shape
    assert exposure.provenance["reader"] == "jwst"
    assert exposure.wcs_choice == "gwcs"
    assert exposure.bitmask == DO_NOT_USE
    assert exposure.flags == {"DO_NOT_USE": 1, "HOT": 1}


def test_what_a_mask_in_the_light_path_hides_is_masked(tmp_path):
    """The masks of MIRI's coronagraphs are NaN in the images."""
    path = write_cal(tmp_path / "jw_cal.fits", "MIRI", (288, 224), exp_type="MIR_4QPM")
    with fits.open(path, mode="update") as hdus:
        hdus["SCI"].data[:, 140:148] = np.nan
        hdus["ERR"].data[100:108] = np.nan
    assert ingest([path], tmp_path / "s").ok
    with PixelStore(tmp_path / "s" / "pixels.h5") as pixels:
        flux, ierr = pixels.read_exposure("F770W", "jw_cal")
    assert (ierr[140:148] == 0).all()
    assert (ierr[:, 100:108] == 0).all()
    assert np.count_nonzero(ierr) == 280 * 216 - 1
    assert np.isfinite(flux).all()


def test_stage_2_fluxes_are_those_of_astropy_units(tmp_path):
    path = write_cal(tmp_path / "jw_cal.fits")
    assert ingest([path], tmp_path / "s").ok
    with fits.open(path) as hdus, PixelStore(tmp_path / "s" / "pixels.h5") as pixels:
        area = hdus["AREA"].data.T * PIXEL_SR * u.sr
        expected = (hdus["SCI"].data.T * (u.MJy / u.sr) * area).to_value(u.nJy)
        error = (hdus["ERR"].data.T * (u.MJy / u.sr) * area).to_value(u.nJy)
        flux, ierr = pixels.read_exposure("F444W", "jw_cal")
        good = hdus["DQ"].data.T != DO_NOT_USE
    np.testing.assert_allclose(flux[good], expected[good], rtol=1e-6)
    np.testing.assert_allclose(ierr[good], 1 / error[good], rtol=1e-6)


def test_a_tweaked_gwcs_is_the_one_that_is_believed(tmp_path):
    """An alignment moves the gWCS by a part of a pixel; by more, the header must say so, too."""
    frames = pointing().gwcs()

    def tweaked(pixels):
        shift = models.Shift(pixels) & models.Shift(0.0)
        wcs = WCS(shift | frames.forward_transform, frames.input_frame, frames.output_frame)
        wcs.bounding_box = frames.bounding_box
        return wcs

    with fits.open(write_cal(tmp_path / "plain_cal.fits")) as hdus:
        header = hdus["SCI"].header.copy()
    for pixels in (0.4, 5.0):
        path = write_cal(tmp_path / f"{pixels}_tweakregstep.fits", gwcs=tweaked(pixels))
        with fits.open(path, mode="update") as hdus:
            for key in ("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2"):
                hdus["SCI"].header[key] = header[key]
        if pixels > 1:
            with pytest.raises(WCSDisagreementError, match="disagree by"):
                read_exposure(path, ReadOptions(wcs_tolerance=1.5))
        exposure = read_exposure(path, ReadOptions(wcs="gwcs"))
        x, y = np.array([3.0, 60]), np.array([2.0, 40])
        expected = frames(x + pixels, y, with_bounding_box=False)
        np.testing.assert_allclose(exposure.gwcs(x, y), expected, rtol=0, atol=1e-11)


def test_a_mosaic_has_no_flags_and_no_weight_where_there_are_no_data(tmp_path):
    path = write_i2d(tmp_path / "jw_i2d.fits")
    with fits.open(path) as hdus:
        assert "DQ" not in hdus
        assert {"SCI", "ERR", "CON", "WHT", "VAR_POISSON", "ASDF"} <= {hdu.name for hdu in hdus}
        sci, err, wht = (hdus[name].data.T for name in ("SCI", "ERR", "WHT"))
        expected = (sci * (u.MJy / u.sr) * PIXEL_SR * u.sr).to_value(u.nJy)
        error = (err * (u.MJy / u.sr) * PIXEL_SR * u.sr).to_value(u.nJy)
    exposure = read_exposure(path)
    assert exposure.mask is None
    assert exposure.area is None
    assert exposure.provenance["uncertainties"] == "err"
    factor, units = flux_calibration(exposure.hdr)
    assert units == "nJy"
    flux, ierr, counts = calibrate_images(exposure.im, exposure.ierr, factor=factor)
    assert counts.n_masked == 20 * 30 + 1
    good = (wht > 0) & np.isfinite(sci)
    assert (ierr[~good] == 0).all()
    np.testing.assert_allclose(flux[good], expected[good], rtol=1e-6)
    np.testing.assert_allclose(ierr[good], 1 / error[good], rtol=1e-6)


@pytest.mark.parametrize("wcs", ["auto", "fits"])
def test_a_mosaic_is_where_its_wcs_says(tmp_path, wcs):
    exposure = read_exposure(write_i2d(tmp_path / "jw_i2d.fits"), ReadOptions(wcs=wcs))
    assert exposure.wcs_choice == ("gwcs" if wcs == "auto" else "fits")
    x, y = np.meshgrid([0.0, 64, 127], [0.0, 50, 95])
    expected = linear_gwcs((128, 96))(x, y)
    stored = SkyWCS.from_header(exposure.hdr).pixel_to_world(x, y)
    np.testing.assert_allclose(stored, expected, rtol=0, atol=1e-10)


def test_a_mosaic_goes_in_as_tiles_and_comes_out_as_it_was(tmp_path):
    path = write_i2d(tmp_path / "jw_i2d.fits", shape=(200, 136))
    options = ReadOptions(tile=64, tile_overlap=16)
    report = ingest([Input(path, options=options)], tmp_path / "s")
    assert report.ok
    assert {row.expID for row in report.rows} == {
        f"jw_i2d_x{i:02d}y{j:02d}" for i in range(4) for j in range(3)
    }
    whole = read_exposure(path, ReadOptions(pad=True))
    factor, _ = flux_calibration(whole.hdr)
    expected = calibrate_images(whole.im, whole.ierr, factor=factor)
    with (
        PixelStore(tmp_path / "s" / "pixels.h5") as pixels,
        MetaStore(tmp_path / "s" / "meta.json", use_gwcs=True) as meta,
    ):
        flux, ierr = read_mosaic(pixels, meta, "F444W", "jw_i2d")
        expID = report.rows[5].expID
        place = meta.headers["F444W"][expID]
        ours = meta.wcs["F444W"][expID](10.0, 20.0)
    np.testing.assert_array_equal(flux, expected[0])
    np.testing.assert_array_equal(ierr, expected[1])
    truth = linear_gwcs((200, 136))(10.0 + place["MOSX0"], 20.0 + place["MOSY0"])
    np.testing.assert_allclose(ours, truth, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    "exp_type", ["NRC_WFSS", "NRC_TSGRISM", "NIS_SOSS", "MIR_LRS-FIXEDSLIT", "MIR_MRS", "NRC_DARK"]
)
def test_what_is_no_image_of_the_sky_is_refused(tmp_path, exp_type):
    path = write_cal(tmp_path / "jw_cal.fits", exp_type=exp_type)
    with pytest.raises(
        UnusableExposureError, match=rf"jw_cal\.fits: EXP_TYPE is {exp_type}.*: no image of the sky"
    ):
        read_exposure(path)


def test_cubes_and_sets_of_spectra_are_refused(tmp_path):
    cube = datamodels.CubeModel((3, 16, 24))
    cube.meta.telescope, cube.meta.exposure.type = "JWST", "NRC_TSIMAGE"
    slits = datamodels.MultiSlitModel()
    slits.meta.telescope, slits.meta.exposure.type = "JWST", "NRS_IMAGE"
    for _ in range(2):
        slits.slits.append(datamodels.SlitModel((16, 24)).instance)
    spectra = datamodels.MultiSpecModel()
    spectra.meta.telescope = "JWST"
    spectra.spec.append({"spec_table": np.zeros(3, datamodels.SpecModel().get_dtype("spec_table"))})
    cases = {
        "jw_calints.fits": (
            cube,
            "SCI is no 2-dimensional image .found 24 x 16 x 3 pixels.; of a cube",
        ),
        "jw_s2d.fits": (slits, "2 extensions are called SCI"),
        "jw_x1d.fits": (spectra, "EXTRACT1D.*no image of the sky"),
    }
    for name, (model, reason) in cases.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save(str(tmp_path / name))
        with pytest.raises(UnusableExposureError, match=rf"{name}: .*{reason}"):
            list(read_exposures(Input(tmp_path / name)))


def test_an_uncalibrated_image_is_refused(tmp_path):
    path = write_cal(tmp_path / "jw_rate.fits", unit="DN/s")
    with pytest.raises(UnusableExposureError, match=r"jw_rate\.fits: BUNIT is DN/s"):
        read_exposure(path)


def test_a_mosaic_without_weights_is_read_with_a_note(tmp_path):
    path = write_i2d(tmp_path / "jw_i2d.fits")
    with fits.open(path, mode="update") as hdus:
        del hdus["WHT"]
        err = hdus["ERR"].data.astype("f4")
    exposure = read_exposure(path)
    np.testing.assert_array_equal(exposure.ierr.T, 1 / err)
    assert any("no WHT extension" in note for note in exposure.notes)
    with fits.open(path, mode="update") as hdus:
        del hdus["ERR"]
    with pytest.raises(UnusableExposureError, match="has no extension ERR"):
        read_exposure(path)


def test_a_file_without_gwcs_in_its_asdf_names_the_way_on(tmp_path):
    path = tmp_path / "jw_rate.fits"
    write_cal(path)
    tree = io.BytesIO()
    asdf.AsdfFile({"meta": {}}).write_to(tree)
    with fits.open(path, mode="update") as hdus:
        data = np.frombuffer(tree.getvalue(), np.uint8)
        column = fits.Column("ASDF_METADATA", f"{data.size}B", array=data[None])
        del hdus["ASDF"]
        hdus.append(fits.BinTableHDU.from_columns([column], name="ASDF"))
    with pytest.raises(UnusableExposureError, match=r"no gWCS .*rate file.*--wcs fits"):
        read_exposure(path)
    assert read_exposure(path, ReadOptions(wcs="fits")).wcs_choice == "fits"
