"""Pixels of a patch go back to where they came from, and FITS files say where that is."""

import json

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from fpgpu import CircularRegion, MetaStore, get_backend
from fpgpu.errors import ExposureNameError, LayoutError, StoreWriteError
from fpgpu.patch.build import build_patch
from fpgpu.patch.images import ExposureImage, ccd_images, exposure_images, write_images
from fpgpu.patch.plan import ExposurePlan, PatchPlan
from fpgpu.sky.sip import fit_sip
from fpgpu.sky.wcs import SkyWCS
from tests.sky.made_wcs import sky_gwcs, tan_header
from tests.stores.metasets import meta_set, write_store

PIXELS = ("xpix", "ypix")


@pytest.fixture(scope="module")
def patch(stores, plan):
    with build_patch(stores, plan, backend=get_backend("cpu")) as made:
        yield made


# --- images ----------------------------------------------------------------------------------


def test_whole_images_hold_the_stores_values_where_the_patch_is(patch, stores, plan, packed):
    for e, (found, exposure) in enumerate(
        zip(patch.images("data", crop=False), plan.exposures, strict=True)
    ):
        im, _ = stores.pixels.read_exposure(exposure.band, exposure.expID)
        here = slice(packed["exposure_start"][e], None)
        x, y = (packed[name][here][: packed["exposure_N"][e]].astype(int) for name in PIXELS)
        expected = np.full((128, 128), np.nan, "f4")
        expected[x, y] = im[x, y]
        np.testing.assert_array_equal(found.image, expected)
        assert found[:2] == (exposure.band, exposure.expID)
        assert (found.origin, found.shape) == ((0, 0), (128, 128))


def test_cropped_images_are_the_smallest_part_of_the_whole_ones(patch):
    for whole, part in zip(patch.images("data", crop=False), patch.images("data"), strict=True):
        (x, y), (nx, ny) = part.origin, part.image.shape
        np.testing.assert_array_equal(whole.image[x : x + nx, y : y + ny], part.image)
        assert np.isfinite(part.image).sum() == np.isfinite(whole.image).sum()
        for edge in (part.image[:8], part.image[-8:], part.image[:, :8], part.image[:, -8:]):
            assert np.isfinite(edge).any()


@pytest.mark.parametrize("axis", [0, 1])
def test_coordinates_tell_that_every_pixel_is_in_its_place(patch, axis):
    for found in patch.images(PIXELS[axis], fill=-1):
        there = found.image >= 0
        index = np.indices(found.image.shape)[axis] + found.origin[axis]
        np.testing.assert_array_equal(found.image[there], index[there])


def test_images_need_not_be_square():
    exposure = ExposurePlan("F200W", "e1", (16, 32), np.array([[0, 1], [0, 3], [1, 1]]))
    plan = PatchPlan(CircularRegion(0, 0, 1), ("F200W",), (exposure,), 8, "corners")
    values = np.arange(192, dtype="f4")
    (found,) = exposure_images(plan, values, fill=-1)
    assert (found.image.shape, found.origin) == ((16, 24), (0, 8))
    np.testing.assert_array_equal(found.image[:8, :8].ravel(), values[:64])
    np.testing.assert_array_equal(found.image[:8, 16:].ravel(), values[64:128])
    np.testing.assert_array_equal(found.image[8:, :8].ravel(), values[128:])
    assert (found.image[:8, 8:16] == -1).all()


def test_what_is_no_array_of_pixels_is_refused(patch, plan):
    with pytest.raises(LayoutError, match="'crpix' is no array of pixels"):
        patch.images("crpix")
    with pytest.raises(LayoutError, match="values have shape"):
        exposure_images(plan, np.zeros(3, "f4"))


# --- FITS ------------------------------------------------------------------------------------


@pytest.mark.parametrize("crop", [True, False])
def test_fits_files_have_the_wcs_of_their_own_pixels(patch, stores, tmp_path, crop):
    paths = patch.write_fits(tmp_path, "data", crop=crop)
    assert paths[0] == tmp_path / "F090W" / "exp_f090w_00_data.fits"
    for path, image in zip(paths, patch.images("data", crop=crop), strict=True):
        with fits.open(path) as hdus:
            header, values = hdus[0].header, hdus[0].data
        np.testing.assert_array_equal(values.T, image.image)
        x, y = np.array([[0, 0], [5, 33.5], [60, 2]]).T
        original = stores.meta.wcs[image.band][image.expID]
        expected = original.all_pix2world(x + image.origin[0], y + image.origin[1], 0)
        np.testing.assert_allclose(WCS(header).all_pix2world(x, y, 0), expected, rtol=0, atol=1e-12)
        assert (header["LTV1"], header["LTV2"]) == tuple(-o for o in image.origin)
        assert (header["FILTER"], header["EXPID"], header["CONTENT"]) == (*image[:2], "data")


@pytest.mark.parametrize("with_refit", [True, False])
def test_the_gwcs_of_a_patch_becomes_sip(tmp_path, with_refit):
    shape = (64, 96)
    exact = SkyWCS.from_gwcs(sky_gwcs(shape=shape), shape)
    refit = fit_sip(exact, shape) if with_refit else None
    imset = meta_set("visit/e1", gwcs=exact.native, sip=refit, shape=shape, ra=53.17)
    path = write_store(tmp_path / "meta.json", imset)
    image = ExposureImage("F200W", "visit/e1", np.zeros((8, 16), "f4"), (24, 40), shape)
    with MetaStore(path, use_gwcs=True) as meta:
        (written,) = write_images(tmp_path, "data", [image], meta)
    assert written == tmp_path / "F200W" / "visit" / "e1_data.fits"
    found = WCS(fits.getheader(written)).all_pix2world([3.0], [5.0], 0)
    np.testing.assert_allclose(found, exact.pixel_to_world([27.0], [45.0]), rtol=0, atol=1e-9)


def test_a_projection_other_than_gnomonic_is_fitted(tmp_path):
    header = tan_header(shape=(64, 64), sip=0)
    header["CTYPE1"], header["CTYPE2"] = "RA---ARC", "DEC--ARC"
    imset = meta_set("e1", shape=(64, 64))
    header["FILTER"] = "F200W"
    imset.hdr = header
    image = ExposureImage("F200W", "e1", np.zeros((64, 64), "f4"), (0, 0), (64, 64))
    with MetaStore(write_store(tmp_path / "meta.json", imset)) as meta:
        (written,) = write_images(tmp_path, "data", [image], meta)
        expected = meta.wcs["F200W"]["e1"].all_pix2world([3.0], [5.0], 0)
    found = WCS(fits.getheader(written)).all_pix2world([3.0], [5.0], 0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("use_gwcs", [True, False])
def test_pictures_are_icrs_whatever_the_frame_of_the_header(tmp_path, use_gwcs):
    shape = (64, 96)
    imset = meta_set("e1", gwcs=sky_gwcs(shape=shape), shape=shape, ra=53.17)
    imset.hdr["RADESYS"], imset.hdr["EQUINOX"] = "FK5", 2000.0
    image = ExposureImage("F200W", "e1", np.zeros(shape, "f4"), (0, 0), shape)
    with MetaStore(write_store(tmp_path / "meta.json", imset), use_gwcs=use_gwcs) as meta:
        (written,) = write_images(tmp_path, "data", [image], meta)
    found = fits.getheader(written)
    assert (found["RADESYS"], found.get("EQUINOX")) == ("ICRS", None)
    if not use_gwcs:
        expected = WCS(imset.hdr).pixel_to_world(3.0, 5.0).icrs
        ours = WCS(found).all_pix2world([3.0], [5.0], 0)
        np.testing.assert_allclose(ours, [[expected.ra.deg], [expected.dec.deg]], atol=1e-9)


def test_files_that_exist_are_replaced_only_when_told(patch, tmp_path):
    patch.write_fits(tmp_path, "data")
    with pytest.raises(StoreWriteError, match="overwrite=True"):
        patch.write_fits(tmp_path, "data")
    patch.write_fits(tmp_path, "data", overwrite=True)


def test_a_name_that_leads_out_of_the_folder_is_refused(golden, tmp_path):
    image = ExposureImage("F090W", "../../e1", np.zeros((8, 8), "f4"), (0, 0), (8, 8))
    texts = json.loads((golden / "tiny" / "meta.json").read_text())
    evil = {"F090W": {"../../e1": texts["F090W"]["exp_f090w_00"]}}
    (tmp_path / "meta.json").write_text(json.dumps(evil))
    with (
        MetaStore(tmp_path / "meta.json") as meta,
        pytest.raises(ExposureNameError, match="e1"),
    ):
        write_images(tmp_path / "out", "data", [image], meta)
    assert not (tmp_path / "e1_data.fits").exists()


# --- CCDData ---------------------------------------------------------------------------------


def test_ccddata_have_values_weights_wcs_and_units(patch, stores):
    for found, image, ierr in zip(
        patch.ccddata("data"), patch.images("data"), patch.images("ierr"), strict=True
    ):
        used = (ierr.image.T > 0) & np.isfinite(image.image.T)
        assert used.any()
        assert not used.all()
        np.testing.assert_array_equal(found.mask, ~used)
        np.testing.assert_array_equal(found.data, image.image.T)
        weight = found.uncertainty.array
        np.testing.assert_allclose(weight[used], ierr.image.T[used].astype(float) ** 2)
        assert found.unit == found.uncertainty.unit**-0.5 == "nJy"
        assert (found.meta["BUNIT"], found.meta["EXPID"]) == ("nJy", image.expID)
        y, x = np.argwhere(used)[0]
        here = found.wcs.pixel_to_world(x, y)
        expected = stores.meta.sky_wcs(image.band, image.expID).pixel_to_world(
            x + image.origin[0], y + image.origin[1]
        )
        assert (here.ra.deg, here.dec.deg) == pytest.approx([*map(float, expected)], abs=1e-9)


def test_units_are_those_of_each_array(patch, tmp_path):
    units = {name: patch.ccddata(name)[0].unit for name in ("data", "ierr", "xpix")}
    assert units == {"data": "nJy", "ierr": u.nJy**-1, "xpix": "pix"}
    assert patch.ccddata("ierr")[0].uncertainty is None
    paths = patch.write_fits(tmp_path, "ierr")
    assert u.Unit(fits.getheader(paths[0])["BUNIT"]) == u.nJy**-1
    with pytest.raises(LayoutError, match="no array of pixels"):
        patch.ccddata("crval")


@pytest.mark.parametrize(
    ("stored", "unit"), [("counts", u.count), ("image", u.one), ("MJy / sr", u.MJy / u.sr)]
)
def test_stored_units_are_named_as_astropy_has_them(patch, stored, unit):
    (image, *_) = patch.images("data")
    key = image.band, image.expID
    (found,) = ccd_images([image], "data", patch._meta, {key: stored})
    assert found.unit == unit
    assert u.Unit(found.meta["BUNIT"]) == unit
