"""A copy made while a store changes is one state of it, or says what it lacks: no mixture."""

import json
import os
import random
import subprocess
import sys

import asdf
import pytest

from fpgpu import MetaStore
from fpgpu.errors import FpgpuError
from fpgpu.stores.upkeep.remove import remove
from fpgpu.stores.upkeep.verify import verify
from tests.stores.imagesets import files_in
from tests.stores.powercut import lay_out, recorded
from tests.stores.shardsets import sharded_store
from tests.stores.test_power import add, held, ingest, made, tweak

PARTS = ("pixels.h5", "meta.json", "meta.asdf", "pixels.shards/.commit", "pixels.shards/F200W")
STEPS = [
    lambda folder: ingest(folder, made("a", 7)),
    lambda folder: ingest(folder, made("c", 3), made("b", 4)),
    lambda folder: ingest(folder, made("a", 8)),
    tweak,
    lambda folder: remove(folder, ["*/b"]),
    lambda folder: add(folder, made("a", 9)),
]


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """What a folder held before every step of a series of commits, and the states of its store."""
    home = tmp_path_factory.mktemp("home")
    sharded_store(home, made("a", 1), made("b", 2))
    states = [held(home)]

    def change(folder):
        for step in STEPS:
            step(folder)
            states.append(held(folder))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)  # no power fails here
        return [instant.seen() for instant in recorded(home, change)], states


def test_a_copy_after_a_kill_at_any_step_is_a_state(history, tmp_path, long_form):
    moments, states = history
    for tree in moments[:: 1 if long_form else 5]:
        lay_out(tree, tmp_path / "copy")
        assert held(tmp_path / "copy") in states


def test_a_copy_of_every_file_at_another_moment_is_a_state_or_lacks_a_file(
    history, tmp_path, long_form
):
    moments, states = history
    chance = random.Random(1)
    n_whole = 0
    for n in range(3000 if long_form else 100):
        tree = {"pixels.shards": None}
        for part in PARTS:
            found = chance.choice(moments)
            tree |= {name: found[name] for name in found if f"{name}/".startswith(f"{part}/")}
        lay_out(tree, tmp_path / "copy")
        try:
            state = held(tmp_path / "copy")
        except FpgpuError as exc:
            told = str(exc)
            assert "put it back" in told or "open the store again" in told
        else:
            n_whole += 1
            assert state in states
            if n % 10 == 0:  # a commit takes nothing of another moment over
                add(tmp_path / "copy", made("later", 9))
                assert held(tmp_path / "copy").items() >= state.items()
    assert n_whole > 10


def test_copies_by_programs_while_another_process_commits(tmp_path, root, long_form):
    n_copies = 60 if long_form else 8
    command = [sys.executable, "-m", "tests.stores.shard_crashing", "copies"]
    run = subprocess.run(
        [*command, tmp_path / "stores", str(n_copies)],
        cwd=root, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    states, found = json.loads(run.stdout)
    assert len(found) == n_copies
    for copy in found:
        assert copy in states if isinstance(copy, dict) else "put it back" in copy
    assert any(isinstance(copy, dict) for copy in found)


@pytest.mark.parametrize("way", ["moved", "behind a link", "read-only"])
def test_elsewhere_it_is_the_same_store(way, history, tmp_path):
    moments, states = history
    home, there = tmp_path / "home", tmp_path / "deep" / "there"
    there.parent.mkdir()
    lay_out(moments[-1], home)
    if way == "behind a link":
        there.symlink_to(home)
    else:
        home.rename(there)
    paths = [there, *there.rglob("*")] if way == "read-only" else []
    before = files_in(there)
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert held(there) == states[-1]
        assert {problem.kind for problem in verify(there, wcs=False).problems} <= {"view"}
        assert files_in(there) == before
    finally:
        for path in paths:
            path.chmod(0o755)
    add(there, made("later", 9))
    assert held(there).keys() == states[-1].keys() | {("F200W", "later")}


def test_a_view_that_was_edited_or_is_of_another_store_is_a_users_file(tmp_path):
    one, other = (tmp_path / name / "meta.json" for name in ("one", "other"))
    sharded_store(one.parent, made("a", 1))
    sharded_store(other.parent, made("a", 2))

    def crval():
        with MetaStore(one) as meta:
            return meta.headers["F200W"]["a"]["CRVAL1"]

    view = one.read_text()
    assert crval() == 54.0
    one.write_text(view.replace("54.0", "54.5"))
    assert crval() == 54.5
    one.write_bytes(other.read_bytes())
    assert crval() == 55.0
    one.write_text(view)
    assert crval() == 54.0
    with asdf.open(one.with_suffix(".asdf")) as file:  # as forcepho does
        assert file["F200W"]["a"](0, 0)[0] == pytest.approx(54.125, abs=1e-3)
