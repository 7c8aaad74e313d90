"""Bands that mix units: told by ingest and verify, refused by patches unless one is named."""

import json
import logging

import numpy as np
import pytest
from astropy.io import fits

import fpgpu
from fpgpu import CircularRegion, PixelStore
from fpgpu.cli.main import main
from fpgpu.errors import PlanError
from fpgpu.ingest.inputs import CalibrationOptions, Input
from fpgpu.ingest.pipeline import ingest
from fpgpu.stores.units import mixed_units, spelled, units_of
from fpgpu.stores.upkeep.verify import verify
from tests.ingest.test_units import CARDS, DATA, ERR, write_plain

REGION = CircularRegion(CARDS["CRVAL1"], CARDS["CRVAL2"], 0.5 / 3600)
AS_IT_IS = CalibrationOptions(do_fluxcal=False)


def made(folder, **units):
    """A store of exposures by name, each of a file with this BUNIT."""
    files = [write_plain(folder / f"{name}.fits", BUNIT=unit) for name, unit in units.items()]
    return ingest(files, folder / "stores", executor="serial")


def taken(survey, **options):
    return [exposure.expID for exposure in survey.plan(REGION, **options).exposures]


def test_counts_beside_nanojansky_are_told_and_refused(tmp_path, caplog):
    report = made(tmp_path, a="nJy", b="DN/s", c="uJy")
    told = {"F200W": {"nJy": ["a", "c"], "DN / s": ["b"]}}
    assert report.ok
    assert report.mixed_units == report.as_dict()["mixed_units"] == told
    assert "F200W are in several units: nJy (a, c), DN / s (b)" in caplog.text
    (problem,) = verify(tmp_path / "stores").problems
    assert (problem.kind, problem.where) == ("units", "F200W")
    assert "nJy (a, c), DN / s (b)" in problem.what
    with fpgpu.open(tmp_path / "stores", backend="cpu") as survey:
        for refused in (survey.plan, survey.patch):
            with pytest.raises(PlanError, match=r"several units: nJy \(a, c\), DN / s \(b\).*any"):
                refused(REGION)
        assert taken(survey, units="nJy") == ["a", "c"]
        assert taken(survey, units="DN/s") == taken(survey, units="dn s-1") == ["b"]
        assert taken(survey, units="any") == ["a", "b", "c"]
        with pytest.raises(PlanError, match=r"no exposure here is in mJy; they are in DN / s, nJy"):
            survey.plan(REGION, units="mJy")
        with survey.patch(REGION, units="nJy") as patch:
            assert patch.plan.n_exp == 2
        with survey.stream([REGION], units="any") as stream:
            assert next(stream).patch.plan.n_exp == 3


@pytest.mark.parametrize(
    ("first", "second", "is_mixed"),
    [
        ("mJy/sr", "mJy sr-1", False), ("mJy/sr", "MJy/sr", True), ("nJy", "nJy", False),
        ("nJy", "uJy", True), ("ELECTRONS", "electron", False), ("ELECTRONS", "ELECTRONS/S", True),
        ("nmgy", "nanomaggies", False), ("furlong", "furlong", False), ("", "", False),
    ],
)  # fmt: skip
def test_uncalibrated_images_are_told_apart_by_their_unit(tmp_path, first, second, is_mixed):
    files = [
        Input(write_plain(tmp_path / f"{name}.fits", BUNIT=unit), calibration=AS_IT_IS)
        for name, unit in {"a": first, "b": second}.items()
    ]
    report = ingest(files, tmp_path / "stores")
    assert bool(report.mixed_units) == is_mixed
    assert verify(tmp_path / "stores").ok != is_mixed


def test_an_image_in_nanojansky_is_one_however_it_went_in(tmp_path):
    files = [write_plain(tmp_path / f"{name}.fits", BUNIT="nJy") for name in "ab"]
    report = ingest([files[0], Input(files[1], calibration=AS_IT_IS)], tmp_path / "stores")
    assert [row.flux_units for row in report.rows] == ["nJy", "image"]
    assert not report.mixed_units


def test_bands_of_their_own_units_are_no_mixture(tmp_path):
    write_plain(tmp_path / "b.fits", BUNIT="DN/s")
    fits.setval(tmp_path / "b.fits", "FILTER", value="F444W", ext=1)
    files = [write_plain(tmp_path / "a.fits", BUNIT="nJy"), tmp_path / "b.fits"]
    assert not ingest(files, tmp_path / "stores").mixed_units
    with fpgpu.open(tmp_path / "stores", backend="cpu") as survey:
        assert taken(survey) == ["a", "b"]


def test_a_later_run_tells_of_what_was_there_before(tmp_path, caplog):
    made(tmp_path, a="nJy", b="nJy")
    assert not caplog.records
    (tmp_path / "later").mkdir()
    other = write_plain(tmp_path / "later" / "c.fits", BUNIT="electron")
    with caplog.at_level(logging.WARNING):
        report = ingest([other], tmp_path / "stores")
    assert report.mixed_units["F200W"]["electron"] == ["c"]
    assert "nJy (" in caplog.text


def test_replacing_what_was_in_counts_mends_the_band(tmp_path):
    made(tmp_path, a="nJy", b="DN")
    with fpgpu.open(tmp_path / "stores", backend="cpu") as survey:
        with pytest.raises(PlanError):
            survey.plan(REGION)
        (tmp_path / "b.fits").unlink()
        again = ingest([write_plain(tmp_path / "b.fits", BUNIT="mJy")], tmp_path / "stores")
        assert not again.mixed_units
    with fpgpu.open(tmp_path / "stores", backend="cpu") as survey:
        assert taken(survey) == ["a", "b"]


def test_exposures_of_other_writers_are_in_what_their_store_says(tmp_path):
    with PixelStore(tmp_path / "pixels.h5", DATA.T.shape) as store:
        for name, calibrate in {"x": True, "y": False}.items():
            header = fits.Header({**CARDS, "ABMAG": 31.4})
            imset = fpgpu.exposure_from_arrays(DATA, ERR, header=header, expID=name)
            store.add_exposure(imset, do_fluxcal=calibrate)
        units = units_of(store, store)
    assert units == {("F200W", "x"): "nJy", ("F200W", "y"): "image"}
    assert mixed_units(units) == {"F200W": {"nJy": ["x"], "image": ["y"]}}
    assert spelled("njy") == "njy"


def test_the_command_line_names_a_unit(tmp_path, capsys):
    made(tmp_path, a="nJy", b="DN/s")
    place = ["--ra", str(CARDS["CRVAL1"]), "--dec", str(CARDS["CRVAL2"]), "--radius", "0.5"]
    line = ["patch", str(tmp_path / "stores"), *place, "--out", str(tmp_path / "p.h5")]
    assert main([*line]) != 0
    assert "--units nJy" in capsys.readouterr().err
    for unit, n in {"nJy": 1, "any": 2}.items():
        assert main([*line, "--units", unit, "--json"]) == 0
        summary = json.loads(capsys.readouterr().out)
        assert len(summary["exposures"]) == n
        assert summary["flux_units"] == {"nJy": "nJy", "any": "nJy, DN / s"}[unit]
    assert main(["verify", str(tmp_path / "stores")]) == 1
    assert "several units" in " ".join(capsys.readouterr().out.split())


def test_a_patch_of_one_unit_has_its_fluxes(tmp_path):
    made(tmp_path, a="uJy", b="DN/s")
    with (
        fpgpu.open(tmp_path / "stores", backend="cpu") as survey,
        survey.patch(REGION, units="nJy") as patch,
    ):
        (image,) = patch.images("data", crop=False)
    inside = np.isfinite(image.image)
    assert inside.any()
    np.testing.assert_allclose(image.image[inside], (1e3 * DATA.T)[inside], rtol=1e-6)
