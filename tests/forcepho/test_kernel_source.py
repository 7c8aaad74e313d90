"""forcepho's kernel source made fit for NVRTC, and the launches that are refused; no forcepho."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fpgpu.backends.launches import DeviceLimits
from fpgpu.errors import ForcephoMissingError, KernelCompileError, KernelLaunchError
from fpgpu.forcepho.kernel import SOURCE, kernel_launch, kernel_text, shared_bytes


def patch_of(
    n_sources: int, n_psf: tuple[int, ...] = (36, 54), exposure_N: tuple[int, ...] = (64, 6400)
) -> SimpleNamespace:
    return SimpleNamespace(
        n_sources=n_sources,
        n_bands=len(n_psf),
        n_psf_per_source=np.array(n_psf, np.int32),
        exposure_N=np.array(exposure_N, np.int32),
    )


class TestText:
    def test_headers_of_the_host_have_stand_ins(self, tmp_path: Path) -> None:
        (tmp_path / "header.hh").write_text("#include <cuda.h>\n #include <cstdint>\nint8_t own;\n")
        (tmp_path / SOURCE).write_text('#include "header.hh"\n#include <math.h>\nfloat rest;\n')
        text = kernel_text(tmp_path)
        assert "#include" not in text
        assert text.index("typedef short int16_t;") < text.index("own") < text.index("M_PI")
        assert "float rest;" in text

    def test_the_sizes_of_the_structs_are_asserted(self, tmp_path: Path) -> None:
        (tmp_path / SOURCE).write_text("")
        assert 'static_assert(sizeof(Patch) == 152, "sizeof Patch");' in kernel_text(tmp_path)

    def test_a_folder_without_the_kernel_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ForcephoMissingError, match=r"has no compute_gaussians_kernel\.cu"):
            kernel_text(tmp_path)

    def test_a_header_without_a_stand_in_is_named(self, tmp_path: Path) -> None:
        (tmp_path / SOURCE).write_text("#include <vector>\n")
        with pytest.raises(KernelCompileError, match="needs 'vector'"):
            kernel_text(tmp_path)


class TestLaunch:
    def test_a_block_is_a_band(self) -> None:
        launch = kernel_launch(patch_of(3), 1024, DeviceLimits())
        assert (launch.kernel, launch.grid, launch.block) == (
            "EvaluateProposal",
            (2, 1, 1),
            (1024, 1, 1),
        )

    def test_shared_memory_is_that_of_the_band_with_the_most_gaussians(self) -> None:
        # One accumulator of a double and 7 x 30 floats, and 21 floats for each Gaussian.
        assert shared_bytes(np.array([36, 54], np.int32), 3) == 8 + 7 * 30 * 4 + 21 * 4 * 3 * 54
        assert kernel_launch(patch_of(3), 1024, DeviceLimits()).dynamic_bytes == 14456

    def test_too_many_gaussians_are_refused_with_the_number_of_sources_that_fit(self) -> None:
        with pytest.raises(KernelLaunchError, match="maxactive=10") as refused:
            kernel_launch(patch_of(11), 1024, DeviceLimits(dynamic_shared_bytes=48 << 10))
        assert "11 sources with 54 PSF Gaussians" in str(refused.value)
        assert "48896 are there" in str(refused.value)
        assert kernel_launch(patch_of(10), 1024, DeviceLimits(dynamic_shared_bytes=48 << 10))

    def test_a_device_with_more_shared_memory_takes_more_sources(self) -> None:
        # 227 kB, as an H100 and an H200 have; 99 kB, as those of compute capability 8.6.
        large = DeviceLimits(dynamic_shared_bytes=227 << 10)
        assert kernel_launch(patch_of(30), 1024, large).dynamic_bytes == 848 + 84 * 54 * 30
        with pytest.raises(KernelLaunchError, match=r"101120 are there.*maxactive=22\)"):
            kernel_launch(patch_of(30), 1024, DeviceLimits(dynamic_shared_bytes=99 << 10))

    @pytest.mark.parametrize("n_pixels", [16, 48, 1040])  # odd numbers of 4 x 4 super-pixels
    def test_pixels_that_leave_a_warp_in_part_are_refused(self, n_pixels: int) -> None:
        with pytest.raises(KernelLaunchError, match=f"exposure 1 .* {n_pixels} pixels.*8 x 8"):
            kernel_launch(patch_of(1, exposure_N=(64, n_pixels)), 1024, DeviceLimits())

    @pytest.mark.parametrize("threads", [0, 16, 100])
    def test_half_a_warp_is_refused(self, threads: int) -> None:
        with pytest.raises(KernelLaunchError, match="multiple of 32"):
            kernel_launch(patch_of(1), threads, DeviceLimits())

    def test_too_many_threads_are_refused(self) -> None:
        with pytest.raises(KernelLaunchError, match="2048 threads a block"):
            kernel_launch(patch_of(1), 2048, DeviceLimits())
