"""Killed at any moment of any change, a sharded store is as before or as after."""

import json
import subprocess
import sys

import pytest

from tests.stores.shard_crashing import ACTIONS, START

KILLED = -9


def crash(root, *arguments):
    """Run a scenario of `shard_crashing` in its own interpreter and return what it found."""
    command = [sys.executable, "-m", "tests.stores.shard_crashing", *map(str, arguments)]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout)


@pytest.mark.parametrize("action", ACTIONS)
def test_killed_at_any_system_call_it_is_old_or_new(action, tmp_path, root, long_form):
    first, stride = (1 + sorted(ACTIONS).index(action), 3 if long_form else 23)
    *deaths, survival = crash(root, "steps", tmp_path, action, first, stride)["outcomes"]
    _, _, after = ACTIONS[action]
    assert survival[:2] == [0, after]
    assert len(deaths) > 2
    states = []
    for status, state, kinds, kept, again, is_sound, hidden in [*deaths, survival]:
        assert status == KILLED or state == after
        assert state in (START, after)
        # What is left lies beside the store and can be told; it goes without harm.
        assert set(kinds) <= {"orphan", "leftover", "view"}
        assert kept == []
        # New shards that were not published yet may go in when mended: nothing durable is lost.
        assert {**again, **state} == again
        assert is_sound
        assert hidden == []
        states.append(state == after)
    if after != START:
        assert states == sorted(states)
        assert not states[0]


def test_killed_at_random_moments_nothing_durable_is_lost(tmp_path, root, long_form):
    found = crash(root, "random", tmp_path / "stores", 100 if long_form else 10, 1)
    assert found["problems"] == []
    assert found["n_changes"] > 5
