"""Running the command line in this process, and files to run it on."""

import gzip
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fpgpu.cli.main import main


@dataclass
class Finished:
    """A command that has run."""

    code: int
    out: str
    err: str


Run = Callable[..., Finished]


@pytest.fixture
def fpgpu_command(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``fpgpu ARGS...`` and return its exit code and what it printed."""

    def run(*args: object) -> Finished:
        capsys.readouterr()
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capsys.readouterr()
        return Finished(code, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def tiny_exposures(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six plain FITS exposures of 128x128 pixels in three bands."""
    folder = tmp_path_factory.mktemp("exposures")
    for packed in sorted((golden / "tiny").glob("exp_*.fits.gz")):
        with gzip.open(packed) as source, (folder / packed.stem).open("wb") as target:
            shutil.copyfileobj(source, target)
    return sorted(folder.glob("*.fits"))


@pytest.fixture(scope="session")
def tiny_stores(tiny_exposures: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store folder made of the six exposures; not to be changed."""
    folder = tmp_path_factory.mktemp("stores")
    assert main(["ingest", *map(str, tiny_exposures), "--out", str(folder), "--bitmask", "1"]) == 0
    return folder
