"""Whatever the kind of a WCS and wherever it enters: ICRS positions, those of astropy or gwcs."""

import json
import logging
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import FK4, FK5, Galactic, SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from gwcs import coordinate_frames as cf

from fpgpu.errors import WCSError
from fpgpu.patch.astrometry import WcsTable, local_astrometry
from fpgpu.sky import wcs as sky_wcs
from fpgpu.sky.sip import SipFit
from fpgpu.sky.wcs import SkyWCS
from fpgpu.stores.meta import MetaStore
from tests.sky.made_wcs import sky_gwcs
from tests.sky.wcs_kinds import KINDS, SHAPE, apart, detector_grid, header, truth

NAMES = pytest.mark.parametrize("name", KINDS)


def scale_of(kind_header: fits.Header) -> float:
    """Degrees per pixel."""
    x, y = np.array([60.0, 61.0]), np.array([40.0, 40.0])
    ra, dec = truth(kind_header, x, y)
    return float(apart((ra[0], dec[0]), (ra[1], dec[1])))


def foreign_store(path: Path, **headers: fits.Header) -> Path:
    """A meta store as forcepho writes it, of headers that fpgpu never saw."""
    texts = {}
    for name, each in headers.items():
        full = each.copy()
        full["FILTER"] = "F200W"
        texts[name] = full.tostring()
    path.write_text(json.dumps({"F200W": texts}))
    return path


@NAMES
def test_positions_and_pixels_of_a_header_are_astropys(name: str) -> None:
    kind = KINDS[name]
    x, y = detector_grid()
    expected = truth(kind.plain, x, y)
    sky = SkyWCS.from_header(kind.header)
    assert apart(sky.pixel_to_world(x, y), expected).max() < 1e-5 * scale_of(kind.plain)
    found = sky.world_to_pixel(*expected)
    assert np.hypot(found[0] - x, found[1] - y).max() < 1e-5


@NAMES
def test_a_patch_of_a_foreign_store_is_packed_with_astropys_positions(
    name: str, tmp_path: Path
) -> None:
    kind = KINDS[name]
    x, y = detector_grid()
    ra, dec = truth(kind.plain, x, y)
    with MetaStore(foreign_store(tmp_path / "meta.json", e=kind.header)) as meta:
        table = WcsTable.of_exposures(meta, [("F200W", "e")])
        packed = local_astrometry(table, ra, dec, (float(ra[0]), float(dec[0])))
        outline = meta.footprint("F200W", "e")
    assert np.hypot(*(packed.crpix[0] - np.stack([x, y], -1)).T).max() < 1e-4
    edge_x = np.array([-0.5, SHAPE[0] - 0.5, SHAPE[0] - 0.5, -0.5])
    edge_y = np.array([-0.5, -0.5, SHAPE[1] - 0.5, SHAPE[1] - 0.5])
    corners = truth(kind.plain, edge_x, edge_y)
    assert apart(outline[::8].T, corners).max() < 1e-4 * scale_of(kind.plain)
    if np.abs(dec).max() > 89.0 or scale_of(kind.plain) > 0.01:
        return  # where the matrices are taken in a plane
    along_x, along_y = truth(kind.plain, x + 1, y), truth(kind.plain, x, y + 1)
    turn = [(there[0] - ra + 180) % 360 - 180 for there in (along_x, along_y)]
    north = [there[1] - dec for there in (along_x, along_y)]
    per_pixel = np.array([[*turn], [*north]]).transpose(2, 0, 1)
    CW = np.linalg.inv(per_pixel)
    per_pixel[:, 0] *= np.cos(np.deg2rad(dec))[:, None]
    D = np.linalg.inv(per_pixel) / 3600
    for ours, theirs in ((packed.CW[0], CW), (packed.D[0], D)):
        # Of SIN about its pole WCSLIB gives positions to 1e-9 degrees only.
        bound = 3e-5 if name in ("slanted SIN", "NCP") else 1e-6
        assert np.abs(ours - theirs).max() < bound * np.abs(theirs).max()


@NAMES
def test_coefficients_are_taken_only_where_they_are_all(name: str) -> None:
    kind = KINDS[name]
    x, y = detector_grid(23)
    try:
        fit = SipFit.from_wcs(SkyWCS.from_header(kind.header))
    except WCSError:
        return
    expected = truth(kind.plain, x, y)
    assert apart(fit.pixel_to_world(x, y), expected).max() < 1e-4 * scale_of(kind.plain)


def test_plain_and_turned_wcs_are_in_the_table() -> None:
    for name in ("TAN", "TAN-SIP", "FK5", "FK5 of 2015", "FK5 of 1900", "galactic", "LONPOLE"):
        assert SipFit.from_wcs(SkyWCS.from_header(KINDS[name].header)).residual == 0, name


@pytest.mark.parametrize("seed", range(40))
def test_wcs_of_any_place_turn_and_frame_are_astropys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scale = 10 ** rng.uniform(-5.5, -3.5)
    turn = rng.uniform(0, 2 * np.pi)
    c, s = scale * np.cos(turn), scale * np.sin(turn)
    cards = {
        "CRVAL1": rng.uniform(0, 360), "CRVAL2": np.rad2deg(np.arcsin(rng.uniform(-1, 1))),
        "CRPIX1": rng.uniform(-300, 300), "CRPIX2": rng.uniform(-300, 300),
        "CD1_1": -c, "CD1_2": s, "CD2_1": s, "CD2_2": c,
        **[{}, {"RADESYS": "FK5", "EQUINOX": rng.uniform(1990, 2030)},
           {"EQUINOX": rng.uniform(1900, 1980)}, {"RADESYS": "FK5"}][rng.integers(4)],
    }  # fmt: skip
    projection = str(rng.choice(["TAN", "TAN-SIP", "TPV", "ZPN", "STG"]))
    if projection == "TPV":
        for axis in (1, 2):
            cards[f"PV{axis}_1"] = rng.uniform(0.95, 1.05)
            for m in rng.choice([2, 4, 5, 6, 7, 8, 9, 10], 4, replace=False):
                cards[f"PV{axis}_{m}"] = rng.normal(0, 0.01)
    elif projection == "ZPN":
        cards |= {"PV2_1": 1.0, "PV2_3": rng.uniform(-50, 50)}
    elif projection == "TAN-SIP":
        cards |= {"A_ORDER": 3, "B_ORDER": 3, "A_2_0": rng.normal(0, 1e-6)}
        cards |= {"B_0_3": rng.normal(0, 1e-9), "B_1_1": rng.normal(0, 1e-6)}
    made = header(projection, **cards)
    x, y = detector_grid()
    expected = truth(made, x, y)
    found = SkyWCS.from_header(made).world_to_pixel(*expected)
    assert np.hypot(found[0] - x, found[1] - y).max() < 1e-5


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (header(RADESYS="GAPPT"), r"RADESYS is 'GAPPT'; expected ICRS, FK5, FK4"),
        (header(axes="ELON ELAT"), "no pair of equatorial axes: CTYPE1 = 'ELON-TAN'"),
        (header(axes="HLON HLAT"), "no pair of equatorial axes"),
        (header(EQUINOX="of date"), "EQUINOX = 'of date' and RADESYS = ''; expected the year"),
        (header(EQUINOX=0.0), r"EQUINOX = 0\.0"),
        (header(EPOCH=20.155), r"EPOCH = 20\.155"),
        (header(EQUINOX="J1950"), "which means FK4; state RADESYS"),
        (header(CDELT1=-1e-4, CDELT2=1e-4, PC1_2=0.1, CROTA2=30.0), "both a PC matrix and CROTA2"),
        (header("TAN-SIP", A_ORDER=2, A_2_0=1e-6), "A_ORDER provided without"),
        (header("TAN-SIP", A_2_0=1e-6, B_0_2=1e-6), "A_2_0 = 1e-06, but A_ORDER is None"),
        (header("TAN-SIP", A_ORDER=2, B_ORDER=2, A_3_0=1e-6), "A_ORDER is 2; expected 3 or more"),
        (header("TNX"), "lacks its surfaces"),
        (header(CPDIS1="TPD"), "CPDIS1 = 'TPD', a distortion that astropy does not know"),
        (header(CPDIS1="LOOKUP"), "look-up tables, which are in the file and not in the header"),
        (header(D2IMDIS1="Lookup"), "ingest the file itself"),
    ],
)
def test_what_cannot_be_told_is_refused(made: fits.Header, message: str, tmp_path: Path) -> None:
    with pytest.raises(WCSError, match=message):
        SkyWCS.from_header(made)
    with MetaStore(foreign_store(tmp_path / "meta.json", e=made)) as meta:
        with pytest.raises(WCSError, match=message):
            meta.footprint("F200W", "e")
        with pytest.raises(WCSError, match=message):
            WcsTable.of_exposures(meta, [("F200W", "e")])


@pytest.mark.parametrize("keyword", ["CRVAL1", "CD1_1", "CTYPE1", "A_2_0", "EQUINOX", "LONPOLE"])
def test_a_card_that_is_there_twice_is_refused_where_it_differs(keyword: str) -> None:
    made = header("TAN-SIP", A_ORDER=2, B_ORDER=2, A_2_0=1e-6, EQUINOX=2000.0, LONPOLE=180.0)
    value = made[keyword]
    made.append((keyword, value), end=True)
    assert SkyWCS.from_header(made).shape == SHAPE
    other = "RA---SIN" if isinstance(value, str) else value * 1.5
    made.append((keyword, other), end=True)
    with pytest.raises(WCSError, match=rf"the header has {keyword} 3 times, as .* delete those"):
        SkyWCS.from_header(made)


def test_a_card_without_a_value_is_named_in_words() -> None:
    made = header("TAN")
    made.append(fits.Card.fromstring("CRVAL1  =".ljust(80)), end=True)
    with pytest.raises(WCSError, match=r"CRVAL1 2 times, as [\d.]+ and no value; delete"):
        SkyWCS.from_header(made)


def test_what_was_settled_in_a_header_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    sky_wcs._tell.cache_clear()
    kind = KINDS["PC beside CD"]
    before = kind.header.tostring()
    with caplog.at_level(logging.WARNING, logger="fpgpu"):
        for _ in range(3):
            SkyWCS.from_header(kind.header)
    (record,) = caplog.records
    assert "the CD matrix was taken" in record.message
    assert kind.header.tostring() == before


def test_a_wcs_whose_polynomials_wcslib_takes_for_a_place_is_refused() -> None:
    wcs = WCS(header(PV1_0=0.0, PV1_1=1.0, PV1_2=0.0, PV2_1=1.0))
    with pytest.raises(WCSError, match="need CTYPE RA---TPV, DEC--TPV"):
        SkyWCS.from_native(wcs)


@pytest.mark.parametrize(
    "frame", [FK5(), FK5(equinox="J2015.5"), FK4(), FK4(equinox="B1975"), Galactic()]
)
def test_positions_of_a_gwcs_of_any_frame_are_icrs(frame: object) -> None:
    made = sky_gwcs(frame=cf.CelestialFrame(reference_frame=frame, unit=(u.deg, u.deg)))
    sky = SkyWCS.from_gwcs(made, SHAPE)
    x, y = detector_grid()
    icrs = SkyCoord(*made(x, y), unit="deg", frame=frame).icrs
    expected = icrs.ra.deg, icrs.dec.deg
    assert apart(sky.pixel_to_world(x, y), expected).max() < 1e-10
    exact, native = sky.world_to_pixel(*expected), sky.native_world_to_pixel(*expected)
    assert np.hypot(exact[0] - x, exact[1] - y).max() < 1e-5
    inverse = made.invert(*made(x, y), with_bounding_box=False)  # an approximate one
    # astropy itself comes back from FK4 to 1e-9 degrees only.
    assert np.hypot(native[0] - inverse[0], native[1] - inverse[1]).max() < 1e-4
