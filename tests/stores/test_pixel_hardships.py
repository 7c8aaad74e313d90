"""A full disk, a missing permission or a failing device: an error, and the store as it was."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from fpgpu.errors import StoreError
from fpgpu.stores.hdf5.building import built
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.upkeep.repair import repair
from tests.stores.hardships import kept
from tests.stores.imagesets import assert_holds, image_set, new_store

ROOT = Path(__file__).parents[2]
STEPS = [
    *("pwrite", "fsync", "rename", "replace", "open", "link", "mkdir", "preadv", "pread"),
    *("write", "stat", "scandir", "chmod"),
]


def hardship(*arguments):
    """Run a scenario of `hardships` in its own interpreter and return what it met."""
    command = [sys.executable, "-m", "tests.stores.hardships", *map(str, arguments)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("action", ["create", "add", "replace"])
def test_under_any_limit_of_file_size_the_store_is_as_it_was(action, tmp_path):
    *refused, (_, error, _, _) = hardship("limited", tmp_path, action)["results"]
    assert error == ""
    assert len(refused) > 5
    for limit, error, message, unchanged in refused:
        assert (error, unchanged) == ("StoreWriteError", True), (limit, message)
        assert "File too large" in message
    assert PixelStore(tmp_path / "pixels.h5").read_exposure("F200W", "second")[0][0, 0] == 2


def test_an_error_that_h5py_loses_on_its_way_up_is_told():
    def fill(h5):
        h5.create_dataset("a", data=np.zeros(900))
        sys._clear_type_cache()  # a look-up beside a pending error then takes its place

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            built(fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_on_a_full_disk_the_store_is_as_it_was(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True, text=True
    )
    if mount.returncode:
        pytest.skip(f"a small disk cannot be mounted here ({mount.stderr.strip()})")
    try:
        met = hardship("filled", disk)
    finally:
        subprocess.run(["umount", disk], check=True)
    assert met["error"] == "StoreWriteError"
    assert "No space left" in met["message"]
    assert met["unchanged"]
    assert met["n_verified"] == met["n_added"] > 3


def test_without_permission_the_error_says_so_and_reading_goes_on():
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        results = hardship("unprivileged", folder)["results"]
    finally:
        shutil.rmtree(folder)
    assert all(unchanged for _, _, unchanged in results.values())
    met = {name: (error, message) for name, (error, message, _) in results.items()}
    assert met["read, both read-only"] == ("", "")
    for name in ("add, folder read-only", "create, folder read-only"):
        assert met[name][0] == "StoreWriteError"
        assert "Permission denied" in met[name][1]
    assert met["read, file unreadable"][0] == "StoreFormatError"


class FailingCalls:
    """Make the n-th system call fail, or all from the n-th on."""

    def __init__(self, monkeypatch, n, error, *, for_good=False):
        self.left, self.error, self.for_good = n, error, for_good
        for name in STEPS:
            monkeypatch.setattr(os, name, self.wrapped(getattr(os, name)))

    def wrapped(self, real):
        def call(*args, **kwargs):
            self.left -= 1
            if self.left == 0 or (self.left < 0 and self.for_good):
                raise type(self.error)(*self.error.args)
            return real(*args, **kwargs)

        return call


@pytest.fixture
def stored(tmp_path):
    """Two image sets that are in a store."""
    imsets = [image_set(expID="first"), image_set(expID="second")]
    new_store(tmp_path / "pixels.h5", *imsets)
    return imsets


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left"), OSError(errno.EIO, "I/O error"), KeyboardInterrupt()],
    ids=["full", "broken", "interrupted"],
)
@pytest.mark.parametrize("for_good", [False, True], ids=["once", "from then on"])
def test_an_error_at_any_system_call_leaves_the_store_as_it_was(error, for_good, stored, tmp_path):
    imsets = stored
    path = tmp_path / "pixels.h5"
    before = kept(tmp_path)
    expected = (StoreError,) if isinstance(error, OSError) else (KeyboardInterrupt,)
    n_refused = 0
    for n in range(1, 500):
        store = PixelStore(path)
        with pytest.MonkeyPatch.context() as patch:
            calls = FailingCalls(patch, n, error, for_good=for_good)
            try:
                store.add_exposure(image_set(expID="second", seed=1))
            except expected as exc:
                met = exc
            else:
                met = None
        if calls.left > 0:
            break
        n_refused += met is not None
        if path.read_bytes() != before["pixels.h5"]:
            # It is renamed; only what comes after it was left to do.
            assert_holds(PixelStore(path), imsets[0], image_set(expID="second", seed=1))
            assert isinstance(met, KeyboardInterrupt | None) or "the change is made" in str(met)
            restored = PixelStore(path)
            restored.add_exposure(imsets[1])
            before = kept(tmp_path)
            continue
        assert_holds(PixelStore(path), *imsets)
        if not for_good:  # else nothing that is left can be removed
            assert kept(tmp_path) == before
        else:
            repair(tmp_path, delete_orphans=True)
    assert n_refused > 8
    store = PixelStore(path)
    store.add_exposure(image_set(expID="later"))
    assert len(store.verify().verified) == 3


def test_a_first_exposure_that_fails_leaves_no_file_or_an_empty_store(tmp_path):
    refusals = []
    for n in range(1, 500):
        folder = tmp_path / str(n)
        folder.mkdir()
        path = folder / "pixels.h5"
        with pytest.MonkeyPatch.context() as patch:
            calls = FailingCalls(patch, n, OSError(errno.ENOSPC, "No space left"))
            try:
                PixelStore(path, 64).add_exposure(image_set())
            except StoreError as exc:
                held = len(PixelStore(path)) if path.exists() else 0
                refusals.append((str(exc), held, [*kept(folder)]))
        if path.exists() and len(PixelStore(path)):
            assert_holds(PixelStore(path), image_set())
        if calls.left > 0:
            break
    assert len([held for _, held, _ in refusals if not held]) > 5
    assert all(files in ([], ["pixels.h5"]) for _, held, files in refusals if not held)
    # Only syncing the folder was left to do.
    assert all("a power failure" in message for message, held, _ in refusals if held)
