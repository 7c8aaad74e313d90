"""Killed at any moment, by whatever executor, a run loses nothing that it has reported."""

import json
import subprocess
import sys

import pytest

from tests.ingest.clusters import ROOT, mpi_command

# How each kind of run is started; kills in the quick form and in the long one.
KINDS = {
    "fork": (6, 110),
    "processes": (1, 15),
    "dask": (3, 50),
    "mpi": (2, 25),
}


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", KINDS)
def test_a_store_survives_and_a_resumed_run_completes_it(kind, long_form, tmp_path):
    if kind == "mpi":
        mpi_command(3)  # skips where there is none
    if kind == "dask":
        pytest.importorskip("distributed")
    n_kills = KINDS[kind][long_form]
    done = subprocess.run(
        [sys.executable, "-m", "tests.ingest.killing", kind, str(tmp_path), str(n_kills), "7"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["problems"] == []
    assert found["counts"].get("new", 0) + found["counts"].get("replaced", 0) == n_kills
    if long_form:
        # The moments were well chosen: many died with some exposures reported and others not.
        assert found["counts"]["in between"] > n_kills // 4
        assert found["counts"]["worker killed"] > 0
