"""What a user sees of the command line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from fpgpu.backends.availability import cuda_status
from fpgpu.stores.pixel import PixelStore
from tests.cli.conftest import Run


def test_the_version_is_the_package_s(fpgpu_command: Run) -> None:
    import fpgpu

    assert fpgpu_command("--version").out == f"fpgpu {fpgpu.__version__}\n"


def test_a_wrong_word_is_a_usage_error(fpgpu_command: Run) -> None:
    wrong = fpgpu_command("ingets")
    assert wrong.code == 2
    assert "ingest" in wrong.err


class TestIngest:
    def test_says_what_became_of_each_exposure_and_why_pixels_are_masked(
        self, fpgpu_command: Run, tiny_exposures: list[Path], tmp_path: Path
    ) -> None:
        done = fpgpu_command("ingest", *tiny_exposures, "--out", tmp_path, "--bitmask", "1")
        assert done.code == 0
        assert done.out.splitlines()[-1] == f"6 exposures in {tmp_path}, 0 refused"
        assert "exp_f444w_01" in done.out
        assert "DO_NOT_USE" in done.out

    def test_progress_in_a_log_is_a_line_an_exposure(
        self, fpgpu_command: Run, tiny_exposures: list[Path], tmp_path: Path
    ) -> None:
        done = fpgpu_command("ingest", *tiny_exposures, "--out", tmp_path)
        assert [line for line in done.err.splitlines() if line.startswith("ingest 6/6")]

    def test_quiet_prints_the_result_only(
        self, fpgpu_command: Run, tiny_exposures: list[Path], tmp_path: Path
    ) -> None:
        done = fpgpu_command("ingest", *tiny_exposures, "--out", tmp_path, "-q")
        assert done.err == ""
        assert len(done.out.splitlines()) == 1

    def test_an_overlap_without_tiles_is_refused(
        self, fpgpu_command: Run, tiny_exposures: list[Path], tmp_path: Path
    ) -> None:
        done = fpgpu_command("ingest", *tiny_exposures, "--out", tmp_path, "--tile-overlap", 8)
        assert done.code == 2
        assert "--tile-overlap is of tiles; give --tile N, too" in done.err

    def test_one_bad_file_is_named_and_the_rest_goes_in(
        self, fpgpu_command: Run, tiny_exposures: list[Path], tmp_path: Path
    ) -> None:
        bad = tmp_path / "bad.fits"
        bad.write_bytes(b"no FITS at all")
        done = fpgpu_command("ingest", bad, *tiny_exposures[:2], "--out", tmp_path / "stores")
        assert done.code == 1
        assert f"refused {bad}: cannot be read as FITS" in done.err
        assert done.out.splitlines()[-1] == f"2 exposures in {tmp_path / 'stores'}, 1 refused"

    def test_progress_counts_files_not_their_tiles(
        self, fpgpu_command: Run, tiny_exposures: list[Path], tmp_path: Path
    ) -> None:
        out = tmp_path / "stores"
        done = fpgpu_command("ingest", tiny_exposures[0], "--out", out, "--tile", 32)
        assert "16 exposures" in done.out
        assert [line for line in done.err.splitlines() if line.startswith("ingest ")] == [
            f"ingest 1/1 {tiny_exposures[0].name}"
        ]

    def test_json_tells_a_script_what_became_of_each(
        self, fpgpu_command: Run, tiny_exposures: list[Path], tmp_path: Path
    ) -> None:
        files = (tmp_path / "missing.fits", *tiny_exposures[:2])
        done = fpgpu_command("ingest", *files, "--out", tmp_path / "s", "--json")
        assert done.code == 1
        told = json.loads(done.out)
        assert told["ok"] is False
        assert {row["file"]: row["status"] for row in told["exposures"]} == {
            str(files[0]): "refused", str(files[1]): "stored", str(files[2]): "stored"
        }  # fmt: skip
        assert done.err.startswith("refused")
        assert "ingest 1/3" not in done.err

    def test_strict_stops_at_the_first_bad_file(
        self, fpgpu_command: Run, tiny_exposures: list[Path], tmp_path: Path
    ) -> None:
        missing = tmp_path / "missing.fits"
        done = fpgpu_command(
            "ingest", missing, *tiny_exposures, "--out", tmp_path / "stores", "--strict"
        )
        assert done.code == 2
        assert "missing.fits" in done.err
        assert "exp_f" not in done.out

    def test_an_unknown_flag_name_is_refused_with_the_nearest_one(
        self, fpgpu_command: Run, tiny_exposures: list[Path], tmp_path: Path
    ) -> None:
        done = fpgpu_command(
            "ingest", *tiny_exposures, "--out", tmp_path / "s", "--bitmask", "SATURATD"
        )
        assert done.code == 2
        assert "SATURATED" in done.err
        assert not (tmp_path / "s").exists()

    def test_the_real_cutout_is_refused_then_goes_in_as_told(
        self, fpgpu_command: Run, shared_data: Path, tmp_path: Path
    ) -> None:
        cutout = shared_data / "nircam" / "nrcalong_f444w_cal_cutout.fits"
        refused = fpgpu_command("ingest", cutout, "--out", tmp_path)
        assert refused.code == 2
        assert "--wcs fits" in refused.err
        assert "412" in refused.err
        done = fpgpu_command("ingest", cutout, "--out", tmp_path, "--wcs", "fits", "--pad")
        assert done.code == 0
        with h5py.File(tmp_path / "pixels.h5") as store:
            assert store["F444W/nrcalong_f444w_cal_cutout/data"].shape == (13, 13, 128)

    def test_a_folder_without_the_views_of_forcepho_is_whole(
        self, fpgpu_command: Run, tiny_exposures: list[Path], tmp_path: Path
    ) -> None:
        fpgpu_command("ingest", *tiny_exposures[:2], "--out", tmp_path)
        (tmp_path / "meta.json").unlink()
        told = fpgpu_command("info", tmp_path)
        assert (told.code, told.err) == (0, "")
        assert fpgpu_command("views", tmp_path).code == 0
        assert (tmp_path / "meta.json").exists()
        (tmp_path / "pixels.h5").unlink()
        told = fpgpu_command("info", tmp_path)
        assert (told.code, told.out) == (2, "")
        assert "pixels.h5" in told.err

    def test_an_empty_folder_name_is_refused(
        self, fpgpu_command: Run, tiny_exposures: list[Path]
    ) -> None:
        refused = fpgpu_command("ingest", *tiny_exposures, "--out", "")
        assert refused.code == 2
        assert "name of the file or folder is empty" in refused.err


class TestInfo:
    def test_tells_bands_sizes_units_wcs_and_area(
        self, fpgpu_command: Run, tiny_stores: Path
    ) -> None:
        told = fpgpu_command("info", tiny_stores)
        assert told.code == 0
        assert "6 exposures of 128x128 pixels, bands: 3" in told.out
        for word in ("F090W", "F200W", "F444W", "nJy", "2 fits", "arcmin2"):
            assert word in told.out

    def test_json_is_for_scripts(self, fpgpu_command: Run, tiny_stores: Path) -> None:
        summary = json.loads(fpgpu_command("info", tiny_stores, "--json").out)
        assert summary["shape"] == [128, 128]
        assert summary["consistent"] is True
        band = summary["bands"][0]
        # 128 pixels of 31 mas are 3.97 arcsec: 0.00438 square arcminutes.
        assert band["exposures_arcmin2"] == pytest.approx(2 * (128 * 0.031 / 60) ** 2, rel=0.02)
        assert band["sky_arcmin2"] <= band["exposures_arcmin2"]
        parts = [tiny_stores / "pixels.h5", *tiny_stores.glob("pixels.shards/*/*.h5")]
        assert summary["n_bytes"] == sum(part.stat().st_size for part in parts)
        assert summary["n_bytes"] > 6 * 8 * 128**2

    def test_a_folder_without_stores_is_refused_with_the_way_to_make_one(
        self, fpgpu_command: Run, tmp_path: Path
    ) -> None:
        told = fpgpu_command("info", tmp_path)
        assert told.code == 2
        assert "fpgpu ingest" in told.err
        assert not list(tmp_path.iterdir())

    def test_debug_shows_the_traceback(self, fpgpu_command: Run, tmp_path: Path) -> None:
        done = fpgpu_command("info", tmp_path / "nowhere", "--debug")
        assert done.code == 2
        assert "Traceback (most recent call last)" in done.err
        assert done.err.splitlines()[-1].startswith("fpgpu info: ")
        assert "nowhere is not a folder" in done.err.splitlines()[-1]

    def test_where_on_the_sky_and_how_deep(self, fpgpu_command: Run, tiny_stores: Path) -> None:
        told = fpgpu_command("info", tiny_stores)
        assert re.search(r"around ra 53\.1(59|60)\d+, dec -27\.7(89|90)\d+, within 0\.", told.out)
        summary = json.loads(fpgpu_command("info", tiny_stores, "--json").out)
        assert summary["ra"] == pytest.approx(53.16, abs=1e-3)
        assert 0.01 < summary["radius_arcmin"] < 0.2
        with PixelStore(tiny_stores / "pixels.h5", mode="r") as pixels:
            ierr = np.stack(
                [pixels.read_exposure("F200W", e)[1] for e in pixels.exposures("F200W")]
            )
        band = summary["bands"][1]
        per_arcsec2 = band["exposures_arcmin2"] * 3600 / ierr.size
        n_mean = band["exposures_arcmin2"] / band["sky_arcmin2"]
        sigma = np.sqrt(np.pi * 0.15**2 / per_arcsec2 / np.mean(ierr**2) / n_mean)
        assert summary["depth_ab"]["F200W"] == pytest.approx(
            31.4 - 2.5 * np.log10(5 * sigma), abs=0.1
        )
        assert f"{summary['depth_ab']['F200W']:g}" in told.out

    def test_a_closed_output_is_no_error(self, tiny_stores: Path) -> None:
        done = subprocess.run(
            f"{sys.executable} -m fpgpu info {tiny_stores} --json >&-",
            shell=True,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""

    def test_a_closed_pipe_is_no_error(self, tiny_stores: Path) -> None:
        done = subprocess.run(
            f"{sys.executable} -m fpgpu info {tiny_stores} | true",
            shell=True,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""


def test_the_demo_passes_on_a_user_s_own_files(
    fpgpu_command: Run, tiny_exposures: list[Path]
) -> None:
    done = fpgpu_command("demo", *tiny_exposures)
    assert done.code == 0
    assert "every check holds" in done.out
    assert "FAIL" not in done.out


def test_the_demo_on_the_real_cutout(fpgpu_command: Run, shared_data: Path) -> None:
    cutout = shared_data / "nircam" / "nrcalong_f444w_cal_cutout.fits"
    refused = fpgpu_command("demo", cutout)
    assert refused.code == 2
    assert "412" in refused.err
    done = fpgpu_command("demo", cutout, "--wcs", "fits", "--pad")
    assert done.code == 0, done.out
    assert "every check holds" in done.out


class TestBackend:
    def test_the_demo_says_which_backend_it_took(
        self, fpgpu_command: Run, tiny_exposures: list[Path]
    ) -> None:
        done = fpgpu_command("demo", *tiny_exposures[:2], "--backend", "cpu")
        assert done.code == 0
        assert done.out.splitlines()[0].split()[:5] == ["chose", "a", "backend", "cpu:", "the"]

    @pytest.mark.parametrize("command", ["demo", "ingest"])
    def test_cuda_where_there_is_none_is_refused_with_the_line_that_installs_it(
        self, fpgpu_command: Run, tiny_exposures: list[Path], tmp_path: Path, command: str
    ) -> None:
        status = cuda_status(0)
        if status.problem is None:
            pytest.skip("there is a CUDA device here")
        done = fpgpu_command(command, *tiny_exposures, "--out", tmp_path, "--backend", "cuda")
        assert done.code == 2
        assert f"{status.problem}; to use it: {status.fix}" in done.err
        assert not list(tmp_path.iterdir())
