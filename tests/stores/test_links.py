"""A store is input: its links are followed to shards in its own folder and nowhere else."""

import os
import shutil
from contextlib import suppress
from dataclasses import replace

import h5py
import numpy as np
import pytest

from fpgpu import PixelStore, PSFStore
from fpgpu.errors import (
    IntegrityError,
    MissingStoreError,
    StoreError,
    StoreFormatError,
)
from fpgpu.stores.commit import write_links
from fpgpu.stores.disk import inside
from fpgpu.stores.index import Row
from fpgpu.stores.metadata.record import Place
from fpgpu.stores.shard import read_shard
from fpgpu.stores.state import open_state
from fpgpu.stores.upkeep.forms import consolidate
from fpgpu.stores.upkeep.verify import verify
from tests.stores.imagesets import assert_holds, files_in
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


def relink(folder, filename, path="/F200W/e1"):
    """Let another program change the link of an exposure; there is no index any more."""
    with h5py.File(folder / "pixels.h5", "r+") as h5:
        if h5.get("F200W/e1", getlink=True) is not None:
            del h5["F200W/e1"]
        h5["F200W/e1"] = h5py.ExternalLink(filename, path)
    assert PixelStore(folder / "pixels.h5", mode="r").state.is_foreign


def forge(folder, filename, path="/F200W/e1"):
    """Write an index, with its digest, that has an exposure and its metadata in another file."""
    state = open_state(folder / "pixels.h5")
    rows = dict(state.index.rows)
    meta = Place(filename, 0, 100, "0" * 64)
    rows[KEYS[0]] = Row(*KEYS[0], "id", filename, f"{path}/data", -1, -1, meta)
    write_links(folder / "forged.h5", replace(state.index, rows=rows))
    (folder / "forged.h5").replace(folder / "pixels.h5")
    assert not PixelStore(folder / "pixels.h5", mode="r").state.is_foreign


BOTH = pytest.mark.parametrize("point", [relink, forge])
"""Who names the file: a link, or an index whose digest is right."""


def refused(folder, match):
    """Every way of reading refuses the exposure; the others are as good as before."""
    with PixelStore(folder / "pixels.h5", mode="r") as pixels:
        for read in (
            lambda: pixels.read_window(*KEYS[0], WINDOW),
            lambda: pixels.read_superpixels(*KEYS[0], [[0, 0]]),
            lambda: pixels.read_exposure(*KEYS[0]),
        ):
            with pytest.raises(StoreFormatError, match=match):
                read()
        with suppress(StoreFormatError):  # it may have attributes, or the index knows
            pixels.record(*KEYS[0])
            assert pixels.verify(*KEYS[0]).verified == []
        with pytest.raises(StoreError):
            pixels.state.record(KEYS[0])
        assert sorted(pixels) == KEYS
        assert_holds(pixels, exposure(*KEYS[1], seed=1))
    assert any(problem.where == "F200W/e1" for problem in verify(folder).problems)
    before = {name: content for name, content in files_in(folder).items() if "claim" not in name}
    try:
        consolidate(folder)
    except StoreFormatError:
        after = files_in(folder)
        assert before == {name: after[name] for name in before}
    else:  # a shard of this store, which tells what it is
        assert_holds(PixelStore(folder / "pixels.h5", mode="r"), exposure(*KEYS[0], seed=0))
        for name, content in before.items():
            (folder / name).write_bytes(content)


def copied(shard, path):
    """Copy a shard and change its pixels, so that who reads these is found out."""
    shutil.copy(shard, path)
    with h5py.File(path, "r+") as h5:
        h5["F200W/e1/data"][...] += 1
    return path


@BOTH
def test_absolute_paths_and_folders_above_are_not_followed(folder, shard, point):
    outside = copied(shard, folder.parent / "outside.h5")
    for filename in (str(outside), str(shard), "../outside.h5", "pixels.shards/../../outside.h5"):
        point(folder, filename)
        refused(folder, "outside the folder of the store; such links are not followed")


@BOTH
def test_symbolic_links_out_of_the_folder_are_not_followed(folder, shard, point):
    outside = folder.parent / "outside"
    outside.mkdir()
    copied(shard, outside / "e.h5")
    (folder / "link.h5").symlink_to(outside / "e.h5")
    (folder / "away").symlink_to(outside)
    for filename in ("link.h5", "away/e.h5"):
        point(folder, filename)
        refused(folder, "outside the folder of the store; such links are not followed")
    # One that stays inside is a name like any other.
    (folder / "inside.h5").symlink_to(shard)
    point(folder, "inside.h5")
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


@BOTH
def test_links_to_the_store_itself_do_not_go_round_for_ever(folder, point):
    point(folder, "pixels.h5")
    refused(folder, "which has no /F200W/e1/data")
    (folder / "again.h5").symlink_to("pixels.h5")
    point(folder, "again.h5")
    refused(folder, "which has no /F200W/e1/data")


@BOTH
def test_shards_that_link_on_are_refused(folder, point):
    with h5py.File(folder / "a.h5", "w") as h5:
        h5["F200W/e1"] = h5py.ExternalLink("b.h5", "/F200W/e1")
    with h5py.File(folder / "b.h5", "w") as h5:
        h5["F200W/e1"] = h5py.ExternalLink("a.h5", "/F200W/e1")
    point(folder, "a.h5")
    refused(folder, "which has no /F200W/e1/data")
    with h5py.File(folder / "a.h5", "w") as h5:
        h5["F200W"] = h5py.SoftLink("/F200W")
    refused(folder, "which has no /F200W/e1/data")
    with h5py.File(folder / "a.h5", "w") as h5:
        h5["F200W/e1/data"] = h5py.ExternalLink("../outside.h5", "/F200W/e1/data")
    refused(folder, "which has no /F200W/e1/data")


@BOTH
def test_what_is_no_regular_file_is_not_opened(folder, point):
    os.mkfifo(folder / "pipe.h5")
    (folder / "loop.h5").symlink_to("loop.h5")
    for filename, match in [
        ("pipe.h5", "is no regular file"),
        ("pixels.shards", "is no regular file"),
        ("loop.h5", "cannot be looked at"),
    ]:
        point(folder, filename)
        refused(folder, match)


@pytest.mark.parametrize("name", ["pixels.h5", "meta.json", "meta.asdf", "psf.h5"])
def test_a_pipe_in_the_place_of_a_file_holds_nobody_up(folder, name, exposures):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert any(problem.where == name for problem in verify(folder).problems) or name == "meta.asdf"

    def use():
        publish(folder, shards_of(folder, exposure("F090W", "x")))
        _ = PSFStore(folder / name).bands

    with pytest.raises(StoreFormatError):
        use()


def _virtual(h5, source):
    layout = h5py.VirtualLayout((8, 8, 128), "f4")
    layout[:] = h5py.VirtualSource(source, "F200W/e1/data", (8, 8, 128))
    h5.create_group("F200W/e1").create_virtual_dataset("data", layout)


ELSEWHERE = {
    "raw": lambda h5, outside: h5.create_dataset(
        "F200W/e1/data", (8, 8, 128), "f4", external=[(str(outside), 0, 8 * 8 * 128 * 4)]
    ),
    "virtual": lambda h5, outside: _virtual(h5, str(outside)),
    "virtual, of itself": lambda h5, outside: _virtual(h5, "."),
}


@BOTH
@pytest.mark.parametrize("kind", ELSEWHERE)
def test_pixels_that_a_shard_says_are_elsewhere_are_refused(folder, shard, point, kind):
    """HDF5 would read them from any file, without being asked; or from itself, until it crashes."""
    outside = copied(shard, folder.parent / "outside.h5")
    with h5py.File(folder / "a.h5", "w") as h5:
        h5.attrs.update(nside_full=64, super_pixel_size=8)
        ELSEWHERE[kind](h5, outside)
    point(folder, "a.h5")
    refused(folder, "virtual datasets and raw data in other files are not followed")
    with pytest.raises(StoreFormatError):
        PixelStore(folder / "a.h5", mode="r").read_exposure(*KEYS[0])


def test_writers_follow_no_links_out_of_the_folder(folder):
    """Somebody else's links in a shared folder have nothing written, changed or deleted behind."""
    outside = folder.parent / "outside"
    outside.mkdir()
    for name in ("precious.json", "draft-mine.h5", "claim-000000000001"):
        (outside / name).write_text("mine")
    commits = folder / "pixels.shards" / ".commit"
    (commits / "views.json").unlink()
    (commits / "views.json").symlink_to(outside / "precious.json")
    (commits / "draft-0.h5").symlink_to(outside / "draft-mine.h5")
    publish(folder, shards_of(folder, exposure("F090W", "x")))
    assert set(files_in(outside).values()) == {b"mine"}
    commits.rename(folder / "aside")
    commits.symlink_to(outside)
    with pytest.raises(StoreFormatError, match="nothing is written through links"):
        shards_of(folder, exposure("F090W", "y"))
    with pytest.raises(StoreFormatError, match="nothing is written through links"):
        publish(folder, [], removed=[KEYS[0]])
    commits.unlink()
    (folder / "aside").rename(commits)
    (folder / "pixels.shards" / "F115W").symlink_to(outside)
    with pytest.raises(StoreFormatError, match="not written through links"):
        shards_of(folder, exposure("F115W", "z"))
    assert len(files_in(outside)) == 3
    assert set(files_in(outside).values()) == {b"mine"}


def test_missing_truncated_and_foreign_shards_are_named(folder, shard):
    content = shard.read_bytes()
    before = PixelStore(folder / "pixels.h5", mode="r").record(*KEYS[0])
    for damage in (lambda: os.truncate(shard, 7000), lambda: shard.write_bytes(b"garbage")):
        damage()
        with PixelStore(folder / "pixels.h5", mode="r") as pixels:
            with pytest.raises(StoreFormatError, match=f"{shard.name}: has .* were expected"):
                pixels.read_exposure(*KEYS[0])
            assert pixels.record(*KEYS[0]) == before  # which the index has
            assert_holds(pixels, exposure(*KEYS[1], seed=1))
    shard.unlink()
    with pytest.raises(MissingStoreError, match=r"F200W/e1 lies in .* which does not exist"):
        PixelStore(folder / "pixels.h5", mode="r").read_exposure(*KEYS[0])
    shard.write_bytes(content)
    name = f"pixels.shards/F200W/{shard.name}"
    for path in ("/F200W/other", "/F200W/e1/fpgpu_record", "/F200W/e1/data"):
        relink(folder, name, path)
        refused(folder, f"which has no {path}")


def test_a_shard_that_another_program_writes_to_is_never_taken_for_what_it_was(folder, shard):
    """Shards never change; who changes one all the same makes what checks find."""
    pixels = PixelStore(folder / "pixels.h5", mode="r")
    with h5py.File(shard, "r+") as h5:
        h5["F200W/e1/data"][...] += 1
    for store in (pixels, PixelStore(folder / "pixels.h5", mode="r")):
        with pytest.raises(IntegrityError, match="F200W/e1"):
            store.verify()
    assert [p.kind for p in verify(folder).problems] == ["damaged"]
    with h5py.File(shard, "w") as h5:
        h5["F200W/e1/data"] = np.zeros((3, 3, 128), "f4")
    for store in (pixels, PixelStore(folder / "pixels.h5", mode="r")):
        with pytest.raises(StoreFormatError, match="another program has changed it"):
            store.read_window(*KEYS[0], WINDOW)


def test_a_reader_keeps_its_state_whatever_is_committed_between_two_calls(folder, monkeypatch):
    """Its exposure is replaced after it was looked up and before its file is opened."""
    pixels = PixelStore(folder / "pixels.h5", mode="r")
    old, new = exposure(*KEYS[0], seed=0), exposure(*KEYS[0], seed=8)
    shards = shards_of(folder, new)
    real = os.open
    opened = []

    def open_late(name, *args, **kwargs):
        if "pixels.shards/F200W" in str(name) and not opened:
            opened.append(name)
            publish(folder, shards)
        return real(name, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_late)
        assert_holds(pixels, old)
    assert opened
    assert_holds(pixels, old)
    assert_holds(PixelStore(folder / "pixels.h5", mode="r"), new)
    # When the old files are gone, it says so and does not take the new ones.
    consolidate(folder, now=True)
    with pytest.raises(MissingStoreError, match="open the store again"):
        pixels.read_exposure(*KEYS[0])


@pytest.mark.parametrize("filename", ["", "..", "a\0b", "x/../../y", "/", "./../x"])
def test_hostile_file_names_of_links_are_errors_of_the_store(filename, tmp_path):
    (tmp_path / "stores").mkdir()
    with pytest.raises(StoreError):
        inside(tmp_path / "stores", filename, "exposure")


def test_own_handles_of_shards_do_not_disturb(folder, exposures):
    """Code written for forcepho may have files open while fpgpu reads and commits."""
    with h5py.File(folder / "pixels.h5", "r", swmr=True) as h5:
        dataset = h5["F200W/e1/data"]
        first = dataset[0, 0, 0]
        publish(folder, shards_of(folder, exposure("F090W", "w")))
        assert dataset[0, 0, 0] == h5["F200W/e1/data"][0, 0, 0] == first
    with PixelStore(folder / "pixels.h5", mode="r") as pixels:
        dataset = pixels.data["F200W/e1/data"]
        assert dataset[0, 0, 0] == first
        assert_holds(pixels, *exposures)
        publish(folder, shards_of(folder, exposure("F090W", "x")))
        assert dataset[0, 0, 0] == first
        assert ("F090W", "x") not in pixels
        assert "F090W/x" in pixels.data
    assert ("F090W", "x") in PixelStore(folder / "pixels.h5", mode="r")
