"""What a fit loop asks of a patch: by forcepho's names, with fpgpu's stores; without forcepho."""

import ctypes
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fpgpu.errors import (
    ForcephoMissingError,
    FpgpuError,
    LayoutError,
    MissingStoreError,
    PlanError,
    RegionError,
    ReleasedMemoryError,
)
from fpgpu.forcepho.packing import StorePatch
from fpgpu.forcepho.upstream import forcepho_module
from fpgpu.layout import PATCH_ARRAYS, PATCH_DTYPE
from fpgpu.sky.regions import CircularRegion, PolygonRegion, RectangularRegion, as_region
from tests.forcepho.scenes import Scene


class ScenePatch(StorePatch):
    def set_scene(self, catalog: Any) -> Scene:
        return Scene(catalog)


@pytest.fixture
def patch(stores, answers, request_of):
    patch = ScenePatch(**stores)
    patch.build_patch(CircularRegion(*answers["region"]), **request_of)
    yield patch
    patch.free()


def test_bands_that_the_store_lacks_are_passed_over_as_in_forcepho(stores, answers) -> None:
    # Its default is all bands of JWST, of which no survey has every one.
    bands = ["F070W", *answers["bandlist"].tolist(), "F480M"]
    patch = ScenePatch(**stores)
    patch.build_patch(CircularRegion(*answers["region"]), allbands=bands)
    assert patch.bandlist == answers["bandlist"].tolist()
    assert [bands[number] for number in patch.uniq_bands] == patch.bandlist
    patch.free()


def at_address(patch: StorePatch, name: str, count: int) -> Any:
    """What a kernel finds behind a pointer of the struct."""
    dtype = PATCH_ARRAYS[name]
    struct = (ctypes.c_char * PATCH_DTYPE.itemsize).from_address(int(patch.device_patch))
    address = int(np.frombuffer(struct, PATCH_DTYPE)[0][name])
    assert address == patch.device_ptrs[name]
    memory = (ctypes.c_char * (count * dtype.itemsize)).from_address(address)
    return np.frombuffer(memory, dtype).copy()


class TestWithoutForcepho:
    def test_importing_fpgpu_forcepho_does_not_import_forcepho(self) -> None:
        code = (
            "import fpgpu.forcepho, fpgpu.forcepho.packing, sys; print('forcepho' in sys.modules)"
        )
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert found.stdout.strip() == "False", found.stderr

    @pytest.mark.parametrize("name", ["CPUPatch", "GPUPatch", "GPUProposer"])
    def test_the_message_says_how_to_get_it(self, name: str) -> None:
        code = (
            "import sys; sys.modules['forcepho'] = None\n"
            "from fpgpu.errors import ForcephoMissingError\n"
            f"try:\n    from fpgpu.forcepho import {name}\n"
            "except ForcephoMissingError as error:\n    print(error)"
        )
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "not installed" in found.stdout, found.stderr
        assert "pip install git+https://github.com/bd-j/forcepho" in found.stdout

    def test_the_error_is_an_import_error(self) -> None:
        assert issubclass(ForcephoMissingError, FpgpuError)
        assert issubclass(ForcephoMissingError, ImportError)

    def test_a_dependency_of_forcepho_that_is_missing_is_named(self, monkeypatch) -> None:
        package = SimpleNamespace(__path__=[], __spec__=None)
        monkeypatch.setitem(sys.modules, "forcepho", package)
        monkeypatch.setitem(sys.modules, "forcepho.src", package)
        kernel = "forcepho.src.compute_gaussians_kernel"
        monkeypatch.setitem(sys.modules, kernel, None)
        with pytest.raises(ForcephoMissingError, match="without its compiled CPU kernel"):
            forcepho_module("src.compute_gaussians_kernel")
        monkeypatch.setitem(sys.modules, "forcepho.model", None)
        with pytest.raises(ForcephoMissingError, match=r"forcepho.model cannot be imported"):
            forcepho_module("model")


class TestPacking:
    def test_it_holds_what_forcepho_packs(self, patch, answers) -> None:
        for name in ("data", "ierr", "xpix", "ypix", "rad2", "G", "crval", "psfgauss"):
            found = getattr(patch, name)
            np.testing.assert_array_equal(found, answers[name])
            assert found.dtype == answers[name].dtype
        for name in ("exposure_start", "exposure_N", "band_start", "band_N", "psfgauss_start"):
            np.testing.assert_array_equal(getattr(patch, name), answers[name])
            assert getattr(patch, name).dtype == answers[name].dtype
        np.testing.assert_allclose(patch.crpix, answers["crpix"], rtol=0, atol=1e-4)
        for name in ("D", "CW"):
            scale = np.abs(answers[name]).max()
            np.testing.assert_allclose(getattr(patch, name), answers[name], atol=1e-6 * scale)

    def test_it_tells_what_forcepho_tells(self, patch, answers) -> None:
        for name in ("bandlist", "bands", "epaths"):
            assert getattr(patch, name) == answers[name].tolist()
        for name in ("n_sources", "n_radii", "n_bands", "n_exp"):
            assert getattr(patch, name) == answers[name]
        for name in ("band_N_pix", "n_exp_per_band", "uniq_bands"):
            np.testing.assert_array_equal(getattr(patch, name), answers[name])
        reference = answers["patch_reference_coordinates"]
        np.testing.assert_array_equal(patch.patch_reference_coordinates, reference)
        assert patch.npix == len(answers["data"])
        assert patch.size > 5 * 4 * patch.npix
        assert [hdr["FILTER"] for hdr in patch.hdrs] == patch.bands
        assert len(patch.wcses) == patch.n_exp

    def test_packing_a_scene_twice_changes_nothing(self, patch) -> None:
        before = {name: getattr(patch, name).copy() for name in ("crval", "crpix", "D", "CW")}
        offsets = [(source.ra, source.dec) for source in patch.scene.sources]
        patch.pack_meta(patch.scene)
        for name, values in before.items():
            np.testing.assert_array_equal(getattr(patch, name), values)
        again = [(source.ra, source.dec) for source in patch.scene.sources]
        np.testing.assert_allclose(again, offsets, rtol=0, atol=1e-12)

    def test_positions_become_absolute_again(self, patch, answers) -> None:
        patch.pack_meta(Scene(answers["sourcecat"][:1]))
        scene = Scene(answers["sourcecat"])
        patch.pack_meta(scene)
        patch.pack_meta(Scene(answers["sourcecat"][1:]))  # another reference in the meantime
        sources = patch.unzerocoords(scene).sources
        np.testing.assert_allclose(
            [source.ra for source in sources], answers["sourcecat"]["ra"], rtol=0, atol=1e-12
        )
        patch.unzerocoords(scene)
        assert sources[0].dec == pytest.approx(answers["sourcecat"]["dec"][0], abs=1e-12)

    def test_a_scene_over_the_prime_meridian_has_small_offsets(self, patch) -> None:
        scene = Scene(np.array([(359.999, 1.0), (0.001, 1.0)], [("ra", "f8"), ("dec", "f8")]))
        patch.zerocoords(scene, (0.0005, 1.0))
        offsets = [source.ra for source in scene.sources]
        np.testing.assert_allclose(offsets, [-0.0015, 0.0005], rtol=0, atol=1e-12)
        absolute = [source.ra for source in patch.unzerocoords(scene).sources]
        np.testing.assert_allclose(absolute, [359.999, 0.001], rtol=0, atol=1e-12)

    def test_background_and_cap_of_the_signal_to_noise(self, stores, answers) -> None:
        capped = ScenePatch(**stores)
        capped.max_snr = 3.0
        capped.build_patch(CircularRegion(*answers["region"]), tweak_background="NO_SUCH_KEY")
        np.testing.assert_array_equal(capped.data, answers["data"])
        assert (answers["data"] * answers["ierr"]).max() > 4.0
        assert (capped.data * capped.ierr).max() == pytest.approx(3.0, rel=1e-6)
        capped.free()


class TestDevice:
    def test_a_kernel_finds_every_array_behind_the_struct(self, patch, answers) -> None:
        patch.send_to_device()
        patch.retrieve_array("data")
        for name in PATCH_ARRAYS:
            if name != "residual":
                expected = getattr(patch, name).ravel()
                np.testing.assert_array_equal(at_address(patch, name, expected.size), expected)
        assert patch.patch_struct["n_sources"] == answers["n_sources"]
        assert patch.patch_struct["n_radii"] == answers["n_radii"]

    def test_a_swap_makes_the_residual_the_data_and_sends_new_sources(self, patch, answers) -> None:
        patch.send_to_device()
        before = dict(patch.device_ptrs)
        residual = (ctypes.c_float * patch.npix).from_address(before["residual"])
        np.frombuffer(residual, "f4")[:] = 7.0
        patch.pack_meta(Scene(answers["sourcecat"][:2]))
        patch.swap_on_device()
        assert patch.device_ptrs["data"] == before["residual"]
        assert patch.device_ptrs["residual"] == before["data"]
        assert (patch.retrieve_array("data") == 7.0).all()
        assert (at_address(patch, "data", patch.npix) == 7.0).all()
        assert patch.patch_struct["n_sources"] == 2
        np.testing.assert_array_equal(at_address(patch, "crval", 24), patch.crval.ravel())

    def test_sending_again_after_swaps_brings_the_data_back(self, patch, answers) -> None:
        patch.send_to_device()
        for _ in range(2):
            residual = (ctypes.c_float * patch.npix).from_address(patch.device_ptrs["residual"])
            np.frombuffer(residual, "f4")[:] = 7.0
            patch.swap_on_device()
        assert (patch.retrieve_array("data") == 7.0).all()
        patch.send_to_device()
        np.testing.assert_array_equal(patch.retrieve_array("data"), answers["data"])

    def test_replacing_sources_leaves_the_pixels_alone(self, patch, answers) -> None:
        patch.send_to_device()
        data = patch.device_ptrs["data"]
        patch.pack_meta(Scene(answers["sourcecat"][:1]))
        patch.replace_device_meta_ptrs()
        patch.send_patchstruct_to_device()
        assert patch.device_ptrs["data"] == data
        np.testing.assert_array_equal(at_address(patch, "D", 24), patch.D.ravel())

    def test_freed_it_holds_nothing_and_can_be_sent_again(self, patch, answers) -> None:
        patch.send_to_device()
        patch.free()
        assert patch.device_patch is None
        assert not patch.device_ptrs
        assert patch.backend.memory_state().resident == 0
        with pytest.raises(ReleasedMemoryError, match="was freed"):
            patch.retrieve_array("data")
        patch.send_to_device()
        np.testing.assert_array_equal(patch.retrieve_array("data"), answers["data"])

    def test_building_another_patch_frees_the_first(self, patch, answers, request_of) -> None:
        resident = patch.backend.memory_state().resident
        patch.build_patch(CircularRegion(*answers["region"]), **request_of)
        assert patch.backend.memory_state().resident == resident

    def test_the_struct_and_its_parts_have_forcephos_names(self) -> None:
        assert set(StorePatch.meta_names) <= set(PATCH_DTYPE.names)
        assert {"data", "ierr", "band_N", "exposure_N"}.isdisjoint(StorePatch.meta_names)
        assert StorePatch.patch_struct_dtype.itemsize == 152


class TestRefusals:
    def test_sending_before_building_says_what_to_call(self, stores) -> None:
        patch = ScenePatch(**stores)
        for call in (patch.send_to_device, patch.swap_on_device, patch.replace_device_meta_ptrs):
            with pytest.raises(PlanError, match="call build_patch"):
                call()
        assert (patch.npix, patch.size) == (0, 0)

    def test_sending_without_sources_says_what_to_call(self, stores, answers) -> None:
        patch = ScenePatch(**stores)
        patch.build_patch(CircularRegion(*answers["region"]))
        with pytest.raises(PlanError, match="call pack_meta"):
            patch.send_to_device()
        patch.free()

    def test_a_region_without_exposures_is_refused(self, stores) -> None:
        with pytest.raises(ValueError, match="no exposure is in it"):
            ScenePatch(**stores).build_patch(CircularRegion(10.0, 10.0, 1e-3))

    def test_other_floats_than_the_structs_are_refused(self, stores) -> None:
        with pytest.raises(LayoutError, match="pix_dtype is float64"):
            ScenePatch(**stores, pix_dtype=np.float64)

    def test_a_store_that_is_not_there_is_refused(self, stores) -> None:
        with pytest.raises(MissingStoreError, match=r"no_such.json"):
            ScenePatch(**stores | {"metastore": "no_such.json"})


class TestRegions:
    def test_regions_of_forcepho_are_taken_by_their_attributes(self) -> None:
        circle = SimpleNamespace(ra=1.0, dec=2.0, radius=0.1, shape="CircularRegion")
        assert as_region(circle) == CircularRegion(1.0, 2.0, 0.1)
        rectangle = SimpleNamespace(ra_min=1.0, ra_max=2.0, dec_min=3.0, dec_max=4.0)
        assert as_region(rectangle) == RectangularRegion(1.0, 2.0, 3.0, 4.0)

    def test_regions_of_fpgpu_are_taken_as_they_are(self) -> None:
        triangle = PolygonRegion([1.0, 2.0, 1.5], [3.0, 3.0, 4.0])
        assert as_region(triangle) is triangle

    def test_anything_else_is_refused(self) -> None:
        with pytest.raises(RegionError, match="None is no region"):
            as_region(None)
