"""Positions, radii and regions as astropy has them, or as people write them."""

from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import ICRS, Angle, Latitude, SkyCoord
from astropy.utils.masked import Masked
from astropy.wcs import WCS
from regions import (
    CirclePixelRegion,
    CircleSkyRegion,
    EllipseSkyRegion,
    PixCoord,
    PolygonSkyRegion,
    RectangleSkyRegion,
    Regions,
)

from fpgpu import CircularRegion, PolygonRegion, RectangularRegion, SkyWCS
from fpgpu.errors import RegionError
from fpgpu.sky.angles import in_degrees, sky_position
from fpgpu.sky.footprints import FootprintIndex
from fpgpu.sky.regions import as_region

CENTER = SkyCoord(53.16, -27.79, unit="deg")
CIRCLE = CircularRegion(53.16, -27.79, 3 / 3600)


@pytest.mark.parametrize(
    ("given", "degrees"),
    [
        (2, 2.0),
        (np.float32(0.5), 0.5),
        (90 * u.arcmin, 1.5),
        (Angle("1d30m"), 1.5),
        (Latitude(np.float32(1.5), "deg"), 1.5),
        (np.pi * u.rad, 180.0),
        ("1.5", 1.5),
        ("-1:30:00", -1.5),
        ("+1d30m", 1.5),
        ("5400 arcsec", 1.5),
        ("1h", 15.0),
    ],
)
def test_angles_become_degrees(given: Any, degrees: float) -> None:
    found = in_degrees(given, "it")
    assert type(found) is float
    assert found == pytest.approx(degrees, rel=1e-14)


def test_arrays_of_angles_stay_arrays() -> None:
    assert in_degrees([1, 2], "it").tolist() == [1.0, 2.0]
    assert in_degrees([60, 90] * u.arcmin, "it").tolist() == [1.0, 1.5]
    assert in_degrees(Angle(["1d", "2d"]), "it").tolist() == [1.0, 2.0]


def test_right_ascensions_in_text_are_hours_unless_they_are_plain_numbers() -> None:
    for text in ("10:00:24", "10 00 24", "10h00m24s", "150.1", "150.1d"):
        assert sky_position(text, "+2:12:00") == pytest.approx((150.1, 2.2), rel=1e-14)


@pytest.mark.parametrize(
    "given", ["abc", "10:70:00", "1 kg", 3 * u.m, 3 * u.one, None, {}, "", [1, "x"]]
)
def test_what_is_no_angle_is_refused_with_what_is_expected(given: Any) -> None:
    with pytest.raises(RegionError, match=r"dec is .*no angle; expected a number \(deg\), "):
        in_degrees(given, "dec")


@pytest.mark.parametrize("frame", ["icrs", "fk5", "galactic"])
def test_a_skycoord_in_any_frame_is_a_position(frame: str) -> None:
    sky = CENTER.transform_to(frame)
    assert sky_position(sky) == pytest.approx((53.16, -27.79), abs=1e-12)
    assert CircularRegion(sky, 3 * u.arcsec).center == pytest.approx(CIRCLE.center, abs=1e-12)


def test_a_frame_is_a_position_and_dec_alone_with_it_is_not() -> None:
    assert sky_position(ICRS(1 * u.deg, 2 * u.deg)) == (1.0, 2.0)
    with pytest.raises(RegionError, match=r"ra and dec in one, but dec 3 was given, too"):
        sky_position(CENTER, 3)
    with pytest.raises(RegionError, match="expected a SkyCoord, or ra and dec"):
        sky_position(1.0)


def test_regions_are_made_of_them() -> None:
    for circle in (
        CircularRegion(53.16 * u.deg, "-27:47:24", 3 * u.arcsec),
        CircularRegion(CENTER, radius="3 arcsec"),
    ):
        found = (circle.ra, circle.dec, circle.radius)
        assert found == pytest.approx((53.16, -27.79, 3 / 3600), rel=1e-14)
    corners = SkyCoord([1, 2, 1.5], [3, 3, 4], unit="deg")
    polygon = PolygonRegion([1, 2, 1.5], [3, 3, 4])
    found = PolygonRegion(corners)
    np.testing.assert_allclose([found.ra, found.dec], [polygon.ra, polygon.dec], atol=1e-12)
    assert PolygonRegion([60, 120, 90] * u.arcmin, [3, 3, 4]) == polygon
    box = RectangularRegion("0:04:00", 2 * u.deg, 180 * u.arcmin, 4)
    assert (box.ra_max, box.dec_min, box.dec_max) == (2, 3, 4)
    assert box.ra_min == pytest.approx(1, rel=1e-14)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CircularRegion(1, 2), "a circle needs a radius"),
        (lambda: CircularRegion(CENTER), "a circle needs a radius"),
        (lambda: CircularRegion(1, 2, 3 * u.s), "radius is <Quantity 3. s>, which is no angle"),
        (lambda: CircularRegion([1, 2], 2, 1), r"ra is \[1. 2.\]; expected one number"),
        (lambda: PolygonRegion(CENTER), "1 right ascensions and 1 declinations"),
    ],
)
def test_what_makes_no_region_is_refused(make: Any, message: str) -> None:
    with pytest.raises(RegionError, match=message):
        make()


def test_a_bare_radius_of_more_than_a_tenth_is_told_to_be_degrees() -> None:
    with pytest.warns(UserWarning, match=r"a radius of 3 is in degrees.*3 \* u\.arcsec") as told:
        CircularRegion(53.16, -27.79, 3)
    assert told[0].filename == __file__


@pytest.mark.filterwarnings("error")
def test_a_radius_that_says_its_unit_or_is_small_is_taken_as_it_is() -> None:
    assert CircularRegion(1, 2, 3 * u.deg) == CircularRegion(1, 2, "3 deg")
    assert CircularRegion(1, 2, 0.1).radius == 0.1


def test_positions_are_taken_wherever_they_are_asked_for() -> None:
    assert CIRCLE.contains_sky(CENTER)
    assert CIRCLE.contains_sky(53.16 * u.deg, "-27:47:24")
    outside = CENTER.directional_offset_by(0 * u.deg, 4 * u.arcsec)
    assert not CIRCLE.contains_sky(outside)
    assert CIRCLE.near_sky(outside, margin=2 * u.arcsec)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [53.16, -27.79]
    wcs.wcs.cdelt, wcs.wcs.crpix = [-1e-5, 1e-5], [11, 21]
    x, y = SkyWCS.from_native(wcs).world_to_pixel(CENTER)
    assert (x, y) == pytest.approx((10, 20), abs=1e-6)
    square = np.array([[53.1, -27.8], [53.2, -27.8], [53.2, -27.7], [53.1, -27.7]])
    index = FootprintIndex([square])
    assert index.containing(CENTER).tolist() == [0]
    assert index.touching(CircleSkyRegion(CENTER, 1 * u.arcsec)).tolist() == [0]


class TestOfThePackageRegions:
    """What astropy's regions hold is what fpgpu's hold."""

    @pytest.mark.parametrize("angle", [0, 30, 100])
    @pytest.mark.parametrize("frame", ["icrs", "galactic"])
    def test_shapes_hold_the_same_places(self, angle: float, frame: str) -> None:
        center = CENTER.transform_to(frame)
        coordinates = {"icrs": ("RA---TAN", "DEC--TAN"), "galactic": ("GLON-TAN", "GLAT-TAN")}
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = coordinates[frame]
        wcs.wcs.crval = [center.spherical.lon.deg, center.spherical.lat.deg]
        wcs.wcs.cdelt, wcs.wcs.crpix = [-1e-4, 1e-4], [51, 51]
        corners = center.directional_offset_by([10, 130, 200] * u.deg, [9, 12, 6] * u.arcsec)
        x, y = np.random.default_rng(1).uniform(0, 100, (2, 2000))
        places = wcs.pixel_to_world(x, y)
        for region in (
            CircleSkyRegion(center, 10 * u.arcsec),
            RectangleSkyRegion(center, 16 * u.arcsec, 8 * u.arcsec, angle=angle * u.deg),
            PolygonSkyRegion(corners),
        ):
            expected = region.contains(places, wcs)
            found = as_region(region).contains_sky(places)
            assert 20 < expected.sum() < 1500
            # Edges of one are straight in pixels, of the other on the sphere.
            assert (found != expected).sum() <= 2

    def test_others_are_refused_with_what_is_taken(self) -> None:
        ellipse = EllipseSkyRegion(CENTER, 1 * u.arcsec, 2 * u.arcsec)
        with pytest.raises(RegionError, match="no region; expected a CircularRegion"):
            as_region(ellipse)
        with pytest.raises(RegionError, match=r"to_sky\(wcs\)"):
            as_region(CirclePixelRegion(PixCoord(1, 2), 3))
        with pytest.raises(RegionError, match=r"CircularRegion\(position, radius\)"):
            as_region(CENTER)
        with pytest.raises(RegionError, match=r"of several, give one, or all to Survey\.stream"):
            as_region(Regions([CircleSkyRegion(CENTER, 1 * u.arcsec)]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: CircularRegion(np.ma.masked, -27.79, 1 * u.arcsec),
        lambda: CircularRegion(Masked(53.16 * u.deg, mask=True), -27.79, 1 * u.arcsec),
        lambda: PolygonRegion(np.ma.array([1.0, 2, 1.5], mask=[0, 0, 1]), [3, 3, 4]),
        lambda: PolygonRegion([1, 1, 1], [3, 3, 3]),
        lambda: as_region(RectangleSkyRegion(CENTER, 200 * u.deg, 1 * u.deg)),
        lambda: as_region(CircleSkyRegion(CENTER, 1 * u.deg, meta={"include": False})),
    ],
)
def test_what_is_masked_excluded_or_empty_is_no_region(make: Any) -> None:
    with pytest.raises(RegionError):
        make()


def test_a_masked_position_is_nowhere() -> None:
    ra = np.ma.array([53.16, 53.16], mask=[True, False])
    assert CIRCLE.contains_sky(ra, [-27.79, -27.79]).tolist() == [False, True]


def test_a_kind_of_circle_is_a_circle() -> None:
    class Named(CircleSkyRegion):  # type: ignore[misc]
        pass

    assert as_region(Named(CENTER, 3 * u.arcsec)).center == pytest.approx(CIRCLE.center)


@pytest.mark.parametrize("radius", [np.float32(1), np.int64(1), np.array(1.0), "1"])
def test_every_bare_number_is_told_to_be_degrees(radius: Any) -> None:
    with pytest.warns(UserWarning, match="is in degrees"):
        CircularRegion(1, 2, radius)
