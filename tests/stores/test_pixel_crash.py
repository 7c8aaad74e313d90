"""A writer killed at any instant leaves the store as it was before or as it is after."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KILLED = -9
BEFORE = {
    "create": [None, {}],  # a store that knows its size comes first
    "add": [{"first": 1.0, "second": 1.0}],
    "replace": [{"first": 1.0, "second": 1.0}],
}
AFTER = {
    "create": {"third": 2.0},
    "add": {"first": 1.0, "second": 1.0, "third": 2.0},
    "replace": {"first": 1.0, "second": 2.0},
}


def crash(*arguments):
    """Run a scenario of `crashing` in its own interpreter and return what it found."""
    command = [sys.executable, "-m", "tests.stores.crashing", *map(str, arguments)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("moment", ["before", "half"])
@pytest.mark.parametrize("action", ["create", "add", "replace"])
def test_killed_at_any_system_call_it_is_old_or_new(action, moment, tmp_path):
    outcomes = crash("steps", tmp_path, action, moment)["outcomes"]
    before, after = BEFORE[action], AFTER[action]
    *deaths, survival = outcomes
    assert survival[:2] == [0, after]
    assert len(deaths) > 8
    states = []
    for status, state, later, files in deaths:
        assert status == KILLED
        assert state in (*before, after)
        assert later == {**(state or {}), "after": 3.0}
        assert files == ["pixels.h5"]
        states.append(state == after)
    # Once the change has happened it stays, and it happens at one of the last steps.
    assert states == sorted(states)


def test_killed_while_undoing_it_is_undone_by_the_next(tmp_path):
    *deaths, survival = crash("rollback", tmp_path)["statuses"]
    assert survival == 0
    assert len(deaths) > 4
    assert set(deaths) == {KILLED}


def test_killed_at_random_moments_nothing_durable_is_lost(tmp_path, long_form):
    n_kills = 200 if long_form else 20
    found = crash("random", tmp_path, n_kills, 1)
    assert found["problems"] == []
    # Kills that always came before or after a change would show nothing.
    assert found["n_changes"] > n_kills
    assert found["n_undone"] > 0
