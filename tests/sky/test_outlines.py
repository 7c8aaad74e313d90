"""Outlines of detectors and the largest difference of two WCSs, point by point."""

from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from fpgpu.errors import WCSError
from fpgpu.sky.disagreement import disagreement
from fpgpu.sky.wcs import SkyWCS
from tests.sky.made_wcs import tan_header

DEGREE = 3600.0  # arcsec


def plain(**traits: Any) -> fits.Header:
    """A gnomonic projection without distortion or turn."""
    return tan_header(**{"sip": 0.0, "angle": 0.0, **traits})


# Outlines


def test_points_of_an_outline_are_equally_far_apart_along_each_side() -> None:
    sky = SkyWCS.from_header(tan_header(shape=(64, 96)))
    x, y = sky.world_to_pixel(*sky.footprint(per_side=4).T)
    assert x == pytest.approx(
        [-0.5, 15.5, 31.5, 47.5, 63.5, 63.5, 63.5, 63.5, 63.5, 47.5, 31.5, 15.5, *[-0.5] * 4],
        abs=1e-6,
    )
    assert y == pytest.approx(
        [*[-0.5] * 4, -0.5, 23.5, 47.5, 71.5, 95.5, 95.5, 95.5, 95.5, 95.5, 71.5, 47.5, 23.5],
        abs=1e-6,
    )


def test_the_first_point_off_the_sky_is_named_and_all_are_counted() -> None:
    header = plain(shape=(64, 8), scale=3 * DEGREE)  # a globe of 19 pixels around the first one
    header["CTYPE1"], header["CTYPE2"] = "RA---SIN", "DEC--SIN"
    header["CRPIX1"] = 1.0
    # On the globe are 3 of 8 points below, none at the right, 2 above and 8 at the left.
    sky = SkyWCS.from_header(header)
    with pytest.raises(WCSError, match=r"pixel \(23.5, -0.5\) .*, 19 of 32 points in all"):
        sky.footprint()


@pytest.mark.parametrize(
    ("shape", "thickness"), [((64, 64), 1.0), ((16, 4096), 1.0), ((64, 64), 1e-6)]
)
def test_a_narrow_detector_is_one(shape: tuple[int, int], thickness: float) -> None:
    sky = SkyWCS.from_header(slanted(shape, thickness))
    assert sky.footprint().shape == (32, 2)


def slanted(shape: tuple[int, int], thickness: float) -> fits.Header:
    """Both pixel axes along nearly the same direction when `thickness` is small."""
    header = plain(shape=shape)
    scale = header["CD2_2"]
    header["CD1_1"], header["CD2_1"] = scale, scale
    header["CD1_2"], header["CD2_2"] = scale * (1 - 2 * thickness), scale
    return header


def test_a_detector_flattened_to_a_slanted_line_is_refused_with_its_place() -> None:
    sky = SkyWCS.from_header(slanted((64, 64), 1e-11))
    ra, dec = (float(value) for value in sky.pixel_to_world(-0.5, -0.5))
    place = f"{ra:.6f}, {dec:.6f}"
    with pytest.raises(WCSError, match=f"the fits WCS .* line or a point at RA, Dec {place};"):
        sky.footprint()
    with pytest.raises(WCSError, match="maps the whole detector onto a line or a point of the sky"):
        sky.world_to_pixel(ra, dec)


def test_a_detector_of_one_pixel_has_the_outline_of_a_pixel() -> None:
    sky = SkyWCS.from_header(plain(shape=(1, 1)))
    x, y = sky.world_to_pixel(*sky.footprint(per_side=1).T)
    assert x == pytest.approx([-0.5, 0.5, 0.5, -0.5], abs=1e-6)
    assert y == pytest.approx([-0.5, -0.5, 0.5, 0.5], abs=1e-6)


@pytest.mark.parametrize(("scale", "accepted"), [(0.29, True), (0.31, False)])
def test_a_detector_of_60_degrees_across_is_the_largest(scale: float, accepted: bool) -> None:
    # Half the diagonal of 142 x 142 pixels is 100 pixels; a gnomonic degree is tan(1 degree).
    sky = SkyWCS.from_header(plain(shape=(142, 142), scale=DEGREE * scale * np.tan(0.524) / 0.524))
    if accepted:
        assert sky.footprint().shape == (32, 2)
    else:
        with pytest.raises(WCSError, match=r"over 6\d degrees of sky"):
            sky.footprint()


# Comparison


@pytest.mark.parametrize("anchor", [(-0.5, -0.5), (127.5, 95.5), (127.5, -0.5)])
def test_two_scales_disagree_most_in_the_corner_opposite_to_where_they_agree(
    anchor: tuple[float, float],
) -> None:
    first, second = (plain(scale=scale) for scale in (0.06, 0.0606))
    for header in (first, second):
        header["CRPIX1"], header["CRPIX2"] = anchor[0] + 1, anchor[1] + 1
    a, b = SkyWCS.from_header(first), SkyWCS.from_header(second)
    found = disagreement(a, b, (128, 96))
    assert found.pixel == (127.0 - anchor[0], 95.0 - anchor[1])
    assert found.max_pixels == pytest.approx(0.01 * np.hypot(128, 96), rel=1e-4)
    assert found.position_a == pytest.approx([float(v) for v in a.pixel_to_world(*found.pixel)])
    assert found.position_b == pytest.approx([float(v) for v in b.pixel_to_world(*found.pixel)])


def test_the_comparison_is_on_17_points_a_side_from_edge_to_edge() -> None:
    bent = tan_header(angle=0.0)
    for keyword in [k for k in bent if k[:2] in ("A_", "B_")]:
        del bent[keyword]
    bent["A_ORDER"] = bent["B_ORDER"] = 4
    # Along x, u^2 - (u/64)^2 u^2 has its top at |u| = 45.3, between the points at 40 and 48.
    bent["A_2_0"], bent["A_4_0"] = 1e-3, -1e-3 / 64**2
    a, b = SkyWCS.from_header(plain()), SkyWCS.from_header(bent)
    found = disagreement(a, b, (128, 96))
    assert abs(found.pixel[0] - 63.5) == 48
    assert found.max_pixels == pytest.approx(1e-3 * 48**2 * (1 - (48 / 64) ** 2), rel=1e-4)


def test_where_one_of_the_two_has_no_position_they_disagree_without_limit() -> None:
    globe = plain(shape=(64, 8), scale=3 * DEGREE)
    globe["CTYPE1"], globe["CTYPE2"] = "RA---SIN", "DEC--SIN"
    a, b = SkyWCS.from_header(plain(shape=(64, 8), scale=1.0)), SkyWCS.from_header(globe)
    for first, second in ((a, b), (b, a)):
        found = disagreement(first, second, (64, 8))
        assert found.max_pixels == np.inf
        assert abs(found.pixel[0] - 31.5) > 18
