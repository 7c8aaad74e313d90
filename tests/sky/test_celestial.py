"""What of a header is its WCS; of three axes, the celestial part, distortion included."""

from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from fpgpu.errors import WCSError
from fpgpu.sky.celestial import axis_count, celestial_header, wcs_header, wcs_text
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


def test_astropy_cannot_drop_an_axis_of_a_distorted_wcs() -> None:
    """Why celestial_header exists; when this fails it may go."""
    with pytest.raises(ValueError, match="distortion"):
        WCS(cube_header(), naxis=3).dropaxis(2)


@pytest.mark.parametrize("sip", [0.0, 1e-6])
def test_the_celestial_part_gives_the_positions_of_the_plain_image(sip: float) -> None:
    x, y = np.random.default_rng(1).uniform(0, 96, (2, 50))
    truth = WCS(tan_header(sip=sip)).pixel_to_world_values(x, y)
    sky = SkyWCS.from_header(cube_header(sip=sip))
    assert np.array_equal(sky.pixel_to_world(x, y), truth)
    assert sky.shape == (128, 96)


def test_all_other_cards_stay_and_those_of_the_third_axis_go() -> None:
    header = cube_header()
    header["NAXIS"], header["NAXIS3"] = 3, 7
    header["FILTER"], header["PV3_1"], header["CTYPE3A"] = "F200W", 1.0, "FREQ"
    header["CD1_3"] = header["CD3_1"] = 0.0
    reduced = celestial_header(header)
    assert axis_count(header) == 3
    assert axis_count(reduced) == reduced["NAXIS"] == reduced["WCSAXES"] == 2
    assert [key for key in reduced if "3" in key] == ["A_0_3"]
    assert reduced["FILTER"] == "F200W"
    assert reduced["A_1_1"] == header["A_1_1"]


def test_celestial_axes_may_come_last() -> None:
    plain = tan_header(sip=0.0)
    header = fits.Header()
    header["NAXIS"], header["NAXIS1"], header["NAXIS2"], header["NAXIS3"] = 3, 5, 128, 96
    header["WCSAXES"], header["CTYPE1"], header["CDELT1"] = 3, "WAVE", 0.1
    for axis in (1, 2):
        for name in ("CTYPE", "CRVAL", "CRPIX", "CUNIT"):
            header[f"{name}{axis + 1}"] = plain[f"{name}{axis}"]
        for column in (1, 2):
            header[f"CD{axis + 1}_{column + 1}"] = plain[f"CD{axis}_{column}"]
    found = SkyWCS.from_header(header).pixel_to_world(30, 40)
    assert np.allclose(found, WCS(plain).pixel_to_world_values(30, 40), atol=1e-12, rtol=0)
    assert celestial_header(header)["NAXIS2"] == 96


def test_cards_are_renumbered_with_their_axes_whatever_stands_behind_the_number() -> None:
    header = fits.Header()
    header["NAXIS"], header["NAXIS1"], header["NAXIS2"], header["NAXIS3"] = 3, 5, 128, 96
    header["CTYPE1"], header["CTYPE2"], header["CTYPE3"] = "WAVE", "RA---ZPN", "DEC--ZPN"
    header["PV1_0"], header["PV3_1"], header["PV3_3"], header["PS2_4"] = 9.0, 1.0, 25.0, "name"
    header["CRVAL2A"], header["CRVAL1A"], header["CD2_3B"], header["CD2_1B"] = 4.0, 5.0, 6.0, 7.0
    header["PC2_2"], header["PC3_2"], header["PC1_1"], header["PC2_1"] = 2.0, 3.0, 4.0, 0.0
    header["CROTA3"], header["OBJECT"], header["PV_NAME"] = 12.0, "M 31", "kept"
    reduced = celestial_header(header)
    assert dict(reduced) == {
        "NAXIS": 2,
        "WCSAXES": 2,
        "NAXIS1": 128,
        "NAXIS2": 96,
        "CTYPE1": "RA---ZPN",
        "CTYPE2": "DEC--ZPN",
        "PV2_1": 1.0,
        "PV2_3": 25.0,
        "PS1_4": "name",
        "CRVAL1A": 4.0,
        "CD1_2B": 6.0,
        "PC1_1": 2.0,
        "PC2_1": 3.0,
        "CROTA2": 12.0,
        "OBJECT": "M 31",
        "PV_NAME": "kept",
    }


def test_cards_that_were_written_twice_go_twice() -> None:
    header = cube_header()
    header.append(("CRVAL3", 3.0))
    header.append(("HISTORY", "one"))
    header.append(("HISTORY", "two"))
    reduced = celestial_header(header)
    assert "CRVAL3" not in reduced
    assert list(reduced["HISTORY"]) == ["one", "two"]
    assert header.count("CRVAL3") == 2


def test_coordinates_that_depend_on_the_third_pixel_axis_are_refused() -> None:
    header = cube_header()
    header["CD1_3"] = 1e-5
    with pytest.raises(WCSError, match=r"CD1_3 = 1e-05: .* depend on pixel axis 3"):
        celestial_header(header)


def test_distortion_of_axes_that_are_not_celestial_is_refused() -> None:
    header = cube_header()
    for name in ("CTYPE", "CRVAL", "CUNIT"):
        header[f"{name}1"], header[f"{name}3"] = header[f"{name}3"], header[f"{name}1"]
    with pytest.raises(WCSError, match="its celestial axes are 2 and 3"):
        celestial_header(header)


def test_axes_are_counted_by_whatever_states_most_of_them() -> None:
    assert axis_count({"NAXIS": 2, "WCSAXES": 3, "CTYPE1": "RA---TAN"}) == 3
    assert axis_count({"NAXIS": 4, "WCSAXES": 3}) == 4
    assert axis_count({"CTYPE1": "", "CTYPE12": "", "CTYPE13A": "", "XCTYPE14": ""}) == 12
    assert axis_count({"NAXIS": "two", "WCSAXES": 2.5}) == 0


def test_a_cube_without_a_sky_is_refused() -> None:
    header = cube_header()
    header["CTYPE1"], header["CTYPE2"] = "XOFFSET", "YOFFSET"
    with pytest.raises(WCSError, match=r"no pair of equatorial axes: CTYPE1 = 'XOFFSET'"):
        celestial_header(header)
    with pytest.raises(WCSError, match="the header has no NAXIS1"):
        celestial_header(fits.Header())
