"""Without space or permission an ingest says so, loses nothing, and can be completed later."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.ingest.clusters import ROOT


def hardship(scenario, *arguments):
    """Run a scenario of `tests.ingest.hardships`."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.ingest.hardships", scenario, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.timeout(1800)
def test_under_any_limit_of_file_size_nothing_is_lost(tmp_path, long_form):
    found = hardship("limited", tmp_path, 2000 if long_form else 25000)
    assert found["problems"] == []
    met = {error for _, error, _ in found["results"]}
    assert met == {"StoreWriteError", ""}
    for where, error, message in found["results"]:
        assert not error or "File too large" in message, (where, message)
    # Some limits let shards through, but not what lists them.
    assert any("pixels.shards" not in message for _, error, message in found["results"] if error)


def test_a_folder_that_is_or_turns_read_only_is_told_and_nothing_is_lost():
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        found = hardship("read_only", folder)
    finally:
        shutil.rmtree(folder)
    assert found["problems"] == []
    for where, error, message in found["results"]:
        assert error == "StoreWriteError", (where, error, message)
        assert "Permission denied" in message, where


def test_on_a_full_disk_nothing_is_lost(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True, text=True
    )
    if mount.returncode:
        pytest.skip(f"a small disk cannot be mounted here ({mount.stderr.strip()})")
    try:
        found = hardship("filled", tmp_path, disk)
    finally:
        subprocess.run(["umount", disk], check=True)
    assert found["problems"] == []
    errors = [error for _, error, _ in found["results"]]
    assert set(errors) == {"StoreWriteError", ""}
    for where, error, message in found["results"]:
        assert not error or "No space left" in message, (where, message)
