"""What of a header is its WCS; of three axes, the celestial part, distortion included."""

from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from fpgpu.errors import WCSError
from fpgpu.sky.cards import settle_cards, wcs_header, wcs_text
from fpgpu.sky.wcs import SkyWCS
from tests.sky.made_wcs import cube_header, tan_header

# Beside those that place the image: what else WCSLIB finds in a header.
FURTHER = {
    "PV2_1": 0.1, "LONPOLE": 170.0, "LATPOLE": 60.0, "RADESYS": "FK5", "EQUINOX": 1975.0,
    "WCSNAME": "sky", "CNAME1": "along", "CRDER1": 0.1, "CSYER2": 0.2, "CZPHS1": 0.3,
    "CPERI2": 0.4, "SPECSYS": "BARYCENT", "SSYSOBS": "TOPOCENT", "SSYSSRC": "LSRK",
    "VELOSYS": 1.0, "VSOURCE": 2.0, "ZSOURCE": 0.5, "VELANGL": 3.0, "RESTFRQ": 1e9,
    "RESTWAV": 1e-6, "VELREF": 258, "TIMESYS": "TAI", "TREFPOS": "GEOCENTER", "TREFDIR": "RA,DEC",
    "PLEPHEM": "DE405", "TIMEUNIT": "s", "DATEREF": "2000-01-01T00:00:00", "MJDREF": 51544.0,
    "TIMEOFFS": 0.1, "DATE-OBS": "2022-10-03T01:02:03", "DATE-BEG": "2022-10-03T01:02:03",
    "DATE-AVG": "2022-10-03T01:02:04", "DATE-END": "2022-10-03T01:02:05", "MJD-OBS": 59855.0,
    "MJD-BEG": 59855.0, "MJD-AVG": 59855.1, "MJD-END": 59855.2, "JEPOCH": 2022.7,
    "BEPOCH": 2022.7, "TSTART": 1.0, "TSTOP": 2.0, "XPOSURE": 1.0, "TELAPSE": 1.0,
    "TIMSYER": 0.1, "TIMRDER": 0.1, "TIMEDEL": 0.1, "TIMEPIXR": 0.5, "OBSGEO-X": 1e6,
    "OBSGEO-Y": 2e6, "OBSGEO-Z": 3e6, "OBSORBIT": "orbit.fits",
}  # fmt: skip


@pytest.mark.parametrize("sip", [0.0, 1e-6])
def test_all_that_a_wcs_is_made_of_is_kept_and_nothing_else(sip: float) -> None:
    header = tan_header(sip=sip)
    header.update(FURTHER)
    header["CTYPE1A"], header["CRVAL1A"], header["RADESYSA"] = "RA---TAN", 5.0, "ICRS"
    header["CPDIS1"], header["D2IMERR1"], header["WAT0_001"] = "LOOKUP", 0.1, "system=image " * 9
    for cards in ("EXTVER: 1", "NAXES: 2", "AXIS.1: 1", "AXIS.2: 2"):
        header.append(("DP1", cards), end=True)
    header.append(("D2IM2", "EXTVER: 3"), end=True)
    kept = list(header)
    assert "DP1.EXTVER" in kept
    header.update({"FILTER": "F200W", "DETECTOR": "NRCA1", "CAL_VER": "1.2", "BKGLEVEL": 3.0})
    header["PROGRAM"] = "a title that takes more than one card " * 3
    header.add_history("reduced twice")
    assert list(wcs_header(header)) == kept
    assert wcs_text(header.tostring()) == wcs_header(header).tostring().partition("END  ")[0]


@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
def test_a_wcs_is_read_the_same_without_the_other_cards(
    golden_headers: dict[str, fits.Header], cutout: tuple[fits.Header, Any]
) -> None:
    everything = tan_header(angle=0.0)
    everything.update(FURTHER)
    del everything["PV2_1"]  # which contradicts SIP
    for header in (*golden_headers.values(), cutout[0], everything):
        ours, theirs = SkyWCS.from_header(header).native, WCS(header)
        assert ours.wcs.compare(theirs.wcs)
        assert ours.to_header_string(relax=True) == theirs.to_header_string(relax=True)


def test_whoever_changes_a_native_wcs_changes_only_his_own() -> None:
    first, second = (SkyWCS.from_header(tan_header()) for _ in range(2))
    first.native.wcs.crval = [1.0, 2.0]
    first.native.sip = None
    assert np.allclose(second.native.wcs.crval, [53.16, -27.79])
    assert second.native.sip is not None
    assert SkyWCS.from_header(tan_header()).pixel_to_world(3, 4) == second.pixel_to_world(3, 4)


@pytest.mark.parametrize("sip", [0.0, 1e-6])
def test_the_celestial_part_gives_the_positions_of_the_plain_image(sip: float) -> None:
    x, y = np.random.default_rng(1).uniform(0, 96, (2, 50))
    truth = WCS(tan_header(sip=sip)).pixel_to_world_values(x, y)
    sky = SkyWCS.from_header(cube_header(sip=sip))
    assert np.array_equal(sky.pixel_to_world(x, y), truth)
    assert sky.shape == (128, 96)


def settled(header: fits.Header) -> fits.Header:
    reduced = header.copy()
    settle_cards(reduced)
    return reduced


def test_all_other_cards_stay_and_those_of_the_third_axis_go() -> None:
    header = cube_header()
    header["NAXIS"], header["NAXIS3"] = 3, 7
    header["FILTER"], header["PV3_1"], header["CTYPE3A"] = "F200W", 1.0, "FREQ"
    header["PS3_4"], header["CROTA3"], header["CD1_3B"], header["PV_NAME"] = "a", 12.0, 6.0, "kept"
    header["CD1_3"] = header["CD3_1"] = header["PC001003"] = 0.0
    reduced = settled(header)
    assert reduced["NAXIS"] == reduced["WCSAXES"] == 2
    assert [key for key in reduced if "3" in key] == ["A_0_3"]
    assert (reduced["FILTER"], reduced["PV_NAME"]) == ("F200W", "kept")
    assert reduced["A_1_1"] == header["A_1_1"]


def test_an_image_whose_sky_is_along_later_axes_is_refused() -> None:
    """Its NAXIS1 and NAXIS2 are not those of the sky."""
    header = cube_header()
    for name in ("CTYPE", "CRVAL", "CUNIT"):
        header[f"{name}1"], header[f"{name}3"] = header[f"{name}3"], header[f"{name}1"]
    with pytest.raises(WCSError, match=r"along axes 2 and 3 .* but the image is of axes 1 and 2"):
        SkyWCS.from_header(header)


def test_cards_that_were_written_twice_go_twice() -> None:
    header = cube_header()
    header.append(("CNAME3", "wave"))
    header.append(("CNAME3", "wave"))
    header.append(("HISTORY", "one"))
    header.append(("HISTORY", "two"))
    reduced = settled(header)
    assert "CNAME3" not in reduced
    assert list(reduced["HISTORY"]) == ["one", "two"]
    assert header.count("CNAME3") == 2


@pytest.mark.parametrize("keyword", ["CD1_3", "PC001003"])
def test_coordinates_that_depend_on_the_third_pixel_axis_are_refused(keyword: str) -> None:
    header = cube_header()
    header[keyword] = 1e-5
    with pytest.raises(WCSError, match=rf"{keyword} = 1e-05: .* depend on pixel axis 3"):
        settle_cards(header)


@pytest.mark.parametrize("cards", [{"NAXIS": 4, "NAXIS4": 1}, {"WCSAXES": 3}, {"CNAME3": "wave"}])
def test_axes_are_those_of_the_sky_whatever_states_more(cards: dict[str, Any]) -> None:
    header = tan_header()
    expected = SkyWCS.from_header(header).pixel_to_world(3, 4)
    header.update(cards)
    assert SkyWCS.from_header(header).pixel_to_world(3, 4) == expected


@pytest.mark.parametrize("old", ["PC", "CD"])
def test_the_old_form_of_a_matrix_is_read(old: str) -> None:
    header = tan_header(sip=0.0)
    for i, j in np.ndindex(2, 2):
        header[f"{old}{i + 1:03d}{j + 1:03d}"] = header.pop(f"CD{i + 1}_{j + 1}")
    truth = WCS(tan_header(sip=0.0)).pixel_to_world_values(30, 40)
    assert np.allclose(SkyWCS.from_header(header).pixel_to_world(30, 40), truth, atol=1e-12, rtol=0)
    header["CTYPE1"], header["CTYPE2"] = "RA---TPV", "DEC--TPV"
    assert np.allclose(SkyWCS.from_header(header).pixel_to_world(30, 40), truth, atol=1e-12, rtol=0)
    for column in (1, 2):
        header[f"{old}{1:03d}{column:03d}"] = 0.0
        header.pop(f"CD1_{column}", None)
    with pytest.raises(WCSError, match="to a line or a point"):
        SkyWCS.from_header(header)


def test_a_cube_without_a_sky_is_refused() -> None:
    header = cube_header()
    header["CTYPE1"], header["CTYPE2"] = "XOFFSET", "YOFFSET"
    with pytest.raises(WCSError, match=r"no pair of equatorial axes: CTYPE1 = 'XOFFSET'"):
        SkyWCS.from_header(header)
    with pytest.raises(WCSError, match="the header has no NAXIS1"):
        SkyWCS.from_header(fits.Header())
