"""The table of Sersic mixtures against exact profiles, seen through a PSF."""

from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import gammainc, gammaincinv, i0e

from fpgpu.errors import PSFError
from fpgpu.likelihood.mixture import SersicMixture
from fpgpu.psf import default_profiles, make_profiles

NARROWEST = 0.015
"""Arcsec, standard deviation of the narrowest round PSF through which both are seen."""


def exact_flux(n: float, rhalf: float, circle: float, psf: float) -> float:
    """Light of an exact profile, convolved, within a circle: two integrals over the radius."""
    b = gammaincinv(2 * n, 0.5)

    def density(r: float) -> float:
        def ring(s: float) -> float:
            profile = np.exp(-b * ((s / rhalf) ** (1 / n)))
            kernel = np.exp(-((r - s) ** 2) / (2 * psf**2)) * i0e(r * s / psf**2)
            return float(profile * kernel * s / psf**2)

        points = [p for p in (r, rhalf / 100) if 0 < p < r + 8 * psf]
        low = max(0.0, r - 8 * psf)
        points = [p for p in points if p > low]
        return float(quad(ring, low, r + 8 * psf, points=points, limit=200)[0])

    nodes, weights = np.polynomial.legendre.leggauss(60)
    radii = 0.5 * circle * (nodes + 1)
    flux = sum(2 * np.pi * r * density(r) * w for r, w in zip(radii, weights, strict=True))
    half, _ = quad(lambda s: 2 * np.pi * s * np.exp(-b * ((s / rhalf) ** (1 / n))), 0, rhalf)
    return float(flux * 0.5 * circle / (2 * half))


@pytest.mark.parametrize("psf", [NARROWEST, 0.02, 0.05, 0.1])
@pytest.mark.parametrize("n", [0.5, 0.63, 1.0, 2.4, 4.0, 5.9])
@pytest.mark.parametrize("rhalf", [0.006, 0.0097, 0.03, 0.13, 0.77, 1.9])
def test_flux_within_three_half_light_radii(n: float, rhalf: float, psf: float) -> None:
    table = default_profiles()
    amplitudes = table.evaluate([n], [rhalf]).amplitudes[0]
    circle = 3 * rhalf
    flux = amplitudes @ (1 - np.exp(-(circle**2) / 2 / (table.radii**2 + psf**2)))
    assert flux == pytest.approx(exact_flux(n, rhalf, circle, psf), rel=0.003)


def light_inside(n: np.ndarray, rhalf: np.ndarray, circle: np.ndarray | float) -> np.ndarray:
    """Share of an exact profile, not convolved (Graham & Driver 2005, eq. 2)."""
    return np.asarray(gammainc(2 * n, gammaincinv(2 * n, 0.5) * (circle / rhalf) ** (1 / n)))


def test_amplitudes_sum_to_the_light_within_reach() -> None:
    table = default_profiles()
    n, rhalf = np.broadcast_arrays(np.linspace(0.5, 6, 56)[:, None], np.geomspace(0.0051, 1.99, 60))
    n, rhalf = n.ravel().clip(*table.sersic_range), rhalf.ravel()
    excess = table.evaluate(n, rhalf).amplitudes.sum(axis=1)
    excess -= light_inside(n, rhalf, 2.5 * table.radii[-1])
    assert abs(excess).max() < 0.012


@pytest.mark.parametrize("rhalf", [0.006, 0.03, 0.13, 0.18, 0.4])
def test_no_light_is_where_a_profile_has_none(rhalf: float) -> None:
    table, n = default_profiles(), np.linspace(0.5, 5.9, 50)
    amplitudes = table.evaluate(n, np.full(50, rhalf)).amplitudes
    circle = 10 * rhalf
    flux = amplitudes @ (1 - np.exp(-(circle**2) / 2 / (table.radii**2 + NARROWEST**2)))
    assert abs(flux - light_inside(n, np.full(50, rhalf), circle)).max() < 0.015


def test_the_table_covers_what_it_says() -> None:
    table = default_profiles()
    assert table.sersic_range == pytest.approx((0.5, 6.0))
    assert table.rhalf_range == pytest.approx((0.005, 2.0))
    assert table.n_radii == 10


def test_a_table_of_ones_own_is_read_as_forcephos(tmp_path: Path) -> None:
    made = make_profiles([0, 0.05, 0.2, 0.8], [0.5, 1, 2, 4], [0.05, 0.1, 0.2, 0.4])
    table = SersicMixture.from_file(made.write(tmp_path / "sersic.h5"))
    np.testing.assert_allclose(
        table.evaluate([2.0], [0.2]).amplitudes[0], made.amplitudes[2 * 4 + 2], atol=1e-6
    )


@pytest.mark.parametrize(
    "wrong", [{"radii": [-1, 2]}, {"sersic": [2, 1]}, {"rhalf": []}, {"sersic": [np.nan]}]
)
def test_senseless_tables_are_refused(wrong: dict[str, list[float]]) -> None:
    with pytest.raises(PSFError, match="increasing"):
        make_profiles(**wrong)
