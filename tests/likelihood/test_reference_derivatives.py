"""Derivatives against differences of chi2 itself, and Gaussians one by one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpgpu.likelihood.gaussians import Gaussians, Rendering, reaching
from fpgpu.likelihood.reference import DERIVATIVES, evaluate
from tests.likelihood.random_scenes import random_scene, stamp

Float = npt.NDArray[np.float64]

STEPS = {"flux": 0.1, "ra": 2e-6, "dec": 2e-6, "q": 0.004, "pa": 0.008, "sersic": 0.1, "rhalf": 0.1}
"""Small against the scale on which chi2 changes, large against the cut of the exponent."""


def difference(function: Callable[[float], Any], step: float) -> Any:
    """Derivative at 0 from four values; exact for polynomials of degree 4."""
    near, far = (function(k * step) - function(-k * step) for k in (1, 2))
    return (8 * near - far) / (12 * step)


def changed(
    sources: npt.NDArray[Any], parameter: str, source: int, change: float
) -> npt.NDArray[Any]:
    """Sources with one parameter of one of them changed."""
    new = sources.copy()
    slopes = {"sersic": "damplitude_dnsersic", "rhalf": "damplitude_drh"}
    if parameter in slopes:
        new["mixture_amplitudes"][source] += change * new[slopes[parameter]][source]
    else:
        new["fluxes" if parameter == "flux" else parameter][source] += change
    return new


@pytest.mark.parametrize("psf_per_source", [True, False])
@pytest.mark.parametrize("parameter", DERIVATIVES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_derivatives_are_those_of_chi2(parameter: str, psf_per_source: bool, seed: int) -> None:
    arrays, sources = random_scene(np.random.default_rng(seed))
    found = evaluate(arrays, sources, psf_per_source=psf_per_source)
    derivatives = found.derivatives[..., DERIVATIVES.index(parameter)]
    scale = abs(derivatives).max(axis=1) + 1e-3 * abs(found.chi2) / STEPS[parameter]
    for source in range(len(sources)):
        expected = difference(
            lambda change, source=source: (
                evaluate(
                    arrays,
                    changed(sources, parameter, source, change),
                    psf_per_source=psf_per_source,
                ).chi2
            ),
            STEPS[parameter],
        )
        assert (abs(derivatives[:, source] - expected) <= 1e-5 * scale).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_parameter_of_a_gaussian_has_its_derivative(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = stamp(9, 7)
    slope = rng.normal(size=x.shape)
    root = rng.normal(size=(2, 2, 2))
    gaussians = Gaussians(
        rng.uniform(1, 9, 2), rng.uniform(1, 6, (2, 2)), root @ root.swapaxes(1, 2) + 2 * np.eye(2)
    )
    found = Rendering(gaussians, x, y).pull_back(slope)

    def total(counts: Float, centre: Float, covariance: Float) -> Any:
        return Rendering(Gaussians(counts, centre, covariance), x, y).counts() @ slope

    way = Gaussians(
        *(rng.normal(size=part.shape) for part in gaussians[:2]),
        (lambda m: m + m.swapaxes(1, 2))(rng.normal(size=(2, 2, 2))),
    )
    expected = difference(
        lambda t: total(*(part + t * step for part, step in zip(gaussians, way, strict=True))),
        0.002,
    )
    along = sum(float((part * step).sum()) for part, step in zip(found, way, strict=True))
    assert along == pytest.approx(float(expected), rel=1e-5, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_gaussians_that_do_not_reach_pixels_are_zero_in_all_of_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = stamp(8, 8)
    root = rng.normal(size=(60, 2, 2))
    gaussians = Gaussians(
        rng.uniform(1, 9, 60),
        rng.uniform(-20, 28, (60, 2)),
        root @ root.swapaxes(1, 2) + 0.2 * np.eye(2),
    )
    near = set(reaching(gaussians, x, y).tolist())
    for number in range(60):
        one = Gaussians(*(part[number : number + 1] for part in gaussians))
        if number not in near:
            assert (Rendering(one, x, y).counts() == 0).all()
    assert 0 < len(near) < 60
