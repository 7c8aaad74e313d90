"""Ingest from end to end: read JWST files, calibrate, refit the WCS, write durably, publish."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.limits import durable_copy
from benchmarks.sizes import Measure, Size
from fpgpu import PixelStore
from fpgpu.demo.field import make_field
from fpgpu.ingest.pipeline import ingest

# The images of an exposure that a store takes in, as float32: the flux and its uncertainty.
_BYTES_PER_PIXEL = 8

# A worker before it reads anything: Python, astropy, h5py, asdf, gwcs, scipy.
_LIBRARIES = 200 << 20


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


@pytest.mark.parametrize("workers", [1, 2])
def test_fpgpu(
    measure: Measure,
    size: Size,
    cal_files: list[Path],
    fresh: Callable[[], Path],
    tmp_path: Path,
    workers: int,
) -> None:
    executor = "serial" if workers == 1 else "processes"
    report = measure(
        "ingest",
        "fpgpu cpu",
        lambda: ingest(cal_files, fresh(), executor=executor, workers=workers),
        detail=f"{workers} worker{'s' if workers > 1 else ''}",
        at={"exposures": size.few, "side": size.side},
        n_bytes=sum(path.stat().st_size for path in cal_files),
        limit=durable_copy(cal_files, tmp_path / "copies"),
        rounds=1,
        warm_up=False,
    )
    assert len(report.added) == size.few
    with PixelStore(report.out / "pixels.h5", mode="r") as pixels:
        assert len(pixels.verify().verified) == size.few
    if executor == "processes":
        peak = max(row.peak_bytes for row in report.rows)
        assert peak < _LIBRARIES + 6 * _BYTES_PER_PIXEL * size.side**2
