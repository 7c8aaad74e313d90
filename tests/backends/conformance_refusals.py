"""What every backend must refuse before a kernel runs; test classes inherit it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fpgpu.backends.arguments import ExposurePlanes, PatchPixels, StagedExposure
from fpgpu.backends.base import Backend
from fpgpu.backends.launches import DeviceLimits
from fpgpu.errors import FpgpuError, KernelLaunchError, LayoutError, UnusableExposureError
from tests.backends.conformance_operations import Guarded

Make = Callable[..., Any]

BAD_IMAGES: dict[str, tuple[Make, type[FpgpuError], str]] = {
    "dtype": (
        lambda b: b.empty((8, 8), "f8"),
        LayoutError,
        "im has dtype float64; expected float32",
    ),
    "foreign": (lambda b: [[1.0]], KernelLaunchError, "im cannot be used by the .* backend"),
    "axes": (lambda b: b.empty((8,), "f4"), LayoutError, r"im has shape \(8,\)"),
    "shape": (lambda b: b.empty((8, 16), "f4"), LayoutError, r"ierr has shape \(8, 8\)"),
    "alignment": (
        lambda b: b.allocate(300).view((8, 8), "f4", 2),
        LayoutError,
        "im begins at address 0x.*, which is no multiple of its item size 4",
    ),
}


class RefusalConformance:
    """Subclasses give the fixture `backend`."""

    @pytest.mark.parametrize("case", BAD_IMAGES)
    def test_unfit_images(self, backend: Backend, case: str) -> None:
        make, kind, message = BAD_IMAGES[case]
        with pytest.raises(kind, match=message):
            backend.superpixelize(make(backend), backend.empty((8, 8), "f4"))

    def test_sizes_that_are_no_whole_number_of_superpixels(self, backend: Backend) -> None:
        im = backend.empty((9, 8), "f4")
        with pytest.raises(LayoutError, match="9 x 8 pixels is no whole number"):
            backend.superpixelize(im, im)

    def test_superpixels_of_another_size(self, backend: Backend) -> None:
        with pytest.raises(LayoutError, match=r"expected \(any, any, 128\)"):
            backend.images_from_superpixels(backend.empty((1, 1, 32), "f4"))

    def test_outputs_that_lie_over_inputs(self, backend: Backend) -> None:
        memory = backend.allocate(4096)
        im, out = memory.view((16, 8), "f4", 512), memory.view((2, 1, 128), "f4", 768)
        with pytest.raises(LayoutError, match="overlap in memory"):
            backend.superpixelize(im, memory.view((16, 8), "f4", 2048), out=out)

    def test_inputs_may_be_the_same_array(self, backend: Backend) -> None:
        im = backend.upload(np.ones((8, 8), "f4"))
        assert (backend.download(backend.superpixelize(im, im)) == 1).all()

    def test_more_exposures_than_a_grid_holds(self, backend: Backend) -> None:
        im = backend.empty((65536, 1, 1), "f4")
        out = Guarded(backend, (65536, 1, 1, 2), "f4", 0)
        message = "65536 blocks along z of its grid; the device allows 65535"
        with pytest.raises(KernelLaunchError, match=message):
            backend.superpixelize(im, im, 1, out=out.array)
        assert out.untouched()

    def test_more_shared_memory_than_a_block_may_have(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(backend, "limits", DeviceLimits(shared_bytes_per_block=16))
        plane = backend.empty((8, 8), "f4")
        with pytest.raises(
            KernelLaunchError, match=r"24 bytes of shared memory a block.*allows 16"
        ):
            backend.calibrate([ExposurePlanes(plane, plane)])

    def test_more_threads_than_a_block_may_have(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(backend, "limits", DeviceLimits(threads_per_block=128))
        plane = backend.empty((8, 8), "f4")
        with pytest.raises(KernelLaunchError, match="256 threads a block; the device allows 128"):
            backend.superpixelize(plane, plane)

    def test_nothing_to_calibrate(self, backend: Backend) -> None:
        with pytest.raises(LayoutError, match="no exposure"):
            backend.calibrate([])

    @pytest.mark.parametrize("name", ["error", "mask", "background", "area"])
    def test_planes_of_another_shape(self, backend: Backend, name: str) -> None:
        plane, other = backend.empty((8, 8), "f4"), backend.empty((8, 16), "f4")
        if name == "mask":
            other = backend.empty((8, 16), "u4")
        planes = {"image": plane, "error": plane, name: other}
        with pytest.raises(LayoutError, match=rf"{name} 0 has shape \(8, 16\); expected \(8, 8\)"):
            backend.calibrate([ExposurePlanes(**planes)])

    def test_masks_that_are_no_flags(self, backend: Backend) -> None:
        plane, mask = backend.empty((8, 8), "f4"), backend.empty((8, 8), "i8")
        with pytest.raises(LayoutError, match="mask 0 has dtype int64; expected bool or"):
            backend.calibrate([ExposurePlanes(plane, plane, mask)])

    def test_masks_of_different_dtypes(self, backend: Backend) -> None:
        plane = backend.empty((8, 8), "f4")
        masks = [backend.empty((8, 8), dtype) for dtype in ("u1", "u2")]
        with pytest.raises(LayoutError, match="uint16, uint8; those of one call must be of one"):
            backend.calibrate([ExposurePlanes(plane, plane, mask) for mask in masks])

    @pytest.mark.parametrize("factor", [0.0, -1.0, np.nan, np.inf, 1e39, 1e-60])
    def test_factors_out_of_range(self, backend: Backend, factor: float) -> None:
        plane = backend.empty((8, 8), "f4")
        with pytest.raises(UnusableExposureError, match="the flux factor of exposure 0"):
            backend.calibrate([ExposurePlanes(plane, plane, factor=factor)])

    @pytest.mark.parametrize(
        ("place", "message"),
        [
            ((-1, 0), r"places\[1, 0\] is -1"),
            ((0, 2**21), rf"places\[1, 1\] is {2**21}; .* below {2**21}"),
            ((2, 0), r"places of exposure 0, \[1, 0\] is 2; .* below 2"),
            ((0, 3), r"places of exposure 0, \[1, 1\] is 3; .* below 3"),
        ],
    )
    @pytest.mark.parametrize("whole", [True, False])
    def test_indices_outside_an_exposure(
        self, backend: Backend, place: tuple[int, int], message: str, whole: bool
    ) -> None:
        places = np.array([(1, 2), place], np.int32)
        superpixels = backend.empty((2, 3, 128) if whole else (2, 128), "f4")
        outputs = [Guarded(backend, (128,), "f4", 0) for _ in range(4)]
        exposure = StagedExposure(superpixels, 2, grid=None if whole else (2, 3))
        with pytest.raises(KernelLaunchError, match=message):
            backend.unpack([exposure], places, PatchPixels(*(o.array for o in outputs)))
        assert all(output.untouched() for output in outputs)

    @pytest.mark.parametrize(
        "places",
        [np.zeros((2, 2), "i8"), np.zeros((2, 3), "i4"), np.zeros((3, 2), "i4"), [[0, 0], [0, 0]]],
        ids=["dtype", "axes", "count", "list"],
    )
    def test_unfit_places(self, backend: Backend, places: Any) -> None:
        pixels = PatchPixels(*(backend.empty((128,), "f4") for _ in range(4)))
        with pytest.raises(LayoutError, match="places"):
            backend.unpack([StagedExposure(backend.empty((2, 128), "f4"), 2)], places, pixels)

    def test_too_few_superpixels_or_pixels(self, backend: Backend) -> None:
        places = np.zeros((2, 2), "i4")
        pixels = PatchPixels(*(backend.empty((128,), "f4") for _ in range(4)))
        with pytest.raises(LayoutError, match=r"superpixels of exposure 0 has shape \(1, 128\)"):
            backend.unpack([StagedExposure(backend.empty((1, 128), "f4"), 2)], places, pixels)
        short = pixels._replace(xpix=backend.empty((64,), "f4"))
        with pytest.raises(LayoutError, match=r"xpix has shape \(64,\); expected \(128\)"):
            backend.unpack([StagedExposure(backend.empty((2, 128), "f4"), 2)], places, short)

    @pytest.mark.parametrize("max_snr", [-1.0, np.nan, np.inf])
    def test_senseless_limits_of_signal_to_noise(self, backend: Backend, max_snr: float) -> None:
        pixels = PatchPixels(*(backend.empty((0,), "f4") for _ in range(4)))
        with pytest.raises(KernelLaunchError, match="max_snr"):
            backend.unpack([], np.empty((0, 2), "i4"), pixels, max_snr=max_snr)
