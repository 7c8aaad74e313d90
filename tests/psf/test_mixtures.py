"""A mixture as kernels render it, against finite differences and the exact light of a pixel."""

import numpy as np
from scipy.special import erf

from fpgpu.psf.mixtures import Mixture, _Form, _terms, render


def test_a_wide_gaussian_puts_the_exact_light_into_pixels() -> None:
    x, y = (a.ravel() for a in np.meshgrid(np.arange(-5.0, 6), np.arange(-5.0, 6)))
    for sigma, most in ((1.0, 6e-3), (2.0, 4e-4)):
        mixture = Mixture(np.ones(1), np.array([[0.3, -0.2]]), np.array([[sigma**2, sigma**2, 0]]))

        def share(d: np.ndarray, s: float = sigma) -> np.ndarray:
            return 0.5 * (erf((d + 0.5) / s / np.sqrt(2)) - erf((d - 0.5) / s / np.sqrt(2)))

        exact = share(x - 0.3) * share(y + 0.2)
        assert abs(render(mixture, x, y) - exact).max() < most * exact.max()


def test_derivatives_are_those_of_finite_differences() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-4, 4, (2, 30))
    for signed in (False, True):
        parameters = rng.uniform(0.1, 0.8, 12)
        form = _Form(signed, 0.3)
        mixture = form.mixture(parameters)
        np.testing.assert_allclose(form.parameters(mixture), parameters)
        analytic = form.jacobian(mixture, *_terms(mixture, x, y))
        for k in range(12):
            step = np.zeros(12)
            step[k] = 1e-5
            up, down = (render(form.mixture(parameters + s), x, y) for s in (step, -step))
            np.testing.assert_allclose(analytic[:, k], (up - down) / 2e-5, rtol=1e-5, atol=1e-8)
