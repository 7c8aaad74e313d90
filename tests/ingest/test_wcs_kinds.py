"""Exposures of every kind of WCS from the file to the patch, and to whoever reads the header."""

import json
import re
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import FK4, FK5, Galactic, SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.utils.data import get_pkg_data_filename
from astropy.wcs import WCS
from gwcs.coordinate_frames import CelestialFrame

import fpgpu
from fpgpu import CircularRegion, MetaStore, PSFStore, exposure_from_arrays
from fpgpu.ingest import readers
from fpgpu.ingest.pipeline import ingest
from fpgpu.ingest.readers import Reader
from fpgpu.layout import PSF_DTYPE
from fpgpu.sky.wcs import SkyWCS
from fpgpu.stores.exposures import exposure_records
from tests.ingest.jwstfiles import write_cal
from tests.ingest.smallfiles import BLOCK, write_plain
from tests.sky.made_wcs import sky_gwcs
from tests.sky.wcs_kinds import KINDS, SHAPE, apart, detector_grid, header, truth

NAMES = pytest.mark.parametrize("name", KINDS)


def slug(name: str) -> str:
    return re.sub(r"\W+", "_", name)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """All kinds in one store, and what was said of each."""
    folder = tmp_path_factory.mktemp("kinds")
    paths = [
        write_plain(folder / f"{slug(name)}.fits", kind.header) for name, kind in KINDS.items()
    ]
    report = ingest(paths, folder / "stores")
    assert [row.reason for row in report.refused] == []
    psf = np.zeros((1, 1), PSF_DTYPE)
    psf["amp"], psf["Cxx"], psf["Cyy"] = 1, 2, 2
    with PSFStore(folder / "stores" / "psf.h5") as store:
        store.add_psf("F200W", psf)
    return folder / "stores", {row.expID: row for row in report.rows}


@NAMES
def test_a_header_that_is_stored_gives_whoever_reads_it_icrs(
    name: str, stored: tuple[Path, dict[str, Any]]
) -> None:
    with MetaStore(stored[0] / "meta.json") as meta:
        read = meta.headers["F200W"][slug(name)]
    x, y = detector_grid(21)
    found = WCS(read).all_pix2world(x, y, 0)  # as forcepho does, which does not ask for a frame
    scale = np.sqrt(np.abs(np.linalg.det(WCS(read).pixel_scale_matrix)))
    assert apart(found, truth(KINDS[name].plain, x, y)).max() < 1e-4 * scale
    assert read.get("RADESYS", "ICRS") == "ICRS"


@NAMES
def test_a_user_is_told_what_was_done(name: str, stored: tuple[Path, dict[str, Any]]) -> None:
    row, told = stored[1][slug(name)], KINDS[name].told
    said = " ".join(row.notes)
    assert re.search(told, said) if told else row.notes == ()
    assert (row.sip_residual is None) == ("the header now has a SIP refit" not in said)
    if row.sip_residual is not None:
        assert row.sip_residual <= 1e-4


def test_what_was_done_is_in_the_record_and_told_again_by_a_resumed_run(tmp_path: Path) -> None:
    path = write_plain(tmp_path / "a.fits", KINDS["TPV in FK5"].header)
    first = ingest([path], tmp_path / "stores").rows[0]
    again = ingest([path], tmp_path / "stores", resume=True).rows[0]
    assert (first.status, again.status) == ("stored", "unchanged")
    assert "made from FK5 J1980" in " ".join(first.notes)
    assert again.notes == first.notes
    (row,) = exposure_records(tmp_path / "stores")
    assert json.loads(row["notes"]) == list(first.notes)


@NAMES
def test_a_patch_holds_astropys_pixels(name: str, stored: tuple[Path, dict[str, Any]]) -> None:
    x, y = detector_grid(5)
    if name == "wide CAR":  # a region as large as that is in all the others, too
        x, y = np.full((2, 25), 40.0)
    ra, dec = truth(KINDS[name].plain, x, y)
    region = CircularRegion(ra[12], dec[12], 0.02)
    with fpgpu.open(stored[0], backend="cpu") as survey:
        plan = survey.plan(region)
        (number,) = [k for k, each in enumerate(plan.exposures) if each.expID == slug(name)]
        with survey.patch(plan, Table({"ra": ra, "dec": dec})) as patch:
            crpix = np.array(patch.array("crpix"))[number]
    # In single precision, of which a step is 8e-6 px here.
    assert np.hypot(*(crpix - np.stack([x, y], -1)).T).max() < 1e-4


@NAMES
def test_a_header_of_arrays_is_settled_alike(name: str) -> None:
    kind = KINDS[name]
    given = kind.header.copy()
    made = exposure_from_arrays(BLOCK, BLOCK, band="F200W", expID="a", header=given, unit="nJy")
    x, y = detector_grid()
    found = WCS(made.hdr).all_pix2world(x, y, 0)
    scale = np.sqrt(np.abs(np.linalg.det(WCS(made.hdr).pixel_scale_matrix)))
    assert apart(found, truth(kind.plain, x, y)).max() < 1e-4 * scale
    assert re.search(kind.told, " ".join(made.notes))
    assert given.tostring() == kind.header.tostring()


@NAMES
@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
def test_a_wcs_that_is_given_is_put_into_the_header(name: str) -> None:
    wcs = WCS(KINDS[name].plain)
    made = exposure_from_arrays(BLOCK, BLOCK, band="F200W", expID="a", wcs=wcs, unit="nJy")
    x, y = detector_grid()
    found = WCS(made.hdr).all_pix2world(x, y, 0)
    scale = np.sqrt(np.abs(np.linalg.det(WCS(made.hdr).pixel_scale_matrix)))
    assert apart(found, truth(KINDS[name].plain, x, y)).max() < 1e-4 * scale


@pytest.mark.parametrize("choice", ["gwcs", "auto"])
@pytest.mark.parametrize(
    ("frame", "told"),
    [(FK5(equinox="J2015.5"), "FK5 J2015.5"), (FK4(), "FK4 B1950"), (Galactic(), "galactic")],
)
def test_of_a_gwcs_of_another_frame_the_refit_in_icrs_is_stored(
    frame: Any, told: str, choice: str, tmp_path: Path
) -> None:
    gwcs = sky_gwcs(shape=SHAPE, frame=CelestialFrame(reference_frame=frame, unit=(u.deg, u.deg)))
    path = write_cal(tmp_path / "jw1_cal.fits", shape=SHAPE, gwcs=gwcs)
    report = ingest([path], tmp_path / "stores", wcs=choice)
    (row,) = report.rows
    assert row.status == "stored", row.reason
    assert f"the gWCS is {told}, and its refit was turned into ICRS" in " ".join(row.notes)
    x, y = detector_grid()
    icrs = SkyCoord(*gwcs(x, y), unit="deg", frame=frame).icrs
    with MetaStore(tmp_path / "stores" / "meta.json") as meta:
        (key,) = meta
        assert not meta.tree
        found = WCS(meta.headers[key[0]][key[1]]).all_pix2world(x, y, 0)
    assert apart(found, (icrs.ra.deg, icrs.dec.deg)).max() < 1e-4 * 0.06 / 3600


def test_the_header_of_another_reader_is_settled_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = KINDS["FK4"]
    template = exposure_from_arrays(
        BLOCK, BLOCK, band="F200W", expID="a", header=header(), unit="nJy"
    )
    template.hdr = kind.header.copy()
    template.hdr["FILTER"] = "F200W"
    (tmp_path / "a.mine").write_bytes(b"mine")
    mine = Reader("mine", lambda file: file.head == b"mine", lambda file, options: template)
    monkeypatch.setitem(readers._registered, "mine", mine)
    for number, given in enumerate((template.copy(), tmp_path / "a.mine")):
        report = ingest([given], tmp_path / str(number), executor="serial")
        assert "made from FK4 B1950" in " ".join(report.rows[0].notes)
        with MetaStore(tmp_path / str(number) / "meta.json") as meta:
            read = WCS(meta.headers["F200W"]["a"])
        x, y = detector_grid()
        assert apart(read.all_pix2world(x, y, 0), truth(kind.plain, x, y)).max() < 1e-9


def test_a_frame_that_is_refused_is_named_with_the_way_on(tmp_path: Path) -> None:
    path = write_plain(tmp_path / "a.fits", header(RADESYS="GAPPT"))
    (row,) = ingest([path], tmp_path / "stores").rows
    assert row.status == "refused"
    assert "a.fits: RADESYS is 'GAPPT'; expected ICRS, FK5, FK4" in row.reason


@pytest.mark.filterwarnings("ignore::astropy.io.fits.verify.VerifyWarning")
@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
def test_a_plate_solution_of_the_digitized_sky_survey_is_refitted() -> None:
    path = get_pkg_data_filename("data/dss.14.29.56-62.41.05.fits.gz", "astropy.wcs.tests")
    plate = fits.getheader(path)
    block = np.ones((100, 100), np.float32)
    made = exposure_from_arrays(block, block, band="R", expID="a", header=plate, unit="nJy")
    x, y = detector_grid(9, (100, 100))
    expected = truth(plate, x, y)
    found = WCS(made.hdr).all_pix2world(x, y, 0)
    assert apart(found, expected).max() < 1e-4 * 1.7 / 3600
    assert "the header now has a SIP refit" in " ".join(made.notes)
    assert apart(SkyWCS.from_header(plate).pixel_to_world(x, y), expected).max() < 1e-9


def test_a_slice_along_the_spectrum_is_refused(tmp_path: Path) -> None:
    third = {"CTYPE3": "DEC--TAN", "CRVAL3": 32.2, "CRPIX3": 3.0, "CDELT3": 1e-5, "WCSAXES": 3}
    cards = header(axes="FREQ RA", CDELT1=1e6, CDELT2=-1e-5, **third)
    cards["CTYPE1"] = "FREQ"
    (row,) = ingest([write_plain(tmp_path / "a.fits", cards)], tmp_path / "stores").rows
    assert row.status == "refused"
    assert "along axes 2 and 3 of its WCS (CTYPE1 is 'FREQ'" in row.reason


def test_coefficients_are_taken_where_an_old_table_is_named_and_not_there(tmp_path: Path) -> None:
    cards = KINDS["TAN-SIP"].header.copy()
    cards["D2IMEXT"], cards["D2IMERR"] = "x_d2i.fits", 0.001
    (row,) = ingest([write_plain(tmp_path / "a.fits", cards)], tmp_path / "stores").rows
    assert "look-up tables of distortion were left out" in " ".join(row.notes)
    x, y = detector_grid()
    with MetaStore(tmp_path / "stores" / "meta.json") as meta:
        found = WCS(meta.headers["F200W"]["a"]).all_pix2world(x, y, 0)
    assert apart(found, truth(KINDS["TAN-SIP"].plain, x, y)).max() < 1e-9


def test_an_alternative_wcs_that_is_given_becomes_that_of_the_header() -> None:
    plain = header()
    places = [key for key in plain if not key.startswith("NAXIS")]
    other = fits.Header({f"{key}A": plain[key] for key in places})
    wcs = WCS(other, key="A")
    made = exposure_from_arrays(BLOCK, BLOCK, band="F200W", expID="a", wcs=wcs, unit="nJy")
    x, y = detector_grid()
    found = WCS(made.hdr).all_pix2world(x, y, 0)
    assert apart(found, truth(plain, x, y)).max() < 1e-9
