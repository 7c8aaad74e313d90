"""What of the primary header is an extension's, and cards that are there twice."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from fpgpu import MetaStore, exposure_from_arrays
from fpgpu.errors import UnusableExposureError
from fpgpu.fluxes import flux_calibration
from fpgpu.ingest.fitsfile import FitsFile
from fpgpu.ingest.pipeline import ingest
from fpgpu.ingest.units import settle_units
from tests.ingest.smallfiles import BLOCK, write_plain
from tests.sky.wcs_kinds import apart, detector_grid, header, truth


def positions(path: Path, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Positions that the store of one exposure gives."""
    (row,) = ingest([path], folder).rows
    assert row.status == "stored", row.reason
    with MetaStore(folder / "meta.json") as meta:
        return meta.sky_wcs("F200W", path.stem).pixel_to_world(*detector_grid())


@pytest.mark.parametrize("inherit", [None, True, False])
@pytest.mark.parametrize(
    "cards",
    [
        {"CDELT1": 2e-4, "CDELT2": 2e-4, "PC1_1": 0.5, "PC1_2": 0.5},
        {"LONPOLE": 120.0, "LATPOLE": 10.0},
        {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-4, "B_1_1": 1e-4},
        {"PV1_1": 1.0, "PV1_5": 2.0, "PV2_5": 2.0},
        {"EQUINOX": 1950.0},
        {"EPOCH": 1950.0, "RADECSYS": "FK4"},
        {"RADESYS": "FK5", "EQUINOX": 1975.0},
        {"CUNIT1": "arcsec", "CUNIT2": "arcsec", "CROTA2": 40.0},
        {"CPDIS1": "LOOKUP", "D2IMDIS1": "LOOKUP"},
    ],
)
def test_a_primary_header_never_completes_a_wcs(
    cards: dict[str, Any], inherit: bool | None, tmp_path: Path
) -> None:
    science = header()
    if inherit is not None:
        science["INHERIT"] = inherit
    found = positions(write_plain(tmp_path / "a.fits", science, cards), tmp_path / "stores")
    assert apart(found, truth(header(), *detector_grid())).max() < 1e-9


def test_cdelt_of_an_extension_is_not_overruled_by_cd_of_the_primary_header(
    tmp_path: Path,
) -> None:
    science = header(CDELT1=-2e-4, CDELT2=1e-4)
    primary = {"CD1_1": 3e-4, "CD1_2": 1e-4, "CD2_1": 0.0, "CD2_2": 3e-4}
    found = positions(write_plain(tmp_path / "a.fits", science, primary), tmp_path / "stores")
    assert apart(found, truth(science, *detector_grid())).max() < 1e-9


def test_a_wcs_is_inherited_as_a_whole_where_that_is_asked_for(tmp_path: Path) -> None:
    primary = dict(header("TAN-SIP", A_ORDER=2, B_ORDER=2, A_2_0=1e-5, LONPOLE=150.0))
    for keyword in ("NAXIS", "NAXIS1", "NAXIS2"):
        del primary[keyword]
    expected = truth(fits.Header(primary | {"NAXIS": 2}), *detector_grid())
    path = write_plain(tmp_path / "a.fits", fits.Header({"INHERIT": True}), primary)
    assert apart(positions(path, tmp_path / "stores"), expected).max() < 1e-9
    for name, cards in (("b", {}), ("c", {"INHERIT": False})):
        path = write_plain(tmp_path / f"{name}.fits", fits.Header(cards), primary)
        (row,) = ingest([path], tmp_path / name).rows
        assert "holds for an extension only with INHERIT = T" in row.reason


@pytest.mark.parametrize(
    ("science", "primary", "factor"),
    [
        ({"BUNIT": "nJy"}, {"ABMAG": 20.0}, 1.0),
        ({"BUNIT": "uJy", "INHERIT": True}, {"ABMAG": 20.0}, 1e3),
        ({"ABMAG": 31.4}, {"BUNIT": "Jy", "PIXAR_SR": 1e-13}, 1.0),
        ({"BUNIT": "MJy/sr", "PIXAR_SR": 1e-13}, {"ABMAG": 20.0, "PIXAR_SR": 1.0}, 100.0),
        ({}, {"ABMAG": 31.4 - 2.5}, 10.0),
        ({"INHERIT": True}, {"BUNIT": "uJy"}, 1e3),
        # What a count is, of which only HST's way of inheriting gives a part.
        ({"BUNIT": "ELECTRONS/S", "INHERIT": True, "IDCSCALE": 0.05},
         {"PHOTFLAM": 1e-19, "PHOTPLAM": 6000.0}, 1e-19 * 6000.0**2 / 2.99792458e18 / 1e-32),
        ({"BUNIT": "ELECTRONS/S"}, {"PHOTFLAM": 1e-19, "PHOTPLAM": 6000.0}, None),
        ({"INHERIT": False}, {"ABMAG": 20.0}, None),
    ],
)  # fmt: skip
def test_a_calibration_comes_from_one_header_as_a_whole(
    science: dict[str, Any], primary: dict[str, Any], factor: float | None, tmp_path: Path
) -> None:
    path = tmp_path / "a.fits"
    hdus = [fits.PrimaryHDU(header=fits.Header({"FILTER": "F200W"} | primary))]
    hdus += [fits.ImageHDU(BLOCK, header(**science), name="SCI"), fits.ImageHDU(BLOCK, name="ERR")]
    fits.HDUList(hdus).writeto(path)
    with FitsFile(path) as file:
        merged = file.merged_header("SCI")
    settle_units(merged, "a.fits", lambda: 1e-13)
    found, units = flux_calibration(merged)
    assert (units == "nJy") == (factor is not None)
    if factor is not None:
        assert found == pytest.approx(factor, rel=1e-6)


def test_what_says_how_an_exposure_was_taken_may_stand_in_the_primary_header(
    tmp_path: Path,
) -> None:
    facts = {"DETECTOR": "NRCA1", "EXPTIME": 100.0, "TELESCOP": "X", "CCDGAIN": 2.0}
    for name, inherit, observer in (("a", None, "me"), ("b", True, "me"), ("c", False, None)):
        science = header() if inherit is None else header(INHERIT=inherit)
        with FitsFile(
            write_plain(tmp_path / f"{name}.fits", science, facts | {"OBSERVER": "me"})
        ) as file:
            merged = file.merged_header("SCI")
        assert {key: merged[key] for key in facts} == facts
        assert merged["FILTER"] == "F200W"
        assert merged.get("OBSERVER") == observer


def test_a_header_of_arrays_that_contradicts_itself_is_refused() -> None:
    given = header(ABMAG=31.4, FILTER="F200W")
    given.append(("ABMAG", 25.0), end=True)
    with pytest.raises(UnusableExposureError, match=r"exposure a: .* ABMAG 2 times, as 31\.4 and"):
        exposure_from_arrays(BLOCK, BLOCK, expID="a", header=given)


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("CRVAL1", (150.1, 150.2)), ("CD1_1", (-1e-4, -2e-4)), ("ABMAG", (31.4, 25.0)),
        ("BUNIT", ("nJy", "uJy")), ("FILTER", ("F200W", "F444W")), ("BSCALE", (1.0, 2.0)),
        ("EQUINOX", (2000.0, 1950.0)), ("EXPTIME", (10.0, 100.0)), ("PHOTFLAM", (1e-19, 2e-19)),
    ],
)  # fmt: skip
def test_cards_that_matter_and_contradict_each_other_are_refused(
    keyword: str, values: tuple[Any, Any], tmp_path: Path
) -> None:
    for name, second, status in (("a", values[1], "refused"), ("b", values[0], "stored")):
        path = write_plain(tmp_path / f"{name}.fits", header())
        with fits.open(path) as hdus:
            science = hdus["SCI"].header.copy()
            start, stop = (hdus["SCI"].fileinfo()[place] for place in ("hdrLoc", "datLoc"))
        science.remove(keyword, ignore_missing=True)
        for value in (values[0], second):
            science.append((keyword, value), end=True)
        content = path.read_bytes()
        # astropy would write BSCALE in its own way.
        path.write_bytes(content[:start] + science.tostring().encode() + content[stop:])
        (row,) = ingest([path], tmp_path / name).rows
        assert row.status == status, row.reason
        if status == "refused":
            said = f"the header has {keyword} 2 times, as {values[0]!r} and {second!r}"
            assert said in row.reason
