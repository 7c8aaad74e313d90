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


def test_crossings_of_a_parallel_are_where_points_along_the_edges_change_sides() -> None:
    """Each crossing is reported: those upwards and downwards, of edges over the top, twice."""
    rng = np.random.default_rng(3)
    fraction = np.linspace(0, 1, 2001)[:, None]
    for _ in range(60):
        outline = unit_vectors(*(rng.uniform(*limits, 3) for limits in ((0, 80), (-60, 85))))
        dec = np.deg2rad(rng.uniform(-60, 85))
        seen: list[np.ndarray] = []

        def remember(places: np.ndarray, seen: list[np.ndarray] = seen) -> np.ndarray:
            seen.append(places)
            return np.ones(len(places), bool)

        crossed = Polygons.of(outline[None]).meet_parallels([dec], remember)
        chords = [
            a + fraction * (b - a) for a, b in zip(outline, np.roll(outline, -1, 0), strict=True)
        ]
        points = [edge / np.linalg.norm(edge, axis=1, keepdims=True) for edge in chords]
        above = [edge[:, 2] > np.sin(dec) for edge in points]
        expected = [
            edge[:-1][sides[:-1] != sides[1:]] for edge, sides in zip(points, above, strict=True)
        ]
        places = np.concatenate(expected)
        (found,) = seen
        assert crossed.tolist() == [len(places) > 0]
        assert len(found) == len(places)
        for place in places:
            assert np.linalg.norm(found - place, axis=1).min() < 2e-3
        assert np.allclose(found[:, 2], np.sin(dec), atol=1e-14)


def test_only_accepted_crossings_of_a_parallel_count_and_each_outline_for_itself() -> None:
    high, low = unit_vectors([0, 10, 20], [0, 10, 0]), unit_vectors([0, 10, 20], [0, 4, 0])
    stack = Polygons.of(np.stack([low, high, low, high[::-1]]))
    west = stack.meet_parallels(np.deg2rad([5.0]), lambda v: v[..., 1] < v[..., 0] * np.tan(0.17))
    assert west.tolist() == [False, True, False, True]
    none = stack.meet_parallels(np.deg2rad([5.0, 12.0]), lambda v: np.zeros(len(v), bool))
    assert none.tolist() == [False] * 4
    either = stack.meet_parallels(np.deg2rad([12.0, 3.0]), lambda v: np.ones(len(v), bool))
    assert either.tolist() == [True] * 4
    padded = Polygons.of(np.concatenate([high, high[-1:], high[-1:]])[None])
    assert padded.meet_parallels(np.deg2rad([5.0]), lambda v: np.ones(len(v), bool)).all()
    assert stack.meet_parallels([], lambda v: np.ones(len(v), bool)).tolist() == [False] * 4


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
