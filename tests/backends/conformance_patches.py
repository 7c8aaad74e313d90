"""What every backend must do with the arena of a patch; test classes inherit it."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fpgpu.backends import reference
from fpgpu.backends.arena import Arena, ArenaLayout
from fpgpu.backends.base import Backend
from fpgpu.errors import DeviceMemoryError, KernelLaunchError, LayoutError, ReleasedMemoryError
from fpgpu.layout import PATCH_ARRAYS, PATCH_DTYPE
from tests.backends.conformance_memory import some_bytes

# Two bands of 2 and 1 exposures, with 4 and 3 PSF Gaussians a source.
LAYOUT = ArenaLayout(n_pixels=320, n_exp=3, n_bands=2, n_src=2, n_radii=9, n_psf=2 * 2 * 4 + 2 * 3)
TABLES: dict[str, list[int]] = {
    "exposure_start": [0, 64, 192],
    "exposure_N": [64, 128, 128],
    "band_start": [0, 2],
    "band_N": [2, 1],
    "n_psf_per_source": [4, 3],
    "psfgauss_start": [0, 8, 16],
}


def fill(views: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Fill the views of a staging buffer and return copies of what they hold."""
    for seed, (name, view) in enumerate(views.items()):
        view[...] = TABLES[name] if name in TABLES else some_bytes(view.shape, view.dtype, seed)
    return {name: view.copy() for name, view in views.items()}


class PatchConformance:
    """Subclasses give the fixture `backend`."""

    def test_a_kernel_sees_every_field_of_an_uploaded_patch(self, backend: Backend) -> None:
        with Arena(backend, LAYOUT) as arena:
            slot = backend.stage(LAYOUT.upload_bytes)
            arrays = fill(LAYOUT.views(slot))
            arena.upload(slot)
            arrays["residual"] = some_bytes((320,), "f4", 77)
            backend.upload(arrays["residual"], out=arena.section("residual"))
            seen = backend.check_layout(arena.pointer, LAYOUT.n_bands)
            expected = reference.check_layout(arena.struct, arrays)
        assert dict(zip(PATCH_DTYPE.names, seen.tolist(), strict=True)) == dict(
            zip(PATCH_DTYPE.names, expected.tolist(), strict=True)
        )

    def test_the_residual_may_be_left_out(self, backend: Backend) -> None:
        layout = ArenaLayout(320, 3, 2, 2, 9, LAYOUT.n_psf, residual=False)
        with Arena(backend, layout) as arena:
            slot = backend.stage(layout.upload_bytes)
            fill(layout.views(slot))
            arena.upload(slot)
            seen = backend.check_layout(arena.pointer, layout.n_bands)
        residual = seen[PATCH_DTYPE.names.index("residual")]
        assert (residual["value"], residual["count"]) == (0, 0)

    def test_arrays_come_back_as_they_were(self, backend: Backend) -> None:
        with Arena(backend, LAYOUT) as arena:
            host = np.empty(LAYOUT.upload_bytes, np.uint8)
            arrays = fill(LAYOUT.views(host))
            arena.upload(host)
            for name, array in arrays.items():
                found = arena.download(name)
                assert found.dtype == PATCH_ARRAYS[name]
                assert found.tobytes() == array.tobytes()

    def test_metadata_can_be_replaced_without_the_pixels(self, backend: Backend) -> None:
        with Arena(backend, LAYOUT) as arena:
            slot = backend.stage(LAYOUT.upload_bytes)
            before = fill(LAYOUT.views(slot))
            arena.upload(slot)
            slot = backend.stage(LAYOUT.meta_bytes)
            views = LAYOUT.views(slot)
            assert "data" not in views
            fill(views)
            views["D"][...] = 5
            arena.upload(slot)
            assert (arena.download("D") == 5).all()
            assert arena.download("data").tobytes() == before["data"].tobytes()

    def test_an_upload_waits_for_the_kernels_that_write_the_arena(self, backend: Backend) -> None:
        superpixels = backend.upload(np.zeros((1, 5, 128), "f4"))
        with Arena(backend, LAYOUT) as arena:
            planes = arena.section("xpix").reshape(8, 40), arena.section("ypix").reshape(8, 40)
            backend.images_from_superpixels(superpixels, out=planes)
            slot = backend.stage(LAYOUT.upload_bytes)
            arrays = fill(LAYOUT.views(slot))
            arena.upload(slot)
            assert arena.download("xpix").tobytes() == arrays["xpix"].tobytes()

    def test_the_struct_can_be_sent_alone(self, backend: Backend) -> None:
        with Arena(backend, LAYOUT) as arena:
            arena.upload_struct()
            for name, array in TABLES.items():
                values = np.array(array, PATCH_ARRAYS[name])
                backend.upload(values, out=arena.section(name))
            seen = backend.check_layout(arena.pointer, LAYOUT.n_bands)
        assert seen["count"][PATCH_DTYPE.names.index("psfgauss")] == LAYOUT.n_psf

    @pytest.mark.parametrize("n_bytes", [0, LAYOUT.meta_bytes - 1, LAYOUT.upload_bytes + 256])
    def test_a_buffer_of_another_size_is_refused(self, backend: Backend, n_bytes: int) -> None:
        with Arena(backend, LAYOUT) as arena, pytest.raises(LayoutError, match="expected"):
            arena.upload(np.zeros(n_bytes, np.uint8))

    def test_a_patch_without_anything_has_an_address(self, backend: Backend) -> None:
        layout = ArenaLayout(0, 0, 0, 0, 0, 0)
        with Arena(backend, layout) as arena:
            arena.upload(np.empty(layout.upload_bytes, np.uint8))
            assert arena.pointer > 0
            assert set(arena.struct.tolist()) == {0}
            assert arena.download("data").shape == (0,)

    def test_use_after_free_is_an_error(self, backend: Backend) -> None:
        arena = Arena(backend, LAYOUT)
        arena.free()
        arena.free()
        assert arena.freed
        uses = [
            lambda: arena.pointer,
            lambda: arena.struct,
            lambda: arena.section("data"),
            lambda: arena.pixels,
            lambda: arena.download("data"),
            lambda: arena.upload(np.empty(LAYOUT.meta_bytes, np.uint8)),
            lambda: arena.upload_struct(),
        ]
        for use in uses:
            with pytest.raises(ReleasedMemoryError, match="freed"):
                use()
        assert "freed" in repr(arena)

    def test_an_unknown_array_is_named(self, backend: Backend) -> None:
        with Arena(backend, LAYOUT) as arena, pytest.raises(LayoutError, match="no array 'flux'"):
            arena.section("flux")

    def test_a_patch_too_large_for_the_device_is_refused(self, backend: Backend) -> None:
        huge = ArenaLayout(2**31 - 1, 1, 1, 1, 1, 2**31 - 1)
        held = []
        with pytest.raises(DeviceMemoryError, match=f"{huge.total_bytes:,} bytes"):
            # More than one, as the host lends address space that it does not have.
            held.extend(Arena(backend, huge) for _ in range(100_000))
        held.clear()
        Arena(backend, LAYOUT).free()

    @pytest.mark.parametrize("pointer", [0, -8, 4])
    def test_an_impossible_address_is_refused(self, backend: Backend, pointer: int) -> None:
        with pytest.raises(KernelLaunchError, match="a Patch cannot be at"):
            backend.check_layout(pointer, 1)

    @pytest.mark.parametrize("n_bands", [0, 31])
    def test_an_impossible_number_of_bands_is_refused(self, backend: Backend, n_bands: int) -> None:
        with pytest.raises(KernelLaunchError, match="MAXBANDS allows 1 to 30"):
            backend.check_layout(256, n_bands)
