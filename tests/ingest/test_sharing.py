"""Several runs and one store folder: none loses what another one adds."""

import subprocess
import sys
import time

import pytest

from fpgpu import MetaStore, PixelStore
from fpgpu.errors import StoreBusyError
from fpgpu.ingest.pipeline import ingest
from tests.stores.shardsets import held


@pytest.fixture
def files(golden):
    return sorted((golden / "tiny").glob("exp_*.fits.gz"))


def test_two_runs_at_once_both_complete_or_one_is_refused(files, tmp_path):
    out = tmp_path / "stores"
    commands = [
        [sys.executable, "-m", "fpgpu", "ingest", *map(str, part), "--out", str(out), "-q"]
        for part in (files[:3], files[3:])
    ]
    runs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    outputs = [run.communicate(timeout=120) for run in runs]
    codes = [run.returncode for run in runs]
    assert sorted(codes) in ([0, 0], [0, 2])
    for code, (_, err) in zip(codes, outputs, strict=True):
        assert (code == 2) == ("another process is changing this store" in err)
    with PixelStore(out / "pixels.h5") as pixels, MetaStore(out / "meta.json") as meta:
        assert len(pixels) == 3 * codes.count(0)
        assert sorted(pixels) == sorted(meta)


def test_a_folder_in_use_is_refused_at_once_and_is_free_afterwards(files, tmp_path):
    with held(tmp_path):
        start = time.monotonic()
        with pytest.raises(StoreBusyError, match="another process is changing this store"):
            ingest(files[:1], tmp_path)
        assert time.monotonic() - start < 5
    assert ingest(files[:1], tmp_path).ok
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_where_nothing_went_in_no_folder_is_left(tmp_path):
    report = ingest([tmp_path / "missing.fits"], tmp_path / "stores")
    assert not report.ok
    assert not (tmp_path / "stores").exists()


def test_what_one_store_refuses_is_in_neither(files, tmp_path):
    """Stores that disagree, as when one of them was put back from an older copy."""
    ingest(files[:1], tmp_path, framedir=files[0].parent)
    (tmp_path / "pixels.h5").unlink()
    (tmp_path / "exp_f090w_00").mkdir()
    inside = tmp_path / "exp_f090w_00" / files[0].name
    inside.write_bytes(files[0].read_bytes())
    report = ingest([inside], tmp_path, framedir=tmp_path)
    assert [row.status for row in report.rows] == ["refused"]
    assert "would lie inside" in report.rows[0].reason
    assert not (tmp_path / "pixels.h5").exists()
