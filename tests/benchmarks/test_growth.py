"""The exponent that says how an operation grows."""

import numpy as np
import pytest

from benchmarks.report.growth import fit_exponent, growths
from benchmarks.report.tables import growth_table
from tests.benchmarks.reports import measurement


@pytest.mark.parametrize("exponent", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_a_power_law_gives_its_exponent(exponent: float) -> None:
    x = np.array([2.0, 4.0, 12.0, 72.0])
    found, scatter = fit_exponent(x, 3e-4 * x**exponent)
    assert found == pytest.approx(exponent, abs=1e-12)
    assert scatter == pytest.approx(0, abs=1e-12)


def test_noise_changes_the_exponent_little_and_shows_as_scatter() -> None:
    rng = np.random.default_rng(1)
    x = np.geomspace(1, 1000, 40)
    found, scatter = fit_exponent(x, x**1.5 * np.exp(rng.normal(0, 0.1, 40)))
    assert found == pytest.approx(1.5, abs=0.05)
    assert scatter == pytest.approx(0.1, rel=0.3)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1, 2], [1, 2], "needs 3 different inputs"),
        ([1, 1, 2], [1, 1, 2], "needs 3 different inputs"),
        ([1, 2, 3], [1, -2, 3], "positive times"),
        ([0, 2, 3], [1, 2, 3], "positive inputs"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*encountered in log:RuntimeWarning")
def test_what_has_no_exponent_is_refused(x: list, y: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_exponent(x, y)


def test_only_measurements_that_differ_in_one_thing_are_fitted_together() -> None:
    usual = [measurement("m", 1e-3 * n, at={"sources": n, "bands": 3}) for n in (1, 5, 15)]
    other = [measurement("m", 1.0, at={"sources": 2, "bands": 6})]
    elsewhere = [measurement("m", 1.0, column="forcepho", at={"sources": 3, "bands": 3})]
    (growth,) = growths([*usual, *other, *elsewhere])
    assert (growth.operation, growth.column, growth.variable) == ("m", "fpgpu cpu", "sources")
    assert growth.exponent == pytest.approx(1)
    assert growth.range == (1, 15)


def test_two_numbers_of_cores_are_enough() -> None:
    (growth,) = growths([measurement("m", 1.0 / n, at={"cores": n}) for n in (1, 2)])
    assert growth.exponent == pytest.approx(-1)


def test_the_table_prints_the_exponent() -> None:
    table = growth_table([measurement("m", n**2, at={"radius": n}) for n in (1, 2, 10)])
    assert table[2] == "| m | fpgpu cpu | radius | 2.00 | 1 to 10 | 3 | 0% |"
    assert len(table) == 3
