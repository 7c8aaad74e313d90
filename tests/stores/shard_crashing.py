"""Processes that die while they change sharded stores, and the check of what they leave.

Run as a script it forks a writer for many steps of a change, or kills writers at random moments,
and prints what it found as JSON; one interpreter start serves hundreds of deaths.
"""

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from fpgpu import MetaStore, PixelStore
from fpgpu.errors import FpgpuError
from fpgpu.stores.shard import write_shard
from fpgpu.stores.upkeep.forms import consolidate, split
from fpgpu.stores.upkeep.merge import merge
from fpgpu.stores.upkeep.remove import remove
from fpgpu.stores.upkeep.repair import repair
from fpgpu.stores.upkeep.verify import verify
from tests.stores.crashing import die_at, in_child
from tests.stores.shardsets import exposure, sharded_store, single_store
from tests.stores.shardsets import publish as publish_all

SIDE = 16
Generations = dict[str, int]


def made(name: str, generation: int = 0) -> Any:
    """Make an exposure whose pixels and header tell its generation."""
    return exposure("F200W", name, seed=generation, side=SIDE)


def generations(folder: Path) -> Generations:
    """Return the generation of each exposure; fails where pixels and header differ."""
    found = {}
    with PixelStore(folder / "pixels.h5", mode="r") as pixels, MetaStore(folder / "meta.json") as m:
        assert sorted(pixels) == sorted(m), (sorted(pixels), sorted(m))
        for band, expID in pixels:
            generation = round(m.headers[band][expID]["CRVAL1"] - 53)
            im, ierr = pixels.read_exposure(band, expID)
            expected = made(expID, generation)
            np.testing.assert_array_equal(im, expected.im)
            np.testing.assert_array_equal(ierr, expected.ierr)
            found[expID] = generation
    return found


def publish(folder: Path) -> None:
    """Add, replace and remove at once."""
    shards = [write_shard(folder, made(name, 7), shape=SIDE) for name in ("a", "new/x")]
    publish_all(folder, shards, removed=[("F200W", "v/b")])


def take_in(folder: Path) -> None:
    """Merge a folder that lies beside into this one."""
    merge([folder.with_name("other")], folder)


START = {"a": 1, "v/b": 2, "c": 3}
AFTER_PUBLISH = {"a": 7, "c": 3, "new/x": 7}
AFTER_REMOVE = {"v/b": 2, "c": 3}
AFTER_MERGE = {**START, "d": 4, "e": 5}
ACTIONS: dict[str, tuple[bool, Callable[[Path], Any], Generations]] = {
    "publish": (True, publish, AFTER_PUBLISH),
    "publish onto a single file": (False, publish, AFTER_PUBLISH),
    "consolidate": (True, consolidate, START),
    "repack": (False, consolidate, START),
    "split": (False, split, START),
    "remove": (True, lambda folder: remove(folder, ["*/a"]), AFTER_REMOVE),
    "remove from a single file": (False, lambda folder: remove(folder, ["*/a"]), AFTER_REMOVE),
    "merge": (True, take_in, AFTER_MERGE),
}


def start(folder: Path, sharded: bool) -> None:
    """Make the store that is changed, and one beside it to be merged."""
    sets = [made(name, generation) for name, generation in START.items()]
    (sharded_store if sharded else single_store)(folder, *sets)
    sharded_store(folder.with_name("other"), made("d", 4), made("e", 5))


def die_at_steps(home: Path, action: str, first: int, stride: int) -> dict[str, Any]:
    """Kill a writer at some of the system calls of a change and look at what each death left."""
    sharded, change, _ = ACTIONS[action]
    start(home / "template", sharded)
    folder = home / "stores"
    outcomes = []
    for step in range(first, 100_000, stride):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(home / "template", folder, copy_function=shutil.copy)

        def work(step: int = step) -> None:
            die_at(step)
            change(folder)

        status = in_child(work)
        state = generations(folder)
        kinds = sorted({problem.kind for problem in verify(folder).problems})
        repair(folder)
        mended = verify(folder)
        kept = [problem.what for problem in mended.problems if problem.kind != "orphan"]
        repair(folder, delete_orphans=True)
        shard = write_shard(folder, made("later", 9), shape=SIDE)
        publish_all(folder, [shard])
        again = generations(folder)
        outcomes.append([status, state, kinds, kept, again, verify(folder).ok, hidden(folder)])
        if status == 0:
            break
    return {"outcomes": outcomes}


def hidden(folder: Path) -> list[str]:
    """List what should not be in a folder that nobody is changing."""
    return [
        str(p)
        for p in folder.rglob("*")
        if (p.name.startswith(".") and p.name != ".commit") or "draft" in p.name
    ]


def keep_changing(folder: Path, kill: int, writer: int) -> NoReturn:
    """Add and replace until killed, telling what is about to change and what has."""
    try:
        for number in range(10_000):
            generation = 1000 * kill + number + 1
            names = [f"e{(kill + number + i) % 7}" for i in range(2)]
            told = " ".join(f"{name}={generation}" for name in names)
            os.write(writer, f"begin {told}\n".encode())
            shards = [write_shard(folder, made(name, generation), shape=SIDE) for name in names]
            publish_all(folder, shards)
            os.write(writer, f"durable {told}\n".encode())
            if number % 5 == 4:
                (consolidate if number % 2 else split)(folder)
    finally:
        os._exit(1)


def kill_at_random(folder: Path, n_kills: int, seed: int) -> dict[str, Any]:
    """Kill a writer that changes the store all the time, again and again; count what is lost."""
    rng = random.Random(seed)
    durable: Generations = {}
    problems: list[str] = []
    n_changes = 0
    for kill in range(n_kills):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            keep_changing(folder, kill, writer)
        os.close(writer)
        with os.fdopen(reader) as told:
            lines = [told.readline() for _ in range(rng.randint(1, 5))]
            time.sleep(rng.uniform(0.0, 0.1))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            lines += told.readlines()
        pending: Generations = {}
        for line in lines:
            word, *pairs = line.split()
            change = {name: int(n) for name, n in (pair.split("=") for pair in pairs)}
            if word == "begin":
                pending = change
            else:
                durable |= change
                pending = {}
                n_changes += 1
        try:
            found = generations(folder) if (folder / "pixels.h5").exists() else {}
            if found not in (durable, {**durable, **pending}):
                problems.append(f"kill {kill}: found {found}, durable {durable}, {pending=}")
            durable = found
            if kill % 10 == 9:
                repair(folder, delete_orphans=True)
                if not verify(folder).ok or generations(folder) != durable:
                    problems.append(f"kill {kill}: {verify(folder).problems}")
        except (FpgpuError, AssertionError) as exc:
            problems.append(f"kill {kill}: {exc!r}")
    return {"problems": problems, "n_changes": n_changes}


def copied(folder: Path, n_copies: int) -> list[Any]:
    """Copy a store that another process changes all the time; tell its states and the copies'."""
    programs = [found for name, found in COPIES.items() if shutil.which(name)]
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        keep_changing(folder, 0, writer)
    os.close(writer)
    found: list[Any] = []
    with os.fdopen(reader) as told:
        lines = [told.readline() for _ in range(2)]
        for n in range(n_copies):
            copy = folder.with_name(f"copy {n}")
            copy.mkdir()
            # They complain of files that go while they look.
            command = ["sh", "-c", programs[n % len(programs)], "sh", folder, copy]
            subprocess.run(command, stderr=subprocess.DEVNULL)
            try:
                found.append(generations(copy))
            except FpgpuError as exc:
                found.append(str(exc))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        lines += told.readlines()
    states: list[Generations] = [{}]
    for line in lines:
        word, *pairs = line.split()
        if word == "begin":
            change = {name: int(n) for name, n in (pair.split("=") for pair in pairs)}
            states.append({**states[-1], **change})
    return [states, found]


COPIES = {
    "cp": 'cp -r "$1/." "$2"',
    "tar": 'tar -C "$1" -c . | tar -C "$2" -x',
    "rsync": 'rsync -a "$1/" "$2"',
}


def main() -> None:
    """Run one of the scenarios in a folder."""
    logging.disable(logging.WARNING)
    scenario, folder, *rest = sys.argv[1:]
    if scenario == "steps":
        result: Any = die_at_steps(Path(folder), rest[0], int(rest[1]), int(rest[2]))
    elif scenario == "copies":
        result = copied(Path(folder), int(rest[0]))
    else:
        result = kill_at_random(Path(folder), int(rest[0]), int(rest[1]))
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
