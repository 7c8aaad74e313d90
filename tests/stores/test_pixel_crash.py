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
def test_killed_at_any_system_call_it_is_old_or_new(action, moment, tmp_path, long_form):
    first, stride = (1, 1) if long_form else (1 + sorted(BEFORE).index(action), 4)
    outcomes = crash("steps", tmp_path, action, first, stride, moment)["outcomes"]
    before, after = BEFORE[action], AFTER[action]
    *deaths, survival = outcomes
    assert survival[:2] == [0, after]
    assert len(deaths) > 4
    states = []
    for status, state, later, left in deaths:
        assert status == KILLED
        assert state in (*before, after)
        assert later == {**(state or {}), "after": 3.0}
        assert left == []
        states.append(state == after)
    # Once the change has happened it stays.
    assert states == sorted(states)


def test_killed_at_random_moments_nothing_durable_is_lost(tmp_path, long_form):
    n_kills = 200 if long_form else 10
    found = crash("random", tmp_path, n_kills, 1)
    assert found["problems"] == []
    # Kills that always came before or after a change would show nothing.
    assert found["n_changes"] > n_kills
    assert found["n_begun"] > 0
