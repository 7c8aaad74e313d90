"""Whatever happens to the stores between plan and read: a clear error, and all memory returned."""

import os
import shutil

import h5py
import numpy as np
import pytest

from fpgpu import CircularRegion, MetaStore, PixelStore, PSFStore
from fpgpu.errors import (
    MissingStoreError,
    StagingBusyError,
    StagingError,
    StoreConflictError,
    StoreFormatError,
)
from fpgpu.patch.build import build_patch
from fpgpu.patch.plan import ExposurePlan, PatchPlan
from fpgpu.patch.stores import Stores


@pytest.fixture
def copied(golden, tmp_path):
    """Stores of one's own, to be damaged."""
    for name in ("pixels.h5", "meta.json", "psf.h5"):
        shutil.copy(golden / "tiny" / name, tmp_path)
    with (
        PixelStore(tmp_path / "pixels.h5", mode="r") as pixels,
        MetaStore(tmp_path / "meta.json") as meta,
        PSFStore(tmp_path / "psf.h5") as psf,
    ):
        yield Stores(pixels, meta, psf)


def truncated(path):
    os.truncate(path, path.stat().st_size // 2)


def removed(path):
    path.unlink()


def garbage(path):
    path.write_bytes(b"\x00" * path.stat().st_size)


def without_an_exposure(path):
    with h5py.File(path, "a") as h5:
        del h5["F200W/exp_f200w_01"]


def of_other_images(path):
    with h5py.File(path, "w") as h5:
        h5.attrs.update(nside_full=64, super_pixel_size=8)
        for n in ("090", "200", "444"):
            for k in (0, 1):
                h5[f"F{n}W/exp_f{n}w_0{k}/data"] = np.zeros((8, 8, 128), "f4")


FAULTS = {
    truncated: StoreFormatError,
    removed: MissingStoreError,
    garbage: (StoreFormatError, StoreConflictError),
    without_an_exposure: StoreConflictError,
    of_other_images: (StoreFormatError, StoreConflictError),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("read_before", [False, True], ids=["unread", "read before"])
def test_a_pixel_store_that_changed_since_the_plan_is_a_clear_error(
    copied, plan, sources, backend, tmp_path, fault, read_before
):
    if read_before:
        build_patch(copied, plan, sources, backend=backend).free()
    fault(tmp_path / "pixels.h5")
    with pytest.raises(FAULTS[fault], match=r"pixels\.h5") as kept:
        build_patch(copied, plan, sources, backend=backend)
    assert kept.value is not None  # an error that is kept keeps no memory
    assert_all_memory_is_back(backend)


def assert_all_memory_is_back(backend):
    backend.synchronize()
    assert backend.live_allocations == 0
    ring = backend._current_ring()
    assert ring.n_free == ring.settings.depth


def test_a_store_that_was_rewritten_gives_its_new_values(copied, plan, backend, tmp_path):
    build_patch(copied, plan, backend=backend).free()
    with h5py.File(tmp_path / "pixels.h5", "r") as old, h5py.File(tmp_path / "new.h5", "w") as new:
        new.attrs.update(old.attrs)
        for exposure in plan.exposures:
            name = f"{exposure.band}/{exposure.expID}/data"
            new[name] = old[name][:] + 1
    (tmp_path / "new.h5").replace(tmp_path / "pixels.h5")
    copied = copied._replace(pixels=PixelStore(tmp_path / "pixels.h5", mode="r"))
    with build_patch(copied, plan, backend=backend) as patch:
        for (im, _), image in zip(
            [copied.pixels.read_exposure(e.band, e.expID) for e in plan.exposures],
            patch.images("data", crop=False, fill=0.0),
            strict=True,
        ):
            taken = image.image != 0
            np.testing.assert_array_equal(image.image[taken], im[taken])


def test_a_patch_that_cannot_be_sent_again_is_freed(copied, plan, backend, tmp_path):
    with build_patch(copied, plan, backend=backend) as patch:
        truncated(tmp_path / "pixels.h5")
        with pytest.raises(StoreFormatError, match=r"pixels\.h5"):
            patch.send()
        assert patch.freed
    assert_all_memory_is_back(backend)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_read_returns_all_memory(copied, plan, backend, monkeypatch, interrupt):
    reads = []
    real = os.preadv

    def interrupted(*args):
        reads.append(args)
        if len(reads) == 40:
            raise interrupt
        return real(*args)

    monkeypatch.setattr(os, "preadv", interrupted)
    with pytest.raises(interrupt):
        build_patch(copied, plan, backend=backend)
    assert_all_memory_is_back(backend)


def test_staging_memory_in_other_hands_is_waited_for_and_then_an_error(copied, plan, backend):
    with (
        backend.staging(slot_bytes=1 << 20, depth=1, timeout=0.01) as ring,
        ring.acquire(),
        pytest.raises(StagingBusyError, match="no staging slot came free"),
    ):
        build_patch(copied, plan, backend=backend)
    assert_all_memory_is_back(backend)


def test_staging_memory_too_small_for_a_super_pixel_is_an_error(golden, tmp_path, backend):
    side, size = 96, 48
    with h5py.File(tmp_path / "wide.h5", "w") as h5:
        h5.attrs.update(nside_full=side, super_pixel_size=size)
        h5["F090W/exp_f090w_00/data"] = np.zeros((2, 2, 2 * size**2), "f4")
    exposure = ExposurePlan("F090W", "exp_f090w_00", (side, side), np.array([[0, 1]]))
    plan = PatchPlan(CircularRegion(53, -27, 1), ("F090W",), (exposure,), size, "corners")
    with (
        MetaStore(golden / "tiny" / "meta.json") as meta,
        PixelStore(tmp_path / "wide.h5") as pixels,
        backend.staging(slot_bytes=4096),
        pytest.raises(StagingError, match=r"with backend\.staging"),
    ):
        build_patch(Stores(pixels, meta), plan, backend=backend)
    assert_all_memory_is_back(backend)
