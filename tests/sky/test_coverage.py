"""The area of sky covered by footprints, and how often each place is covered."""

import numpy as np
import pytest

from fpgpu.sky.coverage import covered_area, depth_map
from tests.sky.random_fields import on_sky


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


# Areas that the grid samples without an error of its own: edges between its cells


def rectangle(centre: tuple[float, float], half_x: float, half_y: float) -> np.ndarray:
    """A rectangle in the tangent plane of a place, half sides in radians there."""
    x, y = np.rad2deg(half_x), np.rad2deg(half_y)
    return on_sky(centre, [-x, x, x, -x], [-y, -y, y, y])


def exact_area(half_x: float, half_y: float) -> float:
    """Square degrees of such a rectangle, of any size."""
    solid = 4 * np.arctan(half_x * half_y / np.sqrt(1 + half_x**2 + half_y**2))
    return float(solid * np.rad2deg(1) ** 2)


PLACES = [(12.0, 0.0), (359.9, -40.0), (77.0, 89.0)]


@pytest.mark.parametrize("centre", PLACES)
@pytest.mark.parametrize(("half_x", "half_y"), [(1e-4, 3e-4), (0.4, 0.1), (0.2, 0.7)])
def test_the_area_is_that_on_the_sphere_and_not_in_the_plane(
    centre: tuple[float, float], half_x: float, half_y: float
) -> None:
    found = covered_area([rectangle(centre, half_x, half_y)])
    assert found == pytest.approx(exact_area(half_x, half_y), rel=3e-5)


@pytest.mark.parametrize("centre", PLACES)
def test_a_cross_with_a_triangle_inside_has_the_area_of_the_cross(
    centre: tuple[float, float],
) -> None:
    bars = [rectangle(centre, 0.4, 0.1), rectangle(centre, 0.2, 0.2)]
    triangle = on_sky(centre, [-4.0, 4.0, 0.0], [-3.0, -3.0, 6.0])  # symmetric as a mean of three
    triangle = np.concatenate([triangle, on_sky(centre, [-4.0, 4.0, 0.0], [3.0, 3.0, -6.0])])
    cross = exact_area(0.4, 0.1) + exact_area(0.2, 0.2) - exact_area(0.2, 0.1)
    for outlines in ([*bars, triangle], [triangle, *bars], [bars[0], triangle, bars[1]]):
        assert covered_area(outlines) == pytest.approx(cross, rel=1e-4)


def test_a_grid_of_a_few_samples_is_laid_over_each_group_alone() -> None:
    """Fields that do not touch, however near, keep their own grids; a chain shares one."""
    side = np.deg2rad(0.02)
    apart = [rectangle((10.0 + 0.1 * k, 0.0), side, side) for k in range(4)]
    assert covered_area(apart, grid=8) == pytest.approx(4 * exact_area(side, side), rel=1e-3)
    wide = rectangle((200.0, 0.0), 0.2, 0.2)
    total = 4 * exact_area(side, side) + exact_area(0.2, 0.2)
    assert covered_area([*apart, wide], grid=8) == pytest.approx(total, rel=2e-3)
    chain = [rectangle((10.0 + 0.03 * k, 0.0), side, side) for k in range(3)]
    # 0.1 degrees of 0.04: its edges on the grid of 100 samples.
    assert covered_area(chain, grid=100) == pytest.approx(0.004, rel=2e-3)


# Depth


def inside_triangle(corners: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """By the sides on which a point lies of the three edges."""
    (ax, ay), (bx, by), (cx, cy) = corners
    sides = [
        (qx - px) * (y - py) - (qy - py) * (x - px) > 0
        for (px, py), (qx, qy) in (
            ((ax, ay), (bx, by)),
            ((bx, by), (cx, cy)),
            ((cx, cy), (ax, ay)),
        )
    ]
    return (sides[0] == sides[1]) & (sides[1] == sides[2])


def test_depth_is_the_sum_of_the_weights_of_the_triangles_around_each_point() -> None:
    rng = np.random.default_rng(6)
    x, y = np.linspace(-1.3, 1.1, 23), np.linspace(-0.8, 1.6, 31)
    for n in (1, 2, 40):
        triangles, weights = rng.uniform(-1.5, 1.5, (n, 3, 2)), rng.uniform(0.5, 2, n)
        expected = sum(
            weight * inside_triangle(corners, x[:, None], y[None, :])
            for corners, weight in zip(triangles, weights, strict=True)
        )
        depth = depth_map(list(triangles), weights, x, y)
        assert depth.shape == (23, 31)
        assert np.allclose(depth, expected, atol=1e-12, rtol=0)


def test_the_notch_of_a_concave_polygon_and_level_edges_are_not_filled() -> None:
    notched = np.array([[0, 0], [4, 0], [4, 4], [3, 4], [3, 1], [1, 1], [1, 4], [0, 4]], float)
    x, y = np.arange(-0.5, 5.0), np.arange(-0.5, 5.0)
    expected = np.zeros((6, 6), int)
    expected[1:5, 1:5] = 1
    expected[2:4, 2:5] = 0
    assert depth_map([notched], [1], x, y).tolist() == expected.tolist()
    assert depth_map([notched[::-1], notched], [2, 3], x, y).tolist() == (5 * expected).tolist()
    assert depth_map([], [], x, y).tolist() == np.zeros((6, 6)).tolist()


def test_polygons_that_share_an_edge_share_no_point_and_leave_none_out() -> None:
    """Grid points on the common edges count once."""
    x, y = np.arange(9.0), np.arange(9.0)
    corners = np.array([[0.0, 0.0], [8.0, 0.0], [8.0, 8.0], [0.0, 8.0]])
    middle = np.array([4.0, 4.0])
    quarters = [
        np.stack([a, b, middle]) for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)
    ]
    assert (depth_map(quarters, np.ones(4), x, y)[1:8, 1:8] == 1).all()


def test_a_corner_at_the_height_of_grid_points_is_passed_once() -> None:
    x, y = np.arange(-1.0, 10.0), np.arange(-1.0, 10.0)
    distance = np.abs(x[:, None] - 4) + np.abs(y[None, :] - 4)
    diamond = np.array([[0.0, 4.0], [4.0, 0.0], [8.0, 4.0], [4.0, 8.0]])
    for outline in (diamond, diamond[::-1], np.roll(diamond, 1, axis=0)):
        depth = depth_map([outline], [1], x, y)
        assert (depth[distance < 4] == 1).all()
        assert (depth[distance > 4] == 0).all()


def test_as_many_weights_as_polygons_are_needed() -> None:
    with pytest.raises(ValueError, match="shorter"):
        depth_map([np.eye(3, 2)], [], np.arange(3.0), np.arange(3.0))
