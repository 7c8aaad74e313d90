"""Ingest from end to end: read JWST files, calibrate, refit the WCS, write durably, publish."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.sizes import Measure, Size
from fpgpu import PixelStore
from fpgpu.demo.field import make_field
from fpgpu.ingest.pipeline import ingest

# The images of an exposure that a store takes in, as float32: the flux and its uncertainty.
_BYTES_PER_PIXEL = 8

# A worker before it reads anything: Python, astropy, h5py, asdf, gwcs, scipy.
_LIBRARIES = 200 << 20


def operation(size: Size) -> str:
    return f"ingest {size.few} exposures of {size.side} x {size.side}"


@pytest.fixture(scope="module")
def cal_files(size: Size, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files as the archive delivers them, with gWCS; copies of one a band, for they take long."""
    folder = tmp_path_factory.mktemp("cal")
    originals = make_field(folder / "originals", n_per_band=1, size=size.side, n_sources=20).files
    files = []
    for number in range(size.few):
        original = originals[number % len(originals)]
        files.append(folder / f"{number:03d}_{original.name}")
        shutil.copyfile(original, files[-1])
    return files


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Path]:
    """Give the path of a folder that is not there, the one before removed."""

    def removed() -> Path:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        return tmp_path / "out"

    return removed


def n_bytes(files: list[Path]) -> int:
    return sum(path.stat().st_size for path in files)


def test_copying_the_files(
    measure: Measure, size: Size, cal_files: list[Path], fresh: Callable[[], Path]
) -> None:
    def copy() -> Path:
        target = fresh()
        target.mkdir()
        for path in cal_files:
            shutil.copyfile(path, target / path.name)
            with (target / path.name).open("rb") as stream:
                os.fsync(stream.fileno())
        return target

    total = n_bytes(cal_files)
    target = measure(operation(size), "cp and fsync the files", copy, n_bytes=total, rounds=1)
    assert n_bytes(sorted(target.iterdir())) == total


@pytest.mark.parametrize("workers", [1, 2])
def test_fpgpu(
    measure: Measure, size: Size, cal_files: list[Path], fresh: Callable[[], Path], workers: int
) -> None:
    executor = "serial" if workers == 1 else "processes"
    report = measure(
        operation(size),
        f"fpgpu, {workers} worker{'s' if workers > 1 else ''}",
        lambda: ingest(cal_files, fresh(), executor=executor, workers=workers),
        n_bytes=n_bytes(cal_files),
        rounds=1,
    )
    assert len(report.added) == size.few
    with PixelStore(report.out / "pixels.h5", mode="r") as pixels:
        assert len(pixels.verify().verified) == size.few
    if executor == "processes":
        peak = max(row.peak_bytes for row in report.rows)
        print(f"peak memory of a worker: {peak / 2**20:.0f} MiB")
        assert peak < _LIBRARIES + 6 * _BYTES_PER_PIXEL * size.side**2
