"""What ``--json`` prints is JSON and nothing else, whatever libraries print meanwhile."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from fpgpu import PSFStore
from fpgpu.cli.console import Result
from fpgpu.layout import PSF_DTYPE
from tests.cli.conftest import Run

CARDS = {
    "FILTER": "F200W", "ABMAG": 31.4, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN",
    "CRVAL1": 150.1, "CRVAL2": 2.2, "CRPIX1": 32.5, "CRPIX2": 32.5, "CD1_1": -1e-5, "CD1_2": 0.0,
    "CD2_1": 0.0, "CD2_2": 1e-5, "A_ORDER": 2, "A_2_0": 1e-4, "B_ORDER": 2, "B_0_2": 1e-4,
}  # fmt: skip
PLACE = ("--ra", "150.1", "--dec", "2.2", "--radius", "1")

# Prints where libraries print: this process, compiled code, and those that it starts.
NOISY = """
import os, sys
import fpgpu.ingest.plain as plain
is_plain = plain.is_plain
def noisy(file):
    print("a library was here")
    os.write(1, b"so was a compiled one\\n")
    return is_plain(file)
plain.is_plain = noisy
from fpgpu.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def run(*args: object, code: str | None = None) -> subprocess.CompletedProcess[str]:
    start = ["-m", "fpgpu"] if code is None else ["-c", code]
    command = [sys.executable, *start, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Exposures on whose headers astropy writes fourteen lines to standard output."""
    folder = tmp_path_factory.mktemp("files")
    found = []
    for number in range(2):
        header = fits.Header({**CARDS, "CRVAL1": 150.1 + number / 1000})
        image = np.ones((64, 64), np.float32)
        hdus = [fits.ImageHDU(image, header, "SCI"), fits.ImageHDU(image, name="ERR")]
        found.append(folder / f"e{number}.fits")
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(found[-1])
    return found


@pytest.fixture(scope="module")
def survey(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of them, whose header is as it was, with a PSF and a catalogue."""
    folder = tmp_path_factory.mktemp("survey")
    assert run("ingest", *files, "--out", folder, "-q").returncode == 0
    psf = np.zeros((1, 1), PSF_DTYPE)
    psf["amp"], psf["Cxx"], psf["Cyy"] = 1, 2, 2
    with PSFStore(folder / "psf.h5") as store:
        store.add_psf("F200W", psf)
    Table({"ra": [150.1], "dec": [2.2]}).write(folder / "cat.fits")
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ("ingest", "FILES", "--out", "NEW", "--dry-run"),
        ("ingest", "FILES", "--out", "NEW", "--executor", "serial"),
        ("ingest", "FILES", "--out", "NEW", "--executor", "processes", "--workers", "2"),
        ("info", "SURVEY"),
        ("info", "SURVEY", "--exposures"),
        ("verify", "SURVEY"),
        ("patch", "SURVEY", *PLACE, "--catalog", "SURVEY/cat.fits", "--out", "NEW.h5"),
        ("plot", "SURVEY", "footprints", *PLACE, "--out", "NEW"),
        ("merge", "SURVEY", "--out", "NEW"),
        ("remove", "SURVEY", "F200W/e0", "--dry-run"),
        ("consolidate", "SURVEY"),
    ],
    ids=" ".join,
)
def test_standard_output_is_json(
    files: list[Path], survey: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    words: list[str] = []
    for word in command:
        word = word.replace("SURVEY", str(survey)).replace("NEW", str(tmp_path / "new"))
        words += map(str, files) if word == "FILES" else [word]
    done = run(*words, "--json")
    json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "astropy" in line]
    assert len(told) <= 1, told


def test_what_anybody_else_prints_goes_to_standard_error(files: list[Path], tmp_path: Path) -> None:
    done = run("ingest", files[0], "--out", tmp_path / "s", "--json", code=NOISY)
    assert json.loads(done.stdout)["ok"] is True
    assert "a library was here" in done.stderr
    assert "so was a compiled one" in done.stderr


def test_a_number_that_json_does_not_have_is_null(
    fpgpu_command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"a": [1.5, float("nan")], "b": (float("-inf"), {"c": None})}
    monkeypatch.setattr("fpgpu.cli.info.run", lambda args: Result(json=found))
    told = fpgpu_command("info", "stores", "--json")
    assert json.loads(told.out) == {"a": [1.5, None], "b": [None, {"c": None}]}


def test_a_pipe_that_is_closed_and_a_full_disk_are_told(survey: Path) -> None:
    with open(os.devnull) as nothing, open("/dev/full", "w") as full:  # noqa: PTH123
        command = [sys.executable, "-m", "fpgpu", "info", str(survey), "--json"]
        done = subprocess.run(
            command, stdin=nothing, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
