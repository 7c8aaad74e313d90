"""A process killed at any step of a change leaves the old files or the new ones."""

import json
import subprocess
import sys

import pytest

# Runs in its own interpreter, which forks a writer for every step and kills it there.
WRITER = """
import json, os, signal, sys
from pathlib import Path
from fpgpu.stores.files import publish as files
from fpgpu.stores.files.publish import publish, recover, scratch_folder, write_beside

folder, mode = Path(sys.argv[1]), sys.argv[2]
STEPS = ["replace", "fsync", "unlink", "mkdir", "rmdir", "close"]
OLD = {"a": "old a", "b": "old b", "gone": "old gone"}
NEW = {"a": "new a", "b": "new b", "c": "new c"} if mode == "several" else {**OLD, "a": "new a"}


def kill_at(step):
    calls = 0

    def counted(real):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)
        return call

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))


def change():
    if mode == "one":
        with write_beside(folder / "a") as temporary:
            temporary.write_text(NEW["a"])
        return
    with scratch_folder(folder) as scratch:
        for name, text in NEW.items():
            (scratch / name).write_text(text)
        publish({**{folder / n: scratch / n for n in NEW}, folder / "gone": None})


def visible():
    return {p.name: p.read_text() for p in folder.iterdir() if not p.name.startswith(".")}


def hidden():
    return [p.name for p in folder.iterdir() if p.name.startswith(".")]


outcomes = []
for step in range(1, 1000):
    for path in folder.iterdir():
        path.unlink()
    for name, text in OLD.items():
        (folder / name).write_text(text)
    child = os.fork()
    if child == 0:
        kill_at(step)
        change()
        os._exit(0)
    killed = os.waitpid(child, 0)[1] != 0
    seen = visible()
    recover(folder)
    after = visible()
    with write_beside(folder / "next") as temporary:
        temporary.touch()
    (folder / "next").unlink()
    state = "old" if after == OLD else "new" if after == NEW else f"mixed {after}"
    outcomes.append([state, seen in (OLD, NEW), hidden()])
    if not killed:
        break
print(json.dumps(outcomes))
"""


def outcomes(tmp_path, mode):
    """State after each kill: old or new, whether it was whole before recovery, leftovers."""
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path), mode],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("mode", ["one", "several"])
def test_a_kill_at_any_step_leaves_all_old_or_all_new(tmp_path, mode):
    results = outcomes(tmp_path, mode)
    states = [state for state, _, _ in results]
    n_old = states.count("old")
    assert 0 < n_old < len(states)
    assert states == ["old"] * n_old + ["new"] * (len(states) - n_old)
    assert states[-1] == "new"
    assert [leftovers for _, _, leftovers in results] == [[]] * len(results)


def test_one_file_needs_no_recovery_to_be_whole(tmp_path):
    assert all(whole for _, whole, _ in outcomes(tmp_path, "one"))


def test_the_kills_do_hit_a_half_done_change_of_several(tmp_path):
    """Without this the other tests would not show that recovery is needed."""
    assert not all(whole for _, whole, _ in outcomes(tmp_path, "several"))
