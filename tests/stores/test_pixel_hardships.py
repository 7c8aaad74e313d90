"""A full disk, a missing permission or a failing device: an error, and the store as it was."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fpgpu.errors import StoreError, StoreWriteError
from fpgpu.stores.pixel import PixelStore
from tests.stores.imagesets import assert_holds, files_in, image_set, new_store

ROOT = Path(__file__).parents[2]
STEPS = ["pwrite", "fsync", "ftruncate", "rename", "unlink", "open", "preadv", "pread"]


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
    # There the old state could be put back, but not the journal removed.
    name = "read, writer dead, folder read-only"
    assert all(unchanged for case, (_, _, unchanged) in results.items() if case != name)
    met = {name: (error, message) for name, (error, message, _) in results.items()}
    for name in ("read, both read-only", "read, undone by another"):
        assert met[name] == ("", "")
    for name in ("add, folder read-only", "add, file read-only", "create, folder read-only"):
        assert met[name][0] == "StoreWriteError"
        assert "Permission denied" in met[name][1]
    assert met["read, file unreadable"][0] == "StoreError"
    for name in ("read, writer dead, both read-only", "read, writer dead, folder read-only"):
        assert met[name][0] == "StoreError"
        assert "needs write permission" in met[name][1]


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
                raise self.error
            return real(*args, **kwargs)

        return call


@pytest.fixture
def kept(tmp_path):
    """A store with two exposures, and their image sets."""
    imsets = [image_set(expID="first"), image_set(expID="second")]
    return new_store(tmp_path / "pixels.h5", *imsets), imsets


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left"), OSError(errno.EIO, "I/O error"), KeyboardInterrupt()],
    ids=["full", "broken", "interrupted"],
)
def test_an_error_at_any_system_call_leaves_the_bytes_as_they_were(error, kept, tmp_path):
    store, imsets = kept
    before = files_in(tmp_path)
    expected = (StoreError,) if isinstance(error, OSError) else (KeyboardInterrupt,)
    n_refused = 0
    for n in range(1, 200):
        with pytest.MonkeyPatch.context() as patch:
            FailingCalls(patch, n, error)
            try:
                store.add_exposure(image_set(expID="second", seed=1))
            except expected as exc:
                met = exc
            else:
                break
        n_refused += 1
        if files_in(tmp_path) != before:
            # The journal is gone, which is the change; only syncing the folder was left to do.
            assert list(files_in(tmp_path)) == ["pixels.h5"]
            assert isinstance(met, KeyboardInterrupt) or "it is changed" in str(met)
            break
        assert_holds(store, *imsets)
    assert n_refused > 8
    assert_holds(store, imsets[0], image_set(expID="second", seed=1))
    store.add_exposure(image_set(expID="later"))
    assert len(store.verify().verified) == 3


def test_when_undoing_fails_too_the_next_one_does_it(kept, tmp_path):
    store, imsets = kept
    before = files_in(tmp_path)
    n_left = 0
    for n in range(1, 200):
        with pytest.MonkeyPatch.context() as patch:
            FailingCalls(patch, n, OSError(errno.EIO, "I/O error"), for_good=True)
            try:
                store.add_exposure(image_set(expID="third"))
            except StoreWriteError as exc:
                met = str(exc)
            except StoreError:
                continue
            else:
                break
        if "it is changed" in met:
            break
        n_left += "undoing it failed too" in met
        assert_holds(PixelStore(tmp_path / "pixels.h5"), *imsets)
        files = files_in(tmp_path)
        files.pop("pixels.h5.journal.part", None)
        assert files == before
    assert n_left > 2


def test_a_first_exposure_that_fails_leaves_no_file_or_an_empty_store(tmp_path):
    path = tmp_path / "pixels.h5"
    refusals = []
    for n in range(1, 200):
        with pytest.MonkeyPatch.context() as patch:
            calls = FailingCalls(patch, n, OSError(errno.ENOSPC, "No space left"))
            try:
                PixelStore(path, 64).add_exposure(image_set())
            except StoreError as exc:
                held = len(PixelStore(path)) if path.exists() else 0
                refusals.append((str(exc), held, list(files_in(tmp_path))))
        if path.exists():
            if len(PixelStore(path)):
                assert_holds(PixelStore(path), image_set())
            path.unlink()
        if calls.left > 0:
            break
    assert len([held for _, held, _ in refusals if not held]) > 5
    assert all(files in ([], ["pixels.h5"]) for _, _, files in refusals)
    # Only syncing the folder was left to do.
    assert all("but a power failure" in message for message, held, _ in refusals if held)


KEEPS_AN_ERROR_FOR_EVER = """
import ctypes, os, sys
from fpgpu.errors import StoreError
from fpgpu.stores.pixel import PixelStore
from tests.stores.imagesets import image_set

def fail(*args):
    raise OSError(5, "I/O error")

store = PixelStore(sys.argv[1])
os.preadv = fail
try:
    store.add_exposure(image_set(expID="third"))
except StoreError as error:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(error))
else:
    sys.exit("no error")
"""


def test_an_error_that_outlives_the_interpreter_does_not_crash_it(kept):
    store, _ = kept
    run = subprocess.run(
        [sys.executable, "-c", KEEPS_AN_ERROR_FOR_EVER, store.h5file],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
