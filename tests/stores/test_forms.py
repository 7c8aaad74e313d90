"""One file or many: the same bits and attributes, and no space for what is no longer there."""

import shutil

import h5py
import numpy as np
import pytest

from fpgpu import PixelStore
from fpgpu.errors import (
    IntegrityError,
    MissingStoreError,
    StoreBusyError,
    StoreFormatError,
    StoreWriteError,
)
from fpgpu.stores.shard import read_shard
from fpgpu.stores.state import open_state
from fpgpu.stores.upkeep import forms
from fpgpu.stores.upkeep.forms import consolidate, split
from tests.sky.made_wcs import sky_gwcs
from tests.stores.imagesets import assert_holds
from tests.stores.shardsets import (
    KEYS,
    as_h5py_sees,
    exposure,
    held,
    publish,
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


def read_rows(folder):
    """The files that the exposures of a store are in."""
    return {row.file for row in open_state(folder / "pixels.h5").index.rows.values()}


def test_double_precision_is_read_the_same_from_one_file(tmp_path, exposures):
    path = tmp_path / "pixels.h5"
    store = PixelStore(path, exposures[0].im.shape, pix_dtype=np.float64)
    for one in exposures:
        store.add_exposure(one)
    for change in (consolidate, split):
        change(tmp_path)
        with PixelStore(path, mode="r") as reader:
            assert_holds(reader, *exposures)
            assert len(reader.verify().verified) == len(exposures)


def test_there_and_back_nothing_has_changed(sharded, single):
    before = seen(sharded)
    done = consolidate(sharded)
    assert (done.form, done.n_exposures, done.n_copied) == ("single", 3, 3)
    assert seen(sharded) == before
    assert as_h5py_sees(sharded / "pixels.h5", KEYS) == as_h5py_sees(single / "pixels.h5", KEYS)
    assert read_rows(sharded) == {"pixels.h5"}
    with h5py.File(sharded / "pixels.h5") as h5:
        assert h5["F200W/visit1/e1/data"].file.filename == str(sharded / "pixels.h5")
    assert split(sharded).n_copied == 3
    assert seen(sharded) == before
    shards = [read_shard(sharded / name) for name in read_rows(sharded)]
    assert sorted(shard.key for shard in shards) == KEYS
    for shard in shards:
        shard.verify()
        assert shard.entry.sky.has_gwcs == (shard.expID == "visit1/e1")
    assert split(sharded).n_copied == 0


def test_large_exposures_are_aligned(tmp_path):
    folder = sharded_store(tmp_path, *(exposure("F200W", f"e{i}", side=256) for i in range(2)))
    consolidate(folder)
    with h5py.File(folder / "pixels.h5") as h5:
        assert [h5[f"F200W/e{i}/data"].id.get_offset() % 4096 for i in range(2)] == [0, 0]


@pytest.mark.parametrize("change", [consolidate, split])
def test_stores_of_forcepho_keep_all_that_is_in_them(change, golden, tmp_path):
    for name in ("pixels.h5", "meta.json"):
        shutil.copy(golden / "tiny" / name, tmp_path / name)
    with h5py.File(tmp_path / "pixels.h5", "r+") as h5:
        h5["F090W/exp_f090w_00/data"].attrs["seen"] = ["some", "words"]
        h5["F090W/exp_f090w_00/data"].attrs["empty"] = h5py.Empty("f4")
        h5["F090W/exp_f090w_00/data"].attrs["table"] = np.ones(2, [("a", "f4"), ("b", "i2")])
    keys = list(PixelStore(tmp_path / "pixels.h5", mode="r"))
    before = as_h5py_sees(tmp_path / "pixels.h5", keys)
    change(tmp_path)
    after = as_h5py_sees(tmp_path / "pixels.h5", keys)
    assert repr(after) == repr(before)
    with h5py.File(tmp_path / "pixels.h5") as h5:
        assert list(h5["F090W/exp_f090w_00/data"].attrs["seen"]) == ["some", "words"]


def test_exposures_of_both_forms_go_into_either(single, exposures):
    publish(single, shards_of(single, exposure("F090W", "late")))
    with PixelStore(single / "pixels.h5") as pixels:
        pixels.add_exposure(exposure(*KEYS[2], seed=7))
    before = state_of(single)
    assert split(single).n_copied == 2
    assert state_of(single) == before
    assert all(read_shard(single / name) for name in read_rows(single))
    consolidate(single)
    assert state_of(single) == before


@pytest.mark.parametrize("change", [consolidate, split])
def test_damage_is_found_before_the_old_files_go(change, single):
    with PixelStore(single / "pixels.h5") as pixels:
        offset = pixels.data["F200W/e1/data"].id.get_offset()
    with (single / "pixels.h5").open("r+b") as file:
        file.seek(offset + 100)
        file.write(b"\x55")
    before = (single / "pixels.h5").read_bytes()
    with pytest.raises(IntegrityError, match="F200W/e1: has checksum"):
        change(single)
    assert (single / "pixels.h5").read_bytes() == before


@pytest.mark.parametrize("change", [consolidate, split])
def test_hostile_names_of_other_programs_are_refused(change, single):
    with h5py.File(single / "pixels.h5", "r+") as h5:
        h5["F200W/../escape/data"] = h5["F200W/e1/data"][:]
    with pytest.raises(StoreFormatError, match=r"escape lies in .* which has no"):
        change(single)


def test_too_small_a_disk_is_found_before_the_first_copy(sharded, monkeypatch):
    usage = shutil.disk_usage(sharded)._replace(free=1000)
    monkeypatch.setattr(forms.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StoreWriteError, match="its disk has 1000 left"):
        consolidate(sharded)


def test_one_at_a_time(sharded):
    with held(sharded), pytest.raises(StoreBusyError):
        consolidate(sharded)


def test_a_folder_without_stores_is_refused(tmp_path):
    with pytest.raises(MissingStoreError, match="fpgpu ingest"):
        consolidate(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_copy_leaves_no_shards(single, monkeypatch):
    before = state_of(single)
    calls = []

    def fail(key):
        calls.append(key)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        split(single, on_progress=fail)
    assert state_of(single) == before


def test_the_space_of_replaced_exposures_is_given_back_at_once_when_asked_for(sharded):
    with PixelStore(sharded / "pixels.h5") as pixels:
        for seed in range(5):
            pixels.add_exposure(exposure(*KEYS[0], seed=seed))
    done = consolidate(sharded, now=True)
    assert done.bytes_after < 0.5 * done.bytes_before
    assert not list((sharded / "pixels.shards").rglob("*-*.h5"))


def test_who_has_a_store_open_reads_on_after_a_change_of_form(sharded, exposures):
    with PixelStore(sharded / "pixels.h5") as reader:
        consolidate(sharded)
        split(sharded)
        assert_holds(reader, *exposures)
