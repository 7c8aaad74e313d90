"""Threads and processes that use one store: readers keep their state, writers take turns."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import filelock
import h5py
import numpy as np
import pytest

from fpgpu.errors import StoreBusyError
from fpgpu.stores import lease as leasing
from fpgpu.stores.commit import holding
from fpgpu.stores.pixel import PixelStore
from tests.stores.imagesets import assert_holds, image_set, new_store, uniform_set

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
    PixelStore(path, 64, timeout=60).add_exposure(image_set(expID=f"{name}{i}"))
"""
HOLD_THE_LEASE = """
import sys
from fpgpu.stores.commit import holding
with holding(sys.argv[1]):
    print("holding", flush=True)
    sys.stdin.read()
"""
STOP_BEFORE = """
import os, signal, sys
from fpgpu.stores import commit, lease
from fpgpu.stores.pixel import PixelStore
from tests.stores.imagesets import uniform_set
path, step, seconds = sys.argv[1:]
lease.LEASE_SECONDS = float(seconds)
store = PixelStore(path)
imset = uniform_set("e1", 3.0)
print("ready", flush=True)

def stopping(real):
    def call(*args, **kwargs):
        if str(args[-1]).endswith(("pixels.h5", ".commit")) or step in {"_claim", "leave_views"}:
            setattr(owner, step, real)
            os.kill(os.getpid(), signal.SIGSTOP)
        return real(*args, **kwargs)
    return call

owner = commit if hasattr(commit, step) else os
setattr(owner, step, stopping(getattr(owner, step)))
store.add_exposure(imset)
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


@pytest.mark.parametrize("options", [{}, {"swmr": True}])
def test_a_program_that_reads_with_h5py_hinders_nobody_and_keeps_what_it_sees(options, path, first):
    with started(HOLD_WITH_H5PY, path, "r") as holder, h5py.File(path, "r", **options) as own:
        before = own["F200W/first/data"][...]
        first.add_exposure(image_set(expID="first", seed=1))
        first.add_exposure(image_set(expID="second"))
        np.testing.assert_array_equal(own["F200W/first/data"][...], before)
        assert list(own["F200W"]) == ["first"]
        holder.stdin.close()
    assert len(first) == 2


def test_a_program_that_writes_with_h5py_keeps_commits_out_until_it_closes(path, first):
    with started(HOLD_WITH_H5PY, path, "r+") as holder:
        with pytest.raises(StoreBusyError, match="open for writing; close it there"):
            first.add_exposure(image_set())
        holder.stdin.close()
    store = PixelStore(path)
    store.add_exposure(image_set())
    assert_holds(store, image_set(expID="first"), image_set())


def test_processes_that_add_to_a_new_store_at_once_all_succeed(path):
    adders = [started(ADD_MANY, path, name) for name in "abc"]
    for adder in adders:
        adder.stdin.write("go\n")
        adder.stdin.flush()
    for adder in adders:
        adder.communicate()
        assert adder.returncode == 0
    store = PixelStore(path)
    assert_holds(store, *(image_set(expID=f"{name}{i}") for name in "abc" for i in range(10)))
    assert len(store.verify().verified) == 30
    assert not [*path.parent.rglob("draft-*")]


def test_threads_that_add_at_once_all_succeed(path, first):
    def add(name):
        for i in range(3):
            PixelStore(path, timeout=60).add_exposure(image_set(expID=f"{name}{i}"))

    threads = [threading.Thread(target=add, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(PixelStore(path)) == 13


def test_a_writer_that_is_at_work_is_named(path, first):
    with started(HOLD_THE_LEASE, path) as holder:
        hasty = PixelStore(path, timeout=0.1)
        with pytest.raises(StoreBusyError, match=rf"process {holder.pid} on .*--break-lock"):
            hasty.add_exposure(image_set())
        assert_holds(first, image_set(expID="first"))
        threading.Timer(0.3, holder.stdin.close).start()
        first.add_exposure(image_set())
    assert len(first) == 2


def test_the_lease_of_a_dead_writer_of_this_machine_keeps_nobody(path, first):
    with started(HOLD_THE_LEASE, path) as holder:
        holder.kill()
    began = time.monotonic()
    first.add_exposure(image_set())
    assert time.monotonic() - began < leasing.LEASE_SECONDS / 2
    assert len(PixelStore(path)) == 2


@pytest.mark.parametrize("written", ["", "filelock/2\npid=1\nho", "filelock/2\npid=1\n"])
def test_a_lease_whose_holder_never_wrote_its_name_is_taken_over(written, path, first):
    (path.with_suffix(".shards") / ".commit" / "lease").write_text(written)
    with holding(path, timeout=1.0):
        pass
    first.add_exposure(image_set())
    assert len(PixelStore(path)) == 2


def test_a_writer_that_is_known_to_be_dead_need_not_be_waited_for(path, first):
    lease = path.with_suffix(".shards") / ".commit" / "lease"
    with started(HOLD_THE_LEASE, path) as holder:
        with holding(path, timeout=0.1, break_lease=True):
            assert lease.exists()
        holder.stdin.close()
    first.add_exposure(image_set())
    assert len(PixelStore(path)) == 2


@pytest.mark.parametrize("step", ["_fence", "_claim", "leave_views", "rename"])
def test_a_writer_that_was_stopped_past_its_lease_undoes_nothing(step, path, monkeypatch):
    monkeypatch.setattr(leasing, "LEASE_SECONDS", 1.0)
    store = new_store(path, uniform_set("e1", 1.0), uniform_set("e2", 1.0))
    stopped = started(STOP_BEFORE, path, step, 1.0)
    assert os.WIFSTOPPED(os.waitpid(stopped.pid, os.WUNTRACED)[1])
    store.add_exposure(uniform_set("e2", 2.0))
    store.add_exposure(uniform_set("late", 2.0))
    stopped.send_signal(signal.SIGCONT)
    stopped.communicate()
    # It began anew on what it found, so that the changes of both are there.
    assert stopped.returncode == 0
    found = PixelStore(path, mode="r")
    values = {expID: found.read_exposure("F200W", expID)[0][0, 0] for _, expID in found}
    assert values == {"e1": 3.0, "e2": 2.0, "late": 2.0}
    assert len(found.verify().verified) == 3


def test_a_lease_that_was_lost_in_sleep_is_taken_again(path, first, monkeypatch):
    monkeypatch.setattr(leasing, "LEASE_SECONDS", 0.3)
    place = path.with_suffix(".shards") / ".commit" / "lease"
    with holding(path):
        own = filelock.SoftFileLease(
            place, lease_duration=0.3, poll_interval=0.02, is_singleton=True
        )
        place.unlink()  # as another writer does when it takes it over
        while own.compromise is None:
            time.sleep(0.01)
        first.add_exposure(image_set(expID="second"))
    first.add_exposure(image_set(expID="third"))
    assert len(PixelStore(path)) == 3
    assert not place.exists()


def test_a_handle_on_the_data_follows_the_changes_of_its_own_store(path, first):
    handle = first.data
    assert first.data is handle
    first.add_exposure(image_set(seed=1))
    assert not handle or first.data is not handle
    np.testing.assert_array_equal(
        first.data["F200W/e1/data"][0, 0, :64].reshape(8, 8), image_set(seed=1).im[:8, :8]
    )
    first.close()
    first.close()
    # Other tests may have other files open.
    still_open = h5py.h5f.get_obj_ids(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)
    assert str(path).encode() not in [handle.name for handle in still_open]


def test_opening_and_closing_leaves_no_descriptor(path, first):
    def opened():
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    before = opened()
    for _ in range(200):
        with PixelStore(path, mode="r") as store:
            store.read_window("F200W", "first", (0, 1, 0, 1))
    assert opened() == before
