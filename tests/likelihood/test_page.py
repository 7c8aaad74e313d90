"""The examples of docs/likelihood.md run, and do what the page says."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table

import fpgpu
from fpgpu.likelihood.scene import proposal_from_catalog
from fpgpu.psf import default_profiles

PAGE = (Path(__file__).parents[2] / "docs" / "likelihood.md").read_text()
EXAMPLES = re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def names(demo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Names of the page, whose examples run in the folder of a demo."""
    monkeypatch.chdir(demo_folder)
    return {"np": np}  # of the example before


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
    region = fpgpu.CircularRegion(53.16, -27.79, 1.2 / 3600)
    catalog = Table.read("sources.fits")
    with (
        fpgpu.open("stores", backend="cpu") as survey,
        survey.patch(region, catalog, margin=None) as patch,
    ):
        mixture = default_profiles()
        scene = proposal_from_catalog(catalog, patch.bandlist, mixture, patch.reference)
        function = names["jax_likelihood"](patch, scene)
        fluxes = np.asarray(scene["fluxes"][:, : len(patch.bandlist)])
        value, slopes = jax.value_and_grad(function)(fluxes)
        compiled = jax.jit(jax.grad(function))(fluxes)
        found = patch.likelihood(catalog)
        taken = jax.numpy.from_dlpack(patch.arrays()["data"])
        np.testing.assert_array_equal(np.asarray(taken), patch.retrieve("data"))
    assert float(value) == pytest.approx(found.value, rel=1e-5)
    np.testing.assert_array_equal(compiled, slopes)
    for k, band in enumerate(patch.bandlist):
        np.testing.assert_allclose(slopes[:, k], found.gradient[band], rtol=1e-5)
