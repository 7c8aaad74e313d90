"""What lies on the very edge of a region, and how polygons are picked from a stack."""

import numpy as np
import pytest

from fpgpu.sky.polygons import Polygons
from fpgpu.sky.regions import CircularRegion, PolygonRegion, RectangularRegion, Region
from fpgpu.sky.sphere import unit_vectors


def inside(region: Region, ra: object, dec: object) -> list[bool]:
    return region.contains_sky(ra, dec).tolist()


def test_the_edges_of_a_rectangle_are_outside() -> None:
    region = RectangularRegion(10, 20, -5, 5)
    assert inside(region, [10, 20, 15, 15, 10, 15], [0, 0, -5, 5, 5, 0]) == [False] * 5 + [True]
    next_to = [np.nextafter(10, 20), np.nextafter(20, 10)]
    assert inside(region, next_to, 0.0) == [True, True]
    assert inside(region, 15, [np.nextafter(-5, 0), np.nextafter(5, 0)]) == [True, True]
    assert inside(region, [np.nan, 15], [0, np.nan]) == [False, False]


@pytest.mark.parametrize(("west", "east"), [(350, 360), (350, 0), (-10, 0), (710, 720)])
def test_a_rectangle_up_to_ra_zero_ends_there(west: float, east: float) -> None:
    """However the zero is written."""
    region = RectangularRegion(west, east, -5, 5)
    assert inside(region, [349.9, 350.0, 0.0, 360.0, 0.1, 0.9, 180.0], 0.0) == [False] * 7
    assert inside(region, [350.1, 359.9, -0.1, 719.9], 0.0) == [True] * 4


@pytest.mark.parametrize(("west", "east"), [(0, 10), (360, 370), (-360, -350)])
def test_a_rectangle_from_ra_zero_begins_there(west: float, east: float) -> None:
    region = RectangularRegion(west, east, -5, 5)
    assert inside(region, [0.0, 360.0, 359.9, 10.0, 10.1], 0.0) == [False] * 5
    assert inside(region, [0.1, 9.9, 360.1, -359.9], 0.0) == [True] * 4


def test_right_ascensions_beyond_a_turn_are_those_within_it() -> None:
    region = RectangularRegion(350, 370, -5, 5)
    assert inside(region, [350.5, 0.0, 9.5, 369.5], 0.0) == [True] * 4
    assert inside(region, [349.5, 10.5], 0.0) == [False] * 2
    assert region.center == (0.0, 0.0)


def test_a_pole_that_a_rectangle_reaches_is_inside_and_another_is_not() -> None:
    north, south = RectangularRegion(0, 360, 80, 90), RectangularRegion(0, 360, -90, -80)
    assert inside(north, [0, 123], [90, -90]) == [True, False]
    assert inside(south, [0, 123], [90, -90]) == [False, True]
    assert inside(RectangularRegion(0, 360, -89.999, 89.999), 0, [90, -90]) == [False, False]
    assert inside(RectangularRegion(10, 20, 80, 90), [15, 30], [90, 90]) == [True, False]


def test_a_polygon_region_answers_for_each_outline_of_a_stack() -> None:
    """Those that lie inside, cross an edge or touch it; not those that stay away."""
    region = PolygonRegion([10, 20, 20, 10], [-5, -5, 5, 5])
    outlines = [
        [(15, 0), (15.1, 0), (15, 0.1)],
        [(30, 0), (31, 0), (30, 1)],
        [(5, 0), (25, 1), (25, 0)],
        [(20, 0), (21, 1), (21, -1)],
        [(-170, 0), (-165, 0), (-165, 3)],
        [(20, 5), (21, 5), (21, 6)],
    ]
    stack = Polygons.of(np.stack([unit_vectors(*np.transpose(outline)) for outline in outlines]))
    assert region.touches(stack).tolist() == [True, False, True, True, False, True]
    assert region._meets(stack).tolist() == [True, False, True, True, False, True]


def test_what_is_picked_from_a_stack_answers_as_it_did_there() -> None:
    rng = np.random.default_rng(7)
    centres = rng.uniform(0, 60, (6, 2))
    corners = np.array([[-2, -2], [2, -2], [2, 2], [-2, 2]])
    stack = Polygons.of(unit_vectors(*np.moveaxis(centres[:, None] + corners, -1, 0)))
    few = stack.take(np.array([4, 1]))
    points = unit_vectors(*np.concatenate([centres, centres + 1, centres + 30]).T)
    assert np.array_equal(few.contain(points), stack.contain(points)[[4, 1]])
    assert np.array_equal(few.within(points, 0.01), stack.within(points, 0.01)[[4, 1]])
    assert few.contain(points).any()


@pytest.mark.parametrize("kind", ["circle", "rectangle", "polygon"])
def test_positions_in_single_precision_are_compared_in_double(kind: str) -> None:
    ra, dec, r = np.float32(150.12345), np.float32(2.3456789), 1e-9
    x, y = float(ra), float(dec)
    region: Region = {
        "circle": CircularRegion(x, y, r),
        "rectangle": RectangularRegion(x - r, x + r, y - r, y + r),
        "polygon": PolygonRegion([x - r, x + r, x], [y - r, y - r, y + r]),
    }[kind]
    assert inside(region, np.array([ra, ra + np.float32(1e-4)]), np.array([dec, dec])) == [
        True,
        False,
    ]
    assert inside(region, [150, 151], [2, 3]) == [False, False]


def test_the_middle_of_a_circle_is_inside_and_its_edge_is_not() -> None:
    region = CircularRegion(10, 0, 1)
    assert inside(region, [10, 11, 10, 10 + 0.999999], [0, 0, 1, 0]) == [True, False, False, True]
    assert inside(region, [np.nan, 10], [0, np.nan]) == [False, False]
