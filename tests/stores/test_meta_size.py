"""Exposures whose headers do not tell the size of their image, as primary headers do not."""

from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

import fpgpu
from fpgpu.cli.main import main
from fpgpu.errors import StoreConflictError, WCSError
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.upkeep.verify import verify

SHAPE = (64, 96)
CENTRE = (53.1, -27.8)


def primary_set(*, with_image: bool):
    """An image set with the primary header of a file, as scripts for forcepho make it."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], CENTRE
    wcs.wcs.crpix, wcs.wcs.cdelt = [32.5, 48.5], [-1e-5, 1e-5]
    hdr = fits.PrimaryHDU().header
    hdr.update(wcs.to_header(), FILTER="F200W", ABMAG=28.0)
    assert (hdr["NAXIS"], "NAXIS1" in hdr) == (0, False)
    images = {"im": np.ones(SHAPE, "f4"), "ierr": np.ones(SHAPE, "f4")} if with_image else {}
    rest = {"mask": None, "bkg": None, "names": None}
    return SimpleNamespace(hdr=hdr, band="F200W", expID="slope/e1", **images, **rest), wcs


def outline_of(wcs):
    """Sky positions of the outer corners of an image's pixels."""
    x, y = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]).T * np.array(SHAPE)[:, None] - 0.5
    return np.stack(wcs.pixel_to_world_values(x, y), axis=-1)


def covers(footprint, corners):
    """Whether every corner is among the vertices of a footprint."""
    distance = np.abs(footprint[:, None] - corners[None]).max(axis=-1)
    return (distance.min(axis=0) < 1e-9).all()


def test_the_size_is_that_of_the_image(tmp_path):
    imset, wcs = primary_set(with_image=True)
    store = MetaStore()
    store.add_exposure(imset)
    assert store.shape("F200W", "slope/e1") == SHAPE
    store.write_to_file(tmp_path / "meta.json")
    again = MetaStore(tmp_path / "meta.json")
    again.image_shape = SHAPE  # neither file says, where there is no pixel store
    assert again.shape("F200W", "slope/e1") == SHAPE
    assert covers(again.footprint("F200W", "slope/e1"), outline_of(wcs))
    assert again.headers["F200W"]["slope/e1"].tostring() == imset.hdr.tostring()
    table = again.as_table()
    assert (table["nx"][0], table["ny"][0]) == SHAPE


def test_without_an_image_the_size_is_that_of_the_pixel_store(tmp_path):
    imset, wcs = primary_set(with_image=False)
    store = MetaStore()
    store.add_exposure(imset)
    with pytest.raises(WCSError, match=r"MetaStore\.image_shape = PixelStore\.shape"):
        store.find_exposures(CENTRE, ["F200W"])
    store.write_to_file(tmp_path / "meta.json")
    again = MetaStore(tmp_path / "meta.json")
    again.image_shape = SHAPE
    inside = wcs.pixel_to_world_values(-0.4, SHAPE[1] - 0.6)
    outside = wcs.pixel_to_world_values(-0.4, SHAPE[1] - 0.4)
    assert again.find_exposures(inside, ["F200W"]) == (["slope/e1"], ["F200W"])
    assert again.find_exposures(outside, ["F200W"]) == ([], [])
    assert again.wcs["F200W"]["slope/e1"].pixel_shape == SHAPE
    again.image_shape = (128, 128)
    assert again.find_exposures(outside, ["F200W"]) == (["slope/e1"], ["F200W"])


@pytest.mark.parametrize("with_image", [True, False])
def test_patches_of_such_stores(with_image, tmp_path):
    imset, wcs = primary_set(with_image=True)
    PixelStore(tmp_path / "pixels.h5", SHAPE).add_exposure(imset, do_fluxcal=True)
    meta = MetaStore()
    meta.add_exposure(primary_set(with_image=with_image)[0])
    meta.write_to_file(tmp_path / "meta.json")
    corner = wcs.pixel_to_world_values(SHAPE[0] - 4, SHAPE[1] - 4)
    region = fpgpu.CircularRegion(*map(float, corner), radius=5e-5)
    with fpgpu.open(tmp_path, backend="cpu") as survey, survey.patch(region) as patch:
        assert patch.retrieve("xpix").max() == SHAPE[0] - 1
        assert patch.retrieve("ypix").max() == SHAPE[1] - 1
        assert patch.plan.exposures[0].shape == SHAPE
    assert verify(tmp_path).ok
    for command in ("info", "verify", "ds9"):
        assert main([command, str(tmp_path)]) == 0


def test_a_size_that_contradicts_the_pixel_store_is_refused(tmp_path):
    imset, _ = primary_set(with_image=True)
    PixelStore(tmp_path / "pixels.h5", SHAPE).add_exposure(imset)
    imset.hdr["NAXIS1"], imset.hdr["NAXIS2"] = 128, 128
    meta = MetaStore()
    meta.add_exposure(imset)
    meta.write_to_file(tmp_path / "meta.json")
    region = fpgpu.CircularRegion(*CENTRE, radius=1e-4)
    with (
        fpgpu.open(tmp_path, backend="cpu") as survey,
        pytest.raises(StoreConflictError, match="128 x 128 pixels by"),
    ):
        survey.plan(region)
