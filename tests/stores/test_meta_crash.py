"""Whatever stops a writer, JSON, ASDF and sidecar are all old or all new."""

import json
import os
import subprocess
import sys

import pytest

from fpgpu import MetaStore
from fpgpu.errors import StoreError, StoreWriteError
from tests.sky.made_wcs import sky_gwcs
from tests.stores.metasets import meta_set, write_store

NAMES = ["meta.asdf", "meta.fpgpu.npz", "meta.json"]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.timeout(900)
def test_kills_at_random_moments_leave_files_of_one_state(tmp_path, long_form, root):
    n_kills = 300 if long_form else 16
    done = subprocess.run(
        [sys.executable, "-m", "tests.stores.meta_crashing", str(tmp_path), str(n_kills), "1"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout)
    assert set(result["states"]) == {"old", "new"}
    assert sum(result["states"].values()) == n_kills
    assert result["written"] == n_kills  # every writer was at work when it was killed
    assert set(result["seen"]) == {"old", "new"}
    assert result["left"] == NAMES


def test_kills_while_a_store_grows_lose_nothing_that_was_durable(tmp_path, long_form, root):
    n_kills = 100 if long_form else 8
    done = subprocess.run(
        [sys.executable, "-m", "tests.stores.meta_growing", str(tmp_path), str(n_kills), "2"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout)
    assert result["problems"] == []
    assert result["durable"] > n_kills
    assert result["left"] == NAMES


@pytest.mark.parametrize("step", range(3))
def test_a_rename_that_fails_is_made_up_for_at_the_next_opening(tmp_path, monkeypatch, step):
    path = write_store(tmp_path / "meta.json", meta_set("e1", gwcs=sky_gwcs()))
    store = MetaStore(path)
    store.add_exposure(meta_set("e2", gwcs=sky_gwcs()))
    real, renames = os.replace, []

    def fail_at_step(source, target):
        if str(target).startswith(str(tmp_path / "meta")):
            renames.append(target)
            if len(renames) == step + 1:
                raise OSError("the disk is gone")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail_at_step)
        with pytest.raises(StoreWriteError, match="stopped half-way"):
            store.write_to_file(path)
    with MetaStore(path, use_gwcs=True, load_all=True) as again:
        assert again.exposures("F200W") == ["e1", "e2"]
        assert again.without_gwcs() == []
    assert sorted(contents(tmp_path)) == NAMES


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


def test_a_full_disk_leaves_all_files_as_they_were(tmp_path, root):
    path = write_store(tmp_path / "meta.json", meta_set("e1", gwcs=sky_gwcs()))
    before = contents(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "File too large" in done.stdout
    assert contents(tmp_path) == before


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path, monkeypatch):
    path = write_store(tmp_path / "meta.json", meta_set("e1"))
    before = contents(tmp_path)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    # The superuser may write everywhere, so the answer of the system is given here.
    monkeypatch.setattr(os, "mkdir", refuse)
    with MetaStore(path) as store, pytest.raises(StoreWriteError, match="Permission denied"):
        store.write_to_file(path)
    assert contents(tmp_path) == before


def test_a_missing_folder_is_a_clear_error(tmp_path):
    with pytest.raises(StoreWriteError, match="nowhere"):
        write_store(tmp_path / "nowhere" / "meta.json", meta_set("e1"))
    assert contents(tmp_path) == {}


def test_a_foreign_change_in_place_is_noticed(tmp_path):
    """forcepho does not replace a file but writes over it."""
    path = write_store(tmp_path / "meta.json", meta_set("e1"))
    with MetaStore(path) as store:
        path.write_text(path.read_text() + " ")
        with pytest.raises(StoreError, match="open the store again"):
            store.headers["F200W"]["e1"]
