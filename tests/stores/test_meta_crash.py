"""Whatever stops a writer: JSON and ASDF are old or new, each as a whole; a commit all at once."""

import json
import os
import subprocess
import sys

import pytest

from fpgpu import MetaStore, PixelStore
from fpgpu.errors import StoreConflictError, StoreError, StoreWriteError
from tests.sky.made_wcs import sky_gwcs
from tests.stores.imagesets import files_in
from tests.stores.metasets import meta_set, write_store
from tests.stores.shardsets import exposure, sharded_store, state_of

BARE = ["meta.asdf", "meta.json"]


@pytest.mark.parametrize("kind", ["bare", "indexed"])
@pytest.mark.timeout(1800)
def test_kills_at_random_moments_leave_whole_states(kind, tmp_path, long_form, root):
    n_kills = 100 if long_form else 6
    done = subprocess.run(
        [sys.executable, "-m", "tests.stores.meta_crashing", tmp_path, str(n_kills), "1", kind],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result["states"]) <= {"old", "new", "new old"}
    assert sum(result["states"].values()) == result["written"] == n_kills
    if kind == "indexed":  # headers and gWCS are of one commit
        assert result["whole"] == n_kills
        assert result["left"] == ["meta.asdf", "meta.json", "pixels.h5", "pixels.shards"]
    else:
        assert result["whole"] > n_kills // 2
        assert result["left"] == BARE


@pytest.fixture
def bare(tmp_path):
    return write_store(tmp_path / "meta.json", meta_set("e1", gwcs=sky_gwcs()))


@pytest.fixture
def indexed(tmp_path):
    made = exposure(gwcs=sky_gwcs(shape=(64, 64), ra=53.0))
    return sharded_store(tmp_path, made, exposure(expID="e2")) / "meta.json"


def change(path):
    """Add to a store of files; in a folder with pixels, change a header."""
    with MetaStore(path) as store:
        if store.state is None:
            store.add_exposure(meta_set("e2", gwcs=sky_gwcs()))
        store.headers["F200W"]["e1"]["TWEAKED"] = True
        store.write_to_file(path)


class Failing:
    """Makes the n-th of some system calls fail."""

    def __init__(self, patch, n, names=("rename", "replace", "fsync", "pwrite", "open", "link")):
        self.left = n
        for name in names:
            patch.setattr(os, name, self.wrapped(getattr(os, name)))

    def wrapped(self, real):
        def call(*args, **kwargs):
            self.left -= 1
            if self.left == 0:
                raise OSError(5, "Input/output error")
            return real(*args, **kwargs)

        return call


def test_any_call_that_fails_leaves_each_of_two_files_whole(bare, long_form):
    before = files_in(bare.parent)
    refused = []
    for n in range(1, 100, 1 if long_form else 2):
        for name, content in before.items():
            (bare.parent / name).write_bytes(content)
        with pytest.MonkeyPatch.context() as patch:
            calls = Failing(patch, n)
            try:
                change(bare)
            except StoreError as exc:
                refused.append(str(exc))
        assert sorted(files_in(bare.parent)) == BARE
        with MetaStore(bare, use_gwcs=True) as store:
            assert next(iter(store)) == ("F200W", "e1")
            store.sky_wcs("F200W", "e1").pixel_to_world(3, 4)
            assert store.exposures("F200W") in (["e1"], ["e1", "e2"])
        change(bare)
        with MetaStore(bare, use_gwcs=True, load_all=True) as store:
            assert store.exposures("F200W") == ["e1", "e2"]
        if calls.left > 0:
            break
    assert len(refused) > 3
    assert all("Input/output error" in message for message in refused)


def test_any_call_that_fails_leaves_a_commit_that_was_or_was_not_made(indexed, long_form):
    folder = indexed.parent
    before = state_of(folder)
    refused = []
    for n in range(1, 1000, 1 if long_form else 5):
        with pytest.MonkeyPatch.context() as patch:
            calls = Failing(patch, n)
            try:
                with MetaStore(indexed) as store:
                    store.headers["F200W"]["e1"]["ROUND"] = n
                    store.write_to_file(indexed)
            except StoreError as exc:
                refused.append(str(exc))
        if calls.left > 0:
            break
        assert state_of(folder) == before
        with MetaStore(indexed) as store:
            assert store.state is not None
            assert store.headers["F200W"]["e1"].get("ROUND", n) <= n
            assert store.wcs_kind("F200W", "e1") == "gwcs"
            store.tree["F200W"]["e1"](3.0, 4.0)
    assert len(refused) > 5
    with MetaStore(indexed) as store:
        assert store.headers["F200W"]["e1"]["ROUND"] == n


FULL_DISK = """
import resource, sys
from fpgpu import MetaStore
from fpgpu.errors import StoreWriteError
from tests.stores.metasets import meta_set
store = MetaStore(sys.argv[1])
for i in range(5):
    store.add_exposure(meta_set(f"more{i}"))
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
try:
    store.write_to_file(sys.argv[1])
except StoreWriteError as exc:
    print(exc)
"""


@pytest.mark.parametrize("kind", ["bare", "indexed"])
def test_a_full_disk_leaves_all_files_as_they_were(kind, request, root):
    path = request.getfixturevalue(kind)
    before = files_in(path.parent)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "File too large" in done.stdout
    assert files_in(path.parent) == before


@pytest.mark.parametrize("kind", ["bare", "indexed"])
def test_a_folder_that_cannot_be_written_is_a_clear_error(kind, request, monkeypatch):
    path = request.getfixturevalue(kind)
    before = files_in(path.parent)
    real = os.open

    def refuse(name, flags, *args, **kwargs):
        if flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied")
        return real(name, flags, *args, **kwargs)

    # The superuser may write everywhere, so the answer of the system is given here.
    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr("pathlib.Path.write_text", lambda *args, **kwargs: refuse("", os.O_CREAT))
    monkeypatch.setattr("pathlib.Path.write_bytes", lambda *args, **kwargs: refuse("", os.O_CREAT))
    with pytest.raises(StoreWriteError, match="Permission denied"):
        change(path)
    assert files_in(path.parent) == before


def test_a_missing_folder_is_a_clear_error(tmp_path):
    with pytest.raises(StoreWriteError, match="nowhere"):
        write_store(tmp_path / "nowhere" / "meta.json", meta_set("e1"))
    assert files_in(tmp_path) == {}


def test_a_foreign_change_in_place_is_no_mixture_and_nothing_is_written_over_it(bare):
    """forcepho does not replace a file but writes over it."""
    with MetaStore(bare) as store:
        bare.write_text(bare.read_text() + " ")
        assert store.headers["F200W"]["e1"]["CRVAL1"] == 53.16  # as it was opened
        with pytest.raises(StoreConflictError, match="open the store again"):
            store.write_to_file(bare)
    other = bare.with_suffix(".asdf")
    with MetaStore(bare, use_gwcs=True) as store:
        other.write_bytes(other.read_bytes() + b" ")
        with pytest.raises(StoreConflictError, match="again"):
            store.sky_wcs("F200W", "e1")


def test_what_is_written_in_an_indexed_folder_is_a_commit(indexed):
    """Pixels stay what they are, other exposures too; who changes the same one is told so."""
    with MetaStore(indexed) as mine, MetaStore(indexed) as other:
        pixels = PixelStore(indexed.with_name("pixels.h5"), mode="r")
        other.headers["F200W"]["e2"]["OTHER"] = True
        other.write_to_file(indexed)
        mine.headers["F200W"]["e1"]["MINE"] = True
        mine.write_to_file(indexed)
        with MetaStore(indexed) as both:
            assert both.headers["F200W"]["e1"]["MINE"] is both.headers["F200W"]["e2"]["OTHER"]
            assert both.pixel_id("F200W", "e1") == pixels.pixel_id("F200W", "e1") != ""
        with MetaStore(indexed) as third:
            third.headers["F200W"]["e1"]["MINE"] = False
            third.write_to_file(indexed)
        mine.headers["F200W"]["e1"]["MORE"] = True
        before = files_in(indexed.parent)
        with pytest.raises(StoreConflictError, match="open the store again"):
            mine.write_to_file(indexed)
        after = files_in(indexed.parent)
        assert {name: after[name] for name in before if "claim" not in name} == {
            name: content for name, content in before.items() if "claim" not in name
        }
