"""What a patch says of scenes, on every backend: the judge's numbers, or a clear refusal."""

from typing import Any

import numpy as np
import pytest
from astropy.table import Table

from fpgpu import CircularRegion, get_backend
from fpgpu.errors import CatalogError, LayoutError, MissingStoreError, ReleasedMemoryError
from fpgpu.layout import SOURCE_DTYPE
from fpgpu.likelihood import reference
from fpgpu.likelihood.mixture import SersicMixture
from fpgpu.likelihood.scene import proposal_from_catalog
from fpgpu.patch.build import build_patch
from fpgpu.patch.device import Patch
from fpgpu.patch.pack import FORCEPHO_RADII as RADII
from fpgpu.patch.plan import make_plan
from fpgpu.patch.stores import Stores
from tests.likelihood.superpixel_scenes import assert_as_judged


@pytest.fixture
def whole_patch(stores, plan, sources, backend):
    """All that forcepho packed."""
    with build_patch(stores, plan, sources, backend=backend, psf_per_source=False) as made:
        yield made


@pytest.fixture
def patch(stores, packed, plan, sources, backend):
    """A part of it: kernels run slowly on a host."""
    ra, dec, radius = packed["region"]
    region = CircularRegion(ra, dec, 0.2 * radius)
    part = make_plan(stores.pixels, stores.meta, region, list(plan.bandlist))
    options = {"backend": backend, "psf_per_source": False, "margin": None}
    with build_patch(stores, part, sources, **options) as made:
        yield made


@pytest.fixture
def scene(packed) -> Any:
    return packed["proposal"].copy()


def several(scene: Any, n: int) -> Any:
    """Scenes that differ a little."""
    scenes = np.stack([scene] * n)
    scenes["fluxes"] *= np.linspace(0.8, 1.2, n, dtype="f4")[:, None, None]
    scenes["pa"] += np.linspace(-0.2, 0.2, n, dtype="f4")[:, None]
    return scenes


def test_it_finds_what_forcephos_kernel_finds(whole_patch, scene, packed):
    patch = whole_patch
    found = patch.evaluate(scene, residual=True)
    np.testing.assert_allclose(found.chi2, packed["chi2"], rtol=1e-5)
    slopes = packed["chi2_derivs"]
    limit = 1e-4 * abs(slopes).max(axis=1, keepdims=True)
    assert (abs(found.derivatives - slopes) <= limit).all()
    residual = patch.retrieve("residual")
    limit = 1e-5 * abs(packed["data"]).max()
    np.testing.assert_allclose(residual, packed["residual"], rtol=0, atol=limit)
    np.testing.assert_array_equal(patch.backend.download(found.residual), residual)
    assert (found.chi2.dtype, found.derivatives.dtype) == (np.float64, np.float32)


@pytest.mark.parametrize("psf_per_source", [True, False])
def test_psfs_are_used_as_the_patch_was_packed_unless_told_otherwise(
    stores, patch, sources, backend, scene, psf_per_source
):
    options = {"backend": backend, "psf_per_source": psf_per_source, "margin": None}
    with build_patch(stores, patch.plan, sources, **options) as patch:
        arrays = patch.host_arrays()
        for how in (None, True, False):
            used = psf_per_source if how is None else how
            found = patch.evaluate(scene, psf_per_source=how, residual=True)
            residual = patch.retrieve("residual")
            assert_as_judged(arrays, scene, *found[:2], residual, psf_per_source=used)


def test_a_batch_gives_the_bits_of_single_calls(patch, scene):
    scenes = several(scene, 5)
    together = patch.evaluate(scenes)
    assert together.chi2.shape == (5, 3)
    assert together.derivatives.shape == (5, 3, 3, 7)
    assert together.residual is None
    for k, one in enumerate(scenes):
        alone = patch.evaluate(one)
        np.testing.assert_array_equal(together.chi2[k], alone.chi2)
        np.testing.assert_array_equal(together.derivatives[k], alone.derivatives)
    assert len(set(together.chi2[:, 0])) == 5
    assert patch.evaluate(scenes[:0]).chi2.shape == (0, 3)


@pytest.mark.parametrize("n_src", [1, 5, 40])
def test_it_follows_new_sources_and_swaps(patch, sources, n_src):
    rng = np.random.default_rng(n_src)
    scene = np.zeros(n_src, SOURCE_DTYPE)
    scene["q"], scene["pa"] = rng.uniform(0.5, 1, n_src), rng.uniform(-1, 1, n_src)
    scene["ra"], scene["dec"] = rng.normal(0, 1e-5, (2, n_src))
    scene["fluxes"] = rng.uniform(1, 3, (n_src, 1))
    scene["mixture_amplitudes"] = rng.uniform(0, 0.2, (n_src, 10))
    patch.replace_metadata(np.resize(sources, n_src))
    arrays = patch.host_arrays()
    found = patch.evaluate(scene, residual=True)
    residual = patch.retrieve("residual")
    assert_as_judged(arrays, scene, *found[:2], residual, psf_per_source=False)
    patch.swap()
    arrays = patch.host_arrays()
    np.testing.assert_array_equal(arrays["data"], residual)
    found = patch.evaluate(scene, residual=True)
    residual = patch.retrieve("residual")
    assert_as_judged(arrays, scene, *found[:2], residual, psf_per_source=False)


def test_a_patch_without_sources_leaves_its_data(stores, patch, backend):
    with build_patch(stores, patch.plan, backend=backend) as patch:
        found = patch.evaluate(np.zeros(0, SOURCE_DTYPE), residual=True)
        assert found.chi2.tolist() == [0.0, 0.0, 0.0]
        np.testing.assert_array_equal(patch.retrieve("residual"), patch.retrieve("data"))
        with pytest.raises(LayoutError, match=r"shape \(2,\); the patch has 0 sources"):
            patch.evaluate(np.zeros(2, SOURCE_DTYPE))


# --- residuals -------------------------------------------------------------------------------


def test_residuals_that_nothing_has_written_cannot_become_the_data(patch, scene):
    with pytest.raises(LayoutError, match=r"stale.*nothing has written them"):
        patch.swap()
    patch.evaluate(scene, residual=True)
    patch.evaluate(scene)
    with pytest.raises(LayoutError, match=r"stale.*evaluated without them"):
        patch.swap()
    patch.evaluate(scene, residual=True)
    patch.swap()
    patch.send()
    with pytest.raises(LayoutError, match=r"stale.*nothing has written them"):
        patch.swap()


def test_a_patch_has_room_for_the_residuals_of_one_scene(patch, scene):
    with pytest.raises(LayoutError, match="residuals of 2 scenes were asked for"):
        patch.evaluate(several(scene, 2), residual=True)
    assert patch.evaluate(scene[None], residual=True).chi2.shape == (1, 3)


# --- what cannot be evaluated ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("q", 0.0, "source 1: q 0.0 is not positive"),
        ("q", -0.5, "source 1: q -0.5 is not positive"),
        ("ra", np.nan, "source 1: ra nan is not finite"),
        ("fluxes", np.inf, "source 1: fluxes inf is not finite"),
        ("mixture_amplitudes", np.nan, "source 1: mixture_amplitudes nan is not finite"),
    ],
)
def test_sources_that_cannot_be_are_refused_but_not_in_a_loop(patch, scene, name, value, message):
    bad = several(scene, 3)
    bad[name][2, 1] = value
    with pytest.raises(LayoutError, match=message):
        patch.evaluate(bad[2])
    with pytest.raises(LayoutError, match=f"scene 2: {message}"):
        patch.evaluate(bad)
    found = patch.evaluate_unchecked(bad)
    assert np.isfinite(found.chi2[:2]).all()
    if value != -0.5:  # the density has q squared only
        assert np.isnan(found.chi2[2]).any()


def test_proposals_of_another_kind_are_refused_before_anything_is_computed(
    patch, scene, monkeypatch
):
    monkeypatch.setattr(Patch, "evaluate_unchecked", lambda *_, **__: pytest.fail("computed"))

    def with_fields(**changed: Any) -> Any:
        kinds = {name: scene.dtype[name] for name in scene.dtype.names} | changed
        return np.zeros(3, list(kinds.items()))

    places = {"offsets": [SOURCE_DTYPE.fields[name][1] + 4 for name in SOURCE_DTYPE.names]}
    places |= {"names": SOURCE_DTYPE.names, "itemsize": SOURCE_DTYPE.itemsize + 4}
    places["formats"] = [SOURCE_DTYPE[name] for name in SOURCE_DTYPE.names]
    for proposal, message in (
        (with_fields(q="f8"), "has q as float64 and not as float32; expected fpgpu.layout.SOURCE"),
        (with_fields(fluxes=("f4", 3)), r"has fluxes as \('<f4', \(3,\)\) and not as .*\(30,\)"),
        (with_fields(id="i4"), r"has the fields \('ra', .*'id'\); expected"),
        (np.zeros(3, np.dtype(places)), "has its fields at other places"),
        (np.zeros((3, 66), "f4"), "the proposal is float32; expected"),
        (scene[:2], r"shape \(2,\); the patch has 3 sources"),
        (scene[None, None], r"shape \(1, 1, 3\)"),
    ):  # fmt: skip
        with pytest.raises(LayoutError, match=message):
            patch.evaluate(proposal)


def test_a_patch_without_psfs_takes_no_sources_and_stays_as_it_is(stores, patch, sources, backend):
    without = Stores(stores.pixels, stores.meta, None)
    with pytest.raises(MissingStoreError, match="there are sources but no PSF store"):
        build_patch(without, patch.plan, sources, backend=backend)
    with build_patch(without, patch.plan, backend=backend) as pixels:
        with pytest.raises(MissingStoreError, match="there are sources but no PSF store"):
            pixels.replace_metadata(sources)
        assert pixels.n_sources == 0
        assert not pixels.freed


def test_a_freed_patch_says_so(patch, scene, backend):
    patch.evaluate(scene)
    patch.free()
    assert backend.live_allocations == 0
    with pytest.raises(ReleasedMemoryError, match="was freed"):
        patch.evaluate(scene)
    with pytest.raises(ReleasedMemoryError, match="was freed"):
        patch.evaluate_unchecked(scene[None])
    patch.send()
    assert np.isfinite(patch.evaluate(scene).chi2).all()


# --- from a catalogue ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixture() -> SersicMixture:
    """Shares that are smooth in both parameters."""
    n, r = np.linspace(0.5, 5, 8), np.linspace(0.01, 1, 9)
    width = np.log(RADII + 0.05) - np.log(r[:, None] + 0.05)
    shares = np.exp(-0.5 * (width / (0.5 + 0.2 * n[:, None, None])) ** 2)
    return SersicMixture(n, r, shares / shares.sum(axis=2, keepdims=True), RADII)


@pytest.fixture
def catalog(sources, patch) -> Table:
    table = Table({"ra": sources["ra"], "dec": sources["dec"]})
    table["q"], table["pa"] = [0.8, 0.7, 0.9], [0.1, -0.4, 1.0]
    table["sersic"], table["rhalf"] = [1.5, 2.5, 3.5], [0.1, 0.2, 0.3]
    for k, band in enumerate(patch.bandlist):
        table[band] = [3.0 + k, 2.0, 1.0]
    return table


def test_ln_l_is_minus_half_of_chi_square_and_has_its_gradient(patch, catalog, mixture):
    found = patch.likelihood(catalog, mixture)
    proposal = proposal_from_catalog(catalog, patch.bandlist, mixture, patch.reference)
    assert found.value == -0.5 * patch.evaluate(proposal).chi2.sum()
    assert found.gradient.dtype.names == tuple(catalog.colnames)
    shape = ("ra", "dec", "q", "pa", "sersic", "rhalf")
    steps = (
        dict.fromkeys(shape, 1e-3) | {"ra": 3e-7, "dec": 3e-7} | dict.fromkeys(patch.bandlist, 0.05)
    )
    for name, step in steps.items():
        for source in range(3):
            values = []
            for side in (-1, 1):
                changed = catalog.copy()
                changed[name][source] += side * step
                values.append(patch.likelihood(changed, mixture).value)
            slope = (values[1] - values[0]) / (2 * step)
            largest = abs(found.gradient[name]).max()
            assert abs(found.gradient[name][source] - slope) <= 0.02 * largest + 2e-5 / step


def test_the_likelihood_names_what_does_not_fit(patch, catalog, mixture):
    with pytest.raises(LayoutError, match=r"2 sources were given; the patch has 3: catalog\[patch"):
        patch.likelihood(catalog[:2], mixture)
    with pytest.raises(CatalogError, match="no column 'q'"):
        patch.likelihood(catalog[["ra", "dec"]], mixture)
    other = SersicMixture([1, 2, 3, 4], [1, 2, 3, 4], np.ones((4, 4, 2)), [0.0, 1.0])
    with pytest.raises(LayoutError, match=r"2 radii .* not the 9 that the patch was packed"):
        patch.likelihood(catalog, other)


# --- for other programs ----------------------------------------------------------------------


def test_arrays_are_views_of_the_patch(patch):
    arrays = patch.arrays()
    assert arrays["data"].shape == (patch.plan.n_pixels,)
    for name, array in arrays.items():
        assert patch.backend.address(array) == int(patch.struct[name])


def test_numpy_takes_arrays_by_dlpack_without_a_copy(stores, plan, sources):
    with build_patch(stores, plan, sources, backend=get_backend("cpu")) as patch:
        for name, array in patch.arrays().items():
            taken = np.from_dlpack(array)
            assert np.shares_memory(taken, array), name


def test_the_judge_is_given_host_arrays(patch, scene):
    judged = reference.evaluate(patch.host_arrays(), scene)
    np.testing.assert_allclose(judged.chi2, patch.evaluate(scene).chi2, rtol=1e-5)
