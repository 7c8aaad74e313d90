"""Whole patches where the sky, the detector or the data are unusual: every value is where it is."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fpgpu import CircularRegion, PixelStore, PSFStore
from fpgpu.backends.base import Backend
from fpgpu.likelihood.reference import evaluate
from fpgpu.patch.build import build_patch
from fpgpu.patch.device import Patch
from fpgpu.patch.plan import PatchPlan, make_plan
from fpgpu.patch.stores import Stores
from fpgpu.sky.wcs import SkyWCS
from fpgpu.superpixels import superpixelize
from tests.patch.fields import dithered, meta_of
from tests.sky.made_wcs import sky_gwcs
from tests.stores.imagesets import image_set, new_store

SHAPE = (64, 96)
BANDS = ("F200W", "F090W")
EMPTY = ("F090W", "nothing valid here")
PLACES = [(0.0, 12.0), (359.99999, -45.0), (123.0, 88.5), (10.0, -89.99), (53.16, -27.79)]


class Field:
    """Exposures at a place: five with FITS WCS, one of them with no valid pixel there; a gWCS."""

    def __init__(self, folder: Path, psf: PSFStore, place: tuple[float, float]) -> None:
        made = dithered(4, place, SHAPE, seed=4)
        made.append((*EMPTY, made[0][2]))
        made.append(("F200W", "by gWCS", made[1][2]))
        self.place = place
        self.meta = meta_of(made)
        gwcs = sky_gwcs(*place, shape=SHAPE)
        self.meta.wcs["F200W"]["by gWCS"] = gwcs
        self.sky = {(b, e): SkyWCS.from_header(header) for b, e, header in made}
        self.sky["F200W", "by gWCS"] = SkyWCS.from_gwcs(gwcs, SHAPE)
        self.images = [image_set(band, expID, side=SHAPE) for band, expID, _ in made]
        for image in self.images:
            if (image.band, image.expID) == EMPTY:
                # A store takes no exposure without any; this one is far from the place.
                image.mask = np.ones(SHAPE, np.int32)
                x, y = self.sky[EMPTY].world_to_pixel(*place)
                image.mask[-1 if x < SHAPE[0] / 2 else 0, -1 if y < SHAPE[1] / 2 else 0] = 0
        pixels = new_store(folder / "pixels.h5", *self.images)
        self.stores = Stores(pixels, self.meta, psf)

    def sources(self) -> Any:
        """Three sources, two tenths of an arcsec from each other."""
        catalog = np.zeros(3, [("ra", "f8"), ("dec", "f8")])
        step = np.array([-0.2, 0.0, 0.2]) / 3600
        catalog["ra"] = (self.place[0] + step / np.cos(np.deg2rad(self.place[1]))) % 360
        catalog["dec"] = self.place[1] - step * 0.5
        return catalog

    def patch(self, backend: Backend, radius: float = 1.0, sources: Any = None) -> Patch:
        """The patch around the place; radius in arcsec."""
        region = CircularRegion(*self.place, radius / 3600)
        plan = make_plan(self.stores.pixels, self.meta, region, BANDS, backend=backend)
        return build_patch(self.stores, plan, sources, backend=backend)


@pytest.fixture(scope="module")
def fields(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Make the field at a place, once; to be read only."""
    with PSFStore(golden / "tiny" / "psf.h5") as psf, ExitStack() as opened:

        @cache
        def make(place: tuple[float, float]) -> Field:
            field = Field(tmp_path_factory.mktemp("field"), psf, place)
            opened.enter_context(field.stores.pixels)
            return field

        yield make


@pytest.fixture(params=PLACES, ids=str)
def field(fields: Any, request: pytest.FixtureRequest) -> Field:
    """A field at each place."""
    return fields(request.param)


def test_every_pixel_is_that_of_its_exposure(field: Field, backend: Backend) -> None:
    with field.patch(backend) as patch:
        data, ierr, x, y = map(patch.retrieve, ("data", "ierr", "xpix", "ypix"))
        plan = patch.plan
    assert {(e.band, e.expID) for e in plan.exposures} == {(i.band, i.expID) for i in field.images}
    images = {(image.band, image.expID): image for image in field.images}
    for exposure, start, n in zip(
        plan.exposures, plan.exposure_start, plan.exposure_N, strict=True
    ):
        image = images[exposure.band, exposure.expID]
        mine = slice(start, start + n)
        at = x[mine].astype(int), y[mine].astype(int)
        masked = (exposure.band, exposure.expID) == EMPTY
        np.testing.assert_array_equal(data[mine], 0.0 if masked else image.im[at])
        np.testing.assert_array_equal(ierr[mine], 0.0 if masked else image.ierr[at])


def test_sources_are_where_the_wcs_of_each_exposure_puts_them(
    field: Field, backend: Backend
) -> None:
    sources = field.sources()
    with field.patch(backend, sources=sources) as patch:
        crpix, CW, plan = patch.retrieve("crpix"), patch.retrieve("CW"), patch.plan
    step = 0.3 / 3600  # degrees: a few pixels
    for number, exposure in enumerate(plan.exposures):
        sky = field.sky[exposure.band, exposure.expID]
        there = np.stack(sky.world_to_pixel(sources["ra"], sources["dec"]), axis=-1)
        np.testing.assert_allclose(crpix[number], there, rtol=0, atol=1e-4)
        moved = np.stack(sky.world_to_pixel(sources["ra"], sources["dec"] + step), axis=-1)
        np.testing.assert_allclose(CW[number] @ [0.0, step], moved - there, rtol=0, atol=0.02)


def test_an_exposure_without_a_valid_pixel_has_no_say(
    field: Field, backend: Backend, packed: dict[str, Any]
) -> None:
    with field.patch(backend, sources=field.sources()) as patch:
        arrays, plan = patch.host_arrays(), patch.plan
    proposal = packed["proposal"].copy()
    proposal["ra"], proposal["dec"] = arrays["crval"][0].T
    found = evaluate(arrays, proposal)
    number = [(e.band, e.expID) for e in plan.exposures].index(EMPTY)
    start, n = plan.exposure_start[number], plan.exposure_N[number]
    assert (arrays["ierr"][start : start + n] == 0).all()
    assert np.isfinite(found.chi2).all()
    assert np.isfinite(found.derivatives).all()
    arrays["data"][start : start + n] = 1e3
    again = evaluate(arrays, proposal)
    np.testing.assert_array_equal(again.chi2, found.chi2)
    np.testing.assert_array_equal(again.derivatives, found.derivatives)


def test_a_region_of_one_pixel_is_a_patch_of_one_super_pixel_an_exposure(
    field: Field, backend: Backend
) -> None:
    with field.patch(backend, radius=0.02) as patch:
        assert patch.plan.exposure_N.tolist() == [64] * 6
        x, y = patch.retrieve("xpix"), patch.retrieve("ypix")
    for exposure, start in zip(patch.plan.exposures, patch.plan.exposure_start, strict=True):
        px, py = field.sky[exposure.band, exposure.expID].world_to_pixel(*field.place)
        # The place is where four pixels meet: which one it is in, rounding decides.
        assert abs(x[start : start + 64] - px).min() <= 0.5 + 1e-6
        assert abs(y[start : start + 64] - py).min() <= 0.5 + 1e-6


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stores, PatchPlan, Any]]:
    """Three hundred small exposures of one place, all of which are in the plan."""
    exposures = dithered(300, (200.0, 5.0), (16, 16), seed=5)
    images = [image_set(band, expID, side=16) for band, expID, _ in exposures]
    path = tmp_path_factory.mktemp("crowded") / "pixels.h5"
    with h5py.File(path, "w") as file:
        file.attrs["nside_full"], file.attrs["super_pixel_size"] = 16, 8
        for image in images:
            values = superpixelize(image.im, image.ierr, 8)
            file[f"{image.band}/{image.expID}/data"] = values
    with PixelStore(path, mode="r") as pixels:
        stores = Stores(pixels, meta_of(exposures))
        region = CircularRegion(200.0, 5.0, 2 / 3600)
        yield stores, make_plan(stores.pixels, stores.meta, region, BANDS), images


def test_a_region_over_hundreds_of_exposures(
    crowded: tuple[Stores, PatchPlan, Any], backend: Backend
) -> None:
    stores, plan, images = crowded
    with build_patch(stores, plan, backend=backend) as patch:
        assert plan.n_exp == 300
        assert plan.n_pixels == 300 * 16 * 16
        by_exposure = np.split(patch.retrieve("data"), plan.exposure_start[1:])
    expected = {(image.band, image.expID): np.sort(image.im, axis=None) for image in images}
    for exposure, values in zip(plan.exposures, by_exposure, strict=True):
        np.testing.assert_array_equal(np.sort(values), expected[exposure.band, exposure.expID])
