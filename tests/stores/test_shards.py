"""A sharded store is the single file cut up: the same bits, and changes that happen at once."""

import pickle
import subprocess
import sys
import time
from dataclasses import replace

import h5py
import numpy as np
import pytest

from fpgpu import MetaStore, PixelStore
from fpgpu.errors import (
    ExposureNameError,
    FpgpuError,
    LayoutError,
    MissingStoreError,
    NotInStoreError,
    StoreConflictError,
    UnusableExposureError,
)
from fpgpu.stores.commit import commit_shards, write_links
from fpgpu.stores.hdf5 import extents
from fpgpu.stores.shard import find_orphans, find_parts, read_shard, write_shard
from fpgpu.stores.state import open_state
from tests.sky.made_wcs import sky_gwcs
from tests.stores.imagesets import assert_holds, files_in
from tests.stores.shardsets import (
    KEYS,
    as_h5py_sees,
    exposure,
    publish,
    sharded_store,
    shards_of,
    single_store,
    state_of,
)


@pytest.fixture
def exposures():
    return [exposure(*key, seed=i) for i, key in enumerate(KEYS)]


@pytest.fixture
def folder(tmp_path, exposures):
    return sharded_store(tmp_path / "stores", *exposures)


def store(folder):
    return PixelStore(folder / "pixels.h5", mode="r")


def test_forcepho_s_reader_sees_it_exactly_as_a_single_file(folder, exposures, tmp_path):
    single = single_store(tmp_path / "single", *exposures)
    seen = as_h5py_sees(folder / "pixels.h5", KEYS)
    assert seen == as_h5py_sees(single / "pixels.h5", KEYS)
    assert seen["F444W/visit1/deep/e 3"]["attributes"]["image_name"][0] == "e 3.fits"


def test_both_forms_read_the_same_through_fpgpu(folder, exposures, tmp_path):
    single = single_store(tmp_path / "single", *exposures)
    with store(folder) as ours, store(single) as theirs:
        assert list(ours) == list(theirs) == KEYS
        assert_holds(ours, *exposures)
        for key in KEYS:
            assert ours.record(*key) == theirs.record(*key)
            window = (1, 4, 2, 7)
            np.testing.assert_array_equal(
                ours.read_window(*key, window), theirs.read_window(*key, window)
            )
            assert key in ours
        assert sorted(ours.verify().verified) == KEYS
    with MetaStore(folder / "meta.json") as ours, MetaStore(single / "meta.json") as theirs:
        assert list(ours) == list(theirs)
        for band, expID in KEYS:
            assert ours.headers[band][expID] == theirs.headers[band][expID]
            np.testing.assert_array_equal(
                ours.footprint(band, expID), theirs.footprint(band, expID)
            )


def test_shards_are_read_past_hdf5(folder, monkeypatch):
    with store(folder) as pixels:
        pixels.read_exposure(*KEYS[1])
        monkeypatch.setattr(extents, "read_through_hdf5", None)
        monkeypatch.setattr(h5py, "File", None)
        pixels.read_exposure(*KEYS[1])


def test_every_file_of_a_shard_is_one_exposure_by_itself(folder):
    files = sorted((folder / "pixels.shards").rglob("*.h5"))
    assert len(files) == len(KEYS)
    for file in files:
        shard = read_shard(file)
        assert shard.key in KEYS
        shard.verify()
        assert list(PixelStore(file, mode="r")) == [shard.key]
        assert pickle.loads(pickle.dumps(shard)).entry.row == shard.entry.row
    assert find_orphans(folder) == find_parts(folder) == []


def test_a_shard_has_all_that_the_meta_store_holds(tmp_path):
    made = exposure(gwcs=sky_gwcs(), sip=None)
    extra = {"file": "a.fits", "size": 123, "options": ["x", None, 0.1]}
    (shard,) = shards_of(tmp_path, made, extra=extra)
    again = read_shard(shard.file)
    assert again.entry.row == shard.entry.row
    assert again.record == shard.record
    assert shard.extra == again.extra == extra
    commit_shards(tmp_path / "pixels.h5", [shard])
    with MetaStore(tmp_path / "meta.json") as meta:
        assert meta.headers["F200W"]["e1"] == made.hdr
        assert meta.tree["F200W"]["e1"](3.0, 4.0) == made.gwcs(3.0, 4.0)
        expected = MetaStore().prepare(made).record
        for kind in ("gwcs", "fits"):
            outline = getattr(shard.entry.sky, f"{kind}_outline")
            np.testing.assert_array_equal(outline, getattr(expected, f"{kind}_outline"))


def test_nothing_is_seen_of_a_shard_until_it_is_published(folder):
    before = state_of(folder)
    new = exposure("F200W", "new")
    shards = shards_of(folder, new)
    assert state_of(folder) == before
    assert find_orphans(folder) == [shards[0].file]
    publish(folder, shards)
    assert find_orphans(folder) == []
    assert sorted(state_of(folder)) == sorted([*before, ("F200W", "new")])


WRITER = """
import sys
from fpgpu.stores.shard import write_shard
from tests.stores.shardsets import exposure
for i in sys.argv[2:]:
    write_shard(sys.argv[1], exposure("F200W", f"e{i}", seed=int(i)), shape=64)
"""


def test_many_processes_write_at_once_and_one_publishes(tmp_path, root):
    numbers = [range(first, first + 4) for first in (0, 4, 8)]
    commands = [[sys.executable, "-c", WRITER, str(tmp_path), *map(str, n)] for n in numbers]
    writers = [subprocess.Popen(command, cwd=root) for command in commands]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    publish(tmp_path, map(read_shard, find_orphans(tmp_path)))
    assert_holds(store(tmp_path), *[exposure("F200W", f"e{i}", seed=i) for i in range(12)])


NAMES = ["a/b/c", "ä ö/ü", "..x", "-rf", ".hidden", "x" * 255, "a:b*c?", "$(touch x)", "'\"", "CON"]


@pytest.mark.parametrize("expID", NAMES)
def test_any_name_that_a_store_takes_makes_a_harmless_file(expID, tmp_path):
    made = exposure("F'2;00W", expID)
    folder = sharded_store(tmp_path, made)
    assert_holds(store(folder), made)
    (file,) = (folder / "pixels.shards").rglob("*.h5")
    name = file.relative_to(folder / "pixels.shards").as_posix()
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-/")
    assert not name.startswith((".", "-"))
    assert not file.name.startswith((".", "-"))


@pytest.mark.parametrize("key", [("..", "e"), ("F200W", "../e"), ("F200W", "/e")])
def test_names_that_no_store_takes_leave_nothing(key, tmp_path):
    with pytest.raises(ExposureNameError):
        shards_of(tmp_path / "stores", exposure(*key))
    assert files_in(tmp_path) == {}


def test_collisions_are_refused_and_change_nothing(folder):
    before = files_in(folder)
    for expID in ("visit1", "e1/inside"):
        shards = shards_of(folder, exposure("F200W", expID))
        with pytest.raises(ExposureNameError, match="existing exposure"):
            publish(folder, shards)
        shards[0].file.unlink()
    pair = shards_of(folder, exposure("F200W", "x"), exposure("F200W", "x/y"))
    with pytest.raises(ExposureNameError):
        publish(folder, pair)
    for shard in pair:
        shard.file.unlink()
    assert files_in(folder) == before


def test_what_cannot_go_in_is_refused_and_leaves_nothing(tmp_path):
    headless = exposure()
    del headless.hdr["CRVAL1"], headless.hdr["CTYPE1"], headless.hdr["FILTER"]
    with pytest.raises(FpgpuError):
        shards_of(tmp_path, headless)
    with pytest.raises(LayoutError, match="all images of a store have one size"):
        write_shard(tmp_path, exposure(), shape=128)
    with pytest.raises(UnusableExposureError, match="JSON"):
        shards_of(tmp_path, exposure(), extra={"x": object()})
    assert files_in(tmp_path) == {}


def test_shards_of_other_stores_are_refused(folder, tmp_path):
    before = state_of(folder)
    (large,) = shards_of(folder, exposure("F200W", "large", side=128))
    with pytest.raises(StoreConflictError, match=r"64 x 64 .* 128 x 128"):
        publish(folder, [large])
    (other,) = shards_of(tmp_path / "other", exposure("F200W", "other"))
    with pytest.raises((StoreConflictError, MissingStoreError)):
        publish(folder, [other])
    (gone,) = shards_of(folder, exposure("F200W", "gone"))
    gone.file.unlink()
    with pytest.raises(MissingStoreError, match="gone"):
        publish(folder, [gone])
    assert state_of(folder) == before


def test_removed_exposures_leave_the_store_at_once_and_the_disk_after_a_week(folder, monkeypatch):
    files = {path for path in (folder / "pixels.shards").rglob("*.h5") if "draft" not in path.name}
    with store(folder) as before:
        publish(folder, [], removed=[KEYS[0], KEYS[2]])
        assert list(state_of(folder)) == [KEYS[1]]
        assert_holds(before, exposure(*KEYS[0], seed=0))
    assert all(file.exists() for file in files)
    assert find_orphans(folder) == []
    with pytest.raises(NotInStoreError, match="F200W/e1"):
        publish(folder, [], removed=[KEYS[0]])
    now = time.time() + 8 * 86400
    monkeypatch.setattr(time, "time", lambda: now)
    publish(folder, shards_of(folder, exposure("F090W", "x")))
    assert len([file for file in files if file.exists()]) == 1


def test_what_a_store_names_as_replaced_is_deleted_only_where_it_is_its_own(folder, tmp_path):
    """A forged index may name any file."""
    (tmp_path / "precious.h5").write_bytes(b"x")
    (folder / "pixels.shards" / "F200W" / "mine.h5").write_bytes(b"x")
    (linked,) = shards_of(tmp_path / "other", exposure())
    state = open_state(folder / "pixels.h5")
    (folder / "pixels.shards" / "away").symlink_to(linked.file.parent)
    names = [
        "../precious.h5",
        "pixels.h5",
        "pixels.shards/F200W/mine.h5",
        f"pixels.shards/away/{linked.file.name}",
        f"pixels.shards/../../precious-{state.index.store_id}-.h5",
    ]
    index = replace(state.index, replaced=tuple((name, 0.0) for name in names))
    write_links(folder / "draft.h5", index)
    (folder / "draft.h5").replace(folder / "pixels.h5")
    before = files_in(tmp_path)
    publish(folder, shards_of(folder, exposure("F090W", "x")))
    assert before.keys() <= files_in(tmp_path).keys() | {name for name in before if "claim" in name}


def test_a_single_file_becomes_sharded_without_copying_its_pixels(tmp_path, exposures):
    folder = single_store(tmp_path, *exposures[:2])
    before = state_of(folder)
    inode = (folder / "pixels.h5").stat().st_ino
    publish(folder, shards_of(folder, exposures[2]))
    after = state_of(folder)
    assert {key: after[key] for key in before} == before
    assert sorted(after) == sorted(KEYS)
    (aside,) = (folder / "pixels.shards").glob("pixels-*.h5")
    assert aside.stat().st_ino == inode
    assert MetaStore(folder / "meta.json").state is not None
