"""Without space, permission or locks: an error or success, and never half of a change."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.stores.shard_crashing import START
from tests.stores.shard_hardships import CHANGES


def hardship(root, *arguments, **environment):
    """Run a scenario of `shard_hardships` in its own interpreter and return what it met."""
    command = [sys.executable, "-m", "tests.stores.shard_hardships", *map(str, arguments)]
    run = subprocess.run(
        command,
        cwd=root,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, **environment},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout)


@pytest.mark.parametrize("name", CHANGES)
def test_under_any_limit_of_file_size_nothing_is_half_done(name, tmp_path, root):
    results, problems = hardship(root, "limited", tmp_path, name)
    *refused, (_, error, message, _) = results
    assert error == "", message
    assert len(refused) > 1
    for limit, error, message, unchanged in refused:
        assert (error, unchanged) == ("StoreWriteError", True), (limit, error, message)
        assert "File too large" in message or "cannot be written" in message
    assert problems == []


def test_where_nothing_may_be_written_reading_goes_on_and_errors_say_so(root):
    home = Path(tempfile.mkdtemp())
    home.chmod(0o755)
    try:
        results = hardship(root, "unprivileged", home)
    finally:
        shutil.rmtree(home)
    for name, (error, message, unchanged) in results.items():
        assert unchanged, name
        if name.startswith(("read", "verify")):
            assert (error, message) == ("", ""), name
        else:
            assert error == "StoreWriteError", (name, error, message)
            assert "Permission denied" in message


NO_LOCKS = """
#include <errno.h>
int flock(int descriptor, int operation)
{
    (void)descriptor;
    (void)operation;
    errno = ERROR;
    return -1;
}
"""


@pytest.mark.parametrize("error", ["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def test_shared_stores_need_no_locks_of_the_file_system(error, tmp_path, root):
    """As on Lustre without ``flock``, on NFS without a lock daemon, and on some FUSE disks."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler, so flock cannot be replaced in HDF5")
    library = tmp_path / "nolocks.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", f"-DERROR={error}", "-x", "c", "-", "-o", str(library)],
        input=NO_LOCKS,
        text=True,
        check=True,
    )
    met = hardship(root, "without_locks", tmp_path, LD_PRELOAD=str(library))
    before = {**START, "a": 6}
    after = {**before, "single": 0}
    removed = {"a": 6, "c": 3, "single": 0}
    assert met["states"] == [before, after, after, removed, removed]
    assert (met["n_listed"], met["n_meta"]) == (3, 3)
    # Without this the test would not show that HDF5 was without locks.
    assert (met["h5py"] is True) == (error == "ENOSYS")
    assert met["add_exposure"] == ["", ""]
    assert met["problems"] == []
