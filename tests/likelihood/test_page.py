"""The examples of docs/likelihood.md run, and do what the page says."""

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import fpgpu
from fpgpu.likelihood.mixture import SersicMixture
from fpgpu.likelihood.scene import proposal_from_catalog
from fpgpu.patch.pack import RADII

PAGE = (Path(__file__).parents[2] / "docs" / "likelihood.md").read_text()
EXAMPLES = re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def names(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A folder as the page has it, and the catalogue."""
    n, r = np.meshgrid(np.linspace(0.8, 6, 14), np.geomspace(0.01, 1, 20), indexing="ij")
    n, r = n.ravel(), r.ravel()
    distance = np.log(np.maximum(RADII, 0.005) / r[:, None]) / (0.5 + 0.2 * n[:, None])
    weights = np.exp(-0.5 * distance**2)
    with h5py.File(tmp_path / "sersic_splinedata.h5", "w") as file:
        file["nsersic"], file["rh"], file["radii"] = n, r, RADII
        file["amplitudes"] = weights / weights.sum(axis=1, keepdims=True)
    (tmp_path / "stores").symlink_to(golden / "tiny")
    monkeypatch.chdir(tmp_path)
    with np.load(golden / "tiny" / "patch_1p2arcsec_3src.npz") as file:
        return {"catalog": file["sourcecat"], "np": np}


def test_the_fit_with_scipy_goes_down_to_where_it_is_flat(names: dict[str, Any]) -> None:
    fit = EXAMPLES[0]
    assert sum(bool(line.strip()) for line in fit.splitlines()) <= 25
    exec(compile(fit, "docs/likelihood.md", "exec"), names)
    start = names["result"].fun
    assert np.isfinite(start)
    assert names["result"].nit > 2
    assert names["result"].fun < -5


def test_jax_has_the_gradient(names: dict[str, Any]) -> None:
    jax = pytest.importorskip("jax", reason="the example needs JAX: pip install jax")
    exec(compile(EXAMPLES[1], "docs/likelihood.md", "exec"), names)
    mixture = SersicMixture.from_file("sersic_splinedata.h5")
    region = fpgpu.CircularRegion(53.16, -27.79, 1.2 / 3600)
    catalog = names["catalog"]
    options = {"radii": mixture.radii, "margin": None}
    with (
        fpgpu.open("stores", backend="cpu") as survey,
        survey.patch(region, catalog, **options) as patch,
    ):
        scene = proposal_from_catalog(catalog, patch.bandlist, mixture, patch.reference)
        function = names["jax_likelihood"](patch, scene)
        fluxes = np.asarray(scene["fluxes"][:, : len(patch.bandlist)])
        value, slopes = jax.value_and_grad(function)(fluxes)
        compiled = jax.jit(jax.grad(function))(fluxes)
        found = patch.likelihood(catalog, mixture)
        taken = jax.numpy.from_dlpack(patch.arrays()["data"])
        np.testing.assert_array_equal(np.asarray(taken), patch.retrieve("data"))
    assert float(value) == pytest.approx(found.value, rel=1e-5)
    np.testing.assert_array_equal(compiled, slopes)
    for k, band in enumerate(patch.bandlist):
        np.testing.assert_allclose(slopes[:, k], found.gradient[band], rtol=1e-5)
