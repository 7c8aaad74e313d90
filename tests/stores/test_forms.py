"""One file or many: the same bits and attributes, and no space for what is no longer there."""

import shutil
import sys

import h5py
import numpy as np
import pytest

from fpgpu import PixelStore
from fpgpu.errors import (
    ExposureNameError,
    IntegrityError,
    LayoutError,
    MissingExtraError,
    MissingStoreError,
    StoreBusyError,
    StoreWriteError,
)
from fpgpu.stores.alone import alone_in
from fpgpu.stores.hdf5.filters import COMPRESSIONS, Compression
from fpgpu.stores.shards import find_orphans, publish_shards, read_shard
from fpgpu.stores.upkeep import forms
from fpgpu.stores.upkeep.forms import consolidate, split
from tests.sky.made_wcs import sky_gwcs
from tests.stores.imagesets import files_in
from tests.stores.shardsets import (
    KEYS,
    as_h5py_sees,
    exposure,
    sharded_store,
    shards_of,
    single_store,
    state_of,
)


@pytest.fixture
def exposures():
    made = [exposure(*key, seed=i) for i, key in enumerate(KEYS)]
    made[1].gwcs = sky_gwcs(shape=(64, 64))
    return made


@pytest.fixture
def sharded(tmp_path, exposures):
    return sharded_store(tmp_path / "sharded", *exposures)


@pytest.fixture
def single(tmp_path, exposures):
    return single_store(tmp_path / "single", *exposures)


def seen(folder):
    """All that h5py and the meta store show, and the bytes of the meta store."""
    meta = {name: (folder / name).read_bytes() for name in ("meta.json", "meta.asdf")}
    return as_h5py_sees(folder / "pixels.h5", KEYS), meta, state_of(folder)


def shard_files(folder):
    return sorted((folder / "pixels.shards").rglob("*.h5"))


def test_there_and_back_nothing_has_changed(sharded, single):
    before = seen(sharded)
    done = consolidate(sharded)
    assert (done.form, done.n_exposures, done.n_copied) == ("single", 3, 3)
    assert seen(sharded) == before
    assert as_h5py_sees(sharded / "pixels.h5", KEYS) == as_h5py_sees(single / "pixels.h5", KEYS)
    assert shard_files(sharded) == []
    with h5py.File(sharded / "pixels.h5") as h5:
        assert h5["F200W/visit1/e1/data"].file.filename == str(sharded / "pixels.h5")
    assert split(sharded).n_copied == 3
    assert seen(sharded) == before
    shards = [read_shard(file) for file in shard_files(sharded)]
    assert sorted(shard.key for shard in shards) == KEYS
    for shard in shards:
        shard.verify()
        assert shard.meta_entry().gwcs is None or shard.expID == "visit1/e1"
    assert split(sharded).n_copied == 0


def test_consolidated_exposures_are_plain_aligned_and_read_past_hdf5(sharded, monkeypatch):
    consolidate(sharded)
    with h5py.File(sharded / "pixels.h5") as h5:
        for key in KEYS:
            assert h5["/".join(key)]["data"].id.get_offset() is not None


def test_large_exposures_are_aligned(tmp_path):
    folder = sharded_store(tmp_path, *(exposure("F200W", f"e{i}", side=256) for i in range(2)))
    consolidate(folder)
    with h5py.File(folder / "pixels.h5") as h5:
        assert [h5[f"F200W/e{i}/data"].id.get_offset() % 4096 for i in range(2)] == [0, 0]


def test_the_space_of_replaced_exposures_is_given_back(single):
    size = (single / "pixels.h5").stat().st_size
    with PixelStore(single / "pixels.h5") as pixels:
        for seed in range(5):
            pixels.add_exposure(exposure(*KEYS[0], seed=seed))
    grown = (single / "pixels.h5").stat().st_size
    done = consolidate(single)
    assert done.bytes_before == grown > 1.5 * size
    assert done.bytes_after == (single / "pixels.h5").stat().st_size < 1.05 * size


@pytest.mark.parametrize("change", [consolidate, split])
def test_stores_of_forcepho_keep_all_that_is_in_them(change, golden, tmp_path):
    for name in ("pixels.h5", "meta.json"):
        shutil.copy(golden / "tiny" / name, tmp_path / name)
    with h5py.File(tmp_path / "pixels.h5", "r+") as h5:
        h5.attrs["survey"] = "by another program"
        h5["F090W"].attrs["depth"] = np.arange(3)
        h5["F090W/exp_f090w_00"].attrs["seen"] = ["some", "words"]
        h5["F090W/exp_f090w_00/data"].attrs["empty"] = h5py.Empty("f4")
        h5["F090W/exp_f090w_00/data"].attrs["table"] = np.ones(2, [("a", "f4"), ("b", "i2")])
    keys = list(PixelStore(tmp_path / "pixels.h5", mode="r"))
    before = as_h5py_sees(tmp_path / "pixels.h5", keys)
    change(tmp_path)
    after = as_h5py_sees(tmp_path / "pixels.h5", keys)
    assert repr(after) == repr(before)
    with h5py.File(tmp_path / "pixels.h5") as h5:
        assert list(h5["F090W/exp_f090w_00"].attrs["seen"]) == ["some", "words"]
        if change is consolidate:
            assert h5["F090W"].attrs["depth"].tolist() == [0, 1, 2]


def test_exposures_of_both_forms_go_into_either(single, exposures):
    publish_shards(single, shards_of(single, exposure("F090W", "late")))
    with PixelStore(single / "pixels.h5") as pixels:
        pixels.add_exposure(exposure(*KEYS[2], seed=7))
    before = state_of(single)
    assert split(single).n_copied == 3
    assert state_of(single) == before
    assert all(read_shard(file) for file in shard_files(single))
    consolidate(single)
    assert state_of(single) == before


@pytest.mark.parametrize("name", [n for n in COMPRESSIONS if n != "none"])
def test_compressed_stores_read_as_the_same_bits(name, sharded):
    before = seen(sharded)
    assert consolidate(sharded, Compression(name)).compression == name
    with h5py.File(sharded / "pixels.h5") as h5:
        dataset = h5["F200W/e1/data"]
        assert dataset.chunks == (8, 8, 128)
        assert dataset.fletcher32
    assert state_of(sharded) == before[2]
    window = PixelStore(sharded / "pixels.h5").read_window("F200W", "e1", (2, 5, 1, 7))
    split(sharded, Compression(name))
    with PixelStore(sharded / "pixels.h5") as pixels:
        np.testing.assert_array_equal(pixels.read_window("F200W", "e1", (2, 5, 1, 7)), window)
    consolidate(sharded, Compression("none"))
    assert seen(sharded) == before


def test_uniform_exposures_do_get_smaller(tmp_path):
    made = exposure()
    made.im[:], made.ierr[:] = 1, 2
    folder = sharded_store(tmp_path, made)
    done = split(folder, Compression("gzip", 9))
    assert done.bytes_after < done.bytes_before / 2


def test_without_the_plugin_the_error_says_what_to_install(sharded, monkeypatch):
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    before = files_in(sharded)
    with pytest.raises(MissingExtraError, match=r'pip install "fpgpu\[compress\]"'):
        consolidate(sharded, Compression("zstd"))
    assert files_in(sharded) == before
    consolidate(sharded, Compression("gzip"))


@pytest.mark.parametrize(("name", "level"), [("zip", None), ("gzip", 0), ("gzip", 10), ("lzf", 3)])
def test_compressions_that_mean_nothing_are_refused(name, level, sharded):
    with pytest.raises(LayoutError, match="compression"):
        consolidate(sharded, Compression(name, level))


@pytest.mark.parametrize("change", [consolidate, split])
def test_damage_is_found_before_the_old_files_go(change, single):
    with PixelStore(single / "pixels.h5") as pixels:
        offset = pixels.data["F200W/e1/data"].id.get_offset()
    with (single / "pixels.h5").open("r+b") as file:
        file.seek(offset + 100)
        file.write(b"\x55")
    before = files_in(single)
    with pytest.raises(IntegrityError, match="F200W/e1 does not match"):
        change(single)
    assert files_in(single) == before


@pytest.mark.parametrize("change", [consolidate, split])
def test_hostile_names_of_other_programs_are_refused(change, single):
    with h5py.File(single / "pixels.h5", "r+") as h5:
        h5["F200W/../escape/data"] = h5["F200W/e1/data"][:]
    before = files_in(single)
    with pytest.raises(ExposureNameError, match="leave its place"):
        change(single)
    assert files_in(single) == before


def test_too_small_a_disk_is_found_before_the_first_copy(sharded, monkeypatch):
    usage = shutil.disk_usage(sharded)._replace(free=1000)
    monkeypatch.setattr(forms.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StoreWriteError, match="its disk has 1000 left"):
        consolidate(sharded)


def test_one_at_a_time(sharded):
    with alone_in(sharded), pytest.raises(StoreBusyError):
        consolidate(sharded)


def test_a_folder_without_stores_is_refused(tmp_path):
    with pytest.raises(MissingStoreError, match="fpgpu ingest"):
        consolidate(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_copy_leaves_no_shards(single, monkeypatch):
    before = files_in(single)
    calls = []

    def fail(key):
        calls.append(key)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        split(single, on_progress=fail)
    assert files_in(single) == before
    assert find_orphans(single) == []
