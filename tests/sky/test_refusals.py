"""What is said of input that cannot be used: what was found, what was expected, where it is."""

from collections.abc import Callable
from typing import Any

import gwcs
import numpy as np
import pytest
from astropy.io import fits
from astropy.modeling import models
from astropy.wcs import WCS
from gwcs import coordinate_frames as cf

from fpgpu.errors import FpgpuError
from fpgpu.sky.footprints import FootprintIndex
from fpgpu.sky.inverse import linearise
from fpgpu.sky.regions import CircularRegion, PolygonRegion, RectangularRegion
from fpgpu.sky.sip import SipFit, SipTable, fit_sip
from fpgpu.sky.wcs import SkyWCS
from tests.sky.made_wcs import cube_header, sky_gwcs, tan_header

PAIR = "expected RA---xxx and DEC--xxx as in 'RA---TAN', 'DEC--TAN'"


def changed(make: Callable[..., fits.Header] = tan_header, **cards: Any) -> fits.Header:
    """A header with some cards replaced; None takes one out."""
    header = make()
    for keyword, value in cards.items():
        if value is None:
            del header[keyword]
        else:
            header[keyword] = value
    return header


HEADERS = [
    (
        changed(NAXIS2=None),
        "the header has no NAXIS2; expected the size of the image in NAXIS1 and NAXIS2, so give "
        "the header of the image extension, not of the file",
    ),
    (changed(NAXIS1=2.5), "the header has NAXIS1 = 2.5; expected a positive integer"),
    (changed(CD1_2="x"), "the header has CD1_2 = 'x'; expected a number"),
    (changed(CRPIX1=True), "the header has CRPIX1 = True; expected a number"),
    (
        changed(PV1_1=fits.card.UNDEFINED),
        "the header has PV1_1 without a value; expected a number",
    ),
    (changed(PC1_1="x"), "the header has PC1_1 = 'x'; expected a number"),
    (changed(LONPOLE="x"), "the header has LONPOLE = 'x'; expected a number"),
    (changed(A_2_0="x"), "the header has A_2_0 = 'x'; expected a number"),
    (changed(A_ORDER=2.5), "the header has A_ORDER = 2.5; expected a whole number"),
    (
        changed(A_2_0=1e30),
        "the header has A_2_0 = 1e+30, which moves a pixel that far at a distance of one pixel; "
        "expected a SIP coefficient much below 1",
    ),
    (
        changed(RADESYS="ICRS", RADECSYS="FK5"),
        "the header has RADESYS = 'ICRS' and RADECSYS = 'FK5'; delete the one that does not hold",
    ),
    (
        changed(CD1_1=2.0, CD1_2=1.0, CD2_1=4.0, CD2_2=2.0),
        "the header's CD matrix is [[2, 1], [4, 2]], which maps the image to a line or a point; "
        "expected degrees per pixel in two directions",
    ),
    (
        changed(CD1_1=None, CD1_2=None, CD2_1=None, CD2_2=None, CDELT2=0.0, PC1_2=0.5),
        "the header's CDELT times PC matrix is [[1, 0.5], [0, 0]], which maps the image to a line "
        "or a point; expected degrees per pixel in two directions",
    ),
    (
        changed(CTYPE1="WAVE", CTYPE2="dec--tan"),
        f"the header has no pair of equatorial axes: CTYPE1 = 'WAVE', CTYPE2 = 'dec--tan'; {PAIR}",
    ),
    (
        fits.Header({"NAXIS1": 5, "NAXIS2": 5}),
        f"the header has no pair of equatorial axes: no axes at all; {PAIR}",
    ),
    (
        changed(cube_header, CTYPE1="WAVE", CTYPE3="RA---TAN-SIP"),
        "the sky is along axes 2 and 3 of its WCS (CTYPE1 is 'WAVE', CTYPE2 is 'DEC--TAN-SIP'), "
        "but the image is of axes 1 and 2; expected an image of the sky",
    ),
    (
        changed(cube_header, CD2_3=0.5),
        "the header has CD2_3 = 0.5: its celestial coordinates depend on pixel axis 3, which an "
        "image does not have",
    ),
]


@pytest.mark.parametrize(("header", "text"), HEADERS)
def test_of_headers(header: fits.Header, text: str) -> None:
    with pytest.raises(FpgpuError) as caught:
        SkyWCS.from_header(header)
    assert str(caught.value) == text


def test_small_scales_and_lower_case_are_no_reason_to_refuse() -> None:
    tiny = changed(CD1_1=1e-170, CD1_2=0.0, CD2_1=0.0, CD2_2=1e-150)
    assert SkyWCS.from_header(tiny).shape == (128, 96)
    lower = changed(CTYPE1="ra---tan", CTYPE2=" Dec--tan")
    assert SkyWCS.from_header(lower).native.wcs.ctype[1] == "DEC--TAN-SIP"


def ecliptic() -> WCS:
    header = tan_header(sip=0.0)
    header["CTYPE1"], header["CTYPE2"] = "ELON-TAN", "ELAT-TAN"
    return WCS(header)


def three_axes() -> WCS:
    return WCS(changed(lambda: cube_header(sip=0.0), NAXIS=3, NAXIS3=5))


def cube_gwcs() -> Any:
    """A gWCS of three pixel axes."""
    names = {"naxes": 3, "axes_type": ["SPATIAL"] * 3, "axes_order": (0, 1, 2), "unit": ["deg"] * 3}
    frames = [cf.CoordinateFrame(name=name, **names) for name in ("detector", "world")]
    return gwcs.WCS([(frames[0], models.Identity(3)), (frames[1], None)])


POINT = np.zeros(3)
TRIANGLE = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]


def broken() -> SipFit:
    good = SipFit.from_wcs(SkyWCS.from_header(tan_header(ra=10.0, dec=20.0)))
    singular = np.array([[1.0, 2.0], [2.0, 4.0]])
    return SipFit(good.crval, good.crpix, singular, good.a, good.b, good.ap, good.bp, 0.0)


CALLS: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: SkyWCS.from_native("WCS"),
        "a str was given as WCS; expected an astropy.wcs.WCS, a gwcs.WCS or a SkyWCS",
    ),
    (
        lambda: SkyWCS.from_native(three_axes()),
        "the FITS WCS has 3 axes, expected 2; for the celestial part of a header with more use "
        "SkyWCS.from_header",
    ),
    (
        lambda: SkyWCS.from_native(ecliptic()),
        f"the FITS WCS has no equatorial coordinates: CTYPE is 'ELON-TAN', 'ELAT-TAN'; {PAIR}",
    ),
    (
        lambda: SkyWCS.from_gwcs(cube_gwcs()),
        "the gWCS maps 3 pixel axes to 3 world axes; expected two pixel axes to right ascension "
        "and declination",
    ),
    (
        lambda: SkyWCS.from_gwcs(sky_gwcs()).footprint(),
        "the gwcs WCS states no size of its detector; give shape=(nx, ny)",
    ),
    (
        lambda: SkyWCS.from_gwcs(
            sky_gwcs(bounding_box=((0.0, 9.0), (200.0, 300.0))), (128, 96)
        ).footprint(),
        "the bounding box x 0 to 9, y 200 to 300 of the gwcs WCS lies outside its detector of "
        "128 x 96 pixels",
    ),
    (
        lambda: SkyWCS.from_header(tan_header(scale=3600.0, sip=0.0)).footprint(),
        "the fits WCS spreads the detector over 109 degrees of sky; check the scale of its pixels",
    ),
    (
        lambda: linearise(lambda x, y: (x * np.nan, y), (-0.5, 7.5, 1.0, 9.0)),
        "the WCS gives no usable positions on the sky for pixels x -0.5 to 7.5, y 1 to 9; expected "
        "finite ones within one hemisphere",
    ),
    (
        lambda: linearise(lambda x, y: (x, 0 * y), (0.0, 8.0, 0.0, 8.0)),
        "the WCS maps the whole detector onto a line or a point of the sky",
    ),
    (
        lambda: fit_sip(SkyWCS.from_header(tan_header()), (128, 96), 12),
        "the degree of a SIP fit is 12; expected 2 to 9",
    ),
    (
        lambda: SipFit.from_wcs(SkyWCS.from_gwcs(sky_gwcs())),
        "a gWCS has no SIP coefficients to take; fit them with fit_sip",
    ),
    (
        lambda: SipTable([broken()]),
        "SIP solution 0 cannot be used: crval [10. 20.], crpix [63.5 47.5], CD [[1.0, 2.0], [2.0, "
        "4.0]]; expected finite values and a CD matrix that can be inverted",
    ),
    (
        lambda: CircularRegion(1, 2, np.inf),
        "CircularRegion(ra=1.0, dec=2.0, radius=inf): every value must be finite",
    ),
    (
        lambda: CircularRegion(1, -90.5, 1),
        "CircularRegion(ra=1.0, dec=-90.5, radius=1.0): dec is -90.5, expected -90 to 90 degrees",
    ),
    (
        lambda: CircularRegion(1, 2, 0),
        "CircularRegion(ra=1.0, dec=2.0, radius=0.0): the radius must be above 0 and up to 180 "
        "degrees",
    ),
    (
        lambda: RectangularRegion(1, 1, 2, 3),
        "RectangularRegion(ra_min=1.0, ra_max=1.0, dec_min=2.0, dec_max=3.0): spans 0 degrees of "
        "right ascension; expected more than 0 and up to 360",
    ),
    (
        lambda: RectangularRegion(1, 2, 3, 3),
        "RectangularRegion(ra_min=1.0, ra_max=2.0, dec_min=3.0, dec_max=3.0): dec_min must be "
        "below dec_max",
    ),
    (
        lambda: PolygonRegion([1, 2, 3, 4], [1, 2, 3]),
        "a polygon was given 4 right ascensions and 3 declinations; expected as many of both, "
        "three or more",
    ),
    (
        lambda: PolygonRegion([1, 2, 3], [0, 1, np.nan]),
        "PolygonRegion(ra=(1.0, 2.0, 3.0), dec=(0.0, 1.0, nan)): every value must be finite",
    ),
    (
        lambda: PolygonRegion([1, 2, 3], [0, 1, -91]),
        "PolygonRegion(ra=(1.0, 2.0, 3.0), dec=(0.0, 1.0, -91.0)): declinations must be between "
        "-90 and 90 degrees",
    ),
    (
        lambda: PolygonRegion([0, 120, 240], [0, 0, 0]),
        "PolygonRegion(ra=(0.0, 120.0, 240.0), dec=(0.0, 0.0, 0.0)): does not fit in a hemisphere",
    ),
    (
        lambda: FootprintIndex([TRIANGLE, [POINT, POINT, POINT]]),
        "footprint 1 has shape (3, 3); expected (n_vertices, 2) with three vertices or more",
    ),
    (
        lambda: FootprintIndex.from_arrays(np.zeros((5, 2, 2))),
        "the outlines have shape (5, 2, 2); expected (n, n_vertices, 2) with three vertices or "
        "more",
    ),
    (
        lambda: FootprintIndex.from_arrays(np.zeros((5, 4, 3))),
        "the outlines have shape (5, 4, 3); expected (n, n_vertices, 2) with three vertices or "
        "more",
    ),
    (
        lambda: FootprintIndex.from_arrays([TRIANGLE, [[0, 0], [np.inf, 0], [0, 1]]]),
        "footprint 1 has a vertex at RA, Dec inf, 0.0; expected finite degrees with declinations "
        "from -90 to 90",
    ),
    (
        lambda: FootprintIndex([TRIANGLE]).containing(5.0, 90.5),
        "ra=5.0, dec=90.5 is no position on the sky; expected degrees",
    ),
]


@pytest.mark.parametrize(("call", "text"), CALLS)
def test_of_everything_else(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(FpgpuError) as caught:
        call()
    assert str(caught.value) == text


def test_what_is_at_a_limit_is_taken() -> None:
    assert len(FootprintIndex.from_arrays([TRIANGLE])) == 1
    assert FootprintIndex([TRIANGLE]).containing(5, -90).size == 0
    assert CircularRegion(0, 90, 180).radius == 180.0
    assert RectangularRegion(0, 360, -90, 90).center == (180.0, 0.0)
