"""SIP solutions: fitted to gWCSs, read and written as FITS, evaluated in bulk."""

import re
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from fpgpu.errors import WCSError
from fpgpu.sky.sip import SipFit, SipTable, _least_squares, fit_sip, sip_residual
from fpgpu.sky.sphere import separation
from fpgpu.sky.wcs import SkyWCS
from tests.sky.made_wcs import sky_gwcs, tan_header

FULL = (2048, 2048)


def detector_grid(shape: tuple[int, int], n: int = 83) -> tuple[np.ndarray, np.ndarray]:
    """Points from edge to edge, other than those that a fit or its check use."""
    x, y = np.meshgrid(*(np.linspace(-0.5, side - 0.5, n) for side in shape))
    return x.ravel(), y.ravel()


def headers_all_over_the_sky() -> list[fits.Header]:
    places = [
        (0.0, 0.0),
        (359.9999, 45.0),
        (200.0, 90.0),
        (10.0, -90.0),
        (30.0, 89.999),
        (53.1, -27.8),
    ]
    return [
        tan_header(ra=ra, dec=dec, angle=40.0 * k, sip=(k % 3) * 1e-6, shape=(128, 96 + 8 * k))
        for k, (ra, dec) in enumerate(places)
    ]


# Fits


def test_a_real_gwcs_is_refitted_to_a_millionth_of_a_pixel(nircam_gwcs: Any) -> None:
    fit = fit_sip(SkyWCS.from_gwcs(nircam_gwcs, FULL), FULL)
    assert 0 < fit.residual < 1e-6
    x, y = detector_grid(FULL)
    truth = nircam_gwcs(x, y, with_bounding_box=False)
    apart = separation(*fit.pixel_to_world(x, y), *truth)
    assert apart.max() < 1e-9
    scale = np.sqrt(abs(np.linalg.det(fit.cd)))
    assert apart.max() / scale <= 1.05 * fit.residual
    assert np.allclose(fit.world_to_pixel(*truth), (x, y), atol=1e-6, rtol=0)


@pytest.mark.parametrize("degree", [2, 5, 9])
def test_the_fit_is_the_least_squares_solution_of_lapack(degree: int) -> None:
    half = np.array([1024.0, 512.0])
    u, v = np.random.default_rng(degree).uniform(-1, 1, (2, 576)) * half[:, None]
    values = np.stack([u + np.sin(v / 300), v + np.cos(u * v / 1e5)])
    ours = _least_squares(u, v, values, half, degree)
    powers = [(p, q) for p in range(degree + 1) for q in range(degree + 1 - p) if p + q > 0]
    design = np.stack([(u / half[0]) ** p * (v / half[1]) ** q for p, q in powers], axis=-1)
    theirs = np.linalg.lstsq(design, values.T, rcond=None)[0]
    scaled = [ours[:, p, q] * half[0] ** p * half[1] ** q for p, q in powers]
    assert np.allclose(design @ scaled, design @ theirs, rtol=0, atol=1e-10)  # pixels


def test_astropy_reads_the_fits_header_to_the_same_positions(nircam_gwcs: Any) -> None:
    fit = fit_sip(SkyWCS.from_gwcs(nircam_gwcs, FULL), FULL)
    header = fits.Header.fromstring(fit.to_header().tostring())
    x, y = detector_grid(FULL)
    theirs = WCS(header).pixel_to_world_values(x, y)
    assert separation(*theirs, *fit.pixel_to_world(x, y)).max() < 1e-12
    header["NAXIS1"], header["NAXIS2"] = FULL
    again = SipFit.from_wcs(SkyWCS.from_header(header))
    # A card has room for 12 to 14 digits.
    for name in ("crval", "crpix", "cd", "a", "b", "ap", "bp"):
        assert np.allclose(getattr(again, name), getattr(fit, name), rtol=1e-11, atol=0)


def test_the_inverse_polynomials_are_good_to_a_hundredth_of_a_pixel(nircam_gwcs: Any) -> None:
    fit = fit_sip(SkyWCS.from_gwcs(nircam_gwcs, FULL), FULL)
    sip = WCS(fit.to_header()).sip
    pixels = np.stack(detector_grid(FULL), axis=-1)
    assert np.abs(sip.foc2pix(sip.pix2foc(pixels, 0), 0) - pixels).max() < 0.01


def test_a_bounding_box_does_not_limit_the_fit() -> None:
    boxed, plain = sky_gwcs(bounding_box=((20.0, 60.0), (30.0, 50.0))), sky_gwcs()
    fit = fit_sip(SkyWCS.from_gwcs(boxed, (128, 96)), (128, 96), degree=3)
    x, y = detector_grid((128, 96))
    assert separation(*fit.pixel_to_world(x, y), *plain(x, y)).max() < 1e-11


@pytest.mark.parametrize("shape", [(8, 8), (16, 4096)])
@pytest.mark.parametrize("dec", [0.0, 90.0, -89.9999])
def test_a_sip_wcs_is_fitted_by_itself(shape: tuple[int, int], dec: float) -> None:
    sky = SkyWCS.from_header(tan_header(ra=359.99, dec=dec, shape=shape, sip=1e-7))
    fit = fit_sip(sky, shape)
    assert fit.residual < 1e-6
    x, y = detector_grid(shape, 21)
    assert separation(*fit.pixel_to_world(x, y), *sky.pixel_to_world(x, y)).max() < 1e-11


def test_a_fit_that_misses_the_tolerance_says_by_how_much_and_where(nircam_gwcs: Any) -> None:
    sky = SkyWCS.from_gwcs(nircam_gwcs, FULL)
    rough = fit_sip(sky, FULL, degree=2, tolerance=np.inf)
    x, y = detector_grid(FULL, 65)  # the points of the check
    back_x, back_y = rough.world_to_pixel(*sky.pixel_to_world(x, y))
    apart = np.hypot(back_x - x, back_y - y)
    assert rough.residual == pytest.approx(apart.max(), rel=1e-3)
    assert sip_residual(sky, rough, FULL) == rough.residual
    worst = int(np.argmax(apart))
    place = re.escape(f"({x[worst]:.1f}, {y[worst]:.1f}); the tolerance is 1e-05 px")
    with pytest.raises(WCSError, match=rf"degree 2 misses the WCS by \d.* px at pixel {place}"):
        fit_sip(sky, FULL, degree=2, tolerance=1e-5)


def test_the_degrees_that_sip_has_are_fitted() -> None:
    sky = SkyWCS.from_header(tan_header(sip=1e-7))
    for degree in (2, 9):
        assert fit_sip(sky, (128, 96), degree, tolerance=0.01).a.shape == (degree + 1, degree + 1)


@pytest.mark.parametrize("degree", [1, 10])
def test_a_degree_that_sip_does_not_have_is_refused(degree: int) -> None:
    with pytest.raises(WCSError, match="expected 2 to 9"):
        fit_sip(SkyWCS.from_header(tan_header()), (128, 96), degree=degree)


def test_a_detector_that_leaves_the_sky_is_refused() -> None:
    header = tan_header(sip=0.0, scale=3600.0 * 3)
    header["CTYPE1"], header["CTYPE2"] = "RA---SIN", "DEC--SIN"
    # Chebyshev nodes begin near the last corner.
    with pytest.raises(WCSError, match=r"WCS gives no usable position at pixel \(127.4, 95.4\)"):
        fit_sip(SkyWCS.from_header(header), (128, 96))
    # A globe of 50 pixels around x = 100: the node after that at 51 is the first beyond it.
    beside = tan_header(sip=0.0, scale=3600 * np.rad2deg(1 / 50), shape=(128, 8), angle=0.0)
    beside["CTYPE1"], beside["CTYPE2"], beside["CRPIX1"] = "RA---SIN", "DEC--SIN", 101.0
    with pytest.raises(WCSError, match=r"pixel \(42.9, 7.5\) of its detector, so no SIP solution"):
        fit_sip(SkyWCS.from_header(beside), (128, 8))


# Headers


@pytest.mark.parametrize("header", headers_all_over_the_sky())
def test_coefficients_of_a_header_give_astropys_positions(header: fits.Header) -> None:
    fit = SipFit.from_wcs(SkyWCS.from_header(header))
    assert fit.residual == 0.0
    x, y = detector_grid((128, 96), 9)
    truth = WCS(header).pixel_to_world_values(x, y)
    assert separation(*fit.pixel_to_world(x, y), *truth).max() < 1e-12
    written = WCS(fit.to_header()).pixel_to_world_values(x, y)
    assert separation(*written, *truth).max() < 1e-12


def test_a_turned_native_pole_is_folded_into_the_matrix() -> None:
    header = tan_header()
    header["LONPOLE"] = 132.0
    fit = SipFit.from_wcs(SkyWCS.from_header(header))
    x, y = detector_grid((128, 96), 9)
    truth = WCS(header).pixel_to_world_values(x, y)
    assert separation(*fit.pixel_to_world(x, y), *truth).max() < 1e-12


def test_pc_and_cdelt_are_as_good_as_cd(golden_headers: dict[str, fits.Header]) -> None:
    x, y = detector_grid((128, 128), 9)
    for header in golden_headers.values():
        assert "PC1_1" in header
        fit = SipFit.from_wcs(SkyWCS.from_header(header))
        truth = WCS(header).pixel_to_world_values(x, y)
        assert separation(*fit.pixel_to_world(x, y), *truth).max() < 1e-12


def test_every_card_of_the_header_says_what_it_is() -> None:
    header = tan_header(ra=12.0, dec=90.0, shape=(128, 96), sip=0.0, angle=0.0)
    fit = SipFit.from_wcs(SkyWCS.from_header(header))
    cards = [(card.keyword, card.value, card.comment) for card in fit.to_header().cards]
    order = "degree of the SIP polynomial"
    assert [card for card in cards if not card[0].startswith("CD")] == [
        ("WCSAXES", 2, "number of coordinate axes"),
        ("CTYPE1", "RA---TAN-SIP", "right ascension, gnomonic with SIP distortion"),
        ("CUNIT1", "deg", ""),
        ("CRPIX1", 64.5, "reference pixel"),
        ("CRVAL1", 12.0, "[deg] right ascension at it"),
        ("CTYPE2", "DEC--TAN-SIP", "declination, gnomonic with SIP distortion"),
        ("CUNIT2", "deg", ""),
        ("CRPIX2", 48.5, "reference pixel"),
        ("CRVAL2", 90.0, "[deg] declination at it"),
        ("LONPOLE", 180.0, "[deg] native longitude of the celestial pole"),
        ("RADESYS", "ICRS", ""),
        # astropy takes no order below 2.
        *((f"{name}_ORDER", 2, order) for name in ("A", "B", "AP", "BP")),
    ]
    matrix = np.array([card[1] for card in cards if card[0].startswith("CD")])
    assert matrix == pytest.approx(fit.cd.ravel(), rel=1e-12)


def test_orders_are_those_of_the_matrices_and_zeros_take_no_cards() -> None:
    header = SipFit.from_wcs(SkyWCS.from_header(tan_header())).to_header()
    assert [header[f"{name}_ORDER"] for name in ("A", "B", "AP", "BP")] == [3, 3, 2, 2]
    terms = {key for key in header if key[:2] in ("A_", "B_") and "ORDER" not in key}
    assert terms == {"A_2_0", "A_1_1", "A_0_3", "B_0_2", "B_1_1", "B_2_1"}


def test_what_sip_cannot_express_is_refused() -> None:
    tilted = tan_header(sip=0.0)
    tilted["PV1_1"], tilted["PV1_2"] = 0.0, 80.0  # the reference point is off the native pole
    with pytest.raises(WCSError, match="'RA---TAN-SIP', 'DEC--TAN-SIP' and no look-up tables"):
        SipFit.from_wcs(SkyWCS.from_header(tilted))
    header = tan_header(sip=0.0)
    header["CTYPE1"], header["CTYPE2"] = "RA---ZPN", "DEC--ZPN"
    header["PV2_1"] = 1.0
    with pytest.raises(WCSError, match="CTYPE RA---ZPN, DEC--ZPN is no gnomonic projection"):
        SipFit.from_wcs(SkyWCS.from_header(header))
    with pytest.raises(WCSError, match=r"a gWCS has no SIP coefficients .* with fit_sip"):
        SipFit.from_wcs(SkyWCS.from_gwcs(sky_gwcs()))


# Tables


def table_and_truth() -> tuple[SipTable, list[WCS]]:
    headers = headers_all_over_the_sky()
    fits_ = [SipFit.from_wcs(SkyWCS.from_header(header)) for header in headers]
    return SipTable(fits_), [WCS(header) for header in headers]


def test_a_table_gives_astropys_positions_of_the_same_pixels_in_every_exposure() -> None:
    table, truth = table_and_truth()
    x, y = detector_grid((128, 96), 7)
    ra, dec = table.pixel_to_world(x, y)
    assert ra.shape == dec.shape == (6, 49)
    assert ra.min() >= 0
    assert ra.max() < 360
    for k, wcs in enumerate(truth):
        assert separation(ra[k], dec[k], *wcs.pixel_to_world_values(x, y)).max() < 1e-12


def test_a_table_gives_astropys_pixels_of_every_own_positions() -> None:
    table, truth = table_and_truth()
    x, y = detector_grid((128, 96), 7)
    world = [wcs.pixel_to_world_values(x, y) for wcs in truth]
    ra, dec = np.array([w[0] for w in world]), np.array([w[1] for w in world])
    found = table.world_to_pixel(ra, dec)
    assert np.allclose(found, (np.tile(x, (6, 1)), np.tile(y, (6, 1))), atol=1e-6, rtol=0)
    for k, wcs in enumerate(truth):
        theirs = wcs.all_world2pix(ra[k], dec[k], 0, tolerance=1e-9)
        assert np.allclose([found[0][k], found[1][k]], theirs, atol=1e-6, rtol=0)


def test_sources_are_found_in_the_exposures_that_reach_them() -> None:
    table, truth = table_and_truth()
    ra, dec = (
        np.array([float(v) for v in w]) for w in zip(*(t.wcs.crval for t in truth), strict=True)
    )
    x, y = table.world_to_pixel(ra, dec)
    assert x.shape == (6, 6)
    assert np.isnan(x[2, 3])  # the other pole
    for k, wcs in enumerate(truth):
        assert (x[k, k], y[k, k]) == pytest.approx(wcs.wcs.crpix - 1, abs=1e-6)


def test_pixels_are_forcephos_golden_ones(
    golden_headers: dict[str, fits.Header], golden_patch: dict[str, np.ndarray]
) -> None:
    """Stored as float32 relative to nothing: 1e-4 px is ten times its rounding."""
    headers = [golden_headers[str(name)] for name in golden_patch["epaths"]]
    table = SipTable([SipFit.from_wcs(SkyWCS.from_header(header)) for header in headers])
    sources = golden_patch["sourcecat"]
    x, y = table.world_to_pixel(sources["ra"], sources["dec"])
    assert np.allclose(np.stack([x, y], axis=-1), golden_patch["crpix"], atol=1e-4, rtol=0)


def test_rows_can_be_picked() -> None:
    table, _ = table_and_truth()
    few = table.take([4, 1])
    assert len(few) == 2
    assert repr(few) == "<SipTable of 2 exposures, order 3>"
    assert np.array_equal(
        few.pixel_to_world([5.0], [6.0])[0], table.pixel_to_world([5.0], [6.0])[0][[4, 1]]
    )


def test_an_empty_table_gives_empty_answers() -> None:
    assert SipTable([]).pixel_to_world([1.0, 2.0], [1.0, 2.0])[0].shape == (0, 2)
    assert SipTable([]).world_to_pixel([1.0, 2.0], [1.0, 2.0])[1].shape == (0, 2)


def test_a_singular_or_broken_solution_is_named() -> None:
    good = SipFit.from_wcs(SkyWCS.from_header(tan_header()))
    flat = SipFit(good.crval, good.crpix, np.ones((2, 2)), good.a, good.b, good.ap, good.bp, 0.0)
    with pytest.raises(WCSError, match="SIP solution 1 cannot be used"):
        SipTable([good, flat])
    lost = SipFit(good.crval * np.nan, good.crpix, good.cd, good.a, good.b, good.ap, good.bp, 0.0)
    with pytest.raises(WCSError, match=r"solution 0 cannot be used: crval \[nan nan\]"):
        SipTable([lost])
    values = (good.crval, good.crpix, good.cd, good.a, good.b, good.ap, good.bp)
    for number in range(5):
        broken = [v + np.nan if k == number else v for k, v in enumerate(values)]
        with pytest.raises(WCSError, match=r"SIP solution 2 .* CD matrix that can be inverted$"):
            SipTable([good, good, SipFit(*broken, 0.0), good])
