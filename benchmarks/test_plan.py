"""Planning the patch of a region: which exposures, which super-pixels."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from types import ModuleType, SimpleNamespace

import h5py
import numpy as np
import pytest

from benchmarks.conftest import Keep
from benchmarks.inputs.archive import BANDS, POSITION, SIDE
from benchmarks.measurements import Measurement
from benchmarks.sizes import Measure, Size
from benchmarks.upstream import circle, store_patch, write_splines
from fpgpu import CircularRegion, MetaStore, PixelStore
from fpgpu.patch.plan import PatchPlan, make_plan

REGION = CircularRegion(*POSITION, 3 / 3600)
ELSEWHERE = "plan with exposures elsewhere"
_ROUNDS = 15


def write_pixel_store(path: Path, meta: MetaStore) -> Path:
    """Write a pixel store with every exposure of a meta store, but none of its pixels."""
    with h5py.File(path, "w") as file:
        file.attrs["nside_full"], file.attrs["super_pixel_size"] = np.int64(SIDE), np.int64(8)
        for band, expID in meta:
            file.create_dataset(f"{band}/{expID}/data", (SIDE // 8, SIDE // 8, 128), "<f4")
    return path


@contextmanager
def stores(meta_file: Path, folder: Path, elsewhere: int = 0) -> Iterator[tuple]:
    """Write and open the stores of a field, with further exposures five degrees away."""
    with MetaStore(meta_file) as meta:
        first = meta.headers[BANDS[0]][meta.exposures(BANDS[0])[0]]
        for n in range(elsewhere):
            header = first.copy()
            header["CRVAL2"] = POSITION[1] + 5.0 + 1e-3 * n
            del header["S_REGION"]
            meta.add_exposure(SimpleNamespace(hdr=header, band=BANDS[0], expID=f"far{n:04d}"))
        meta.write_to_file(folder / "meta.json")
        with PixelStore(write_pixel_store(folder / "pixels.h5", meta), mode="r") as pixels:
            yield pixels, meta


@pytest.mark.parametrize("select", ["corners", "overlap"])
@pytest.mark.parametrize("radius", [3.0, 10.0])
def test_fpgpu(
    measure: Measure,
    size: Size,
    archive: Callable[[int], Path],
    tmp_path: Path,
    radius: float,
    select: str,
) -> None:
    region = CircularRegion(*POSITION, radius / 3600)
    with stores(archive(size.archive[0]), tmp_path) as (pixels, meta):
        plan: PatchPlan = measure(
            "plan",
            "fpgpu cpu",
            lambda: make_plan(pixels, meta, region, BANDS, select=select),
            detail=select,
            at={"radius": radius, "exposures": size.archive[0]},
            rounds=_ROUNDS,
        )
    assert plan.n_exp >= size.archive[0] // 4
    # The circle's area, seen by every exposure; super-pixels reach beyond its edge.
    pixels_inside = np.pi * (radius / 0.063) ** 2 * plan.n_exp
    assert pixels_inside < plan.n_pixels < 1.5 * pixels_inside


def seconds_of(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


def record_elsewhere(
    column: str, alone: list[float], among: list[float], n_elsewhere: int, keep: Keep
) -> None:
    """Keep the time with exposures elsewhere, beside the time without them."""
    keep(
        Measurement(
            ELSEWHERE,
            column,
            statistics.median(among),
            at={"elsewhere": n_elsewhere},
            limit="the same without them",
            limit_value=statistics.median(alone),
        )
    )


def test_fpgpu_with_exposures_elsewhere(
    size: Size, archive: Callable[[int], Path], tmp_path: Path, keep: Keep
) -> None:
    path = archive(size.archive[0])
    for folder in ("alone", "among"):
        (tmp_path / folder).mkdir()
    with (
        stores(path, tmp_path / "alone") as few,
        stores(path, tmp_path / "among", size.elsewhere) as many,
    ):
        assert make_plan(*many, REGION, BANDS) == make_plan(*few, REGION, BANDS)
        times = [
            [seconds_of(lambda pair=pair: make_plan(*pair, REGION, BANDS)) for pair in (few, many)]
            for _ in range(_ROUNDS)
        ]
    record_elsewhere("fpgpu cpu", *zip(*times, strict=True), size.elsewhere, keep)


@pytest.mark.filterwarnings("ignore")
def test_forcepho_with_exposures_elsewhere(
    size: Size,
    archive: Callable[[int], Path],
    tmp_path: Path,
    forcepho: ModuleType,
    keep: Keep,
) -> None:
    seconds, found = [], []
    splines = write_splines(tmp_path / "splines.h5")
    for n_elsewhere in (0, size.elsewhere):
        with stores(archive(size.archive[0]), tmp_path, n_elsewhere) as (pixels, meta):
            plan = make_plan(pixels, meta, REGION, BANDS)
        files = tmp_path / "pixels.h5", tmp_path / "meta.json", tmp_path / "psf.h5"
        patch = store_patch(*files, splines)
        ask = lambda patch=patch: found.append(patch.find_exposures(circle(REGION), BANDS)[2])  # noqa: E731
        seconds.append([seconds_of(ask)])
        patch.pixelstore.close()
    assert found[0] == found[1]
    assert set(found[0]) <= {f"{e.band}/{e.expID}" for e in plan.exposures}
    record_elsewhere("forcepho", *seconds, size.elsewhere, keep)
