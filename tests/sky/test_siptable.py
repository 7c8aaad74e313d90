"""SIP coefficients in bulk: distortions far beyond those of a camera, and their limits."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fpgpu.sky.sip import SipFit, SipTable
from fpgpu.sky.wcs import SkyWCS
from tests.sky.made_wcs import tan_header


def solution(a: dict[tuple[int, int], float], b: dict[tuple[int, int], float]) -> Any:
    """Coefficients {(p, q): value} with a pixel of an arcsec."""
    matrices = []
    for terms in (a, b):
        matrix = np.zeros((4, 4))
        for place, value in terms.items():
            matrix[place] = value
        matrices.append(matrix)
    cd = np.array([[-1.0, 0.1], [0.2, 1.0]]) / 3600
    return SimpleNamespace(
        crval=np.array([150.0, 2.0]),
        crpix=np.array([40.0, 50.0]),
        cd=cd,
        a=matrices[0],
        b=matrices[1],
    )


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({(0, 1): 0.9}, {(1, 0): -0.9}),  # a turn
        ({(0, 1): 0.6}, {(1, 0): 0.6}),  # a shear
        ({(1, 0): 0.9}, {(0, 1): 0.9}),  # a stretch
        ({(1, 0): 0.9}, {(0, 1): -0.7}),
        ({(1, 0): -0.7, (0, 1): 0.8}, {(1, 0): -0.8, (0, 1): 0.5}),
        ({(2, 0): 1e-3, (1, 1): -2e-3, (0, 3): 1e-5}, {(0, 2): 1e-3, (1, 1): 2e-3, (2, 1): 1e-5}),
    ],
)
def test_strong_distortion_is_undone(
    a: dict[tuple[int, int], float], b: dict[tuple[int, int], float]
) -> None:
    """As large as the pixels themselves: only the exact derivatives lead back in a few steps."""
    table = SipTable([solution(a, b), solution({}, {})])
    x, y = (side.ravel() for side in np.meshgrid(np.linspace(0, 80, 9), np.linspace(10, 90, 9)))
    back = table.world_to_pixel(*table.pixel_to_world(x, y))
    assert np.allclose(back, (np.tile(x, (2, 1)), np.tile(y, (2, 1))), atol=1e-7, rtol=0)


def test_beyond_the_turn_of_a_distortion_there_is_no_pixel_and_no_warning() -> None:
    """u + u^2 / 1000 is never below -250; v goes on."""
    folded, plain = solution({(2, 0): 1e-3}, {}), solution({}, {})
    table, straight = SipTable([folded, plain]), SipTable([plain])
    ra, dec = straight.pixel_to_world(40.0 + np.array([-200.0, -300.0, -1e5]), np.full(3, 60.0))
    x, y = table.world_to_pixel(ra[0], dec[0])
    assert np.isnan(x).tolist() == np.isnan(y).tolist() == [[False, True, True], [False] * 3]
    u = x[0, 0] - 40
    assert u + u**2 / 1000 == pytest.approx(-200, abs=1e-6)
    assert y[0, 0] == pytest.approx(60, abs=1e-6)
    # From exactly where the derivative vanishes no step leads anywhere.
    ra, dec = straight.pixel_to_world([40.0 - 500.0], [50.0])
    x, y = table.world_to_pixel(ra[0], dec[0])
    assert np.isnan([x[0, 0], y[0, 0]]).all()
    # Powers of such pixels are beyond float64.
    steep = SipTable([solution({(3, 0): 1e300}, {(0, 3): 1e300})])
    assert np.isnan(steep.world_to_pixel(150.1, 2.1)).all()


@pytest.mark.parametrize("kind", [np.int64, np.float32])
def test_whole_numbers_and_single_precision_are_taken_as_they_are(kind: type) -> None:
    table = SipTable([solution({(2, 0): 1e-5}, {})])
    for method in (table.pixel_to_world, table.world_to_pixel):
        first, second = np.array([150, 151], kind), np.array([2, 3], kind)
        expected = method(first.astype(np.float64), second.astype(np.float64))
        found = method(first, second)
        assert np.array_equal(found, expected, equal_nan=True)
        assert found[0].dtype == found[1].dtype == np.float64


def test_a_scalar_is_one_position_and_shapes_broadcast() -> None:
    table = SipTable([solution({}, {}), solution({}, {})])
    assert table.pixel_to_world(1.0, 2.0)[0].shape == (2, 1)
    assert table.world_to_pixel(np.array([150.0, 150.1, 150.2]), 2.0)[1].shape == (2, 3)
    assert table.pixel_to_world(np.zeros((2, 5)), np.zeros(5))[1].shape == (2, 5)


def test_solutions_of_different_orders_share_a_table() -> None:
    small = SipFit.from_wcs(SkyWCS.from_header(tan_header(sip=0.0)))
    large = SipFit.from_wcs(SkyWCS.from_header(tan_header(sip=1e-6)))
    assert small.a.shape == small.b.shape == small.ap.shape == small.bp.shape == (1, 1)
    assert large.a.shape == (4, 4)
    assert repr(SipTable([small])) == "<SipTable of 1 exposures, order 0>"
    both = SipTable([small, large])
    assert (len(both), repr(both)) == (2, "<SipTable of 2 exposures, order 3>")
    x, y = np.array([3.0, 100.0]), np.array([90.0, 5.0])
    ra, dec = both.pixel_to_world(x, y)
    for k, one in enumerate((small, large)):
        assert np.array_equal((ra[k], dec[k]), one.pixel_to_world(x, y))
