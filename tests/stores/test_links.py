"""A store is input: its links are followed to shards in its own folder and nowhere else."""

import os
import shutil

import h5py
import numpy as np
import pytest

from fpgpu import PixelStore
from fpgpu.errors import IntegrityError, MissingStoreError, StoreError, StoreFormatError
from fpgpu.stores.disk import inside
from fpgpu.stores.shard import read_shard
from tests.stores.imagesets import assert_holds
from tests.stores.shardsets import KEYS, exposure, publish, sharded_store, shards_of

WINDOW = (0, 1, 0, 1)


@pytest.fixture
def exposures():
    return [exposure(*key, seed=i) for i, key in enumerate(KEYS)]


@pytest.fixture
def folder(tmp_path, exposures):
    return sharded_store(tmp_path / "stores", *exposures)


@pytest.fixture
def shard(folder):
    files = map(read_shard, sorted((folder / "pixels.shards").rglob("*.h5")))
    return next(found.file for found in files if found.key == KEYS[0])


def relink(folder, filename, path="/F200W/e1", place="F200W/e1"):
    with h5py.File(folder / "pixels.h5", "r+") as h5:
        if place in h5 or h5.get(place, getlink=True) is not None:
            del h5[place]
        h5[place] = h5py.ExternalLink(filename, path)


def refused(folder, match, error=StoreFormatError):
    """Every way of reading refuses the exposure; the others are as good as before."""
    with PixelStore(folder / "pixels.h5", mode="r") as pixels:
        for read in (
            lambda: pixels.read_window(*KEYS[0], WINDOW),
            lambda: pixels.read_exposure(*KEYS[0]),
            lambda: pixels.record(*KEYS[0]),
            lambda: pixels.verify(*KEYS[0]),
            lambda: pixels.reader.files_of(*KEYS[0]),
        ):
            with pytest.raises(error, match=match):
                read()
        assert sorted(pixels) == KEYS
        assert_holds(pixels, exposure(*KEYS[1], seed=1))


def test_absolute_paths_and_folders_above_are_not_followed(folder, shard):
    outside = folder.parent / "outside.h5"
    shutil.copy(shard, outside)
    for filename in (str(outside), str(shard), "../outside.h5", "pixels.shards/../../outside.h5"):
        relink(folder, filename)
        refused(folder, "outside the folder of the store; such links are not followed")


def test_symbolic_links_out_of_the_folder_are_not_followed(folder, shard):
    outside = folder.parent / "outside"
    outside.mkdir()
    shutil.copy(shard, outside / "e.h5")
    (folder / "link.h5").symlink_to(outside / "e.h5")
    (folder / "away").symlink_to(outside)
    for filename in ("link.h5", "away/e.h5"):
        relink(folder, filename)
        refused(folder, "outside the folder of the store; such links are not followed")
    # One that stays inside is a name like any other.
    (folder / "inside.h5").symlink_to(shard)
    relink(folder, "inside.h5")
    assert_holds(PixelStore(folder / "pixels.h5"), exposure(*KEYS[0], seed=0))


def test_a_folder_that_is_reached_by_a_link_is_like_any_other(folder, exposures, tmp_path):
    (tmp_path / "alias").symlink_to(folder)
    assert_holds(PixelStore(tmp_path / "alias" / "pixels.h5", mode="r"), *exposures)
    publish(tmp_path / "alias", shards_of(tmp_path / "alias", exposure("F090W", "x")))
    assert ("F090W", "x") in PixelStore(folder / "pixels.h5", mode="r")


def test_a_moved_folder_still_works(folder, exposures, tmp_path, monkeypatch):
    shutil.move(folder, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    assert_holds(PixelStore("elsewhere/pixels.h5", mode="r"), *exposures)


def test_links_to_the_store_itself_do_not_go_round_for_ever(folder):
    relink(folder, "pixels.h5", "/F200W/e1")
    refused(folder, "which is the store itself")
    (folder / "again.h5").symlink_to("pixels.h5")
    relink(folder, "again.h5", "/F200W/e1")
    refused(folder, "which is the store itself")


def test_shards_that_link_on_are_refused(folder, shard):
    with h5py.File(folder / "a.h5", "w") as h5:
        h5["F200W/e1"] = h5py.ExternalLink("b.h5", "/F200W/e1")
    with h5py.File(folder / "b.h5", "w") as h5:
        h5["F200W/e1"] = h5py.ExternalLink("a.h5", "/F200W/e1")
    relink(folder, "a.h5")
    refused(folder, "a shard holds its exposure itself")
    with h5py.File(folder / "a.h5", "w") as h5:
        h5["F200W"] = h5py.SoftLink("/F200W")
    refused(folder, "which has no F200W/e1")


def test_what_is_no_regular_file_is_not_opened(folder):
    os.mkfifo(folder / "pipe.h5")
    relink(folder, "pipe.h5")
    refused(folder, "which is no regular file")
    relink(folder, "pixels.shards")
    refused(folder, "which is no regular file")
    (folder / "loop.h5").symlink_to("loop.h5")
    relink(folder, "loop.h5")
    refused(folder, "cannot be looked at|does not exist", StoreError)


def test_missing_truncated_and_foreign_shards_are_named(folder, shard):
    content = shard.read_bytes()
    os.truncate(shard, 7000)
    refused(folder, f"F200W/e1 lies in .*{shard.name}")
    shard.write_bytes(b"garbage")
    refused(folder, f"F200W/e1 lies in .*{shard.name}")
    shard.unlink()
    refused(folder, "which does not exist", MissingStoreError)
    shard.write_bytes(content)
    relink(folder, f"pixels.shards/F200W/{shard.name}", "/F200W/other")
    refused(folder, "which has no F200W/other")
    relink(folder, f"pixels.shards/F200W/{shard.name}", "/fpgpu_shard/entry")
    refused(folder, "no exposure|lies in", StoreError)


def test_a_shard_that_is_replaced_by_another_program_is_read_anew(folder, shard):
    pixels = PixelStore(folder / "pixels.h5", mode="r")
    before = pixels.read_window(*KEYS[0], WINDOW)
    with h5py.File(shard, "r+") as h5:
        h5["F200W/e1/data"][...] += 1
    after = pixels.read_window(*KEYS[0], WINDOW)
    np.testing.assert_array_equal(after, before + 1)
    with pytest.raises(IntegrityError, match="F200W/e1"):
        pixels.verify()
    with h5py.File(shard, "w") as h5:
        h5["F200W/e1/data"] = np.zeros((3, 3, 128), "f4")
    with pytest.raises(StoreFormatError, match=r"F200W/e1 has shape \(3, 3, 128\)"):
        pixels.read_window(*KEYS[0], WINDOW)


def test_a_publication_while_shards_are_read_is_no_error(folder, monkeypatch):
    """The shard that a reader has just found in the store is deleted before it is opened."""
    pixels = PixelStore(folder / "pixels.h5", mode="r")
    new = exposure(*KEYS[0], seed=8)
    shards = shards_of(folder, new)
    real = h5py.File
    opened = []

    def open_late(name, *args, **kwargs):
        if "pixels.shards" in str(name) and not opened:
            opened.append(name)
            monkeypatch.setattr(h5py, "File", real)
            publish(folder, shards)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(h5py, "File", open_late)
    assert_holds(pixels, new)
    assert opened


@pytest.mark.parametrize("filename", ["", ".", "..", "a\0b", "x/../../y", "/", "./../x"])
def test_hostile_file_names_of_links_are_errors_of_the_store(filename, tmp_path):
    (tmp_path / "stores").mkdir()
    with pytest.raises(StoreError):
        inside(tmp_path / "stores", filename, "exposure")


def test_own_handles_of_shards_do_not_disturb(folder, exposures):
    """Code written for forcepho may have files open while fpgpu reads and publishes."""
    with h5py.File(folder / "pixels.h5", "r", swmr=True) as h5:
        dataset = h5["F200W/e1/data"]
        first = dataset[0, 0, 0]
    with PixelStore(folder / "pixels.h5", mode="r") as pixels:
        dataset = pixels.data["F200W/e1/data"]
        assert dataset[0, 0, 0] == first
        assert_holds(pixels, *exposures)
        publish(folder, shards_of(folder, exposure("F090W", "x")))
        assert dataset[0, 0, 0] == first
        assert ("F090W", "x") in pixels
        assert "F090W/x" in pixels.data
