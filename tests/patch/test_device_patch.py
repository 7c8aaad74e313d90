"""A patch on a device holds what was planned and packed, through all that is done with it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fpgpu import CircularRegion, MetaStore
from fpgpu.backends import reference
from fpgpu.backends.base import MemoryState
from fpgpu.errors import CatalogError, LayoutError, PlanError, ReleasedMemoryError
from fpgpu.layout import PATCH_ARRAYS, SEEN_DTYPE
from fpgpu.likelihood.reference import evaluate
from fpgpu.patch.build import build_patch
from fpgpu.patch.pack import pack_metadata
from fpgpu.patch.plan import ExposurePlan, PatchPlan
from fpgpu.patch.stores import Stores
from fpgpu.superpixels import pixel_coordinates
from tests.stores.imagesets import bits

EXACT = sorted(set(PATCH_ARRAYS) - {"D", "CW", "crpix", "residual"})
PIXELS = ["data", "ierr", "xpix", "ypix"]


@pytest.fixture
def patch(stores, plan, sources, backend):
    with build_patch(stores, plan, sources, backend=backend, psf_per_source=False) as made:
        yield made


def kernel_sees(patch, arrays):
    """Whether a kernel that follows the pointers finds these arrays."""
    seen = patch.backend.check_layout(patch.pointer, patch.plan.n_bands)
    expected = reference.check_layout(patch.struct, arrays)
    for name in SEEN_DTYPE.names:
        np.testing.assert_array_equal(seen[name], expected[name], name)


# --- forcepho's answers ----------------------------------------------------------------------


@pytest.mark.parametrize("name", EXACT)
def test_arrays_have_forcephos_bits(patch, packed, name):
    found = patch.retrieve(name)
    assert found.dtype == packed[name].dtype
    np.testing.assert_array_equal(found, packed[name])


def test_a_kernel_finds_every_array_through_the_struct(patch):
    residual = np.arange(patch.plan.n_pixels, dtype="f4")
    patch.put("residual", residual)
    kernel_sees(patch, patch.host_arrays() | {"residual": residual})


def test_the_likelihood_of_the_patch_is_forcephos(patch, packed):
    found = evaluate(patch.host_arrays(), packed["proposal"])
    np.testing.assert_allclose(found.chi2, packed["chi2"], rtol=1e-5)


def test_sizes_are_those_of_the_layout(patch, plan, sources, backend):
    assert (patch.n_sources, patch.n_radii, patch.bandlist) == (3, 9, plan.bandlist)
    patch.check()
    assert patch.nbytes == backend.memory_state().resident
    assert "3 sources" in repr(patch)


# --- options ---------------------------------------------------------------------------------


def test_offsets_are_subtracted_and_the_ratio_to_the_noise_is_capped(
    stores, plan, packed, backend, golden
):
    options = {"background_keyword": "OFFSET", "max_snr": 1.5}
    with MetaStore(golden / "tiny" / "meta.json") as meta:
        for k, exposure in enumerate(plan.exposures):
            meta.headers[exposure.band][exposure.expID]["OFFSET"] = 0.3 * k
        with build_patch(stores._replace(meta=meta), plan, backend=backend, **options) as patch:
            data, ierr = patch.retrieve("data"), patch.retrieve("ierr")
    offsets = np.repeat(np.float32([0.3 * k for k in range(plan.n_exp)]), plan.exposure_N)
    expected = packed["data"] - offsets
    np.testing.assert_array_equal(data, expected)
    capped = (packed["ierr"] > 0) & (expected * packed["ierr"] > 1.5)
    assert 0 < capped.sum() < capped.size
    np.testing.assert_array_equal(ierr[~capped], packed["ierr"][~capped])
    np.testing.assert_array_equal(ierr[capped], np.float32(1.5) / expected[capped])


def test_patches_larger_than_staging_memory_are_sent_in_pieces(
    stores, plan, packed, backend, monkeypatch
):
    monkeypatch.setattr("fpgpu.backends.cpu.AT_ONCE", 3 * 4096)
    with (
        backend.staging(slot_bytes=3 * 4096, depth=2),
        build_patch(stores, plan, backend=backend) as patch,
    ):
        for name in PIXELS:
            np.testing.assert_array_equal(patch.retrieve(name), packed[name])


def random_plan(draw, stores):
    """Any super-pixels of some exposures, in row-major order."""
    keys = draw(st.lists(st.sampled_from(list(stores.meta)), min_size=1, unique=True))
    exposures = []
    for band, expID in sorted(keys):
        numbers = draw(st.lists(st.integers(0, 255), min_size=1, max_size=60, unique=True))
        places = np.stack(np.divmod(np.sort(numbers), 16), axis=-1)
        exposures.append(ExposurePlan(band, expID, (128, 128), places))
    bandlist = tuple(dict.fromkeys(exposure.band for exposure in exposures))
    return PatchPlan(CircularRegion(53, -27, 1), bandlist, tuple(exposures), 8, "corners")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(data=st.data())
def test_pixels_are_those_of_the_images_whatever_is_planned(stores, backend, data):
    plan = random_plan(data.draw, stores)
    with build_patch(stores, plan, backend=backend) as patch:
        found = {name: patch.retrieve(name) for name in PIXELS}
    x, y = pixel_coordinates((128, 128))
    for exposure, start, n in zip(
        plan.exposures, plan.exposure_start, plan.exposure_N, strict=True
    ):
        places = tuple(exposure.superpixels.T)
        pixels = x[places].ravel(), y[places].ravel()
        images = stores.pixels.read_exposure(exposure.band, exposure.expID)
        here = slice(start, start + n)
        for name, image in zip(("data", "ierr"), images, strict=True):
            np.testing.assert_array_equal(bits(found[name][here]), bits(image[pixels]))
        np.testing.assert_array_equal(found["xpix"][here], pixels[0])
        np.testing.assert_array_equal(found["ypix"][here], pixels[1])


# --- other sources ---------------------------------------------------------------------------


@pytest.mark.parametrize("n_src", [3, 1, 30, 0])
def test_sources_are_replaced_and_pixels_stay(patch, stores, plan, sources, packed, n_src):
    residual = np.arange(plan.n_pixels, dtype="f4")
    patch.put("residual", residual)
    others = np.resize(sources, n_src)
    others["ra"] += 1e-5
    patch.replace_metadata(others)
    expected = pack_metadata(stores.meta, stores.psf, plan, others, psf_per_source=False)
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(patch.retrieve(name), array, name)
    for name in PIXELS:
        np.testing.assert_array_equal(patch.retrieve(name), packed[name])
    assert patch.n_sources == n_src
    assert patch.reference == expected.reference
    kernel_sees(patch, patch.host_arrays() | {"residual": residual})


def test_replacing_again_and_again_holds_no_more_memory(patch, sources, backend):
    for n_src in (5, 9, 2, 3, 7, 3):
        patch.replace_metadata(np.resize(sources, n_src))
        assert backend.live_allocations == (1 if n_src == 3 else 2)


def test_sources_that_cannot_be_packed_leave_the_patch_as_it_was(patch, sources):
    before = patch.host_arrays()
    lost = sources.copy()
    lost["dec"][1] = 95.0
    with pytest.raises(CatalogError, match="beyond a pole"):
        patch.replace_metadata(lost)
    for name, array in patch.host_arrays().items():
        np.testing.assert_array_equal(array, before[name], name)


# --- data and residual -----------------------------------------------------------------------


@pytest.mark.parametrize("n_src", [3, 4])
def test_swapping_makes_the_residual_the_data(patch, sources, packed, n_src):
    residual = np.arange(patch.plan.n_pixels, dtype="f4")
    patch.put("residual", residual)
    patch.swap()
    patch.replace_metadata(np.resize(sources, n_src))
    np.testing.assert_array_equal(patch.retrieve("data"), residual)
    np.testing.assert_array_equal(patch.retrieve("residual"), packed["data"])
    kernel_sees(patch, patch.host_arrays() | {"residual": packed["data"]})


def test_swapping_twice_or_sending_again_brings_the_data_back(patch, packed):
    patch.put("residual", np.zeros(patch.plan.n_pixels))
    patch.swap()
    patch.swap()
    np.testing.assert_array_equal(patch.retrieve("data"), packed["data"])
    patch.swap()
    patch.send()
    np.testing.assert_array_equal(patch.retrieve("data"), packed["data"])


# --- arrays ----------------------------------------------------------------------------------


def test_an_array_can_be_sent_and_fetched(patch):
    values = np.arange(patch.plan.n_pixels)
    patch.put("ierr", values)
    np.testing.assert_array_equal(patch.retrieve("ierr"), values)


def test_arrays_are_seen_where_they_are(patch, backend, packed):
    np.testing.assert_array_equal(backend.download(patch.array("data")), packed["data"])


def test_wrong_names_and_shapes_are_refused(patch):
    with pytest.raises(LayoutError, match="no array 'flux'"):
        patch.retrieve("flux")
    with pytest.raises(LayoutError, match=r"data has shape \(34752,\); values of \(7,\)"):
        patch.put("data", np.zeros(7))


# --- memory ----------------------------------------------------------------------------------


def test_a_freed_patch_holds_nothing_and_can_be_sent_again(patch, backend, packed):
    patch.replace_metadata(None)
    patch.free()
    patch.free()
    assert patch.freed
    assert backend.live_allocations == 0
    for use in (patch.retrieve, patch.swap, patch.replace_metadata, lambda: patch.pointer):
        with pytest.raises(ReleasedMemoryError, match="was freed"):
            use()
    patch.send()
    np.testing.assert_array_equal(patch.retrieve("data"), packed["data"])


def test_a_block_frees_the_patch_whatever_happens(stores, plan, backend):
    with (
        pytest.raises(RuntimeError, match="on the way"),
        build_patch(stores, plan, backend=backend) as patch,
    ):
        raise RuntimeError("on the way")
    assert patch.freed
    assert backend.live_allocations == 0


def test_too_little_memory_is_an_error_and_nothing_is_kept(stores, plan, backend, monkeypatch):
    monkeypatch.setattr(backend, "memory_state", lambda: MemoryState(10, 100, 0))
    monkeypatch.setattr(backend, "_allocate", _refuse)
    with pytest.raises(MemoryError, match="bytes were asked for"):
        build_patch(stores, plan, backend=backend)
    assert backend.live_allocations == 0


def _refuse(n_bytes):
    raise MemoryError


# --- plans and stores that do not fit --------------------------------------------------------


def test_a_plan_without_exposures_is_no_patch(stores, plan, backend):
    nothing = replace(plan, exposures=(), bandlist=())
    with pytest.raises(PlanError, match="no exposure"):
        build_patch(stores, nothing, backend=backend)


def test_a_store_of_other_images_is_refused(stores, plan, backend):
    other = tuple(replace(exposure, shape=(128, 64)) for exposure in plan.exposures)
    with pytest.raises(LayoutError, match=r"images of \(128, 64\) .* holds \(128, 128\)"):
        build_patch(stores, replace(plan, exposures=other), backend=backend)
    assert backend.live_allocations == 0


def test_a_store_opened_for_float64_is_refused(stores, plan, backend):
    pixels = type(stores.pixels)(stores.pixels.h5file, pix_dtype="f8", mode="r")
    with pytest.raises(LayoutError, match="open it with float32"):
        build_patch(Stores(pixels, stores.meta), plan, backend=backend)
    assert backend.live_allocations == 0
