"""Derivatives of the host's likelihood against differences of its own chi2, in single precision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpgpu.likelihood.cpu import HostLikelihood
from fpgpu.likelihood.reference import DERIVATIVES, evaluate
from tests.likelihood.superpixel_scenes import superpixel_scene
from tests.likelihood.test_reference_derivatives import changed, difference

STEPS = {"flux": 3, "ra": 6e-7, "dec": 6e-7, "q": 0.01, "pa": 0.01, "sersic": 0.3, "rhalf": 0.3}
"""As large as the formula allows: what single precision leaves of chi2 is divided by them."""


@pytest.mark.parametrize("psf_per_source", [True, False])
@pytest.mark.parametrize("parameter", DERIVATIVES)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_derivatives_are_those_of_chi2(parameter: str, psf_per_source: bool, seed: int) -> None:
    arrays, scene = superpixel_scene(np.random.default_rng(seed))
    host, step = HostLikelihood(arrays), STEPS[parameter]

    def chi2(change: float, source: int) -> np.ndarray:
        new = changed(scene, parameter, source, change)
        return host.evaluate(new[None], psf_per_source=psf_per_source).chi2[0]

    found = host.evaluate(scene[None], psf_per_source=psf_per_source).derivatives[0]
    slopes = found[..., DERIVATIVES.index(parameter)]
    model = evaluate(arrays, scene, psf_per_source=psf_per_source).model
    terms = abs(model * (2 * arrays["data"] - model) * arrays["ierr"] ** 2).sum()
    allowed = 3e-4 * abs(slopes).max() + 1e-7 * terms / step
    for source in range(len(scene)):
        expected = difference(lambda change, source=source: chi2(change, source), step)
        assert (abs(slopes[:, source] - expected) <= allowed).all()
