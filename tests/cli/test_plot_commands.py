"""What a user sees of ``fpgpu plot`` and ``fpgpu ds9``."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from fpgpu.cli.page import CAPTIONS
from fpgpu.psf import make_profiles
from tests.cli.conftest import Run

PLACE = ("--ra", 53.16, "--dec", -27.79, "--radius", 0.6)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG")


def test_every_kind_is_drawn_and_named(fpgpu_command: Run, demo_folder: Path) -> None:
    kinds = list(CAPTIONS)
    sources = ("--catalog", demo_folder / "sources.fits")
    done = fpgpu_command("plot", demo_folder / "stores", *kinds, *PLACE, *sources, "--out", "look")
    assert done.code == 0, done.err
    assert done.out.splitlines() == [f"wrote look_{kind}.png" for kind in kinds]
    assert all(is_png(Path(f"look_{kind}.png")) for kind in kinds)
    assert done.err.splitlines()[-1] == f"plot {len(kinds)}/{len(kinds)} times"


def test_residuals_take_the_table_that_the_psfs_were_made_for(
    fpgpu_command: Run, demo_folder: Path
) -> None:
    grid = {"sersic": [0.5, 1, 1.5, 2], "rhalf": [0.02, 0.05, 0.1, 0.2]}
    for n_radii in (10, 4):
        make_profiles(np.geomspace(0.01, 3, n_radii), **grid).write(Path(f"{n_radii}.h5"))
    args = ("residuals", *PLACE, "--catalog", demo_folder / "sources.fits", "--profiles")
    assert fpgpu_command("plot", demo_folder / "stores", *args, "10.h5").code == 0
    refused = fpgpu_command("plot", demo_folder / "stores", *args, "4.h5")
    assert refused.code == 2
    assert "has Gaussians for 10 radii, but there are 4" in refused.err
    assert "--profiles FILE" in refused.err


def test_json_and_format(fpgpu_command: Run, tiny_stores: Path) -> None:
    args = ("survey", "--depth", "magnitude", "--format", "svg", "--json")
    done = fpgpu_command("plot", tiny_stores, *args)
    assert json.loads(done.out) == {"pictures": ["fpgpu_survey.svg"]}
    assert done.err == ""
    assert "<svg" in Path("fpgpu_survey.svg").read_text()


def test_an_exposure_and_a_place_on_it(fpgpu_command: Run, tiny_stores: Path) -> None:
    args = ("--exposure", "F444W/exp_f444w_01", "--at", 5, 100, "-q")
    assert fpgpu_command("plot", tiny_stores, "exposure", *args).code == 0
    assert is_png(Path("fpgpu_exposure.png"))


class TestRefusals:
    @pytest.fixture(autouse=True)
    def nothing_is_written(self, in_a_folder_of_its_own: None) -> Iterator[None]:
        yield
        assert not list(Path().glob("*.*g"))

    @pytest.mark.parametrize(
        ("args", "reason"),
        [
            (("coverage", "--ra", 53.16), "coverage are of a circle of sky: give --dec, --radius"),
            (("survey", "--ra", 53.16), "a circle needs --ra, --dec and --radius together"),
            (("residuals", *PLACE), "give its sources with --catalog, too"),
            (("exposure", "--exposure", "F444W/exp_f444w_07"), "did you mean F444W/exp_f444w_0"),
            (("exposure", "--at", 500, 3), "pixel (500.0, 3.0) is not on"),
            (("survey", "--bands", "F44W"), "did you mean F444W?"),
            (("survey", "--field", 2), "there is no field 2; the survey has 1"),
            (("pixels", "--ra", 10, "--dec", 0, "--radius", 1), "no exposure of F090W"),
            (("survey", "--out", "nowhere/look"), "nowhere/look_survey.png"),
            (("survey", "--out", ""), "what the names of the pictures begin with is empty"),
            (("survy",), "survy"),
        ],
    )
    def test_the_reason_is_told(
        self, fpgpu_command: Run, tiny_stores: Path, args: tuple[object, ...], reason: str
    ) -> None:
        done = fpgpu_command("plot", tiny_stores, *args)
        assert done.code == 2
        assert reason in done.err
        assert "Traceback" not in done.err


class TestDS9:
    def test_the_survey_goes_to_standard_output(
        self, fpgpu_command: Run, tiny_stores: Path
    ) -> None:
        done = fpgpu_command("ds9", tiny_stores)
        assert (done.code, done.err) == (0, "")
        assert done.out.count("polygon(") == 6

    def test_a_band_that_is_named_twice_is_written_once(
        self, fpgpu_command: Run, tiny_stores: Path
    ) -> None:
        for place in ((), PLACE):
            done = fpgpu_command("ds9", tiny_stores, "--bands", "F200W", "F200W", *place)
            assert done.out.count("polygon(") == 2

    def test_a_circle_takes_what_touches_it_and_the_sources_in_it(
        self, fpgpu_command: Run, tiny_stores: Path
    ) -> None:
        Table({"ra": [53.16, 10.0], "dec": [-27.79, 0.0]}).write("sources.fits")
        args = (*PLACE, "--catalog", "sources.fits", "--bands", "F200W", "--out", "look.reg")
        done = fpgpu_command("ds9", tiny_stores, *args)
        assert done.out == "wrote look.reg: 2 footprints\n"
        text = Path("look.reg").read_text()
        assert [text.count(f"{kind}(") for kind in ("polygon", "circle", "point")] == [2, 1, 1]

    @pytest.mark.parametrize(
        ("args", "reason"),
        [
            (("--ra", 10), "--ra, --dec and --radius together"),
            (("--catalog", "a.fits"), "give --ra, --dec, --radius, too"),
            (("--bands", "F44W"), "did you mean F444W?"),
            (("--out", "nowhere/look.reg"), "nowhere/look.reg: cannot be written: No such file"),
        ],
    )
    def test_the_reason_is_told(
        self, fpgpu_command: Run, tiny_stores: Path, args: tuple[object, ...], reason: str
    ) -> None:
        done = fpgpu_command("ds9", tiny_stores, *args)
        assert (done.code, done.out) == (2, "")
        assert reason in done.err
