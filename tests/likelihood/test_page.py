"""The examples of docs/likelihood.md run, and do what the page says."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table

import fpgpu
from fpgpu.likelihood.scene import proposal_from_catalog
from fpgpu.patch.device import Patch
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


@pytest.fixture
def patch(names: dict[str, Any]) -> Iterator[Patch]:
    """A patch of the demo with all of its sources."""
    region = fpgpu.CircularRegion(53.16, -27.79, 1.2 / 3600)
    with (
        fpgpu.open("stores", backend="cpu") as survey,
        survey.patch(region, Table.read("sources.fits"), margin=None) as patch,
    ):
        yield patch


@pytest.fixture
def scene(patch: Patch) -> Any:
    catalog = Table.read("sources.fits")
    return proposal_from_catalog(catalog, patch.bandlist, default_profiles(), patch.reference)


def assert_slopes(value: float, slopes: Any, patch: Patch, scene: Any) -> None:
    """Hold what a function of fluxes gives against the patch's own answer."""
    assert len(scene) > 1
    found = patch.evaluate(scene)
    assert value == pytest.approx(-0.5 * found.chi2.sum(), rel=1e-5)
    np.testing.assert_allclose(slopes, -0.5 * found.derivatives[..., 0].T, rtol=1e-5)


def test_jax_has_the_gradient(names: dict[str, Any], patch: Patch, scene: Any) -> None:
    jax = pytest.importorskip("jax", reason="the example needs JAX: pip install jax")
    exec(compile(EXAMPLES[1], "docs/likelihood.md", "exec"), names)
    function = names["jax_likelihood"](patch, scene)
    fluxes = np.asarray(scene["fluxes"][:, : len(patch.bandlist)])
    value, slopes = jax.value_and_grad(function)(fluxes)
    assert_slopes(float(value), slopes, patch, scene)
    np.testing.assert_array_equal(jax.jit(jax.grad(function))(fluxes), slopes)


def test_pytorch_has_the_gradient(names: dict[str, Any], patch: Patch, scene: Any) -> None:
    torch = pytest.importorskip("torch", reason="the example needs PyTorch: pip install torch")
    exec(compile(EXAMPLES[2], "docs/likelihood.md", "exec"), names)
    fluxes = torch.tensor(scene["fluxes"][:, : len(patch.bandlist)], requires_grad=True)
    value = names["TorchLikelihood"].apply(fluxes, patch, scene)
    (2 * value).backward()
    assert_slopes(value.item(), fluxes.grad.numpy() / 2, patch, scene)


@pytest.mark.parametrize("package", ["jax", "torch"])
def test_arrays_are_taken_by_dlpack_without_a_copy(patch: Patch, package: str) -> None:
    module = pytest.importorskip(package, reason=f"needs {package}: pip install {package}")
    take = module.numpy.from_dlpack if package == "jax" else module.from_dlpack
    for name, array in patch.arrays().items():
        taken = take(array)
        np.testing.assert_array_equal(np.asarray(taken), array, name)
        where = taken.unsafe_buffer_pointer() if package == "jax" else taken.data_ptr()
        assert where == patch.backend.address(array), name
