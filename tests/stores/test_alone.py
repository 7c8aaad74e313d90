"""One writer at a time in a folder, whose lock needs nothing that NFS or Lustre lack."""

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from fpgpu.errors import StoreBusyError, StoreWriteError
from fpgpu.stores import alone
from fpgpu.stores.alone import LOCK_NAME, alone_in

HOLD = """
import sys, time
from pathlib import Path
from fpgpu.stores.alone import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""

KILLED = """
import os, signal
def kill(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
os.{call} = kill
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), "60"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def owned_by(folder, **changes):
    """Leave a lock as another writer would."""
    with alone_in(folder):
        content = json.loads((folder / LOCK_NAME).read_text())
    (folder / LOCK_NAME).write_text(json.dumps(content | {"token": "theirs"} | changes))
    return folder / LOCK_NAME


def test_a_second_writer_is_told_who_is_in_the_way_and_what_to_do(tmp_path, holder):
    start = time.monotonic()
    with pytest.raises(StoreBusyError) as caught, alone_in(tmp_path):
        pass
    assert time.monotonic() - start < 5
    message = str(caught.value)
    assert f"process {holder.pid} on {socket.gethostname()} since 20" in message
    assert re.search(r"last sign of life \d+ s ago", message)
    assert "--break-lock" in message


def test_a_folder_is_free_afterwards_and_holds_no_trace(tmp_path):
    for _ in range(2):
        with alone_in(tmp_path):
            assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_writer_is_no_obstacle(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert (tmp_path / LOCK_NAME).exists()
    with alone_in(tmp_path) as lock:
        lock.check()
    assert list(tmp_path.iterdir()) == []


def test_nor_is_that_of_a_killed_writer_whose_parent_has_not_noticed(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with alone_in(tmp_path):
                return
        except StoreBusyError:
            time.sleep(0.01)
    pytest.fail("the lock of a zombie was respected")


def test_a_process_number_that_is_used_again_is_not_the_owner(tmp_path):
    owned_by(tmp_path, started="1")
    with alone_in(tmp_path) as lock:
        lock.check()


def test_on_another_machine_the_sign_of_life_decides(tmp_path):
    path = owned_by(tmp_path, machine="another", host="node7", pid=1)
    with pytest.raises(StoreBusyError, match="process 1 on node7"), alone_in(tmp_path):
        pass
    old = time.time() - alone.STALE_AFTER - 10
    os.utime(path, (old, old))
    with alone_in(tmp_path) as lock:
        lock.check()


def test_a_lock_without_a_name_is_respected_while_it_is_fresh(tmp_path):
    """Its owner may be about to write into it."""
    path = tmp_path / LOCK_NAME
    path.touch()
    with pytest.raises(StoreBusyError, match="did not say its name"), alone_in(tmp_path):
        pass
    os.utime(path, (0, 0))
    with alone_in(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["write", "fsync", "link", "close"])
def test_a_writer_killed_while_it_takes_the_lock_is_no_obstacle(tmp_path, call):
    killed = subprocess.run(
        [sys.executable, "-c", KILLED.format(call=call) + HOLD, str(tmp_path), "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with alone_in(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lacking", ["nameless files", "links"])
def test_a_file_system_that_can_do_less_will_do(tmp_path, monkeypatch, lacking):
    real = os.open

    def refuse(path, flags, *args, **kwargs):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported", str(path))
        return real(path, flags, *args, **kwargs)

    def refuse_link(*args, **kwargs):
        raise OSError(errno.EPERM, "Operation not permitted")

    if lacking == "links":
        monkeypatch.setattr(os, "link", refuse_link)
    else:
        monkeypatch.setattr(os, "open", refuse)
    with alone_in(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()
        with pytest.raises(StoreBusyError, match=f"process {os.getpid()} on"), alone_in(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_long_run_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(alone, "HEARTBEAT", 0.01)
    with alone_in(tmp_path):
        path = tmp_path / LOCK_NAME
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 0


def test_a_writer_whose_lock_was_broken_stops_and_leaves_the_new_one_alone(tmp_path):
    with alone_in(tmp_path) as first:
        with alone_in(tmp_path, break_lock=True) as second:
            second.check()
            with pytest.raises(StoreBusyError, match=r"taken for dead.*--resume"):
                first.check()
        with pytest.raises(StoreBusyError, match="taken for dead"):
            first.check()
        foreign = owned_by(tmp_path, machine="another")
    assert foreign.exists()


def test_breaking_takes_only_the_lock_that_was_looked_at(tmp_path):
    """Of two that break the same dead lock, the slower one must not remove that of the faster."""
    path = owned_by(tmp_path, started="1")
    dead = alone._owner_of(path)
    path.unlink()
    with alone_in(tmp_path) as faster:
        alone._break(path, dead)
        faster.check()
    assert list(tmp_path.iterdir()) == []


def test_many_that_come_at_once_are_never_two(tmp_path):
    """Each adds one to a number that it reads and writes without any other care."""
    count = """
import sys, time
from pathlib import Path
from fpgpu.errors import StoreBusyError
from fpgpu.stores.alone import alone_in
folder = Path(sys.argv[1])
for _ in range(10):
    while True:
        try:
            with alone_in(folder):
                n = int((folder / "n").read_text())
                time.sleep(0.002)
                (folder / "n").write_text(str(n + 1))
            break
        except StoreBusyError:
            time.sleep(0.001)
"""
    (tmp_path / "n").write_text("0")
    runs = [subprocess.Popen([sys.executable, "-c", count, str(tmp_path)]) for _ in range(4)]
    assert [run.wait(timeout=100) for run in runs] == [0] * 4
    assert (tmp_path / "n").read_text() == "40"
    assert [path.name for path in tmp_path.iterdir()] == ["n"]


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreWriteError, match="file"), alone_in(tmp_path / "file" / "stores"):
        pass


def test_a_folder_made_for_nothing_is_removed_again(tmp_path):
    with alone_in(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()
    assert not (tmp_path / "new").exists()


def test_a_lock_that_cannot_be_removed_hides_no_error(tmp_path, monkeypatch, caplog):
    """As in a folder that turned read-only, which is what the block has met, too."""

    def refuse(self, missing_ok=False):
        raise PermissionError(13, "Permission denied")

    def work():
        with alone_in(tmp_path):
            monkeypatch.setattr("pathlib.Path.unlink", refuse)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    monkeypatch.undo()
    assert "cannot be removed" in caplog.text
