"""Selection of super-pixels: forcepho's corners, and exact overlap, against plain loops."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fpgpu import CircularRegion, MetaStore, PolygonRegion, RectangularRegion
from fpgpu.errors import PlanError
from fpgpu.patch.select import _FORWARD, _near_edge, select_superpixels
from fpgpu.patch.windows import Candidates, Members
from fpgpu.sky.regions import Region
from fpgpu.sky.sip import fit_sip
from fpgpu.sky.wcs import SkyWCS
from fpgpu.superpixels import superpixel_corners
from tests.patch.fields import dithered, meta_of
from tests.sky.made_wcs import sky_gwcs, tan_header
from tests.sky.random_fields import circle, convex, disjoint
from tests.stores.metasets import meta_set, write_store

PLACES = {
    "ordinary": (53.16, -27.79),
    "RA 0": (0.0, 12.0),
    "near the north pole": (200.0, 89.999),
    "at the south pole": (10.0, -90.0),
    "declination 86": (359.9995, 86.0),
}
SHAPE = (128, 96)


def chosen(meta: MetaStore, region: Region, select: str, shape: tuple[int, int] = SHAPE) -> list:
    """Super-pixels by exposure: a list of lists of (ix, iy)."""
    candidates = Candidates(meta, list(meta), shape, 8)
    members = select_superpixels(candidates, region, select)
    found: list[list[tuple[int, int]]] = [[] for _ in candidates.keys]
    for number, ix, iy in zip(*(column.tolist() for column in members), strict=True):
        found[number].append((ix, iy))
    return found


def regions(place: tuple[float, float], size: float) -> dict[str, Region]:
    """A region of each shape, about `size` arcsec large."""
    ra, dec = place
    r = size / 3600
    wide = r / max(np.cos(np.deg2rad(min(abs(dec) + r, 89.99999))), 1e-9)
    east, south, north = min(wide, 60.0), max(dec - r, -90.0), min(dec + r, 90.0)
    # Around a pole a triangle of small sides has large differences of right ascension.
    base = dec - r if dec + r > 90 else dec + r
    triangle = (
        ((ra, ra + 120.0, ra + 240.0), (base,) * 3)
        if abs(dec) + 2 * r > 90
        else ((ra - wide, ra + wide, ra), (dec - r, dec - 0.5 * r, dec + r))
    )
    return {
        "circle": CircularRegion(ra, dec, r),
        "rectangle": RectangularRegion(ra - east, ra + east, south, north),
        "polygon": PolygonRegion(*triangle),
    }


CASES = [
    pytest.param(place, shape, size, id=f"{name}, {shape}, {size} arcsec")
    for name, place in PLACES.items()
    for shape in ("circle", "rectangle", "polygon")
    for size in (0.4, 1.7)
]


# --- corners -------------------------------------------------------------------------------------


def brute_corners(header: fits.Header, region: Region) -> list[tuple[int, int]]:
    """forcepho's rule written as a loop over all super-pixels, with astropy's WCS."""
    wcs = WCS(header)
    nx, ny = header["NAXIS1"], header["NAXIS2"]
    found = []
    if isinstance(region, CircularRegion):
        xs, ys = wcs.all_world2pix(
            [region.ra] * 2, [region.dec, region.dec + region.radius], 0, quiet=True
        )
        r2 = (xs[0] - xs[1]) ** 2 + (ys[0] - ys[1]) ** 2
    for ix in range(nx // 8):
        for iy in range(ny // 8):
            corners = [(8 * ix + a, 8 * iy + b) for a in (0, 7) for b in (0, 7)]
            if isinstance(region, CircularRegion):
                inside = [(xs[0] - x) ** 2 + (ys[0] - y) ** 2 < r2 for x, y in corners]
            else:
                sky = wcs.all_pix2world(np.array(corners, float), 0)
                inside = [bool(region.contains_sky(*position)) for position in sky]
            if any(inside):
                found.append((ix, iy))
    return found


@pytest.mark.parametrize(("place", "kind", "size"), CASES)
def test_corners_are_those_of_a_loop_over_all_superpixels(
    place: tuple[float, float], kind: str, size: float
) -> None:
    exposures = dithered(4, place, SHAPE)
    region = regions(place, size)[kind]
    expected = [brute_corners(header, region) for _, _, header in sorted_by_band(exposures)]
    assert any(expected)
    found = chosen(meta_of(exposures), region, "corners")
    bare = [k for k, superpixels in enumerate(expected) if not superpixels]
    assert [f for k, f in enumerate(found) if k not in bare] == list(filter(None, expected))
    assert all(len(found[k]) <= 1 for k in bare)  # at most the one that holds the centre


def sorted_by_band(exposures: list) -> list:
    """The meta store's order."""
    return sorted(exposures, key=lambda exposure: exposure[0])


@settings(max_examples=60, deadline=None)
@given(
    x=st.floats(-20, 148),
    y=st.floats(-20, 116),
    radius=st.floats(0.02, 12),
    seed=st.integers(0, 10**6),
)
@example(x=0.0, y=-10.0, radius=0.5, seed=0)  # no exposure has a window
def test_circles_anywhere_on_or_beside_the_detector(
    x: float, y: float, radius: float, seed: int
) -> None:
    header = tan_header(sip=1e-5, angle=seed % 360)
    sky = SkyWCS.from_header(header)
    ra, dec = (float(v) for v in sky.pixel_to_world(x, y))
    region = CircularRegion(ra, dec, radius / 3600)
    corners = superpixel_corners(SHAPE)
    whole = region.contains(corners[..., 0], corners[..., 1], sky)
    expected = list(zip(*(w.tolist() for w in whole), strict=True))
    found = chosen(meta_of([("F200W", "e1", header)]), region, "corners")[0]
    if expected:
        assert found == expected
    else:
        centre = int((x + 0.5) // 8), int((y + 0.5) // 8)
        on_detector = 0 <= centre[0] < 16 and 0 <= centre[1] < 12
        assert found == ([centre] if on_detector else [])


def test_a_corner_on_the_circle_s_edge_is_decided_by_the_wcs_itself() -> None:
    # Without distortion: astropy's own pixels of centre and edge differ from any other code's by
    # rounding, and the edge passes exactly through corners.
    header = tan_header(sip=0.0, angle=0.0, shape=(64, 64))
    sky = SkyWCS.from_header(header)
    corners = superpixel_corners((64, 64))
    meta = meta_of([("F200W", "e1", header)])
    for n in range(1, 20):
        ra, dec = (float(v) for v in sky.pixel_to_world(31.0, 23.0 + (n % 3)))
        _, north = sky.pixel_to_world(31.0, 23.0 + (n % 3) + n)
        region = CircularRegion(ra, dec, float(north) - dec)
        whole = region.contains(corners[..., 0], corners[..., 1], sky)
        expected = list(zip(*(w.tolist() for w in whole), strict=True))
        assert chosen(meta, region, "corners", (64, 64)) == [expected]


@pytest.mark.parametrize("kind", ["rectangle", "polygon"])
def test_what_is_close_to_any_edge_of_a_region_is_doubtful(kind: str) -> None:
    """On both sides of it, within the error of the coefficients and no further."""
    meta = meta_of([("F200W", "e1", tan_header(53.1, -27.5))])
    candidates = Candidates(meta, list(meta), (128, 96), 8)
    step = float(np.rad2deg(candidates.stretch[1, 0])) * _FORWARD
    west, east, south, north = 53.0, 53.2, -27.50002, -27.49998
    region = {
        "rectangle": RectangularRegion(west, east, south, north),
        "polygon": PolygonRegion((west, east, east, west), (south, south, north, north)),
    }[kind]
    off = step * np.array([0.5, -0.5, 20.0, -20.0])
    here, wide = np.zeros(4), off / np.cos(np.deg2rad(27.5))
    edges = [(west + wide, here - 27.5), (east + wide, here - 27.5)]
    if kind == "rectangle":  # the others are no parallels
        edges += [(here + 53.1, south + off), (here + 53.1, north + off)]
    ra, dec = (np.stack(column) for column in zip(*edges, strict=True))
    number = np.zeros(len(edges), int)
    members = Members(number, number, number)
    near = _near_edge(candidates, region, members, (ra, dec), region.contains_sky(ra, dec))
    assert near.tolist() == [[True, True, False, False]] * len(edges)


@pytest.mark.parametrize("make", [RectangularRegion, PolygonRegion])
def test_a_corner_on_an_edge_on_the_sky_is_decided_by_the_wcs_itself(
    make: Callable[..., Region],
) -> None:
    header = tan_header(sip=1e-6, shape=(64, 64))
    sky = SkyWCS.from_header(header)
    corners = superpixel_corners((64, 64))
    meta = meta_of([("F200W", "e1", header)])
    for ix, iy in ((1, 1), (2, 4), (5, 3)):
        (west, south), (east, north) = (
            (float(v) for v in sky.pixel_to_world(x, y))
            for x, y in ((8 * ix, 8 * iy + 7), (8 * ix + 16, 8 * iy + 7 - 16))
        )
        west, east = sorted((west, east))
        south, north = sorted((south, north))
        if make is RectangularRegion:
            region = make(west, east, south, north)
        else:
            region = make((west, east, east), (south, south, north))
        whole = region.contains(corners[..., 0], corners[..., 1], sky)
        expected = list(zip(*(w.tolist() for w in whole), strict=True))
        assert expected
        assert chosen(meta, region, "corners", (64, 64)) == [expected]


def test_a_circle_between_the_corners_takes_the_superpixel_of_its_centre() -> None:
    header = tan_header(angle=0.0)
    sky = SkyWCS.from_header(header)
    meta = meta_of([("F200W", "e1", header)])
    for (x, y), expected in {
        (44.0, 27.5): [(5, 3)],
        (-0.3, -0.3): [(0, 0)],
        (127.3, 95.3): [(15, 11)],
        (-2.0, 50.0): [],
    }.items():
        region = CircularRegion(*(float(v) for v in sky.pixel_to_world(x, y)), 1e-3 / 3600)
        assert chosen(meta, region, "corners") == [expected]


def test_the_centre_of_a_concave_polygon_may_lie_outside_it() -> None:
    header = tan_header(angle=0.0, scale=0.06, sip=0.0)
    sky = SkyWCS.from_header(header)
    # A thin V that passes between all corners of super-pixels: x and y from 1 to 6 (mod 8).
    x, y = np.array([33, 33.4, 38, 37.6]), np.array([25, 25, 30, 30])
    ring = sky.pixel_to_world(np.append(x, 33.2), np.append(y, 27.9))
    region = PolygonRegion(*ring)
    inside = bool(region.contains_sky(*region.center))
    found = chosen(meta_of([("F200W", "e1", header)]), region, "corners")
    assert found == [[(4, 3)] if inside else []]


def test_a_region_larger_than_the_detector_takes_all_of_it() -> None:
    exposures = dithered(2, PLACES["ordinary"], SHAPE)
    everything = [(ix, iy) for ix in range(16) for iy in range(12)]
    for region in (
        CircularRegion(*PLACES["ordinary"], 1.0),
        CircularRegion(*PLACES["ordinary"], 120.0),
        RectangularRegion(0, 360, -60, 10),
    ):
        for select in ("corners", "overlap"):
            assert chosen(meta_of(exposures), region, select) == [everything] * 2


@pytest.mark.parametrize("select", ["corners", "overlap"])
@pytest.mark.parametrize("has_refit", [True, False])
def test_a_gwcs_selects_by_its_exact_inverse_also_outside_its_bounding_box(
    select: str, has_refit: bool, tmp_path: Path
) -> None:
    gwcs = sky_gwcs(shape=SHAPE, bounding_box=((10, 110), (10, 80)))
    sky = SkyWCS.from_gwcs(gwcs, SHAPE)
    refit = fit_sip(sky, SHAPE) if has_refit else None
    path = write_store(tmp_path / "meta.json", meta_set(gwcs=gwcs, sip=refit))
    corners = superpixel_corners(SHAPE).astype(float)
    with MetaStore(path, use_gwcs=True) as store:
        for x, y in ((60.0, 40.0), (3.0, 90.0), (127.0, 0.0)):
            region = CircularRegion(*(float(v) for v in sky.pixel_to_world(x, y)), 1.1 / 3600)
            expected = independent_overlap(sky, region)
            if select == "corners":
                xs, ys = sky.world_to_pixel([region.ra] * 2, [region.dec, region.dec + 1.1 / 3600])
                r2 = (xs[0] - xs[1]) ** 2 + (ys[0] - ys[1]) ** 2
                d2 = ((corners - np.array([xs[0], ys[0]])) ** 2).sum(axis=-1)
                inside = np.nonzero((d2 < r2).any(axis=-1))
                expected = list(zip(*(index.tolist() for index in inside), strict=True))
            assert chosen(store, region, select) == [expected]


# --- overlap -------------------------------------------------------------------------------------


def outline(sky: SkyWCS, ix: int, iy: int) -> np.ndarray:
    """Right ascension and declination, (4, 2), of the outer edges' corners."""
    x = 8 * ix + np.array([0, 8, 8, 0]) - 0.5
    y = 8 * iy + np.array([0, 0, 8, 8]) - 0.5
    return np.stack(sky.pixel_to_world(x, y), axis=-1)


def independent_overlap(sky: SkyWCS, region: Region) -> list[tuple[int, int]]:
    """What sphgeom says of all super-pixels, for circles and convex polygons."""
    if isinstance(region, CircularRegion):
        other = circle(region.ra, region.dec, region.radius)
    else:
        other = convex(np.stack([region.ra, region.dec], axis=-1))
    return [
        (ix, iy)
        for ix in range(SHAPE[0] // 8)
        for iy in range(SHAPE[1] // 8)
        if not disjoint(other, convex(outline(sky, ix, iy)))
    ]


@pytest.mark.parametrize(("place", "kind", "size"), CASES)
def test_overlap_holds_every_superpixel_with_a_point_inside(
    place: tuple[float, float], kind: str, size: float
) -> None:
    exposures = dithered(2, place, SHAPE)
    region = regions(place, size)[kind]
    along = (np.arange(16 * 9) + 0.5) / 9 * 8 - 0.5
    found = chosen(meta_of(exposures), region, "overlap")
    for (_, _, header), superpixels in zip(sorted_by_band(exposures), found, strict=True):
        x, y = np.meshgrid(along, along[: 12 * 9], indexing="ij")
        sampled = region.contains_sky(*SkyWCS.from_header(header).pixel_to_world(x, y))
        sampled = sampled.reshape(16, 9, 12, 9).any(axis=(1, 3))
        must = set(zip(*(k.tolist() for k in np.nonzero(sampled)), strict=True))
        assert must <= set(superpixels)
        assert len(superpixels) <= len(must) + 4 * size / 0.06 / 8 + 8  # only along the edge


@pytest.mark.parametrize("kind", ["circle", "polygon"])
@pytest.mark.parametrize("name", PLACES)
def test_overlap_is_that_of_an_independent_library(name: str, kind: str) -> None:
    place = PLACES[name]
    exposures = dithered(3, place, SHAPE, seed=5)
    region = regions(place, 1.1)[kind]
    found = chosen(meta_of(exposures), region, "overlap")
    assert any(found)
    for (_, _, header), superpixels in zip(sorted_by_band(exposures), found, strict=True):
        assert superpixels == independent_overlap(SkyWCS.from_header(header), region)


def test_overlap_takes_the_four_superpixels_around_a_tiny_circle_on_their_corner() -> None:
    header = tan_header()
    sky = SkyWCS.from_header(header)
    ra, dec = (float(v) for v in sky.pixel_to_world(39.5, 23.5))
    region = CircularRegion(ra, dec, 1e-5 / 3600)
    assert chosen(meta_of([("F200W", "e1", header)]), region, "overlap") == [
        [(4, 2), (4, 3), (5, 2), (5, 3)]
    ]


def test_corners_inside_always_overlap() -> None:
    place = PLACES["ordinary"]
    meta = meta_of(dithered(6, place, SHAPE, seed=3))
    for region in (regions(place, 1.3)["rectangle"], regions(place, 1.3)["polygon"]):
        pairs = zip(chosen(meta, region, "corners"), chosen(meta, region, "overlap"), strict=True)
        assert all(set(corners) <= set(overlap) for corners, overlap in pairs)


def test_an_unknown_selection_is_refused() -> None:
    meta = meta_of(dithered(1, PLACES["ordinary"], SHAPE))
    with pytest.raises(PlanError, match=r"no selection 'centres'.*'corners' and 'overlap'"):
        chosen(meta, CircularRegion(53.16, -27.79, 1e-3), "centres")
