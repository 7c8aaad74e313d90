"""Random damage to meta and PSF files: an error of fpgpu or a usable store, never anything else."""

import json
import subprocess
import sys

import pytest

COUNTS = {
    "json": (24, 2000),
    "json, time kept": (15, 1000),
    "sidecar": (15, 1000),
    "sidecar, forged": (12, 1000),
    "asdf": (16, 2000),
    "asdf, time kept": (12, 1000),
    "psf": (60, 5000),
}


@pytest.mark.parametrize("kind", COUNTS)
@pytest.mark.timeout(1200)
def test_damaged_files_never_do_worse_than_an_error_of_fpgpu(kind, tmp_path, long_form, root):
    count = COUNTS[kind][long_form]
    done = subprocess.run(
        [sys.executable, "-m", "tests.stores.damage", kind, str(tmp_path), str(count), "1"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"the interpreter died: {done.stderr[-2000:]}"
    result = json.loads(done.stdout)
    assert result["surprises"] == []
    assert sum(result["outcomes"].values()) == count
    if kind == "sidecar":
        assert result["outcomes"] == {"used": count}
    elif kind == "sidecar, forged":
        assert result["outcomes"]["refused"] > 0  # a sidecar that is whole is believed
    else:
        assert result["outcomes"]["refused"] > count // 4
