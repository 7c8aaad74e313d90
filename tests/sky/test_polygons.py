"""Spherical polygons: degenerate positions that random fields never meet."""

import numpy as np
import pytest

from fpgpu.sky.footprints import FootprintIndex
from fpgpu.sky.polygons import Polygons, bounding_caps
from fpgpu.sky.regions import CircularRegion, PolygonRegion, RectangularRegion, Region
from fpgpu.sky.sphere import unit_vectors

TRIANGLE = unit_vectors([10.0, 11.0, 10.5], [0.0, 0.0, 1.0])


def test_an_arc_through_the_antipode_of_an_outline_does_not_cross_it() -> None:
    here, there = Polygons.of(TRIANGLE[None]), Polygons.of(-TRIANGLE[None])
    across = unit_vectors([10.5, 10.5], [-1.0, 0.5])
    for starts, ends in (across[:1], across[1:]), (across[1:], across[:1]):
        assert here.meet_arcs(starts, ends).tolist() == [True]
        assert there.meet_arcs(starts, ends).tolist() == [False]
        assert here.meet_arcs(-starts, -ends).tolist() == [False]


def test_the_antipode_of_an_inner_point_is_outside() -> None:
    inner = unit_vectors([10.5], [0.3])
    polygons = Polygons.of(TRIANGLE[None])
    assert polygons.contain(np.concatenate([inner, -inner])).tolist() == [[True, False]]
    assert polygons.within(-inner, 0.1).tolist() == [[False]]


def test_vertices_may_be_repeated() -> None:
    padded = np.concatenate([TRIANGLE, TRIANGLE[-1:], TRIANGLE[-1:]])
    for plain, repeated in zip(
        bounding_caps(TRIANGLE[None]), bounding_caps(padded[None]), strict=True
    ):
        assert np.allclose(plain, repeated, atol=1e-15)
    points = unit_vectors([10.5, 10.5, 12.0], [0.3, 1.00001, 0.0])
    both = [Polygons.of(v[None]).within(points, 1e-6) for v in (TRIANGLE, padded)]
    assert both[0].tolist() == both[1].tolist() == [[True, True, False]]


@pytest.mark.parametrize(
    "region",
    [
        # An edge along an edge, without a vertex in common.
        RectangularRegion(10.2, 10.4, -1, 0),
        PolygonRegion([10.3, 10.4, 10.2], [-1, 0, 0]),
        # A vertex on an edge, and on a vertex.
        PolygonRegion([10.2, 10.5, 10.8], [-1, 0, -1]),
        RectangularRegion(10, 20, -1, 0),
        RectangularRegion(9, 10, -1, 0),
        RectangularRegion(0, 360, 1, 90),
    ],
    ids=repr,
)
def test_what_only_touches_is_found(region: RectangularRegion) -> None:
    outline = [[10.0, 0.0], [11.0, 0.0], [10.5, 1.0]]
    assert FootprintIndex([outline]).touching(region).tolist() == [0]


@pytest.mark.parametrize(
    "region",
    [
        RectangularRegion(10.2, 10.4, -1, -1e-12),
        PolygonRegion([10.2, 10.5, 10.8], [-1, -1e-12, -1]),
        RectangularRegion(8, 10 - 1e-12, -1, 1),
        RectangularRegion(0, 360, 1 + 1e-12, 90),
    ],
    ids=repr,
)
def test_what_stays_away_by_a_picodegree_is_not(region: RectangularRegion) -> None:
    outline = [[10.0, 0.0], [11.0, 0.0], [10.5, 1.0]]
    assert FootprintIndex([outline]).touching(region).tolist() == []


@pytest.mark.parametrize(
    "region",
    [
        CircularRegion(10.5, 0.4, 2.0),
        RectangularRegion(9, 12, -1, 2),
        PolygonRegion([8, 13, 10.5], [-1, -1, 6]),
    ],
    ids=repr,
)
def test_regions_touch_what_they_hold_and_what_holds_them(region: Region) -> None:
    """Asked directly, without the index, which settles such cases beforehand."""
    far = unit_vectors([40.0, 41.0, 40.5], [0.0, 0.0, 1.0])
    holds_them = unit_vectors([330.0, 50.0, 10.0], [-20.0, -20.0, 40.0])
    across = unit_vectors([10.4, 10.6, 10.5], [0.0, 0.0, 30.0])
    polygons = Polygons.of(np.stack([TRIANGLE, far, holds_them, across]))
    assert region.touches(polygons).tolist() == [True, False, True, True]
