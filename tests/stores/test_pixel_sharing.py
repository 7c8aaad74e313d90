"""Handles, threads and processes that use one store: they wait, or are told who is in the way."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from fpgpu.errors import StoreBusyError, StoreWriteError
from fpgpu.stores.hdf5 import locks
from fpgpu.stores.pixel import PixelStore
from tests.stores.imagesets import assert_holds, files_in, image_set, new_store

ROOT = Path(__file__).parents[2]

HOLD_WITH_H5PY = """
import h5py, sys
with h5py.File(sys.argv[1], sys.argv[2]):
    print("holding", flush=True)
    sys.stdin.read()
"""
ADD_MANY = """
import sys
from fpgpu.stores.pixel import PixelStore
from tests.stores.imagesets import image_set
path, name = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
for i in range(10):
    PixelStore(path, 64).add_exposure(image_set(expID=f"{name}{i}"))
"""
DIE_WITH_A_CHILD = """
import os, signal, sys, time
from pathlib import Path
from fpgpu.stores.hdf5 import locks
with locks.hold(Path(sys.argv[1]), time.monotonic() + 5, exclusive=True):
    if os.fork() == 0:
        os.close(1)
        os.read(0, 1)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def started(script, *arguments):
    """Start a Python process that says a line and waits for its standard input."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    return process


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pixels.h5"


@pytest.fixture
def first(path):
    """A store with one exposure."""
    return new_store(path, image_set(expID="first"))


def test_another_process_that_reads_with_h5py_keeps_writers_out_until_it_closes(path, first):
    before = files_in(path.parent)
    with started(HOLD_WITH_H5PY, path, "r") as holder:
        hasty = PixelStore(path, timeout=0.1)
        with pytest.raises(StoreBusyError, match=r"another process.*close its handles"):
            hasty.add_exposure(image_set())
        assert files_in(path.parent) == before
        assert_holds(first, image_set(expID="first"))
        threading.Timer(0.2, holder.stdin.close).start()
        first.add_exposure(image_set())
    assert len(first) == 2


def test_another_process_that_writes_with_h5py_keeps_readers_out_until_it_closes(path, first):
    with started(HOLD_WITH_H5PY, path, "r+") as holder:
        with pytest.raises(StoreBusyError, match="writing this store"):
            PixelStore(path, timeout=0.1)
        threading.Timer(0.2, holder.stdin.close).start()
        assert len(PixelStore(path)) == 1


def test_processes_that_add_to_a_new_store_at_once_all_succeed(path):
    adders = [started(ADD_MANY, path, name) for name in "abc"]
    for adder in adders:
        adder.stdin.write("go\n")
        adder.stdin.flush()
    for adder in adders:
        adder.communicate()
        assert adder.returncode == 0
    store = PixelStore(path)
    expected = [image_set(expID=f"{name}{i}") for name in "abc" for i in range(10)]
    assert_holds(store, *expected)
    assert len(store.verify().verified) == 30
    assert list(files_in(path.parent)) == ["pixels.h5"]


@pytest.mark.parametrize("options", [{"mode": "r"}, {"mode": "r", "swmr": True}])
@pytest.mark.parametrize("name", ["pixels.h5", "link.h5", "hard.h5"])
def test_a_handle_that_somebody_opened_in_this_process_is_named_before_anything_is_written(
    name, options, path, first
):
    (path.parent / "link.h5").symlink_to(path)
    (path.parent / "hard.h5").hardlink_to(path)
    before = files_in(path.parent)
    with h5py.File(path.parent / name, **options) as foreign:
        with pytest.raises(StoreBusyError, match=r"open in this process through h5py.*close"):
            first.add_exposure(image_set())
        assert files_in(path.parent) == before
        assert_holds(first, image_set(expID="first"))
        assert first.data["F200W"].keys() == foreign["F200W"].keys()
        first.close()
        assert foreign["F200W/first/data"].shape == (8, 8, 128)
    first.add_exposure(image_set())


def test_handles_on_other_files_do_not_matter(path, first, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as h5, h5py.File.in_memory() as memory:
        first.add_exposure(image_set())
        h5["x"] = memory["x"] = 1
    assert len(first) == 2


def test_the_handle_is_one_for_all_stores_and_follows_changes(path, first):
    second = PixelStore(path)
    handle = first.data
    assert first.data is handle
    assert second.data is handle
    first.close()
    assert handle
    second.add_exposure(image_set(seed=1))
    assert not handle
    np.testing.assert_array_equal(
        first.data["F200W/e1/data"][0, 0, :64].reshape(8, 8), image_set(seed=1).im[:8, :8]
    )
    first.add_exposure(image_set(seed=2))
    np.testing.assert_array_equal(
        second.data["F200W/e1/data"][0, 0, :64].reshape(8, 8), image_set(seed=2).im[:8, :8]
    )
    second.close()
    second.close()
    assert first.data
    first.close()
    # Other tests may have other files open.
    still_open = h5py.h5f.get_obj_ids(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)
    assert str(path).encode() not in [handle.name for handle in still_open]


def test_leaving_the_context_closes_the_handle_and_lets_other_processes_write(path, first):
    with PixelStore(path) as store:
        handle = store.data
        adder = started(ADD_MANY, path, "late")
        adder.stdin.write("go\n")
        adder.stdin.flush()
        time.sleep(0.1)
        assert len(store) == 1
    assert not handle
    adder.communicate()
    assert adder.returncode == 0
    assert len(first) == 11


def test_a_handle_of_a_file_that_was_replaced_is_opened_again(path, first, tmp_path):
    old = first.data
    new_store(tmp_path / "new.h5", image_set("F090W", "x"))
    (tmp_path / "new.h5").replace(path)
    assert list(first.data) == ["F090W"]
    assert not old
    first.close()


def test_a_thread_that_changes_the_store_for_long_keeps_the_others_waiting(path, first):
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with first._file.reading(1.0):
            entered.set()
            leave.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    entered.wait()
    try:
        with pytest.raises(StoreBusyError, match="another thread"):
            PixelStore(path, timeout=0.05)
    finally:
        leave.set()
        holder.join()
    assert len(PixelStore(path)) == 1


def test_on_a_file_system_without_locks_writing_is_refused_and_reading_works(
    path, first, monkeypatch
):
    def unsupported(descriptor, operation):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    before = files_in(path.parent)
    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.raises(StoreWriteError, match=r"no file locks.*local disk"):
        first.add_exposure(image_set())
    assert files_in(path.parent) == before
    assert_holds(PixelStore(path), image_set(expID="first"))


def test_a_child_of_a_dead_writer_does_not_keep_its_lock(path, first):
    writer = subprocess.Popen(
        [sys.executable, "-c", DIE_WITH_A_CHILD, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    # The pipe ends when the writer has died and its child, still alive, has closed its copy.
    writer.stdout.read()
    assert writer.wait() == -9
    with locks.hold(path, time.monotonic() + 2, exclusive=True):
        pass
    writer.stdin.close()
    writer.stdout.close()


def test_a_lock_is_on_the_file_that_has_the_name_now(path, first, tmp_path):
    new_store(tmp_path / "new.h5", image_set("F090W", "x"))
    with locks.hold(path, time.monotonic() + 1, exclusive=True):
        waiter = threading.Thread(target=lambda: found.extend(PixelStore(path)))
        found = []
        waiter.start()
        time.sleep(0.05)
        (tmp_path / "new.h5").replace(path)
    waiter.join()
    assert found == [("F090W", "x")]
