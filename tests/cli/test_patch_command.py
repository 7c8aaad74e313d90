"""What a user sees of ``fpgpu patch``."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table

from fpgpu.backends.availability import cuda_status
from fpgpu.patch.file import read_patch
from tests.cli.conftest import Run

PLACE = ("--ra", 53.16, "--dec", -27.79, "--radius", 1.2)


@pytest.fixture(scope="module")
def truth(golden: Path) -> dict[str, Any]:
    """forcepho's patch of the same circle."""
    with np.load(golden / "tiny" / "patch_1p2arcsec_3src.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def stores(golden: Path) -> Path:
    """forcepho's own stores, with PSFs."""
    return golden / "tiny"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_plan_is_printed_and_the_patch_written(
    fpgpu_command: Run, stores: Path, truth: dict[str, Any], tmp_path: Path
) -> None:
    done = fpgpu_command("patch", stores, *PLACE)
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    for path, n_pixels in zip(truth["epaths"], truth["exposure_N"], strict=True):
        assert [*path.split("/"), str(n_pixels // 64), str(n_pixels)] in lines
    assert {"open", "plan", "build", "write"} <= {line[0] for line in lines if len(line) == 2}
    assert done.out.splitlines()[-1] == "wrote patch.h5"
    found = read_patch(tmp_path / "patch.h5")
    np.testing.assert_array_equal(found.arrays["data"], truth["data"])
    assert found.arrays["n_sources"] == 0
    assert found.flux_units == "nJy"


def test_the_sources_of_a_catalogue_in_and_near_the_circle_are_taken(
    fpgpu_command: Run, stores: Path, truth: dict[str, Any]
) -> None:
    # One of forcepho's three sources is 1.216 arcsec from the centre of the circle of 1.2.
    sources = Table(truth["sourcecat"])
    sources.add_row({**sources[0], "dec": -27.0})
    sources.write("sources.fits")
    done = fpgpu_command("patch", stores, *PLACE, "--catalog", "sources.fits")
    assert done.code == 0, done.err
    assert "3 sources" in done.out
    arrays = read_patch("patch.h5").arrays
    only_inside = ("--catalog", "sources.fits", "--margin", 0, "--out", "inside.h5")
    assert "2 sources" in fpgpu_command("patch", stores, *PLACE, *only_inside).out
    np.testing.assert_allclose(arrays["crpix"], truth["crpix"], rtol=0, atol=1e-4)


def test_a_catalogue_of_sources_elsewhere_leaves_pixels_and_geometry(
    fpgpu_command: Run, tiny_stores: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Table({"ra": [10.0], "dec": [-27.79]}).write("sources.fits")
    done = fpgpu_command("patch", tiny_stores, *PLACE, "--catalog", "sources.fits")
    assert done.code == 0, done.err
    assert "no sources" in done.out
    assert "none of the 1 sources of the catalogue is in" in caplog.text


def test_bands_and_selection_are_as_asked(
    fpgpu_command: Run, stores: Path, truth: dict[str, Any]
) -> None:
    args = ("--bands", "F444W", "F090W", "--select", "overlap", "--out", "other.h5")
    done = fpgpu_command("patch", stores, *PLACE, *args)
    assert done.code == 0, done.err
    plan = read_patch("other.h5").plan
    assert plan.bandlist == ("F444W", "F090W")
    assert plan.select == "overlap"
    assert plan.exposure_N[0] > truth["exposure_N"][4]
    assert [path.name for path in Path().iterdir()] == ["other.h5"]


@pytest.mark.parametrize(
    "place",
    [
        ("--ra", "3:32:38.4", "--dec", "-27:47:24", "--radius", "1.2"),
        ("--ra", "3h32m38.4s", "--dec", "-27d47m24s", "--radius", "0.02arcmin"),
        ("--ra=53.16d", "--dec=-27.79", "--radius=1.2arcsec"),
    ],
)
def test_places_are_given_as_people_write_them(
    fpgpu_command: Run, stores: Path, truth: dict[str, Any], place: tuple[str, ...]
) -> None:
    summary = json.loads(fpgpu_command("patch", stores, *place, "--json").out)
    assert (summary["ra"], summary["dec"]) == pytest.approx((53.16, -27.79), rel=1e-13)
    assert summary["n_pixels"] == truth["data"].size


def test_bands_may_have_commas_between_them(fpgpu_command: Run, stores: Path) -> None:
    for words in (["F444W,F090W"], ["F444W,", "F090W"], ["F444W", "F090W"]):
        done = fpgpu_command("patch", stores, *PLACE, "--json", "--bands", *words)
        assert json.loads(done.out)["bands"] == ["F444W", "F090W"]


def test_the_home_folder_is_known_by_its_sign(
    fpgpu_command: Run, stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "field").symlink_to(stores)
    assert fpgpu_command("patch", "~/field", *PLACE, "--out=~/here.h5").code == 0
    assert (tmp_path / "here.h5").is_file()


def test_json_is_for_scripts(fpgpu_command: Run, stores: Path, truth: dict[str, Any]) -> None:
    summary = json.loads(fpgpu_command("patch", stores, *PLACE, "--json").out)
    assert summary["n_pixels"] == truth["data"].size
    assert [e["pixels"] for e in summary["exposures"]] == truth["exposure_N"].tolist()
    assert summary["file_bytes"] == Path(summary["out"]).stat().st_size
    assert all(seconds >= 0 for seconds in summary["seconds"].values())


def test_quiet_prints_the_result_only(fpgpu_command: Run, stores: Path) -> None:
    done = fpgpu_command("patch", stores, *PLACE, "-q")
    assert len(done.out.splitlines()) == 2
    assert done.err == ""


def test_pictures_are_written_and_named(fpgpu_command: Run, stores: Path) -> None:
    done = fpgpu_command("patch", stores, *PLACE, "--plot", "look", "--bands", "F090W")
    assert done.code == 0, done.err
    for name in ("look_footprints.png", "look_superpixels.png", "look_pixels.png"):
        assert Path(name).read_bytes().startswith(b"\x89PNG")
        assert f"wrote {name}" in done.out


class TestRefusals:
    """Nothing is written, the reason is one line, the code is 2."""

    @pytest.fixture(autouse=True)
    def nothing_is_written(self, in_a_folder_of_its_own: None) -> Any:
        yield
        assert not list(Path().glob("*.h5"))

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (("--ra", 10, "--dec", -27.79, "--radius", 1), "F090W/exp_f090w_00, is around ra 53.1"),
            (("--ra", 10, "--dec", -97.79, "--radius", 1), "expected -90 to 90 degrees"),
            (("--ra", "nan", "--dec", -27.79, "--radius", 1), "finite"),
            (("--ra", 10, "--dec", -27.79, "--radius", 0), "radius must be above 0"),
            ((*PLACE, "--bands", "f44w"), "did you mean F444W?"),
            ((*PLACE, "--catalog", "nowhere.fits"), "no such catalogue"),
            ((*PLACE, "--out", "nowhere/patch.h5"), "there is no folder nowhere"),
            (PLACE[:4], "--radius"),
        ],
    )
    def test_what_makes_no_sense(
        self, fpgpu_command: Run, stores: Path, arguments: tuple[object, ...], reason: str
    ) -> None:
        done = fpgpu_command("patch", stores, *arguments)
        assert done.code == 2
        assert done.out == ""
        assert reason in done.err

    def test_a_folder_without_stores(self, fpgpu_command: Run, tmp_path: Path) -> None:
        done = fpgpu_command("patch", tmp_path, *PLACE)
        assert done.code == 2
        assert "fpgpu ingest" in done.err

    def test_a_catalogue_without_positions(self, fpgpu_command: Run, stores: Path) -> None:
        Table({"RA_J2000": [53.16], "flux": [1.0]}).write("sources.fits")
        done = fpgpu_command("patch", stores, *PLACE, "--catalog", "sources.fits")
        assert done.code == 2
        assert "sources.fits: the catalogue has no column 'ra'; it has RA_J2000, flux" in done.err

    def test_a_file_that_is_no_table(self, fpgpu_command: Run, stores: Path) -> None:
        Path("sources.fits").write_text("nonsense")
        done = fpgpu_command("patch", stores, *PLACE, "--catalog", "sources.fits")
        assert done.code == 2
        assert "sources.fits: cannot be read as a table" in done.err

    def test_sources_without_psfs(
        self, fpgpu_command: Run, tiny_stores: Path, truth: dict[str, Any]
    ) -> None:
        Table(truth["sourcecat"]).write("sources.fits")
        done = fpgpu_command("patch", tiny_stores, *PLACE, "--catalog", "sources.fits")
        assert done.code == 2
        assert "psf.h5: no such PSF store, but the catalogue has 3 sources here" in done.err

    def test_cuda_where_there_is_none(self, fpgpu_command: Run, stores: Path) -> None:
        status = cuda_status(0)
        if status.problem is None:
            pytest.skip("there is a CUDA device here")
        done = fpgpu_command("patch", stores, *PLACE, "--backend", "cuda")
        assert done.code == 2
        assert f"{status.problem}; to use it: {status.fix}" in done.err


def test_a_store_is_never_overwritten_by_a_patch(
    fpgpu_command: Run, stores: Path, tmp_path: Path
) -> None:
    shutil.copy(stores / "pixels.h5", tmp_path / "pixels.h5")
    done = fpgpu_command("patch", stores, *PLACE, "--out", "pixels.h5")
    assert done.code == 2
    assert "is no patch" in done.err
    assert Path("pixels.h5").read_bytes() == (stores / "pixels.h5").read_bytes()


def test_a_folder_without_psfs_gives_pixels_and_geometry(
    fpgpu_command: Run, tiny_stores: Path
) -> None:
    done = fpgpu_command("patch", tiny_stores, *PLACE)
    assert done.code == 0, done.err
    assert "no sources" in done.out
    assert read_patch("patch.h5").plan.n_exp == 6
