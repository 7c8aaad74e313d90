"""A store whose exposures have files of their own gives the same patches; each file may fail."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import fpgpu
from fpgpu import CircularRegion, Survey
from fpgpu.backends.base import Backend
from fpgpu.errors import FpgpuError, MissingStoreError, StoreFormatError
from fpgpu.patch.plan import PatchPlan
from fpgpu.stores.upkeep.forms import split

DAMAGED = ("F200W", "exp_f200w_01")


@pytest.fixture
def folder(golden: Path, tmp_path: Path) -> Path:
    """The golden stores, sharded."""
    for name in ("pixels.h5", "meta.json", "psf.h5"):
        shutil.copy(golden / "tiny" / name, tmp_path)
    split(tmp_path)
    return tmp_path


@pytest.fixture
def survey(folder: Path, backend: Backend) -> Iterator[Survey]:
    """The sharded stores, on every backend."""
    with fpgpu.open(folder, backend=backend) as survey:
        yield survey


def shard_of(survey: Survey, band: str, expID: str) -> Path:
    """The file that an exposure has."""
    state = survey.pixels.state
    return state.folder / state.row((band, expID)).file


@pytest.mark.parametrize("form", ["sharded", "mixed"])
def test_plan_and_patch_are_those_of_a_single_file(
    folder: Path, golden: Path, backend: Backend, plan: PatchPlan, sources: Any, form: str
) -> None:
    if form == "mixed":
        with (
            h5py.File(folder / "pixels.h5", "r+") as ours,
            h5py.File(golden / "tiny" / "pixels.h5") as old,
        ):
            del ours["F200W/exp_f200w_01"]
            old.copy("F200W/exp_f200w_01", ours["F200W"])
    single = fpgpu.open(golden / "tiny", backend=backend)
    with single, fpgpu.open(folder, backend=backend) as sharded:
        assert sharded.plan(plan.region, plan.bandlist) == plan
        arrays = []
        for survey in (single, sharded):
            with survey.patch(plan, sources) as patch:
                arrays.append(patch.host_arrays())
    assert arrays[0].keys() == arrays[1].keys()
    for name, values in arrays[0].items():
        np.testing.assert_array_equal(arrays[1][name], values)


def test_a_stream_over_shards_gives_what_one_file_gives(
    survey: Survey, golden: Path, plan: PatchPlan
) -> None:
    ra, dec, radius = plan.region.ra, plan.region.dec, plan.region.radius
    regions = [CircularRegion(ra, dec + k * radius / 8, radius / 2) for k in range(5)]
    with (
        fpgpu.open(golden / "tiny", backend=survey.backend) as single,
        survey.stream(regions) as stream,
    ):
        for region, item in zip(regions, stream, strict=True):
            with single.patch(region) as patch:
                np.testing.assert_array_equal(item.patch.retrieve("data"), patch.retrieve("data"))


# --- a shard changes between plan and read -------------------------------------------------------


def truncated(shard: Path) -> None:
    os.truncate(shard, shard.stat().st_size // 2)


def garbage(shard: Path) -> None:
    shard.write_bytes(b"no store at all" * 1000)


def another_exposure(shard: Path) -> None:
    with h5py.File(shard, "w") as file:
        file["F200W/exp_f200w_07/data"] = np.zeros((16, 16, 128), "<f4")


def other_images(shard: Path) -> None:
    with h5py.File(shard, "w") as file:
        file["F200W/exp_f200w_01/data"] = np.zeros((8, 8, 128), "<f4")


FAULTS: dict[Callable[[Path], None], type[FpgpuError]] = {
    truncated: StoreFormatError,
    Path.unlink: MissingStoreError,
    garbage: StoreFormatError,
    another_exposure: StoreFormatError,
    other_images: StoreFormatError,
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("read_before", [False, True], ids=["unread", "read before"])
def test_a_shard_that_changed_since_the_plan_is_a_clear_error(
    survey: Survey, plan: PatchPlan, fault: Callable[[Path], None], read_before: bool
) -> None:
    if read_before:
        survey.patch(plan).free()
    fault(shard_of(survey, *DAMAGED))
    with pytest.raises(FAULTS[fault], match=r"F200W.*exp_f200w_01") as kept:
        survey.patch(plan)
    assert kept.value is not None  # an error that is kept keeps no memory
    survey.backend.synchronize()
    assert survey.backend.live_allocations == 0
    ring = survey.backend._current_ring()
    assert ring.n_free == ring.settings.depth


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_damaged_shard_is_an_error_of_the_regions_that_need_it(
    survey: Survey, plan: PatchPlan, fault: Callable[[Path], None]
) -> None:
    needs = survey.plan(plan.region, ["F200W"])
    does_not = survey.plan(plan.region, ["F444W"])
    shard = shard_of(survey, *DAMAGED)
    whole = shard.read_bytes()

    def asked() -> Iterator[PatchPlan]:
        yield needs
        yield does_not
        shard.write_bytes(whole)
        yield needs

    with survey.stream(asked(), depth=1) as stream:
        fault(shard)
        found = [None if item.error is None else type(item.error) for item in stream]
    # While the second is in use the third is asked for, and may meet either state of the first.
    assert found in ([FAULTS[fault], None, None], [None, None, None])
    assert survey.backend.live_allocations == 0


def test_a_shard_that_is_written_anew_gives_its_new_values(
    survey: Survey, folder: Path, plan: PatchPlan
) -> None:
    with survey.patch(plan) as patch:
        before = patch.retrieve("data")
    shard = shard_of(survey, *DAMAGED)
    new = shutil.copy(shard, folder / "new.h5")
    with h5py.File(new, "r+") as file:
        file["F200W/exp_f200w_01/data"][..., :64] += 1.0
    Path(new).replace(shard)
    with survey.patch(plan) as patch:
        after = patch.retrieve("data")
    number = [(e.band, e.expID) for e in plan.exposures].index(DAMAGED)
    start, count = plan.exposure_start[number], plan.exposure_N[number]
    expected = before.copy()
    expected[start : start + count] += np.float32(1)
    np.testing.assert_array_equal(after, expected)
