"""Regions: values, the sky inside them, and the super-pixels forcepho would select."""

import pickle
from collections.abc import Callable

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st

from fpgpu.errors import RegionError, WCSError
from fpgpu.sky.regions import CircularRegion, PolygonRegion, RectangularRegion, Region
from fpgpu.sky.wcs import SkyWCS
from fpgpu.superpixels import superpixel_corners
from tests.sky.made_wcs import sky_gwcs, tan_header
from tests.sky.random_fields import box, circle, convex, vector

REGIONS = [
    CircularRegion(53.16, -27.79, 1e-3),
    RectangularRegion(359.9, 0.1, -1, 1),
    PolygonRegion([0, 1, 0.5], [0, 0, 1]),
]


def corners_of(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    corners = superpixel_corners(shape)
    return corners[..., 0], corners[..., 1]


def selected(indices: tuple[np.ndarray, ...]) -> list[tuple[int, int]]:
    return list(zip(*(i.tolist() for i in indices), strict=True))


# Values


@pytest.mark.parametrize("region", REGIONS, ids=lambda r: type(r).__name__)
def test_regions_are_values(region: Region) -> None:
    again = pickle.loads(pickle.dumps(region))
    assert again == region
    assert hash(again) == hash(region)
    assert eval(repr(region)) == region
    with pytest.raises(AttributeError):
        region.dec = 3.0  # type: ignore[misc]


def test_numpy_scalars_and_arrays_become_plain_numbers() -> None:
    region = CircularRegion(np.float32(1.5), np.int64(2), np.float64(0.25))
    assert repr(region) == "CircularRegion(ra=1.5, dec=2.0, radius=0.25)"
    polygon = PolygonRegion(np.array([0, 1, 0]), np.array([0, 0, 1]))
    assert repr(polygon) == "PolygonRegion(ra=(0.0, 1.0, 0.0), dec=(0.0, 0.0, 1.0))"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CircularRegion(np.nan, 0, 1), "every value must be finite"),
        (lambda: CircularRegion(0, np.inf, 1), "every value must be finite"),
        (lambda: CircularRegion(0, 90.1, 1), "dec is 90.1, expected -90 to 90"),
        (lambda: CircularRegion(0, 0, 0), "radius must be above 0"),
        (lambda: CircularRegion(0, 0, -1), "radius must be above 0"),
        (lambda: CircularRegion(0, 0, 181), "radius must be above 0 and up to 180"),
        (lambda: RectangularRegion(0, 1, 2, 2), "dec_min must be below dec_max"),
        (lambda: RectangularRegion(0, 1, -91, 2), "dec_min is -91"),
        (lambda: RectangularRegion(1, 1, 0, 2), "spans 0 degrees"),
        (lambda: RectangularRegion(350, -10, 0, 2), "spans -360 degrees"),
        (lambda: RectangularRegion(0, 361, 0, 2), "spans 361 degrees"),
        (lambda: PolygonRegion([0, 1], [0, 1]), "2 right ascensions and 2 declinations"),
        (lambda: PolygonRegion([0, 1, 2], [0, 1]), "3 right ascensions and 2 declinations"),
        (lambda: PolygonRegion([0, 1, np.nan], [0, 1, 2]), "every value must be finite"),
        (lambda: PolygonRegion([0, 1, 2], [0, 1, 95]), "between -90 and 90"),
        (lambda: PolygonRegion([0, 120, 240], [0, 0, 0]), "does not fit in a hemisphere"),
    ],
)
def test_nonsense_is_refused(make: Callable[[], Region], message: str) -> None:
    with pytest.raises(RegionError, match=message):
        make()


# On the sky

SKY = {"ra": st.floats(0, 360, exclude_max=True), "dec": st.floats(-90, 90)}


@given(**SKY, radius=st.floats(1e-6, 120), away=st.floats(0, 2), angle=st.floats(0, 6.28))
def test_a_circle_contains_what_sphgeom_says(
    ra: float, dec: float, radius: float, away: float, angle: float
) -> None:
    point = np.clip(
        [ra + away * radius * np.cos(angle), dec + away * radius * np.sin(angle)], -90, 450
    )
    point[1] = min(point[1], 90)
    slightly = 1e-9
    inner, outer = (circle(ra, dec, radius + s) for s in (-slightly, slightly))
    inside = bool(CircularRegion(ra, dec, radius).contains_sky(*point))
    assert inner.contains(vector(point)) <= inside <= outer.contains(vector(point))


@given(
    west=st.floats(-30, 359),
    width=st.floats(0.01, 359.9),
    south=st.floats(-89, 88),
    height=st.floats(0.01, 178),
    **SKY,
)
def test_a_rectangle_contains_what_sphgeom_says(
    west: float, width: float, south: float, height: float, ra: float, dec: float
) -> None:
    east, north = west + width, min(south + height, 89.5)
    inside = bool(RectangularRegion(west, east, south, north).contains_sky(ra, dec))
    edge = min(abs((ra - e + 180) % 360 - 180) for e in (west, east))
    if min(edge, abs(dec - south), abs(dec - north)) > 1e-9:
        assert inside == box(west % 360, east % 360, south, north).contains(vector((ra, dec)))


@given(**SKY)
def test_a_polygon_contains_what_sphgeom_says(ra: float, dec: float) -> None:
    outline = np.array([[350.0, 40.0], [30.0, 55.0], [121.0, 80.0], [300.0, 70.0]])
    region, truth = PolygonRegion(*outline.T), convex(outline)
    assert bool(region.contains_sky(ra, dec)) == truth.contains(vector((ra, dec)))


def test_rectangles_wrap_through_ra_zero() -> None:
    region = RectangularRegion(359.9, 0.1, -1, 1)
    inside = region.contains_sky([359.95, 0.0, 0.05, 360.0, -0.05, 0.15, 359.85, 180], 0.0)
    assert inside.tolist() == [True] * 5 + [False] * 3
    assert region == RectangularRegion(359.9, 0.1, -1, 1)
    assert region.center == pytest.approx((0.0, 0.0), abs=1e-9)


def test_the_whole_circle_of_right_ascension_has_no_seam() -> None:
    for region in (RectangularRegion(0, 360, 80, 90), RectangularRegion(-180, 180, 80, 90)):
        assert region.contains_sky([0.0, 180.0, 359.999, 77.0], [85.0, 85.0, 85.0, 90.0]).all()


@given(**SKY, radius=st.floats(1e-4, 170))
def test_bounding_boxes_of_circles_hold_them(ra: float, dec: float, radius: float) -> None:
    (west, east, _, _), (south, _, north, _) = CircularRegion(ra, dec, radius).bounding_box
    # sphgeom widens its boxes by less than this.
    cap = circle(ra, dec, radius - 1e-5).getBoundingBox()
    assert south <= np.rad2deg(cap.getLat().getA().asRadians())
    assert north >= np.rad2deg(cap.getLat().getB().asRadians())
    width = 360.0 if cap.getLon().isFull() else np.rad2deg(cap.getLon().getSize().asRadians())
    assert east - west >= width - 1e-9


def test_bounding_boxes_are_in_forcephos_order_and_agree_with_its_formula() -> None:
    ra, dec, radius = 53.16, -27.79, 3 / 3600
    d_ra = radius / np.cos(np.deg2rad(dec))
    expected = [
        [ra - d_ra, ra + d_ra, ra + d_ra, ra - d_ra],
        [dec - radius, dec - radius, dec + radius, dec + radius],
    ]
    assert CircularRegion(ra, dec, radius).bounding_box == pytest.approx(
        np.array(expected), abs=1e-10
    )
    rectangle = RectangularRegion(10, 20, -5, 5).bounding_box
    assert rectangle.tolist() == [[10, 20, 20, 10], [-5, -5, 5, 5]]


# Super-pixels


def test_circles_select_forcephos_super_pixels(
    golden_patch: dict[str, np.ndarray], golden_headers: dict[str, fits.Header]
) -> None:
    region = CircularRegion(*golden_patch["region"])
    starts, numbers = golden_patch["exposure_start"], golden_patch["exposure_N"]
    for name, start, number in zip(golden_patch["epaths"], starts, numbers, strict=True):
        first = slice(start, start + number, 64)  # of each super-pixel of 8 x 8
        pixels = golden_patch["xpix"][first], golden_patch["ypix"][first]
        expected = [(int(x) // 8, int(y) // 8) for x, y in zip(*pixels, strict=True)]
        header = golden_headers[str(name)]
        for wcs in (WCS(header), SkyWCS.from_header(header)):
            assert selected(region.contains(*corners_of((128, 128)), wcs)) == expected


def test_a_circle_is_tested_in_pixels_and_its_edge_is_outside() -> None:
    # Two degrees off the tangent point, pixels are no longer those of its centre.
    header = tan_header(sip=0.0, angle=0.0, shape=(64, 64), scale=3600.0 / 16)
    wcs = WCS(header)
    region = CircularRegion(*(float(v) for v in wcs.pixel_to_world_values(20, 20)), 0.7)
    x, y = wcs.world_to_pixel_values([region.ra] * 2, [region.dec, region.dec + region.radius])
    xcorners, ycorners = corners_of((64, 64))
    squared = (xcorners - x[0]) ** 2 + (ycorners - y[0]) ** 2
    expected = np.nonzero((squared < (x[1] - x[0]) ** 2 + (y[1] - y[0]) ** 2).any(axis=-1))
    assert selected(region.contains(xcorners, ycorners, wcs)) == selected(expected)
    on_edge = np.array([[x[1]]]), np.array([[y[1]]])
    assert selected(region.contains(*on_edge, wcs)) == []


def test_rectangles_select_by_the_sky_position_of_corners() -> None:
    wcs = WCS(tan_header(ra=0.0, dec=10.0))
    xcorners, ycorners = corners_of((128, 96))
    ra, dec = wcs.pixel_to_world_values(xcorners, ycorners)
    ra = (ra + 180) % 360 - 180
    inside = (ra > -4e-4) & (ra < 3e-4) & (dec > 9.9998) & (dec < 10.0003)
    region = RectangularRegion(360 - 4e-4, 3e-4, 9.9998, 10.0003)
    expected = selected(np.nonzero(inside.any(axis=-1)))
    assert 0 < len(expected) < 100
    assert selected(region.contains(xcorners, ycorners, wcs)) == expected


@pytest.mark.parametrize("dec", [90.0, -90.0, 89.9999])
@pytest.mark.parametrize("radius", [1.5 / 3600, 0.02])
def test_a_circle_at_a_pole_selects_like_any_other(dec: float, radius: float) -> None:
    """pixel(ra, dec + radius) lies beyond the pole there."""
    sky = SkyWCS.from_header(tan_header(ra=30.0, dec=dec))
    xcorners, ycorners = corners_of((128, 96))
    region = CircularRegion(*(float(v) for v in sky.pixel_to_world(60, 50)), radius)
    truth = circle(region.ra, region.dec, radius)
    ra, dec_ = sky.pixel_to_world(xcorners, ycorners)
    inside = truth.contains(np.deg2rad(ra), np.deg2rad(dec_))
    # 0.1 px of distortion around the edge of the circle decide no corner here.
    assert selected(region.contains(xcorners, ycorners, sky)) == selected(
        np.nonzero(inside.any(axis=-1))
    )


@pytest.mark.parametrize("radius", [0.01, 1.0, 20.0, 150.0])
@pytest.mark.parametrize("kind", ["fits", "gwcs"])
def test_a_region_larger_than_the_image_selects_all_of_it(kind: str, radius: float) -> None:
    header = tan_header(sip=3e-5)
    wcs = WCS(header) if kind == "fits" else sky_gwcs(bounding_box=((-0.5, 127.5), (-0.5, 95.5)))
    for region in (
        CircularRegion(53.16, -27.79, radius),
        RectangularRegion(
            53.16 - radius, 53.16 + radius, -27.79 - 0.3 * radius, -27.79 + 0.3 * radius
        ),
    ):
        assert len(region.contains(*corners_of((128, 96)), wcs)[0]) == 16 * 12


@pytest.mark.parametrize("inverse", [True, False])
def test_a_circle_around_a_place_beside_the_image_selects_its_edge(inverse: bool) -> None:
    """A gWCS with a bounding box calls such a place NaN."""
    wcs = sky_gwcs(bounding_box=((-0.5, 127.5), (-0.5, 95.5)), inverse=inverse)
    ra, dec = wcs(-6.0, 50.0, with_bounding_box=False)
    found = CircularRegion(ra, dec, 0.6 / 3600).contains(*corners_of((128, 96)), wcs)
    assert selected(found) == [(0, 5), (0, 6), (0, 7)]


def test_a_polygon_selects_by_the_sky_position_of_corners() -> None:
    sky = SkyWCS.from_header(tan_header())
    x, y = [20.5, 60.5, 60.5, 20.5], [10.5, 10.5, 40.5, 40.5]
    found = PolygonRegion(*sky.pixel_to_world(x, y)).contains(*corners_of((128, 96)), sky)
    assert selected(found) == [(i, j) for i in range(2, 8) for j in range(1, 6)]


def test_something_that_is_no_wcs_is_refused() -> None:
    with pytest.raises(WCSError, match="a str was given as WCS"):
        REGIONS[0].contains(*corners_of((16, 16)), "F200W")
