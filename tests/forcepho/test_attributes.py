"""What a patch holds at each step, beside forcepho's own `JadesPatch` on the same stores."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import tests.forcepho.needs_forcepho  # noqa: F401
from fpgpu.errors import LayoutError, PlanError
from fpgpu.forcepho import CPUPatch
from fpgpu.forcepho.upstream import forcepho_module
from tests.forcepho.jades import JadesPatch

CircularRegion = forcepho_module("region").CircularRegion
write_residuals = forcepho_module("utils").write_residuals

TWEAK = "TWEAKBG"

# How each keeps what it has for itself; what they are asked for is compared.
INTERNAL = {"metastore", "pixelstore", "psfstore", "scene"}


@pytest.fixture
def make(stores, answers, splinedata):
    """Make a patch of a class, with a background offset in the headers of one band."""

    def make(kind: Any, build: bool = True, **options: Any) -> Any:
        options = {"splinedata": splinedata, "spline_smoothing": 0} | options
        patch = kind(**stores, return_residual=True, **options)
        for header in patch.metastore.headers["F200W"].values():
            header[TWEAK] = 0.25
        if build:
            bands = answers["bandlist"].tolist()
            region = CircularRegion(*answers["region"])
            patch.build_patch(region, None, allbands=bands, tweak_background=TWEAK)
        return patch

    return make


def assert_same(name: str, ours: Any, theirs: Any) -> None:
    """Whether two values of an attribute agree in kind and content."""
    if name in {"device_ptrs", "wcses"}:
        assert len(ours) == len(theirs), name
    elif name in {"device_patch", "patch_struct"}:
        assert ours is not None, name
    elif isinstance(theirs, np.ndarray):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype), name
        if theirs.dtype.names:
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
        else:
            atol = {"crpix": 1e-4, "crval": 1e-7, "patch_reference_coordinates": 1e-9}.get(name, 0)
            scale = np.abs(theirs).max() if name in {"D", "CW"} else 0
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol + 1e-6 * scale, err_msg=name)
    else:
        assert ours == theirs, name


def assert_has_all_of(ours: Any, theirs: Any) -> None:
    """Whether all that one patch holds is in another, the same."""
    names = vars(theirs).keys() - INTERNAL
    missing = {name for name in vars(theirs) if not hasattr(ours, name)}
    assert not missing
    assert {"data", "epaths", "background_offsets"} <= names
    for name in names:
        assert_same(name, getattr(ours, name), getattr(theirs, name))


class TestBesideJadesPatch:
    def test_after_making_it(self, make) -> None:
        theirs, ours = make(JadesPatch, build=False), make(CPUPatch, build=False)
        missing = {name for name in vars(theirs) if not hasattr(ours, name)}
        assert not missing
        assert ours.background_offsets is theirs.background_offsets is None

    def test_after_building_it(self, make) -> None:
        ours = make(CPUPatch)
        assert_has_all_of(ours, make(JadesPatch))
        assert set(ours.background_offsets) == {0.0, 0.25}

    def test_after_preparing_a_model(self, make, answers) -> None:
        patches = [make(kind) for kind in (CPUPatch, JadesPatch)]
        for patch in patches:
            patch.prepare_model(active=answers["sourcecat"])
        assert_has_all_of(*patches)

    def test_after_subtracting_sources(self, make, answers) -> None:
        catalog = answers["sourcecat"]
        patches = [make(kind) for kind in (CPUPatch, JadesPatch)]
        original = make(JadesPatch).data
        for patch in patches:
            patch.subtract_fixed(catalog[:2], active=catalog[2:], maxactive=1)
            patch._dirty_data = False
        assert_has_all_of(*patches)
        on_device = [patch.retrieve_array("data") for patch in patches]
        changed = np.abs(on_device[0] - original).max()
        assert changed > 10
        np.testing.assert_allclose(*on_device, rtol=0, atol=1e-5 * changed)

    def test_without_offsets_none_are_told(self, make, answers) -> None:
        patch = make(CPUPatch, build=False)
        for keyword in (False, "", None):
            patch.build_patch(CircularRegion(*answers["region"]), tweak_background=keyword)
            assert patch.background_offsets is None

    def test_the_file_of_residuals_is_the_same(self, make, answers, tmp_path) -> None:
        import h5py

        catalog = answers["sourcecat"]
        contents = []
        for kind in (CPUPatch, JadesPatch):
            patch = make(kind)
            model, q = patch.prepare_model(active=catalog[:2], fixed=catalog[2:])
            path = tmp_path / f"{kind.__name__}.h5"
            write_residuals(patch, path, residuals=model.residuals(q))
            with h5py.File(path) as file:
                found: dict[str, Any] = {}
                file.visititems(
                    lambda name, item, found=found: (
                        found.update({name: item[...]}) if hasattr(item, "shape") else None
                    )
                )
            contents.append(found)
        ours, theirs = contents
        assert ours.keys() == theirs.keys()
        for name, values in theirs.items():
            if values.dtype.kind == "f" and name.rpartition("/")[2] in {"data", "ierr", "xpix"}:
                np.testing.assert_array_equal(ours[name], values, err_msg=name)


class TestChangesByHand:
    """What is changed on the host is sent, as forcepho sends it."""

    @pytest.mark.parametrize("in_place", [True, False])
    @pytest.mark.parametrize("name", ["G", "psfgauss", "crpix", "D", "rad2"])
    def test_packed_arrays(self, make, answers, name: str, in_place: bool) -> None:
        likelihoods = []
        for kind in (CPUPatch, JadesPatch):
            patch = make(kind)
            scene = patch.set_scene(answers["sourcecat"])
            patch.pack_meta(scene)
            values = getattr(patch, name) if in_place else getattr(patch, name).copy()
            if name == "psfgauss":
                values["amp"] *= np.float32(0.5)
            else:
                values *= np.float32(0.9)
            setattr(patch, name, values)
            patch.send_to_device()
            chi2 = patch.get_proposer().evaluate_proposal(scene.get_proposal(), patch=patch)[0]
            likelihoods.append(chi2)
        np.testing.assert_allclose(*likelihoods, rtol=1e-4)
        assert not np.allclose(likelihoods[0], answers["chi2"], rtol=1e-3)

    def test_pixels(self, make, answers) -> None:
        likelihoods = []
        for kind in (CPUPatch, JadesPatch):
            patch = make(kind)
            patch.ierr[::2] = 0
            patch.data = patch.data - np.float32(1.0)
            model, q = patch.prepare_model(active=answers["sourcecat"])
            likelihoods.append(model.lnprob(q))
        assert likelihoods[0] == pytest.approx(likelihoods[1], rel=1e-5)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("G", 2.0), ("G", np.ones(2)), ("D", np.ones((1, 2))), ("psfgauss_start", [0.5])],
    )
    def test_what_does_not_fit_is_refused(self, make, answers, name: str, value: Any) -> None:
        patch = make(CPUPatch)
        patch.pack_meta(patch.set_scene(answers["sourcecat"]))
        setattr(patch, name, value)
        with pytest.raises(LayoutError, match=f"{name} is"):
            patch.send_to_device()

    def test_what_would_let_a_kernel_read_beyond_is_refused(self, make, answers) -> None:
        patch = make(CPUPatch)
        patch.pack_meta(patch.set_scene(answers["sourcecat"]))
        patch.exposure_N[0] += 64
        with pytest.raises(LayoutError, match="override find_exposures"):
            patch.send_to_device()
        patch.exposure_N[0] -= 64
        patch.n_psf_per_source = patch.n_psf_per_source + 1
        with pytest.raises(LayoutError, match="n_psf_per_source"):
            patch.send_to_device()
        patch.n_psf_per_source -= 1
        patch.data = patch.data[1:]
        with pytest.raises(LayoutError, match="data is float32"):
            patch.send_to_device()


def halved(base: Any) -> Any:
    """A class whose calibration is its own."""

    class Halved(base):
        def _pack_fluxcal(self, hdrs: Any, **options: Any) -> None:
            super()._pack_fluxcal(hdrs, **options)
            self.G *= np.array([0.5 if hdr["FILTER"] == "F200W" else 1.0 for hdr in hdrs], "f4")

    return Halved


def wider(base: Any) -> Any:
    """A class whose PSFs are its own."""

    class Wider(base):
        def _pack_psf(self, bands: Any, wcses: Any, scene: Any, **options: Any) -> None:
            super()._pack_psf(bands, wcses, scene, **options)
            self.psfgauss["Cxx"] += np.float32(0.5)

    return Wider


def shifted(base: Any) -> Any:
    """A class whose astrometry is its own."""

    class Shifted(base):
        def _pack_astrometry(self, wcses: Any, scene: Any, **options: Any) -> None:
            super()._pack_astrometry(wcses, scene, **options)
            self.crpix += np.float32(0.25)

    return Shifted


def last_two(base: Any) -> Any:
    """A class that takes two exposures only, in another order."""

    class LastTwo(base):
        def find_exposures(self, region: Any, bandlist: Any) -> Any:
            return tuple(list(found)[:-3:-1] for found in super().find_exposures(region, bandlist))

    return LastTwo


def masked(base: Any) -> Any:
    """A class that masks pixels of its own choice."""

    class Masked(base):
        def find_pixels(self, epath: str, wcs: Any, region: Any) -> Any:
            data, ierr, xpix, ypix = super().find_pixels(epath, wcs, region)
            return data * 2, np.where((xpix + ypix) % 3 == 0, 0, ierr), xpix, ypix

    return Masked


def brighter(base: Any) -> Any:
    """A class that changes pixels after packing."""

    class Brighter(base):
        def pack_pix(self, region: Any, dtype: Any = None) -> None:
            super().pack_pix(region, dtype)
            self.data *= np.float32(1.5)

    return Brighter


def fixed_zero(base: Any) -> Any:
    """A class whose positions are relative to a place of its own choice."""

    class FixedZero(base):
        def zerocoords(self, scene: Any, sky_zero: Any = None) -> Any:
            return super().zerocoords(scene, (53.1605, -27.7895))

    return FixedZero


def own_zero(base: Any) -> Any:
    """The same in its own words, which are forcepho's."""

    class OwnZero(base):
        def zerocoords(self, scene: Any, sky_zero: Any = None) -> Any:
            for source in scene.sources:
                source.ra, source.dec = source.ra - 53.1605, source.dec + 27.7895
            self.patch_reference_coordinates = np.array([53.1605, -27.7895])
            return self.patch_reference_coordinates

    return OwnZero


class TestSubclasses:
    @pytest.mark.parametrize("derive", [halved, wider, shifted, last_two, masked, brighter])
    def test_what_a_subclass_overrides_counts(self, make, answers, derive: Any) -> None:
        patches, likelihoods = [], []
        for kind in (CPUPatch, JadesPatch):
            patch = make(derive(kind))
            model, q = patch.prepare_model(active=answers["sourcecat"])
            likelihoods.append(model.lnprob(q))
            patches.append(patch)
        assert likelihoods[0] == pytest.approx(likelihoods[1], rel=1e-5)
        assert_has_all_of(*patches)
        plain, q = make(CPUPatch).prepare_model(active=answers["sourcecat"])
        assert plain.lnprob(q) != pytest.approx(likelihoods[0], rel=1e-5)

    @pytest.mark.parametrize("derive", [fixed_zero, own_zero])
    def test_another_reference_counts(self, make, answers, derive: Any) -> None:
        patches = []
        for kind in (CPUPatch, JadesPatch):
            patch = make(derive(kind))
            patch.prepare_model(active=answers["sourcecat"])
            patches.append(patch)
        assert_has_all_of(*patches)
        ours, theirs = patches
        assert ours.patch_reference_coordinates.tolist() == [53.1605, -27.7895]
        ours.pack_meta(ours.scene)
        np.testing.assert_allclose(ours.crval, theirs.crval, rtol=0, atol=1e-7)

    def test_a_method_put_on_the_object_counts(self, make, answers) -> None:
        patch = make(CPUPatch)

        def fluxcal(hdrs: Any) -> None:
            patch.G = np.full(len(hdrs), 3.0)

        patch._pack_fluxcal = fluxcal
        patch.prepare_model(active=answers["sourcecat"])
        np.testing.assert_array_equal(patch.retrieve_array("G"), np.full(patch.n_exp, 3.0, "f4"))

    def test_signal_to_noise_is_capped_after_a_subclass(self, make, answers) -> None:
        patch = make(masked(CPUPatch), build=False)
        patch.max_snr = 3.0
        patch.build_patch(CircularRegion(*answers["region"]))
        assert (patch.data * patch.ierr).max() == pytest.approx(3.0, rel=1e-6)

    def test_exposures_that_cannot_be_taken_are_refused(self, make, answers) -> None:
        class Elsewhere(CPUPatch):
            found: Any = None

            def find_exposures(self, region: Any, bandlist: Any) -> Any:
                hdrs, wcses, epaths, bands = super().find_exposures(region, bandlist)
                return self.found(hdrs, wcses, epaths, bands)

        patch = make(Elsewhere, build=False)
        region = CircularRegion(*answers["region"])
        for found, message in (
            (lambda h, w, e, b: (h[:1], w[:1], ["F200W/elsewhere"], b[:1]), "no super-pixel"),
            (lambda h, w, e, b: (h, [copy.copy(wcs) for wcs in w], e, b), r"metastore\.wcs"),
            (lambda h, w, e, b: (h[::-1], w[::-1], e[::-1], b[::-1]), "the bands in the order"),
        ):
            patch.found = found
            with pytest.raises(PlanError, match=message):
                patch.build_patch(region)

    def test_another_number_of_pixels_is_refused(self, make) -> None:
        class Fewer(CPUPatch):
            def find_pixels(self, epath: str, wcs: Any, region: Any) -> Any:
                return tuple(values[1:] for values in super().find_pixels(epath, wcs, region))

        with pytest.raises(PlanError, match="an ierr of 0"):
            make(Fewer)

    def test_packing_pixels_all_by_oneself_is_refused(self, make) -> None:
        class Own(CPUPatch):
            def pack_pix(self, region: Any, dtype: Any = None) -> None:
                self.data = np.zeros(64)

        with pytest.raises(PlanError, match=r"super\(\)\.pack_pix"):
            make(Own)


class TestScenes:
    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
    def test_a_copy_of_a_scene_becomes_absolute_again(self, make, answers, copied: Any) -> None:
        catalog = answers["sourcecat"]
        patch = make(CPUPatch)
        scene = patch.set_scene(catalog)
        patch.pack_meta(scene)
        other = copied(scene)
        for found in (patch.unzerocoords(other), patch.unzerocoords(scene)):
            for name in ("ra", "dec"):
                values = [getattr(source, name) for source in found.sources]
                np.testing.assert_allclose(values, catalog[name], rtol=0, atol=1e-12)

    def test_a_scene_made_of_relative_positions_becomes_absolute_as_with_forcepho(
        self, make, answers
    ) -> None:
        catalog = answers["sourcecat"]
        found = []
        for kind in (CPUPatch, JadesPatch):
            patch = make(kind)
            patch.prepare_model(active=catalog)
            relative = patch.scene.get_all_source_params()
            fresh = patch.set_scene(catalog)
            fresh.set_all_source_params(relative)
            found.append([source.ra for source in patch.unzerocoords(fresh).sources])
        np.testing.assert_allclose(*found, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found[0], catalog["ra"], rtol=0, atol=1e-12)


class TestPickle:
    def test_a_patch_that_was_not_built(self, make, answers) -> None:
        patch = pickle.loads(pickle.dumps(make(CPUPatch, build=False)))
        patch.build_patch(CircularRegion(*answers["region"]), tweak_background=TWEAK)
        assert set(patch.background_offsets) == {0.0, 0.25}

    def test_a_patch_with_all_that_is_in_it(self, make, answers) -> None:
        patch = make(CPUPatch)
        patch.ierr[::2] = 0
        model, q = patch.prepare_model(active=answers["sourcecat"])
        expected = model.lnprob(q)
        for other in (pickle.loads(pickle.dumps(patch)), copy.copy(patch)):
            assert other.device_patch is None
            for name in ("data", "ierr", "xpix", "ypix", "G", "psfgauss", "exposure_N"):
                np.testing.assert_array_equal(getattr(other, name), getattr(patch, name))
            other.send_to_device()
            proposal = other.scene.get_proposal()
            chi2 = other.get_proposer().evaluate_proposal(proposal, patch=other)[0]
            assert -0.5 * chi2.sum() == pytest.approx(expected, rel=1e-6)


def test_pixels_outlive_the_memory_of_the_device(make, answers) -> None:
    patch = make(CPUPatch)
    patch.prepare_model(active=answers["sourcecat"][:1], fixed=answers["sourcecat"][1:])
    kept = patch.data
    patch.free()
    theirs = make(JadesPatch)
    assert patch.data is kept
    for name in ("data", "ierr", "xpix", "ypix"):
        np.testing.assert_array_equal(getattr(patch, name), getattr(theirs, name))
    assert patch.backend.memory_state().resident == 0
    with pytest.raises(AttributeError, match="no patch was built"):
        _ = make(CPUPatch, build=False).data
