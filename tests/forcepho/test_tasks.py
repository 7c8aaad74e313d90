"""forcepho's own work on a patch, from optimisation to samples, with each kind of patch."""

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tests.forcepho.needs_forcepho  # noqa: F401
from fpgpu.forcepho import CPUPatch, GPUPatch
from fpgpu.forcepho.upstream import forcepho_module
from tests.forcepho.test_fit import ForcephoPatch, bounds_around

patches = forcepho_module("patches")
CircularRegion = forcepho_module("region").CircularRegion

tasks = forcepho_module("tasks")

# A check of how PyCUDA sent the struct.
REPLACED = {"test_struct_transfer"}

CONFIG = SimpleNamespace(
    bands=["F200W", "F444W"],
    add_barriers=True,
    gtol=1.0,
    linear_optimize=True,
    flux_prior_expansion=5.0,
    sampling_draws=2,
    warmup=[2],
    max_treedepth=3,
    progressbar=False,
)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(GPUPatch, patches.JadesPatch), (CPUPatch, ForcephoPatch)]
)
def test_every_public_name_of_forcephos_patch_is_there(ours: Any, theirs: Any) -> None:
    public = {name for name in dir(theirs) if not name.startswith("_")}
    assert public - set(dir(ours)) == REPLACED & public


@pytest.fixture
def work(stores, answers, splinedata):
    """Do a task of forcepho with a kind of patch; and what it makes of the outcome."""

    def work(task: Any, kind: Any) -> SimpleNamespace:
        catalog = answers["sourcecat"]
        patch = kind(**stores, splinedata=splinedata, spline_smoothing=0, return_residual=True)
        active, fixed = catalog[:2].copy(), catalog[2:]
        bounds = bounds_around(active, CONFIG.bands)
        scene = CircularRegion(*answers["region"]), active, fixed, bounds
        np.random.seed(3)  # noqa: NPY002 - the one that forcepho draws from
        scratch = SimpleNamespace()
        done = task(patch, scene, CONFIG, logging.getLogger(__name__), scratchpad=scratch)
        (result, step, stats), (region, active, fixed, bounds), model = done
        statistics = {"step": step, "stats": stats} if step is not None else {}
        final, covariances = result.fill(region, active, fixed, model, bounds=bounds, **statistics)
        residuals = model.residuals(result.chain[-1])
        return SimpleNamespace(
            result=result, final=final, covariances=covariances, active=active, residuals=residuals
        )

    return work


def assert_close(ours: Any, theirs: Any, bounds: Any, tolerance: float) -> None:
    """Whether two catalogues agree to a fraction of the width of their bounds."""
    for name in bounds.dtype.names:
        width = np.ptp(bounds[name], axis=-1)
        assert (np.abs(ours[name] - theirs[name]) <= tolerance * width).all(), name


def test_an_optimisation_with_linear_fluxes_ends_at_the_same_catalogue(work, answers) -> None:
    theirs, ours = work(tasks.optimize, ForcephoPatch), work(tasks.optimize, CPUPatch)
    assert theirs.result.n_call > 5, "the fit must have gone somewhere"
    bounds = bounds_around(answers["sourcecat"][:2], CONFIG.bands)
    assert_close(ours.final, theirs.final, bounds, 1e-2)
    assert_close(ours.active, theirs.active, bounds, 1e-2)
    for name in ("npix", "nexp", "bandlist", "exposures"):
        np.testing.assert_array_equal(getattr(ours.result, name), getattr(theirs.result, name))
    references = [found.result.reference_coordinates for found in (ours, theirs)]
    np.testing.assert_allclose(*references, rtol=0, atol=1e-8)


@pytest.mark.filterwarnings("ignore")  # littlemcmc's
def test_the_same_samples_are_drawn(work, answers) -> None:
    pytest.importorskip(
        "littlemcmc", reason="forcepho samples with littlemcmc", exc_type=ImportError
    )
    theirs, ours = work(tasks.sample, ForcephoPatch), work(tasks.sample, CPUPatch)
    assert ours.result.chain.shape == theirs.result.chain.shape
    assert np.ptp(ours.result.chain, axis=0).min() > 0, "the sampler must have moved"
    bounds = bounds_around(answers["sourcecat"][:2], CONFIG.bands)
    assert_close(ours.final, theirs.final, bounds, 1e-3)
    np.testing.assert_allclose(ours.covariances, theirs.covariances, rtol=1e-3, atol=1e-4)
    peak = np.abs(np.concatenate(theirs.residuals)).max()
    for mine, other in zip(ours.residuals, theirs.residuals, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-3 * peak)
