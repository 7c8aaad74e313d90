"""The area of sky covered by footprints."""

import numpy as np
import pytest

from fpgpu.sky.coverage import covered_area


def square(ra: float, dec: float, side: float) -> np.ndarray:
    """A small square on the sky: side in degrees, along right ascension and declination."""
    half = side / 2
    dra = half / np.cos(np.deg2rad(dec))
    return np.array(
        [
            [ra - dra, dec - half],
            [ra + dra, dec - half],
            [ra + dra, dec + half],
            [ra - dra, dec + half],
        ]
    )


@pytest.mark.parametrize(("ra", "dec"), [(150.0, 2.0), (0.0, -30.0), (12.0, 75.0)])
def test_one_small_square_covers_its_own_area(ra: float, dec: float) -> None:
    assert covered_area([square(ra, dec, 0.04)]) == pytest.approx(0.0016, rel=0.02)


def test_an_overlap_counts_once() -> None:
    a, b = square(10.0, 0.0, 0.04), square(10.02, 0.0, 0.04)
    assert covered_area([a, b]) == pytest.approx(0.0024, rel=0.02)
    assert covered_area([a, a]) == pytest.approx(0.0016, rel=0.02)


def test_separate_fields_add_up_even_across_the_zero_of_right_ascension() -> None:
    fields = [square(0.0, 0.0, 0.04), square(180.0, 0.0, 0.04), square(90.0, 60.0, 0.04)]
    assert covered_area(fields) == pytest.approx(0.0048, rel=0.02)


def test_a_cap_around_the_pole() -> None:
    ra = np.arange(0, 360, 5.0)
    outline = np.stack([ra, np.full_like(ra, 89.0)], axis=-1)
    exact = 2 * np.pi * (1 - np.cos(np.deg2rad(1.0))) * np.rad2deg(1) ** 2
    assert covered_area([outline]) == pytest.approx(exact, rel=0.02)


def test_nothing_covers_nothing() -> None:
    assert covered_area([]) == 0.0
