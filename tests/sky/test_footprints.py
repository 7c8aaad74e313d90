"""Which footprints touch a region: the same answers as a brute-force spherical test."""

import numpy as np
import pytest

from fpgpu.errors import RegionError
from fpgpu.sky.footprints import FootprintIndex
from fpgpu.sky.regions import CircularRegion, PolygonRegion, RectangularRegion
from tests.sky.random_fields import (
    PLACES,
    box,
    circle,
    convex,
    disjoint,
    on_sky,
    points_of_box_edges,
    points_of_squares,
    squares,
    vector,
    vectors,
)

ARCMIN, ARCSEC = 1 / 60, 1 / 3600

SIZES = {
    "inside one super-pixel": 0.1 * ARCSEC,
    "a few arcsec": 4 * ARCSEC,
    "like an image": 1.5 * ARCMIN,
    "larger than an image": 0.2,
}

field = pytest.mark.parametrize("place", PLACES)
sizes = pytest.mark.parametrize("size", SIZES)


@pytest.fixture
def rng(place: str, size: str) -> np.random.Generator:
    """Different for every place and size, the same in every run."""
    return np.random.default_rng([sorted(PLACES).index(place), sorted(SIZES).index(size)])


@pytest.fixture
def n_regions(long_form: bool) -> int:
    return 400 if long_form else 12


def outlines_around(rng: np.random.Generator, place: str) -> np.ndarray:
    return squares(rng, PLACES[place], n=120, side=2 * ARCMIN, spread=0.12)


@field
@sizes
def test_circles(place: str, size: str, rng: np.random.Generator, n_regions: int) -> None:
    outlines = outlines_around(rng, place)
    index, truth = FootprintIndex(outlines), [convex(outline) for outline in outlines]
    for _ in range(n_regions):
        centre = on_sky(PLACES[place], *rng.uniform(-0.16, 0.16, 2))
        radius = SIZES[size] * rng.uniform(0.5, 2)
        expected = [k for k, f in enumerate(truth) if not disjoint(f, circle(*centre, radius))]
        assert index.touching(CircularRegion(*centre, radius)).tolist() == expected


@field
@sizes
def test_polygons(place: str, size: str, rng: np.random.Generator, n_regions: int) -> None:
    outlines = outlines_around(rng, place)
    index, truth = FootprintIndex(outlines), [convex(outline) for outline in outlines]
    for turn in range(n_regions):
        (outline,) = squares(rng, PLACES[place], n=1, side=2 * SIZES[size], spread=0.16)
        expected = [k for k, f in enumerate(truth) if not disjoint(f, convex(outline))]
        either_way_round = outline[:: 1 if turn % 2 else -1]
        assert index.touching(PolygonRegion(*either_way_round.T)).tolist() == expected


def rectangles(
    rng: np.random.Generator, place: str, size: float, n: int
) -> list[tuple[float, float, float, float]]:
    """Rectangles over a field; at the poles they may hold them or wrap far around."""
    found = []
    for _ in range(n):
        ra, dec = on_sky(PLACES[place], *rng.uniform(-0.16, 0.16, 2))
        half_ra, half_dec = size * rng.uniform(0.5, 2, 2)
        half_ra = min(half_ra / max(np.cos(np.deg2rad(dec)), 1e-9), 170.0)
        low, high = max(dec - half_dec, -90.0), min(dec + half_dec, 90.0)
        found.append(((ra - half_ra) % 360, (ra + half_ra) % 360, low, high))
    return found


@field
@sizes
def test_rectangles(place: str, size: str, rng: np.random.Generator, n_regions: int) -> None:
    """sphgeom has no exact test of polygon against box: points of both decide, and closely.

    What shares a sampled point is touched; what is touched without sharing one comes nearer than
    the distance of the samples along the edges of the box.
    """
    outlines = outlines_around(rng, place)
    index, truth = FootprintIndex(outlines), [convex(outline) for outline in outlines]
    samples = np.moveaxis(points_of_squares(outlines), -1, 0)
    for bounds in rectangles(rng, place, SIZES[size], n_regions // 3):
        touched = set(index.touching(RectangularRegion(*bounds)).tolist())
        rectangle, edges = box(*bounds), points_of_box_edges(bounds)
        shared = rectangle.contains(*samples).any(axis=1)
        shared |= [f.contains(*np.deg2rad(edges.T)).any() for f in truth]
        surely = set(np.flatnonzero(shared).tolist())
        assert surely <= touched
        spacing = np.rad2deg(np.linalg.norm(np.diff(vectors(edges[:65]), axis=0), axis=-1).max())
        spacing = max(spacing, (bounds[3] - bounds[2]) / 64)
        near = [circle(*point, spacing) for point in edges]
        for k in touched - surely:
            assert not all(disjoint(truth[k], c) for c in near)


@pytest.mark.parametrize("dec", [90.0, -90.0])
def test_a_field_of_all_right_ascensions_around_a_pole(dec: float) -> None:
    on_pole = on_sky((0.0, dec), [-0.1, 0.1, 0.1, -0.1], [-0.1, -0.1, 0.1, 0.1])
    beside = on_sky((0.0, dec), [0.3, 0.5, 0.5, 0.3], [-0.1, -0.1, 0.1, 0.1])
    index = FootprintIndex([on_pole, beside])
    assert index.containing(123.0, dec).tolist() == [0]
    for ra in (0.0, 90.0, 180.0, 271.0):  # the pole has every right ascension
        assert index.touching(CircularRegion(ra, dec, ARCSEC)).tolist() == [0]
    low, high = sorted([dec, dec - np.sign(dec) * 0.25])
    assert index.touching(RectangularRegion(0, 360, low, high)).tolist() == [0]
    low, high = sorted([dec, dec - np.sign(dec) * 0.35])
    assert index.touching(RectangularRegion(0, 360, low, high)).tolist() == [0, 1]


def test_edges_of_a_rectangle_are_parallels_and_not_great_circles() -> None:
    # A great circle between (0, 60) and (60, 60) rises to dec 63.4 halfway.
    halfway = on_sky((30.0, 62.0), [-0.1, 0.1, 0.1, -0.1], [-0.1, -0.1, 0.1, 0.1])
    index = FootprintIndex([halfway])
    assert not index.touching(RectangularRegion(0, 60, 50, 60)).size
    assert index.touching(PolygonRegion([0, 60, 60, 0], [50, 50, 60, 60])).size


def test_a_parallel_that_only_grazes_a_long_edge_between_its_vertices() -> None:
    # The top of this edge, dec 63.4, is far from any vertex.
    triangle = np.array([[0.0, 60.0], [60.0, 60.0], [30.0, 50.0]])
    index = FootprintIndex([triangle])
    assert index.touching(RectangularRegion(29, 31, 63.4, 64)).tolist() == [0]
    assert not index.touching(RectangularRegion(29, 31, 63.5, 64)).size
    assert not index.touching(RectangularRegion(35, 40, 63.4, 64)).size


@pytest.mark.parametrize(
    "region",
    [
        CircularRegion(0, 0, 180),
        CircularRegion(200, 40, 170),
        RectangularRegion(0, 360, -90, 90),
        RectangularRegion(1, 359, -89.99, 89.99),
        PolygonRegion([0, 90, 180, 270], [5, 5, 5, 5]),
    ],
)
def test_regions_as_large_as_the_sky_or_a_hemisphere(region: CircularRegion) -> None:
    outlines = [squares(np.random.default_rng(k), (40.0 * k, 75.0), 1, 1, 5)[0] for k in range(9)]
    assert FootprintIndex(outlines).touching(region).tolist() == list(range(9))


def test_a_circle_larger_than_a_hemisphere_misses_only_what_is_around_the_antipode() -> None:
    index = FootprintIndex([on_sky((180.0, 0.0), [-1, 1, 0], [-1, -1, 1]) for _ in range(2)])
    assert index.touching(CircularRegion(0, 0, 178.0)).size == 0
    assert index.touching(CircularRegion(0, 0, 178.7)).size == 2


def star(centre: tuple[float, float], n: int = 7) -> np.ndarray:
    """A concave outline with n spikes."""
    turn = np.arange(2 * n) * np.pi / n
    radius = np.where(np.arange(2 * n) % 2, 0.02, 0.06)
    return on_sky(centre, radius * np.cos(turn), radius * np.sin(turn))


@field
def test_concave_footprints_are_no_hulls(place: str, n_regions: int) -> None:
    rng = np.random.default_rng(5)
    outline = star(PLACES[place])
    index = FootprintIndex([outline, np.roll(outline, 3, axis=0)[::-1]])
    middle = on_sky(PLACES[place], 0.0, 0.0)
    sectors = [
        convex(np.stack([middle, a, b]))
        for a, b in zip(outline, np.roll(outline, -1, axis=0), strict=True)
    ]
    outcomes = []
    for _ in range(10 * n_regions):
        centre = on_sky(PLACES[place], *rng.uniform(-0.06, 0.06, 2))
        radius = 10 ** rng.uniform(-5, -2.2)
        truth = not all(disjoint(sector, circle(*centre, radius)) for sector in sectors)
        touched = index.touching(CircularRegion(*centre, radius))
        assert touched.tolist() == ([0, 1] if truth else [])
        inside = any(sector.contains(vector(centre)) for sector in sectors)
        assert index.containing(*centre).tolist() == ([0, 1] if inside else [])
        outcomes.append(truth)
    assert {True, False} == set(outcomes)


@pytest.mark.parametrize("place", PLACES)
def test_a_footprint_touches_itself_its_vertices_and_its_edges(place: str) -> None:
    outlines = outlines_around(np.random.default_rng(1), place)[:20]
    index = FootprintIndex(outlines)
    for number, outline in enumerate(outlines):
        assert number in index.touching(PolygonRegion(*outline.T))
        assert number in index.containing(*outline[0])
        neighbour = np.concatenate([outline[:2], on_sky(PLACES[place], [3.0], [3.0])])
        assert number in index.touching(PolygonRegion(*neighbour.T))


def test_footprints_on_the_same_great_circle_do_not_touch_for_that() -> None:
    # Both have an edge exactly on the equator, where all triple products vanish.
    west = np.array([[10.0, 0.0], [11.0, 0.0], [10.5, 1.0]])
    index = FootprintIndex([west])
    assert not index.touching(PolygonRegion([11.001, 12.0, 11.5], [0, 0, 1])).size
    assert index.touching(PolygonRegion([11.0, 12.0, 11.5], [0, 0, 1])).size
    assert index.touching(PolygonRegion([10.2, 10.4, 10.3], [0, 0, -1])).size


def test_numbers_of_vertices_may_differ_and_sizes_by_a_lot() -> None:
    rng = np.random.default_rng(8)
    small = list(squares(rng, (0.0, 0.0), 50, 2 * ARCMIN, 1.0))
    triangle = on_sky((0.0, 0.0), [-20, 20, 0], [-15, -15, 30])
    many = star((0.5, 0.5), n=40)
    outlines = [*small[:25], triangle, *small[25:], many]
    index, separate = FootprintIndex(outlines), [FootprintIndex([o]) for o in outlines]
    for _ in range(50):
        region = CircularRegion(*on_sky((0.0, 0.0), *rng.uniform(-1, 1, 2)), 0.05)
        expected = [k for k, one in enumerate(separate) if one.touching(region).size]
        assert 25 in expected
        assert index.touching(region).tolist() == expected


def test_stacked_arrays_give_the_same_index() -> None:
    outlines = outlines_around(np.random.default_rng(4), "RA 0")
    region = CircularRegion(0.0, -27.8, 0.05)
    listed, stacked = FootprintIndex(list(outlines)), FootprintIndex.from_arrays(outlines)
    assert listed.touching(region).tolist() == stacked.touching(region).tolist() != []
    assert len(stacked) == 120
    assert repr(stacked) == "<FootprintIndex of 120 footprints>"


def test_an_empty_index_finds_nothing() -> None:
    for index in (FootprintIndex([]), FootprintIndex.from_arrays(np.empty((0, 4, 2)))):
        assert index.touching(CircularRegion(0, 0, 1)).tolist() == []
        assert index.containing(0, 0).tolist() == []


GOOD = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("outline", "message"),
    [
        ([[0.0, 0.0], [1.0, 0.0]], "footprint 1 has shape (2, 2)"),
        ([[0.0, 0.0, 1.0]] * 3, "footprint 1 has shape (3, 3)"),
        ([[0.0, np.nan], [1.0, 0.0], [0.0, 1.0]], "footprint 1 has a vertex at RA, Dec 0.0, nan"),
        ([[0.0, 91.0], [1.0, 0.0], [0.0, 1.0]], "footprint 1 has a vertex at RA, Dec 0.0, 91.0"),
        ([[0.0, 0.0], [120.0, 0.0], [240.0, 0.0]], "footprint 1 does not fit in a hemisphere"),
    ],
)
def test_a_bad_outline_is_named(outline: list[list[float]], message: str) -> None:
    with pytest.raises(RegionError) as caught:
        FootprintIndex([GOOD, outline])
    assert message in str(caught.value)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(RegionError, match=r"\(3, 2\); expected \(n, n_vertices, 2\)"):
        FootprintIndex.from_arrays(GOOD)
    with pytest.raises(RegionError, match="no position on the sky"):
        FootprintIndex([GOOD]).containing(np.nan, 0)


def test_outlines_of_different_numbers_of_vertices_answer_as_each_alone() -> None:
    rng = np.random.default_rng(8)
    place = PLACES["RA 0"]
    fours = squares(rng, place, n=40, side=2 * ARCMIN, spread=0.1)
    outlines = [*fours, *(outline[:3] for outline in fours)]
    index, alone = FootprintIndex(outlines), [FootprintIndex([outline]) for outline in outlines]
    for _ in range(30):
        ra, dec = on_sky(place, *rng.uniform(-0.12, 0.12, 2))
        radius = rng.uniform(0.1, 3) * ARCMIN
        region = CircularRegion(ra, dec, radius)
        touching = [n for n, one in enumerate(alone) if one.touching(region).size]
        assert index.touching(region).tolist() == touching
        assert index.within(*region.bounding_cap).tolist() == touching
        covering = [n for n, one in enumerate(alone) if one.containing(ra, dec).size]
        assert index.containing(ra, dec).tolist() == covering
