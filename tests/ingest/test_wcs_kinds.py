"""Exposures of every kind of WCS from the file to the patch, and to whoever reads the header."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

import fpgpu
from fpgpu import CircularRegion, MetaStore, PSFStore
from fpgpu.ingest.pipeline import ingest
from fpgpu.layout import PSF_DTYPE
from tests.sky.wcs_kinds import KINDS, SHAPE, apart, detector_grid, truth

NAMES = pytest.mark.parametrize("name", KINDS)
BLOCK = np.ones(SHAPE[::-1], np.float32)


def slug(name: str) -> str:
    return re.sub(r"\W+", "_", name)


def write(path: Path, science: fits.Header, primary: dict[str, Any] | None = None) -> Path:
    """A plain exposure; FILTER and ABMAG are the science header's unless the primary has them."""
    primary = {"FILTER": "F200W", "ABMAG": 31.4} | (primary or {})
    hdus = [fits.PrimaryHDU(header=fits.Header(primary))]
    hdus += [fits.ImageHDU(BLOCK, science, name="SCI"), fits.ImageHDU(BLOCK, name="ERR")]
    fits.HDUList(hdus).writeto(path)
    return path


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """All kinds in one store, and what was said of each."""
    folder = tmp_path_factory.mktemp("kinds")
    paths = [write(folder / f"{slug(name)}.fits", kind.header) for name, kind in KINDS.items()]
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


@NAMES
def test_a_patch_holds_astropys_pixels(name: str, stored: tuple[Path, dict[str, Any]]) -> None:
    x, y = detector_grid(5)
    ra, dec = truth(KINDS[name].plain, x, y)
    region = CircularRegion(ra[12], dec[12], 1e-4)
    with fpgpu.open(stored[0], backend="cpu") as survey:
        plan = survey.plan(region)
        (number,) = [k for k, each in enumerate(plan.exposures) if each.expID == slug(name)]
        with survey.patch(plan, Table({"ra": ra, "dec": dec})) as patch:
            crpix = np.array(patch.array("crpix"))[number]
    # In single precision, of which a step is 8e-6 px here.
    assert np.hypot(*(crpix - np.stack([x, y], -1)).T).max() < 1e-4
