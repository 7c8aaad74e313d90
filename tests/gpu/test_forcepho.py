"""forcepho's own kernel on a GPU, on patches of fpgpu."""

from pathlib import Path

import numpy as np
import pytest

import tests.forcepho.needs_forcepho
import tests.gpu.needs_gpu  # noqa: F401
from fpgpu.backends.base import Backend
from fpgpu.forcepho import GPUPatch
from fpgpu.sky.regions import CircularRegion
from tests.forcepho.scenes import Scene

pytestmark = pytest.mark.gpu


def test_the_kernel_finds_the_answers_of_forcephos_cpu_kernel(
    golden: Path, backend: Backend
) -> None:
    folder = golden / "tiny"
    with np.load(folder / "patch_1p2arcsec_3src.npz") as file:
        answers = dict(file)
    stores = (str(folder / name) for name in ("pixels.h5", "meta.json", "psf.h5"))
    patch = GPUPatch(*stores, return_residual=True, backend=backend)
    patch.build_patch(CircularRegion(*answers["region"]), allbands=answers["bandlist"].tolist())
    patch.pack_meta(Scene(answers["sourcecat"]))
    patch.send_to_device()
    found = patch.get_proposer().evaluate_proposal(answers["proposal"], patch=patch)
    chi2, derivatives, residuals = found
    np.testing.assert_allclose(chi2, answers["chi2"], rtol=1e-5)
    largest = np.abs(answers["chi2_derivs"]).max(axis=(0, 1))
    assert (np.abs(derivatives - answers["chi2_derivs"]).max(axis=(0, 1)) <= 1e-4 * largest).all()
    peak = np.abs(answers["residual"]).max()
    np.testing.assert_allclose(
        np.concatenate(residuals), answers["residual"], rtol=0, atol=1e-5 * peak
    )
    patch.free()
