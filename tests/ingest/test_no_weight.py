"""Exposures of which no pixel has any weight: refused with the causes, or stored when asked."""

import json

import numpy as np
import pytest
from astropy.io import fits

from fpgpu import PixelStore, exposure_from_arrays
from fpgpu.cli.main import main
from fpgpu.errors import ConfigError, UnusableExposureError
from fpgpu.ingest.config import load_config
from fpgpu.ingest.dryrun import plan_ingest
from fpgpu.ingest.inputs import CalibrationOptions, Input, ReadOptions
from fpgpu.ingest.pipeline import ingest
from fpgpu.ingest.readers import read_exposure
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.mosaics import read_mosaic
from tests.ingest.hstfiles import write_drz
from tests.ingest.test_units import CARDS, DATA, ERR, write_plain

STORE = CalibrationOptions(no_weight="store")
FLAGS = np.ones(DATA.shape, "i2")

CAUSES = {
    "infinite": {"ERR": np.full_like(ERR, np.inf)},
    "zero": {"ERR": np.zeros_like(ERR)},
    "nan": {"ERR": np.full_like(ERR, np.nan)},
    "negative": {"ERR": -ERR},
    "weights": {"WHT": np.zeros_like(ERR)},
    "flagged": {"ERR": ERR, "DQ": FLAGS},
    "area": {"ERR": ERR, "AREA": np.zeros_like(ERR)},
    "background": {"ERR": ERR, "BKG": np.full_like(ERR, np.nan)},
    "together": {
        "ERR": np.where(DATA > 10, ERR, np.inf).astype("f4"), "DQ": (DATA > 10).astype("i2"),
    },
}  # fmt: skip
TOLD = {
    "infinite": "0 of 768 .* all others with an inverse uncertainty of 0",
    "weights": "768 with a bad uncertainty", "flagged": "768 flagged",
    "area": "768 with a bad area", "background": "768 with flux not finite",
    "together": f"{(DATA > 10).sum()} flagged.* all others with an inverse uncertainty of 0",
}  # fmt: skip


@pytest.fixture(params=CAUSES)
def cause(request):
    return request.param


def test_it_is_refused_with_the_causes_and_stored_when_asked(tmp_path, cause):
    path = write_plain(tmp_path / "e.fits", layers=CAUSES[cause], BUNIT="nJy")
    good = write_plain(tmp_path / "good.fits", BUNIT="nJy")
    report = ingest([path, good], tmp_path / "a")
    assert [row.status for row in report.rows] == ["refused", "stored"]
    told = TOLD.get(cause, "768 with a bad uncertainty")
    with pytest.raises(UnusableExposureError, match=f"no pixel has any weight: .*{told}"):
        ingest([path], tmp_path / "b", strict=True)
    assert [plan.status for plan in plan_ingest([Input(path)], tmp_path / "c")] == ["refused"]

    report = ingest([Input(path, calibration=STORE), good], tmp_path / "d")
    assert report.ok
    assert "it is stored with zero weight" in report.rows[0].notes[-1]
    with (
        PixelStore(tmp_path / "d" / "pixels.h5") as pixels,
        MetaStore(tmp_path / "d" / "meta.json") as meta,
    ):
        flux, ierr = pixels.read_exposure("F200W", "e")
        assert ("F200W", "e") in meta
    assert np.isfinite(flux).all()
    assert not ierr.any()


def test_bits_that_the_user_names_decide(tmp_path):
    path = write_plain(tmp_path / "e.fits", layers=CAUSES["flagged"], BUNIT="nJy")
    assert ingest([path], tmp_path / "stores", bitmask=2).ok


def test_a_drizzled_image_without_exposure_time_is_one_too(tmp_path):
    path = write_drz(tmp_path / "j9_drz.fits")
    with fits.open(path, mode="update") as hdus:
        hdus["WHT"].data[:] = 0
    with pytest.raises(UnusableExposureError, match="no pixel has any weight"):
        ingest([path], tmp_path / "a", strict=True)
    assert ingest([Input(path, calibration=STORE)], tmp_path / "b").ok


def test_arrays_are_treated_like_files(tmp_path):
    made = exposure_from_arrays(DATA, ERR * np.inf, header=CARDS, expID="e", unit="nJy")
    assert ingest([made], tmp_path / "a").refused
    assert ingest([Input("e", exposure=made, calibration=STORE)], tmp_path / "b").ok


@pytest.mark.parametrize("option", ["refuse", "store"])
@pytest.mark.parametrize("without", ["flagged", "no data"])
def test_tiles_without_weight_are_left_out_of_a_mosaic(tmp_path, option, without):
    err, flags = np.ones((32, 24), "f4"), np.zeros((32, 24), "i2")
    if without == "flagged":
        flags[:16, :16] = 1
    else:
        err[:16, :16] = np.inf
    path = write_plain(tmp_path / "m.fits", layers={"ERR": err, "DQ": flags}, BUNIT="nJy")
    options = ReadOptions(tile=(8, 8))
    calibration = CalibrationOptions(no_weight=option)
    report = ingest([Input(path, {}, options, calibration)], tmp_path / "s", strict=True)
    assert report.ok
    assert len(report.added) == 12 - 4
    assert len(report.left_out) == (4 if without == "flagged" else 0)
    assert all("no pixel of this tile" in row.reason for row in report.left_out)
    with (
        PixelStore(tmp_path / "s" / "pixels.h5") as pixels,
        MetaStore(tmp_path / "s" / "meta.json") as meta,
    ):
        _, ierr = read_mosaic(pixels, meta, "F200W", "m")
    expected = np.ones((24, 32))
    expected[:16, :16] = 0
    np.testing.assert_array_equal(ierr, expected)


def test_a_mosaic_of_nothing_but_empty_tiles_is_refused(tmp_path):
    path = write_plain(tmp_path / "m.fits", layers=CAUSES["flagged"], BUNIT="nJy")
    report = ingest([Input(path, options=ReadOptions(tile=(8, 8)))], tmp_path / "s")
    assert [row.reason for row in report.refused] == [
        f"{path}: no pixel of any tile has any weight"
    ]


def test_the_choice_is_an_option_of_the_command_and_of_a_configuration(tmp_path, capsys):
    path = write_plain(tmp_path / "e.fits", layers=CAUSES["infinite"], BUNIT="nJy")
    line = ["ingest", str(path), "--out", str(tmp_path / "s"), "--executor", "serial", "--json"]
    assert main(line) == 2
    assert "--no-weight store" in json.loads(capsys.readouterr().out)["exposures"][0]["reason"]
    assert main([*line, "--no-weight", "store"]) == 0
    assert json.loads(capsys.readouterr().out)["exposures"][0]["status"] == "stored"
    (tmp_path / "c.yaml").write_text("no_weight: keep\n")
    with pytest.raises(ConfigError, match="expected one of refuse, store"):
        load_config(tmp_path / "c.yaml")


UNUSABLE = {
    "DQ": ("mask", "mask", [ERR, FLAGS[:8, :8], np.stack([FLAGS, FLAGS])]),
    "BKG": ("bkg", "background", [ERR[:4, :4]]),
    "AREA": ("area", "area", [ERR[:4, :4]]),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_cannot_be_used_and_is_not_needed_can_be_left_out(tmp_path, name):
    role, option, images = UNUSABLE[name]
    for number, image in enumerate(images):
        layers = {"ERR": ERR, name: image}
        path = write_plain(tmp_path / f"e{number}.fits", layers=layers, BUNIT="nJy")
        out = str(tmp_path / f"stores{number}")
        report = ingest([path], out)
        assert f"--{option} none" in report.refused[0].reason
        assert main(["ingest", str(path), "--out", out, f"--{option}", "none", "-q"]) == 0
        exposure = read_exposure(path, ReadOptions(extensions={role: "none"}))
        np.testing.assert_array_equal(exposure.ierr.T, 1 / ERR)


@pytest.mark.parametrize("bits", [0, "0", ["0x0"]])
def test_a_mask_that_is_ignored_need_not_be_sound(tmp_path, bits):
    path = write_plain(tmp_path / "e.fits", layers={"ERR": ERR, "DQ": FLAGS[:8, :8]}, BUNIT="nJy")
    assert not ingest([path], tmp_path / "a").ok
    assert ingest([path], tmp_path / "b", bitmask=bits).ok


def test_a_header_that_calls_itself_a_tile_is_refused_alone(tmp_path):
    odd = write_plain(tmp_path / "odd.fits", BUNIT="nJy", MOSAIC="field")
    good = write_plain(tmp_path / "good.fits", BUNIT="nJy")
    report = ingest([odd, good], tmp_path / "stores")
    assert [row.status for row in report.rows] == ["refused", "stored"]
    assert "take that card out" in report.rows[0].reason
    assert [plan.status for plan in plan_ingest([Input(odd), Input(good)], tmp_path / "s")] == [
        "refused",
        "new",
    ]
