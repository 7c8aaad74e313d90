"""SkyWCS: the same sky as astropy and gwcs, without their traps."""

import logging
import pickle
from typing import Any

import asdf
import astropy.units as u
import gwcs
import numpy as np
import pytest
from astropy.coordinates import FK5, ICRS, BarycentricMeanEcliptic, Galactic, SkyCoord
from astropy.io import fits
from astropy.modeling.models import Mapping
from astropy.wcs import WCS
from gwcs import coordinate_frames as cf

from fpgpu.errors import WCSError
from fpgpu.sky.disagreement import disagreement
from fpgpu.sky.sphere import separation
from fpgpu.sky.wcs import SkyWCS
from tests.sky.made_wcs import cube_header, sky_gwcs, tan_header

BOX = ((-0.5, 127.5), (-0.5, 95.5))


def pixels_in_and_around(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Random pixels on a detector and up to half its size beyond."""
    rng = np.random.default_rng(2)
    nx, ny = shape
    return rng.uniform(-0.5 * nx, 1.5 * nx, (5, 40)), rng.uniform(-0.5 * ny, 1.5 * ny, (5, 40))


# FITS


def test_sip_positions_are_astropys(golden_headers: dict[str, fits.Header]) -> None:
    x, y = pixels_in_and_around((128, 128))
    for header in golden_headers.values():
        sky = SkyWCS.from_header(header)
        assert (sky.kind, sky.shape) == ("fits", (128, 128))
        truth = WCS(header).pixel_to_world_values(x, y)
        assert np.array_equal(sky.pixel_to_world(x, y), truth)
        # astropy iterates to 1e-4 px
        assert np.allclose(sky.world_to_pixel(*truth), (x, y), atol=1e-7, rtol=0)
        assert np.allclose(sky.native_world_to_pixel(*truth), (x, y), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dec", [-90.0, -89.9999, 0.0, 89.9999, 90.0])
@pytest.mark.parametrize("ra", [0.0, 359.9999, 123.0])
def test_pixels_come_back_at_poles_and_ra_zero(ra: float, dec: float) -> None:
    sky = SkyWCS.from_header(tan_header(ra=ra, dec=dec))
    x, y = pixels_in_and_around((128, 96))
    world = sky.pixel_to_world(x, y)
    assert np.all((world[0] >= 0) & (world[0] < 360))
    assert np.allclose(sky.world_to_pixel(*world), (x, y), atol=1e-6, rtol=0)


def test_scalars_give_scalars_and_shapes_broadcast() -> None:
    sky = SkyWCS.from_header(tan_header())
    ra, dec = sky.pixel_to_world(3, 4)
    assert np.shape(ra) == np.shape(dec) == ()
    assert [np.shape(v) for v in sky.world_to_pixel(ra, dec)] == [(), ()]
    assert [v.shape for v in sky.pixel_to_world(np.arange(3)[:, None], np.arange(2))] == [
        (3, 2)
    ] * 2
    assert [v.shape for v in sky.pixel_to_world(np.empty(0), 1.0)] == [(0,)] * 2


def test_the_other_side_of_the_sky_has_no_pixel() -> None:
    for sky in (SkyWCS.from_header(tan_header()), SkyWCS.from_gwcs(sky_gwcs(), (128, 96))):
        assert np.isnan(sky.world_to_pixel([233.16, 53.16], [27.79, 70.0])).all()


def test_a_declination_first_header_is_put_right() -> None:
    header = tan_header(angle=0.0, sip=0.0)
    swapped = header.copy()
    for key in ("CTYPE", "CRVAL", "CUNIT"):
        swapped[f"{key}1"], swapped[f"{key}2"] = header[f"{key}2"], header[f"{key}1"]
    for row, other in ((1, 2), (2, 1)):
        for column in (1, 2):
            swapped[f"CD{row}_{column}"] = header[f"CD{other}_{column}"]
    x, y = pixels_in_and_around((128, 96))
    expected = SkyWCS.from_header(header).pixel_to_world(x, y)
    sky = SkyWCS.from_header(swapped)
    assert np.allclose(sky.pixel_to_world(x, y), expected, atol=1e-12, rtol=0)
    assert np.allclose(sky.world_to_pixel(*expected), (x, y), atol=1e-6, rtol=0)
    assert np.allclose(sky.native_world_to_pixel(*expected), (x, y), atol=1e-6, rtol=0)


def test_noise_about_dates_is_nobodys_problem(
    caplog: pytest.LogCaptureFixture, cutout: tuple[fits.Header, Any]
) -> None:
    """astropy's FITSFixedWarning ('datfix', 'obsfix') would be an error here."""
    header = tan_header()
    header["MJD-OBS"], header["DATE-OBS"] = 59776.4, "2022-07-16T09:36:00"
    header["RADECSYS"] = "FK5"
    header["OBSGEO-X"], header["OBSGEO-Y"], header["OBSGEO-Z"] = 4.6e8, -1.3e9, -1.1e9
    with caplog.at_level(logging.WARNING):
        SkyWCS.from_header(header)
        SkyWCS.from_header(cutout[0])
    assert not caplog.records


def test_the_callers_header_and_wcs_are_not_changed() -> None:
    header = cube_header()
    before = header.tostring()
    SkyWCS.from_header(header).footprint()
    assert header.tostring() == before
    native = sky_gwcs(bounding_box=BOX)
    SkyWCS.from_gwcs(native, (128, 96)).world_to_pixel(53.16, -27.79)
    assert np.isnan(native(-5.0, 5.0)[0])


# gWCS


def test_real_gwcs_positions_are_gwcss(nircam_gwcs: Any) -> None:
    sky = SkyWCS.from_gwcs(nircam_gwcs, (2048, 2048))
    assert (sky.kind, sky.shape) == ("gwcs", (2048, 2048))
    x, y = pixels_in_and_around((2048, 2048))
    inside = (x > -0.5) & (x < 2047.5) & (y > -0.5) & (y < 2047.5)
    truth = nircam_gwcs.pixel_to_world_values(x[inside], y[inside])
    ours = sky.pixel_to_world(x, y)
    assert np.isfinite(ours).all()
    assert np.array_equal([ours[0][inside], ours[1][inside]], truth)
    back = sky.world_to_pixel(*ours)
    assert np.allclose(back, (x, y), atol=1e-6, rtol=0)
    # Its own inverse is an approximation.
    own = np.array(sky.native_world_to_pixel(*truth)) - (x[inside], y[inside])
    assert 1e-3 < np.abs(own).max() < 0.1


@pytest.mark.parametrize("box", [None, BOX, ((9.5, 99.5), (19.5, 69.5))])
@pytest.mark.parametrize("inverse", [True, False])
def test_a_bounding_box_makes_no_pixel_nan(box: Any, inverse: bool) -> None:
    made, plain = sky_gwcs(bounding_box=box, inverse=inverse), sky_gwcs()
    sky = SkyWCS.from_gwcs(made, (128, 96))
    x, y = pixels_in_and_around((128, 96))
    truth = plain(x, y)
    assert np.allclose(sky.pixel_to_world(x, y), truth, atol=1e-12, rtol=0)
    assert np.allclose(sky.world_to_pixel(*truth), (x, y), atol=1e-6, rtol=0)
    assert np.allclose(sky.native_world_to_pixel(*truth), (x, y), atol=0.3, rtol=0)


@pytest.mark.parametrize(("inverse", "shape"), [(True, None), (False, (128, 96)), (False, None)])
def test_a_gwcs_that_states_no_size_is_inverted_all_the_same(
    inverse: bool, shape: tuple[int, int] | None
) -> None:
    sky = SkyWCS.from_gwcs(sky_gwcs(inverse=inverse), shape)
    x, y = pixels_in_and_around((128, 96))
    assert np.allclose(sky.world_to_pixel(*sky.pixel_to_world(x, y)), (x, y), atol=1e-6, rtol=0)


def test_the_size_that_a_gwcs_states_is_taken_unless_one_is_given() -> None:
    made = sky_gwcs()
    made.pixel_shape = (128, 96)
    assert SkyWCS.from_gwcs(made).shape == (128, 96)
    assert SkyWCS.from_gwcs(made, (136, 96)).shape == (136, 96)


def test_a_gwcs_of_quantities_gives_plain_degrees() -> None:
    made = sky_gwcs(quantities=True, bounding_box=None, shape=(128, 96))
    sky = SkyWCS.from_gwcs(made, (128, 96))
    centre = sky.pixel_to_world(63.5, 47.5)
    assert not any(isinstance(value, u.Quantity) for value in centre)
    assert centre == pytest.approx((53.16, -27.79), abs=1e-12)
    assert sky.world_to_pixel(*centre) == pytest.approx((63.5, 47.5), abs=1e-6)
    assert sky.native_world_to_pixel(*centre) == pytest.approx((63.5, 47.5), abs=1e-6)


def test_a_gwcs_of_other_units_gives_degrees() -> None:
    made = sky_gwcs(frame=cf.CelestialFrame(reference_frame=FK5(), unit=(u.arcmin, u.arcmin)))
    values = made(63.5, 47.5)
    sky = SkyWCS.from_gwcs(made, (128, 96))
    icrs = SkyCoord(*np.array(values), unit="arcmin", frame="fk5").icrs
    expected = icrs.ra.deg, icrs.dec.deg
    assert sky.pixel_to_world(63.5, 47.5) == pytest.approx(expected, rel=1e-12)
    assert sky.native_world_to_pixel(*expected) == pytest.approx((63.5, 47.5), abs=1e-6)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("reference", [ICRS(), Galactic()])
def test_a_gwcs_of_latitude_first_is_put_right(reference: Any, stored: bool, tmp_path: Any) -> None:
    # gwcs writes the types of the axes in their order, and reads them as longitude first.
    frame = cf.CelestialFrame(
        reference_frame=reference, name="sky", unit=(u.deg, u.deg), axes_order=(1, 0)
    )
    made = sky_gwcs()
    made = gwcs.WCS([(made.input_frame, made.forward_transform | Mapping((1, 0))), (frame, None)])
    if stored:
        asdf.AsdfFile({"wcs": made}).write_to(tmp_path / "w.asdf")
        with asdf.open(tmp_path / "w.asdf", lazy_load=False, memmap=False) as file:
            made = file["wcs"]
    sky = SkyWCS.from_gwcs(made, (128, 96))
    expected = SkyCoord(53.16, -27.79, unit="deg", frame=reference).icrs
    assert sky.pixel_to_world(63.5, 47.5) == pytest.approx((expected.ra.deg, expected.dec.deg))
    x, y = sky.native_world_to_pixel(expected.ra.deg, expected.dec.deg)
    assert (x, y) == pytest.approx((63.5, 47.5), abs=1e-6)


def test_from_native_takes_both_kinds_and_itself_states_the_size() -> None:
    header = tan_header()
    assert SkyWCS.from_native(WCS(header)).shape == (128, 96)
    assert SkyWCS.from_native(sky_gwcs(), (64, 32)).shape == (64, 32)
    assert repr(SkyWCS.from_native(sky_gwcs())) == "<SkyWCS gwcs, size unknown>"
    assert repr(SkyWCS.from_header(header)) == "<SkyWCS fits, 128 x 96 px>"


def test_a_sky_wcs_can_be_sent_to_a_worker() -> None:
    sky = SkyWCS.from_header(tan_header())
    again = pickle.loads(pickle.dumps(sky))
    assert np.array_equal(again.footprint(), sky.footprint())


# Footprints


def test_footprints_follow_the_outer_edges_of_a_non_square_detector() -> None:
    header = tan_header(shape=(64, 96))
    outline = SkyWCS.from_header(header).footprint(per_side=4)
    assert outline.shape == (16, 2)
    x, y = WCS(header).world_to_pixel_values(*outline.T)
    corners = [(-0.5, -0.5), (63.5, -0.5), (63.5, 95.5), (-0.5, 95.5)]
    assert np.allclose(np.stack([x, y], -1)[::4], corners, atol=1e-4)
    on_edge = np.isclose(x, -0.5) | np.isclose(x, 63.5) | np.isclose(y, -0.5) | np.isclose(y, 95.5)
    assert on_edge.all()


def test_a_gwcs_with_a_bounding_box_has_a_finite_footprint(nircam_gwcs: Any) -> None:
    """Its corners at pixels 0 and 2048, as forcepho takes them, are NaN."""
    assert np.isnan(nircam_gwcs(2048.0, 2048.0)[0])
    outline = SkyWCS.from_gwcs(nircam_gwcs, (2048, 2048)).footprint()
    assert outline.shape == (32, 2)
    assert np.isfinite(outline).all()


def test_footprints_stay_inside_a_smaller_bounding_box() -> None:
    sky = SkyWCS.from_gwcs(sky_gwcs(bounding_box=((9.5, 99.5), (-20.0, 69.5))), (128, 96))
    x, y = sky.world_to_pixel(*sky.footprint().T)
    assert (x.min(), x.max()) == pytest.approx((9.5, 99.5), abs=1e-6)
    assert (y.min(), y.max()) == pytest.approx((-0.5, 69.5), abs=1e-6)


def test_a_footprint_needs_a_size() -> None:
    with pytest.raises(WCSError, match=r"gwcs WCS states no size of its detector; give shape"):
        SkyWCS.from_gwcs(sky_gwcs()).footprint()


def test_a_bounding_box_off_the_detector_is_an_error() -> None:
    sky = SkyWCS.from_gwcs(sky_gwcs(bounding_box=((200.0, 300.0), (0.0, 9.0))), (128, 96))
    with pytest.raises(WCSError, match="x 200 to 300, y 0 to 9 of the gwcs WCS lies outside"):
        sky.footprint()


def test_an_outline_off_the_sky_is_an_error() -> None:
    header = tan_header(sip=0.0, scale=3600.0 * 3)  # 3 degrees a pixel, an orthographic globe
    header["CTYPE1"], header["CTYPE2"] = "RA---SIN", "DEC--SIN"
    with pytest.raises(WCSError, match=r"no position at pixel \(-0.5, -0.5\) on the outline"):
        SkyWCS.from_header(header).footprint()


# What is no WCS of an image


def header_without(*keywords: str) -> fits.Header:
    header = tan_header()
    for keyword in keywords:
        del header[keyword]
    return header


def header_with(**values: Any) -> fits.Header:
    header = tan_header()
    header.update(values)
    return header


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (header_without("NAXIS1"), "NAXIS1; .* so give the header of the image extension, not"),
        (header_without("NAXIS2"), "the header has no NAXIS2"),
        (header_with(NAXIS1=0), "NAXIS1 = 0; expected a positive integer"),
        (header_with(NAXIS1="many"), "NAXIS1 = 'many'"),
        (header_without("CTYPE1", "CTYPE2"), "no pair of equatorial axes: no axes at all"),
        (
            header_with(CTYPE1="ELON-TAN", CTYPE2="ELAT-TAN"),
            "CTYPE1 = 'ELON-TAN', CTYPE2 = 'ELAT-TAN'",
        ),
        (header_with(CTYPE1="WAVE", CTYPE2="FREQ"), "no pair of equatorial axes"),
        (header_with(CD1_1=0.0, CD1_2=0.0), "CD matrix is .*a line or a point"),
        (header_with(CD1_1=0.0, CD2_1=0.0), "CD matrix is .*a line or a point"),
        (header_with(CD1_1=1e300, CD2_2=1e300), "CD matrix is"),
        (header_with(CTYPE1="RA---TAN", CTYPE2="WAVE"), "no pair of equatorial axes"),
        (header_with(CTYPE1="RA---ZZZ"), "cannot be used: .*Unrecognized projection code"),
        (header_with(CRVAL1="here"), "CRVAL1 = 'here'; expected a number"),
        (header_with(A_ORDER="three"), "A_ORDER = 'three'; expected a number"),
    ],
)
def test_a_header_without_a_usable_wcs_is_refused(header: fits.Header, message: str) -> None:
    with pytest.raises(WCSError, match=message):
        SkyWCS.from_header(header)


def test_a_gwcs_of_something_else_is_refused() -> None:
    ecliptic = sky_gwcs(frame=cf.CelestialFrame(reference_frame=BarycentricMeanEcliptic()))
    with pytest.raises(WCSError, match=r"pos\.ecliptic\.lon, pos\.ecliptic\.lat; expected right"):
        SkyWCS.from_gwcs(ecliptic)
    flat = sky_gwcs(frame=cf.Frame2D(unit=(u.pix, u.pix)))
    with pytest.raises(
        WCSError, match=r"ends in the axes .* declination \(pos.eq.ra, pos.eq.dec\)$"
    ):
        SkyWCS.from_gwcs(flat)


def test_wrong_dimensions_are_refused() -> None:
    header = cube_header(sip=0.0)
    header["NAXIS"], header["NAXIS3"] = 3, 5
    with pytest.raises(WCSError, match=r"has 3 axes, expected 2; .* use SkyWCS\.from_header"):
        SkyWCS.from_native(WCS(header))
    with pytest.raises(WCSError, match="a int was given as WCS"):
        SkyWCS.from_native(3)


# Comparison


def test_a_real_cutout_whose_gwcs_was_not_shifted(cutout: tuple[fits.Header, Any]) -> None:
    header, gwcs = cutout
    by_gwcs, by_fits = SkyWCS.from_gwcs(gwcs, (100, 100)), SkyWCS.from_header(header)
    found = disagreement(by_gwcs, by_fits, (100, 100))
    assert found.max_pixels == pytest.approx(412, abs=1)
    assert found.position_a == pytest.approx(gwcs(*found.pixel, with_bounding_box=False))
    for keyword in ("OBSGEO-X", "OBSGEO-Y", "OBSGEO-Z"):
        header = header.copy()
        header.remove(keyword, ignore_missing=True)  # astropy warns of them
    truth = [float(value) for value in WCS(header).pixel_to_world_values(*found.pixel)]
    assert found.position_b == pytest.approx(truth)
    apart = separation(*found.position_a, *found.position_b) * 3600
    assert apart / 0.063 == pytest.approx(found.max_pixels, rel=0.02)


def test_a_shift_of_the_reference_pixel_is_the_disagreement() -> None:
    header, shifted = tan_header(ra=0.0, dec=89.99), tan_header(ra=0.0, dec=89.99)
    shifted["CRPIX1"] += 0.3
    shifted["CRPIX2"] -= 0.4
    a, b = SkyWCS.from_header(header), SkyWCS.from_header(shifted)
    assert disagreement(a, b, (128, 96)).max_pixels == pytest.approx(0.5, rel=1e-3)
    assert disagreement(a, a, (128, 96)).max_pixels == pytest.approx(0.0, abs=1e-6)


def test_opposite_sides_of_the_sky_disagree_without_limit() -> None:
    a, b = (SkyWCS.from_header(tan_header(ra=ra, dec=0.0)) for ra in (0.0, 180.0))
    assert disagreement(a, b, (128, 96)).max_pixels == np.inf


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"CD1_1": 1e-30, "CD1_2": 0.0}, "to a line or a point at RA, Dec"),
        ({"CD1_1": 0.5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.5}, "over 70 degrees of sky"),
    ],
)
def test_a_footprint_that_is_none_is_refused(values: dict[str, float], message: str) -> None:
    wcs = SkyWCS.from_header(header_with(**values))
    with pytest.raises(WCSError, match=message):
        wcs.footprint()
