"""forcepho's CUDA kernel on patches of fpgpu: machine code for every GPU, and run on the CPU."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tests.forcepho.needs_forcepho  # noqa: F401
from fpgpu.backends.choose import get_backend
from fpgpu.backends.nvrtc import load_nvrtc
from fpgpu.errors import (
    BackendUnavailableError,
    KernelCompileError,
    KernelLaunchError,
    LayoutError,
)
from fpgpu.forcepho import CPUPatch, GPUPatch, GPUProposer
from fpgpu.forcepho.kernel import KERNEL, OPTIONS, SOURCE, kernel_text
from fpgpu.forcepho.upstream import forcepho_module, source_folder
from fpgpu.stores.pixel import PixelStore
from tests.backends import standin_cupy
from tests.forcepho.jades import JadesPatch
from tests.forcepho.test_attributes import assert_has_all_of
from tests.kernels.compiled import known_architectures
from tests.kernels.host_kernels import HostKernels, has_compiler
from tests.stores.imagesets import golden_set

CircularRegion = forcepho_module("region").CircularRegion

# What CUDA has and host.hh has not: one warp, whose lanes exchange values at a barrier.
HOST_CUDA = """
#include <math.h>
#include <stdio.h>
#pragma GCC diagnostic ignored "-Wcomment"
static const int warpSize = 32;
template <class T> T __shfl_down_sync(unsigned, T value, int by) {
    static T lanes[32];
    const unsigned lane = threadIdx.x;
    lanes[lane] = value;
    __syncthreads();
    const T found = lane + by < 32 ? lanes[lane + by] : value;
    __syncthreads();
    return found;
}
template <class T> T atomicAdd(T* at, T value) { const T old = *at; *at += value; return old; }
"""


def compile_for(text: str, arch: int) -> Any:
    options = (f"--gpu-architecture=sm_{arch}", *OPTIONS)
    return load_nvrtc().compile(SOURCE, text, {}, options)


class TestMachineCode:
    @pytest.mark.parametrize("arch", known_architectures())
    def test_the_installed_kernel_compiles_for_every_architecture(self, arch: int) -> None:
        program = compile_for(kernel_text(source_folder()), arch)
        assert program.cubin[:4] == b"\x7fELF"
        assert f".entry {KERNEL}(" in program.ptx

    @pytest.mark.parametrize(
        ("struct", "field"),
        [
            ("Patch", "PixFloat *data;"),
            ("PSFSourceGaussian", "float amp;\n    float xcen,ycen;"),
            ("Source", "float ra,dec;"),
        ],
    )
    def test_a_struct_with_another_field_does_not_compile(self, struct: str, field: str) -> None:
        text = kernel_text(source_folder())
        assert field in text
        changed = text.replace(field, f"double more; {field}", 1)
        with pytest.raises(KernelCompileError, match=f"sizeof {struct}"):
            compile_for(changed, 90)


class HostModule(standin_cupy.Module):
    """A source whose kernels run on the CPU, forcepho's among them."""

    kernels: HostKernels

    def get_function(self, name: str) -> Any:
        if name != KERNEL:
            return super().get_function(name)
        declared = "extern __shared__ char shared[];"
        assert declared in self.code
        text = self.code.replace(declared, "__shared__ char shared[48000];")
        self.kernels.add(f"{KERNEL}.cu", f"{HOST_CUDA}{text}\nHOST_EXPORT({KERNEL})\n")
        return HostKernel(self, name)


class HostKernel(standin_cupy.Function):
    """A kernel whose shared memory the launch gives."""

    def __call__(self, grid: Any, block: Any, args: Any, shared_mem: int = 0) -> None:
        assert 0 < shared_mem <= 48000
        super().__call__(grid, block, args, shared_mem)


@pytest.fixture(scope="module")
def cuda_class(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The CUDA backend over a stand-in for CuPy, with forcepho's kernel run by g++, too."""
    if not has_compiler():
        pytest.skip("kernels cannot run on the CPU: g++ is not installed")
    kernels = HostKernels(tmp_path_factory.mktemp("standin_kernels"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standin_cupy._state, "kernels", None)
        patch.setattr(HostModule, "kernels", kernels, raising=False)
        patch.setattr(standin_cupy, "Module", HostModule)
        yield standin_cupy.install(kernels)


@pytest.fixture
def patch(cuda_class, stores, answers, request_of, splinedata):
    patch = GPUPatch(
        **stores,
        splinedata=splinedata,
        spline_smoothing=0,
        return_residual=True,
        backend=cuda_class(0),
    )
    patch.build_patch(CircularRegion(*answers["region"]), **request_of)
    yield patch
    patch.free()


class TestProposer:
    """The logic around the kernel. It says nothing about CUDA or CuPy themselves."""

    def test_the_kernel_finds_the_golden_answers(self, patch, answers) -> None:
        patch.send_to_device()
        proposer = GPUProposer(patch.backend, thread_block=32)
        chi2, derivatives, residuals = proposer.evaluate_proposal(answers["proposal"], patch=patch)
        np.testing.assert_allclose(chi2, answers["chi2"], rtol=1e-5)
        largest = np.abs(answers["chi2_derivs"]).max(axis=(0, 1))
        worst = np.abs(derivatives - answers["chi2_derivs"]).max(axis=(0, 1))
        assert (worst <= 1e-4 * largest).all()
        peak = np.abs(answers["residual"]).max()
        np.testing.assert_allclose(
            np.concatenate(residuals), answers["residual"], rtol=0, atol=1e-5 * peak
        )

    def test_fpgpus_own_kernel_is_the_usual_one(self, patch, answers) -> None:
        patch.send_to_device()
        found = patch.get_proposer().evaluate_proposal(answers["proposal"], patch=patch)
        np.testing.assert_allclose(found[0], answers["chi2"], rtol=1e-5)
        largest = np.abs(answers["chi2_derivs"]).max(axis=(0, 1))
        worst = np.abs(found[1] - answers["chi2_derivs"]).max(axis=(0, 1))
        assert (worst <= 1e-4 * largest).all()
        peak = np.abs(answers["residual"]).max()
        np.testing.assert_allclose(
            np.concatenate(found[2]), answers["residual"], rtol=0, atol=1e-5 * peak
        )

    def test_forcephos_models_run_on_it(self, patch, answers, monkeypatch) -> None:
        proposer = GPUProposer(patch.backend, thread_block=32)
        monkeypatch.setattr(patch, "get_proposer", lambda: proposer)
        model, q = patch.prepare_model(
            active=answers["sourcecat"][:2], fixed=answers["sourcecat"][2:]
        )
        assert np.isfinite(model.lnprob(q))
        assert np.isfinite(model.lnprob_grad(q)).all()
        assert not patch.return_residual

    def test_it_holds_what_jadespatch_holds(self, patch, stores, answers, splinedata, monkeypatch):
        theirs = JadesPatch(**stores, splinedata=splinedata, spline_smoothing=0)
        theirs.return_residual = True
        region = CircularRegion(*answers["region"])
        theirs.build_patch(region, None, allbands=answers["bandlist"].tolist())
        proposer = GPUProposer(patch.backend, thread_block=32)
        monkeypatch.setattr(patch, "get_proposer", lambda: proposer)
        catalog = answers["sourcecat"]
        for each in (patch, theirs):
            each.subtract_fixed(catalog[:2], active=catalog[2:], maxactive=1)
            each._dirty_data = False
        assert_has_all_of(patch, theirs)
        np.testing.assert_array_equal(patch.data, answers["data"])
        assert np.abs(patch.retrieve_array("data") - patch.data).max() > 10

    def test_small_superpixels_are_refused_where_they_leave_a_warp_in_part(
        self, patch, stores, answers, splinedata, golden: Path, tmp_path: Path
    ) -> None:
        store = PixelStore(tmp_path / "pixels.h5", 128, 4)
        for file in sorted((golden / "tiny").glob("exp_*.fits.gz")):
            store.add_exposure(golden_set(file), bitmask=1, do_fluxcal=True)
        paths = stores | {"pixelstore": store.h5file}
        options = {"splinedata": splinedata, "spline_smoothing": 0}
        likelihoods = []
        for kind, kernel in ((GPUPatch, "forcepho"), (GPUPatch, "fpgpu"), (CPUPatch, "forcepho")):
            backend = patch.backend if kind is GPUPatch else None
            small = kind(**paths, **options, backend=backend, kernel=kernel)
            small.build_patch(CircularRegion(*answers["region"]))
            assert (small.exposure_N % 32 != 0).any()
            model, q = small.prepare_model(active=answers["sourcecat"])
            if (kind, kernel) == (GPUPatch, "forcepho"):
                with pytest.raises(KernelLaunchError, match='kernel="fpgpu", or stores with super'):
                    model.lnprob(q)
            else:
                likelihoods.append(model.lnprob(q))
        assert likelihoods[0] == pytest.approx(likelihoods[1], rel=1e-5)

    def test_a_proposal_for_other_sources_is_refused(self, patch, answers) -> None:
        patch.send_to_device()
        with pytest.raises(LayoutError, match=r"expected SOURCE_DTYPE of shape \(3,\)"):
            patch.get_proposer().evaluate_proposal(answers["proposal"][:2], patch=patch)

    def test_a_patch_that_was_not_sent_is_refused(self, patch, answers) -> None:
        with pytest.raises(LayoutError, match="call send_to_device"):
            patch.get_proposer().evaluate_proposal(answers["proposal"], patch=patch)

    def test_it_never_runs_on_the_cpu_backend(self) -> None:
        with pytest.raises(BackendUnavailableError, match="use CPUPatch there"):
            GPUProposer(get_backend("cpu"))


def test_the_source_folder_is_that_of_the_installed_forcepho() -> None:
    assert source_folder() == Path(forcepho_module().__file__).parent / "src"
