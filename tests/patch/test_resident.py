"""Exposures kept in a backend's memory give the same patches, and all memory back."""

import os
import shutil
import threading
from dataclasses import replace

import h5py
import numpy as np
import pytest

import fpgpu
from fpgpu import MetaStore, PixelStore, PSFStore
from fpgpu.errors import (
    DeviceMemoryError,
    LayoutError,
    MissingStoreError,
    NotInStoreError,
    StoreConflictError,
)
from fpgpu.patch.build import build_patch
from fpgpu.patch.resident import ResidentExposures
from fpgpu.patch.stores import Stores
from tests.stores.imagesets import bits

PIXELS = ["data", "ierr", "xpix", "ypix"]
ONE = 128 * 128 * 2 * 4  # bytes of an exposure of the golden field
FIRST, SECOND = ("F090W", "exp_f090w_00"), ("F090W", "exp_f090w_01")
THIRD = "F200W", "exp_f200w_00"


@pytest.fixture
def copied(golden, tmp_path):
    """Stores of one's own, to be changed."""
    for name in ("pixels.h5", "meta.json", "psf.h5"):
        shutil.copy(golden / "tiny" / name, tmp_path)
    with (
        PixelStore(tmp_path / "pixels.h5", mode="r") as pixels,
        MetaStore(tmp_path / "meta.json") as meta,
        PSFStore(tmp_path / "psf.h5") as psf,
    ):
        yield Stores(pixels, meta, psf)


def stored(stores, key):
    """What the file holds, as h5py reads it."""
    with h5py.File(stores.pixels.h5file, "r") as h5:
        return h5["/".join(key)]["data"][:]


def built(stores, plan, backend, resident=None, **options):
    """The pixel arrays of a patch."""
    with build_patch(stores, plan, backend=backend, resident=resident, **options) as patch:
        return {name: patch.retrieve(name) for name in PIXELS}


def assert_same_bits(found, expected):
    for name in PIXELS:
        np.testing.assert_array_equal(bits(found[name]), bits(expected[name]), name)


# --- the same patches ------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, ONE, 3 * ONE, 100 * ONE])
@pytest.mark.parametrize("slot_bytes", [64 << 20, 3 * 16 * 512])
def test_patches_have_the_bits_of_those_built_without(
    stores, plan, packed, backend, limit, slot_bytes
):
    options = {"max_snr": 1.5}
    expected = built(stores, plan, backend, **options)
    with backend.staging(slot_bytes=slot_bytes), ResidentExposures(backend, limit) as resident:
        for _ in range(2):
            assert_same_bits(built(stores, plan, backend, resident, **options), expected)
            assert_same_bits(built(stores, plan, backend, resident), packed)
        assert resident.nbytes == min(limit, plan.n_exp * ONE) == len(resident) * ONE


def test_exposures_without_super_pixels_do_no_harm(stores, plan, backend):
    empty = [replace(e, superpixels=e.superpixels[:0]) for e in plan.exposures]
    full = plan.exposures
    for exposures in ([empty[0], full[1], empty[2], full[3]], [full[0], empty[1]]):
        bands = tuple(dict.fromkeys(exposure.band for exposure in exposures))
        mixed = replace(plan, exposures=tuple(exposures), bandlist=bands)
        expected = built(stores, mixed, backend)
        for limit in (ONE, 2 * ONE, 100 * ONE):
            with ResidentExposures(backend, limit) as resident:
                assert_same_bits(built(stores, mixed, backend, resident), expected)


def test_only_the_first_patch_reads_the_file(copied, plan, packed, backend, monkeypatch):
    with ResidentExposures(backend, 100 * ONE) as resident:
        built(copied, plan, backend, resident)
        assert (resident.hits, resident.misses) == (0, plan.n_exp)
        monkeypatch.setattr("os.preadv", None)  # whoever reads now fails
        assert_same_bits(built(copied, plan, backend, resident), packed)
        assert (resident.hits, resident.misses) == (plan.n_exp, plan.n_exp)


def test_a_survey_keeps_none_unless_asked_to(golden, plan, packed, backend):
    folder = golden / "tiny"
    with fpgpu.open(folder, backend=backend) as survey:
        assert survey.resident is None
    with fpgpu.open(folder, backend=backend, resident_bytes=100 * ONE) as survey:
        with survey.patch(plan) as patch:
            np.testing.assert_array_equal(patch.retrieve("data"), packed["data"])
        with survey.stream([plan, plan]) as stream:
            for streamed in stream:
                np.testing.assert_array_equal(streamed.patch.retrieve("data"), packed["data"])
        assert survey.resident.hits == 2 * plan.n_exp
        assert backend.live_allocations == plan.n_exp
    assert backend.live_allocations == 0


# --- what is kept ----------------------------------------------------------------------------


def test_an_exposure_is_what_the_file_holds(stores, backend):
    with ResidentExposures(backend, ONE) as resident:
        array = resident.get(stores.pixels, *FIRST)
        np.testing.assert_array_equal(backend.download(array), stored(stores, FIRST))
        del array


def test_the_least_recently_used_goes_first(stores, backend):
    with ResidentExposures(backend, 2 * ONE + 1) as resident:
        for key in (FIRST, SECOND, FIRST, THIRD):
            resident.get(stores.pixels, *key)
        assert (resident.hits, resident.misses, resident.nbytes) == (1, 3, 2 * ONE)
        resident.get(stores.pixels, *FIRST)
        assert (resident.hits, resident.misses) == (2, 3)
        resident.get(stores.pixels, *SECOND)
        assert (resident.hits, resident.misses) == (2, 4)
        assert backend.live_allocations == 2


def test_an_exposure_in_use_is_not_dropped(stores, backend):
    with ResidentExposures(backend, ONE) as resident:
        with resident.lent(stores.pixels, [FIRST]) as lent:
            assert resident.get(stores.pixels, *SECOND) is None
            np.testing.assert_array_equal(backend.download(lent[0]), stored(stores, FIRST))
            lent.clear()
        assert resident.get(stores.pixels, *SECOND) is not None
        assert backend.live_allocations == 1


def test_what_is_here_is_not_dropped_for_another_of_the_same_patch(stores, backend):
    with ResidentExposures(backend, ONE) as resident:
        resident.get(stores.pixels, *SECOND)
        with resident.lent(stores.pixels, [FIRST, SECOND]) as lent:
            assert [array is None for array in lent] == [True, False]
            lent.clear()


def test_one_larger_than_the_limit_drops_none(stores, backend, tmp_path):
    with h5py.File(tmp_path / "large.h5", "w") as h5:
        h5.attrs.update(nside_full=256, super_pixel_size=8)
        h5["F090W/exp/data"] = np.zeros((32, 32, 128), "f4")
    with ResidentExposures(backend, ONE) as resident:
        resident.get(stores.pixels, *FIRST)
        with PixelStore(tmp_path / "large.h5", mode="r") as large:
            assert resident.get(large, "F090W", "exp") is None
        assert len(resident) == 1


def test_exposures_in_use_are_freed_when_they_no_longer_are(stores, backend):
    resident = ResidentExposures(backend, 2 * ONE)
    with resident.lent(stores.pixels, [FIRST]) as lent:
        resident.free()
        assert (len(resident), resident.nbytes) == (0, ONE)
        lent.clear()
    assert resident.nbytes == 0
    assert backend.live_allocations == 0


# --- faults ----------------------------------------------------------------------------------


def again(stores):
    """Open the pixel store of some stores as it is now."""
    return stores._replace(pixels=PixelStore(stores.pixels.h5file, mode="r"))


def test_exposures_of_a_file_that_changed_are_those_of_the_state_that_is_open(
    copied, plan, backend
):
    with ResidentExposures(backend, 100 * ONE) as resident:
        before = built(copied, plan, backend, resident)
        with h5py.File(copied.pixels.h5file, "r+") as h5:
            for exposure in plan.exposures:
                h5[f"{exposure.band}/{exposure.expID}/data"][:, :, :64] += 1
        assert_same_bits(built(copied, plan, backend, resident), before)
        assert_same_bits(
            built(again(copied), plan, backend, resident),
            before | {"data": before["data"] + np.float32(1)},
        )
        resident.free()
        with pytest.raises(StoreConflictError, match="open the store again"):
            built(copied, plan, backend, resident)


def test_an_exposure_in_a_linked_file_is_watched_there(copied, backend, tmp_path):
    with h5py.File(tmp_path / "shard.h5", "w") as h5:
        h5["data"] = np.zeros((16, 16, 128), "f4")
    with h5py.File(copied.pixels.h5file, "r+") as h5:
        del h5["F090W/exp_f090w_00/data"]
        h5["F090W/exp_f090w_00/data"] = h5py.ExternalLink("shard.h5", "data")
    with ResidentExposures(backend, ONE) as resident:
        assert not backend.download(resident.get(again(copied).pixels, *FIRST)).any()
        with h5py.File(tmp_path / "shard.h5", "r+") as h5:
            h5["data"][...] = 1
        assert backend.download(resident.get(again(copied).pixels, *FIRST)).all()


def test_a_store_that_is_gone_is_an_error_once_it_must_be_read(copied, plan, backend):
    with ResidentExposures(backend, 100 * ONE) as resident:
        before = built(copied, plan, backend, resident)
        copied.pixels.reader.path.unlink()
        assert_same_bits(built(copied, plan, backend, resident), before)
        resident.free()
        with pytest.raises(MissingStoreError, match=r"pixels\.h5"):
            built(copied, plan, backend, resident)


def test_an_exposure_that_is_not_in_the_store_drops_none(stores, backend):
    with ResidentExposures(backend, ONE) as resident:
        resident.get(stores.pixels, *FIRST)
        with pytest.raises(NotInStoreError):
            resident.get(stores.pixels, "F090W", "other")
        assert resident.nbytes == ONE


def test_an_exposure_that_changes_while_it_is_read_is_not_kept(copied, backend, monkeypatch):
    real = os.preadv

    def preadv(descriptor, *args):
        os.utime(copied.pixels.h5file)
        return real(descriptor, *args)

    monkeypatch.setattr(os, "preadv", preadv)
    with ResidentExposures(backend, ONE) as resident:
        with pytest.raises(StoreConflictError, match="open the store again"):
            resident.get(copied.pixels, *FIRST)
        assert resident.nbytes == backend.live_allocations == 0


def test_compressed_exposures_are_read_the_ordinary_way(copied, plan, packed, backend):
    with h5py.File(copied.pixels.h5file, "r+") as h5:
        values = h5["F090W/exp_f090w_00/data"][:]
        del h5["F090W/exp_f090w_00/data"]
        h5["F090W/exp_f090w_00"].create_dataset("data", data=values, compression="gzip")
    with ResidentExposures(backend, 100 * ONE) as resident:
        assert_same_bits(built(again(copied), plan, backend, resident), packed)
        assert len(resident) == plan.n_exp - 1


def test_a_device_without_memory_for_one_gives_up_the_others(
    stores, plan, packed, backend, monkeypatch
):
    real = backend.allocate
    with ResidentExposures(backend, 100 * ONE) as resident:
        resident.get(stores.pixels, "F444W", "exp_f444w_00")

        def allocate(n_bytes):
            if n_bytes == ONE:
                raise DeviceMemoryError("no more")
            return real(n_bytes)

        monkeypatch.setattr(backend, "allocate", allocate)
        resident.get(stores.pixels, *FIRST)
        assert len(resident) == backend.live_allocations == 0
        assert_same_bits(built(stores, plan, backend, resident), packed)


def test_an_interrupted_load_keeps_nothing(stores, plan, backend, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    with ResidentExposures(backend, 100 * ONE) as resident:
        resident.get(stores.pixels, *FIRST)
        monkeypatch.setattr(PixelStore, "read_window", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build_patch(stores, plan, backend=backend, resident=resident)
        with pytest.raises(KeyboardInterrupt) as kept:
            resident.get(stores.pixels, *SECOND)
        assert kept.value is not None  # an error that is kept keeps no memory
        assert resident.nbytes == ONE
        assert backend.live_allocations == 1


def test_exposures_of_another_backend_are_refused(stores, plan, backend):
    other = fpgpu.get_backend("cpu")
    with pytest.raises(LayoutError, match="another backend"):
        build_patch(stores, plan, backend=backend, resident=ResidentExposures(other, ONE))


def test_a_negative_limit_is_refused(backend):
    with pytest.raises(LayoutError, match="-1 bytes"):
        ResidentExposures(backend, -1)


def test_threads_share_what_one_of_them_loads(stores, plan, packed, backend):
    found, start = [], threading.Barrier(4)

    def work():
        start.wait()
        found.extend(built(stores, plan, backend, resident) for _ in range(3))

    with ResidentExposures(backend, 100 * ONE) as resident:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (resident.hits, resident.misses) == (11 * plan.n_exp, plan.n_exp)
    assert len(found) == 12
    for arrays in found:
        assert_same_bits(arrays, packed)
