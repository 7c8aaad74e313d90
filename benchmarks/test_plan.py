"""Planning the patch of a region: which exposures, which super-pixels."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest

from benchmarks.sizes import Measure, Size
from benchmarks.survey import BANDS, POSITION, REGION
from fpgpu import CircularRegion, MetaStore, PixelStore
from fpgpu.patch.plan import PatchPlan, make_plan

# Exposures that the region does not touch, added to those of a field.
_ELSEWHERE = 1000
_SIDE = 2048  # of the headers' detectors


def operation(radius: float) -> str:
    return f"plan a patch, r = {radius:g} arcsec"


def write_pixel_store(path: Path, meta: MetaStore) -> Path:
    """Write a pixel store with every exposure of a meta store, but none of its pixels."""
    with h5py.File(path, "w") as file:
        file.attrs["nside_full"], file.attrs["super_pixel_size"] = np.int64(_SIDE), np.int64(8)
        for band, expID in meta:
            file.create_dataset(f"{band}/{expID}/data", (_SIDE // 8, _SIDE // 8, 128), "<f4")
    return path


@contextmanager
def stores(meta_file: Path, tmp_path: Path, elsewhere: int = 0) -> Iterator[tuple]:
    """Open both stores of a field, with further exposures five degrees away."""
    with MetaStore(meta_file) as meta:
        first = meta.headers[BANDS[0]][meta.exposures(BANDS[0])[0]]
        for n in range(elsewhere):
            header = first.copy()
            header["CRVAL2"] = POSITION[1] + 5.0 + 1e-3 * n
            imset = type("", (), {"hdr": header, "band": BANDS[0], "expID": f"far{n:04d}"})
            meta.add_exposure(imset)
        with PixelStore(write_pixel_store(tmp_path / "pixels.h5", meta), mode="r") as pixels:
            yield pixels, meta


@pytest.mark.parametrize("select", ["corners", "overlap"])
@pytest.mark.parametrize("radius", [3.0, 10.0])
def test_fpgpu(
    measure: Measure,
    size: Size,
    meta_file: Callable[[int], Path],
    tmp_path: Path,
    radius: float,
    select: str,
) -> None:
    region = CircularRegion(*POSITION, radius / 3600)
    with stores(meta_file(size.few), tmp_path) as (pixels, meta):
        plan: PatchPlan = measure(
            operation(radius),
            f"fpgpu, {select}",
            lambda: make_plan(pixels, meta, region, BANDS, select=select),
            rounds=15,
        )
    assert plan.n_exp >= size.few // 2
    # The circle's area, seen by every exposure; super-pixels reach beyond its edge.
    pixels_inside = np.pi * (radius / 0.063) ** 2 * plan.n_exp
    assert pixels_inside < plan.n_pixels < 1.5 * pixels_inside


def test_fpgpu_with_more_exposures_elsewhere(
    measure: Measure, size: Size, meta_file: Callable[[int], Path], tmp_path: Path
) -> None:
    n_elsewhere = _ELSEWHERE if size.few > 30 else 10
    path = meta_file(size.few)
    with stores(path, tmp_path, n_elsewhere) as (pixels, meta):
        plan = measure(
            operation(3),
            f"fpgpu, corners, {n_elsewhere} exposures more elsewhere",
            lambda: make_plan(pixels, meta, REGION, BANDS),
            rounds=15,
        )
    with stores(path, tmp_path) as (pixels, meta):
        assert plan == make_plan(pixels, meta, REGION, BANDS)


@pytest.mark.filterwarnings("ignore")
def test_forcepho(
    measure: Measure,
    size: Size,
    meta_file: Callable[[int], Path],
    tmp_path: Path,
    forcepho: ModuleType,
) -> None:
    module = pytest.importorskip(forcepho.__name__.replace("storage", "pixel_patch"))
    with stores(meta_file(size.few), tmp_path) as (pixels, meta):
        plan = make_plan(pixels, meta, REGION, BANDS)
    patch = module.StorePatch(
        pixelstore=str(tmp_path / "pixels.h5"), metastore=str(meta_file(size.few))
    )
    patch.metastore.populate_wcs()
    region = importlib.import_module("forcepho.region").CircularRegion(
        REGION.ra, REGION.dec, REGION.radius
    )
    _, _, epaths, _ = measure(
        operation(3),
        "forcepho, exposures only",
        lambda: patch.find_exposures(region, BANDS),
        rounds=3,
    )
    assert set(epaths) <= {f"{e.band}/{e.expID}" for e in plan.exposures}
