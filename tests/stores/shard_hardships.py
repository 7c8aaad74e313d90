"""Changes of sharded stores without space, permission or locks, each in a process of its own.

Run as a script; prints what the changes met as JSON.
"""

import json
import logging
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py

from fpgpu import MetaStore, PixelStore
from fpgpu.stores.shard import read_shard, write_shard
from fpgpu.stores.upkeep.forms import consolidate, split
from fpgpu.stores.upkeep.remove import remove
from fpgpu.stores.upkeep.repair import repair
from fpgpu.stores.upkeep.verify import verify
from tests.stores.hardships import NOBODY, kept, met_in_child
from tests.stores.shard_crashing import SIDE, START, generations, made, start, take_in
from tests.stores.shardsets import publish as publish_all


def write(folder: Path) -> None:
    """Write a shard."""
    write_shard(folder, made("new", 5), shape=SIDE)


def publish(folder: Path) -> None:
    """Publish the shard that lies there."""
    publish_all(folder, [read_shard(next((folder / "pixels.shards").rglob("z-*.h5")))])


CHANGES: dict[str, tuple[bool, Callable[[Path], Any]]] = {
    "write": (True, write),
    "publish": (True, publish),
    "consolidate": (True, consolidate),
    "split": (False, split),
    "remove": (True, lambda folder: remove(folder, ["*/a"])),
    "remove from a single file": (False, lambda folder: remove(folder, ["*/a"])),
    "merge": (True, take_in),
}


def limited(home: Path, name: str) -> list[Any]:
    """Make a change under limits of file size; tell errors and whether anything was changed."""
    sharded, change = CHANGES[name]
    folder = home / "stores"
    start(folder, sharded)
    if name == "publish":
        write_shard(folder, made("z", 5), shape=SIDE)
    before = kept(folder)
    results = []
    for limit in [100, 1000, 4000, 9000, 1 << 30]:

        def work(limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            change(folder)

        error, message = met_in_child(work)
        # Records that no commit names may lie beside the store; `verify` tells of them.
        after = kept(folder)
        unchanged = {name: after.get(name) for name in before} == before
        results.append([limit, error, message, unchanged])
        if not error:
            break
    sound = verify(folder)
    return [results, [str(p) for p in sound.problems if p.kind != "orphan"]]


def unprivileged(home: Path) -> dict[str, Any]:
    """Read and change stores in a folder that may only be read."""
    results: dict[str, Any] = {}

    def attempt(folder: Path, work: Callable[[], Any]) -> list[Any]:
        def drop_and_work() -> None:
            if os.getuid() == 0:
                os.setuid(NOBODY)
            work()

        before = kept(folder)
        met = met_in_child(drop_and_work)
        return [*met, kept(folder) == before]

    for name, (sharded, change) in CHANGES.items():
        folder = home / name.replace(" ", "-") / "stores"
        start(folder, sharded)
        if name == "publish":
            write_shard(folder, made("z", 5), shape=SIDE)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        results[name] = attempt(folder, lambda folder=folder, change=change: change(folder))
        results[f"read: {name}"] = attempt(folder, lambda folder=folder: generations(folder))
        results[f"verify: {name}"] = attempt(folder, lambda folder=folder: verify(folder).as_dict())
        results[f"repair: {name}"] = attempt(folder, lambda folder=folder: repair(folder))
    return results


def without_locks(home: Path) -> dict[str, Any]:
    """Do all that a survey does where every call of flock is answered by an error."""
    folder = home / "stores"
    shards = [write_shard(folder, made(name, n), shape=SIDE) for name, n in START.items()]
    publish_all(folder, shards)
    publish_all(folder, [write_shard(folder, made("a", 6), shape=SIDE)])
    states = [generations(folder)]
    with PixelStore(folder / "pixels.h5", mode="r") as pixels:
        n_listed = len(pixels.data["F200W"])
    try:
        h5py.File(folder / "pixels.h5", "r").close()
        has_locks = True
    except OSError as exc:
        has_locks = f"errno = {exc.errno}" if exc.errno else str(exc)
    error, message = met_in_child(
        lambda: PixelStore(folder / "pixels.h5").add_exposure(made("single"))
    )
    problems = [str(p) for p in verify(folder).problems if p.kind != "view"]
    for change in (consolidate, split, lambda folder: remove(folder, ["*/v/*"]), repair):
        change(folder)
        states.append(generations(folder))
    with MetaStore(folder / "meta.json") as meta:
        n_meta = len(meta)
    return {
        "states": states,
        "n_listed": n_listed,
        "n_meta": n_meta,
        "h5py": has_locks,
        "add_exposure": [error, message],
        "problems": problems,
    }


def main() -> None:
    """Run one of the scenarios in a folder."""
    logging.disable(logging.WARNING)
    scenario, folder, *rest = sys.argv[1:]
    run = {"limited": limited, "unprivileged": unprivileged, "without_locks": without_locks}
    sys.stdout.write(json.dumps(run[scenario](Path(folder), *rest)))


if __name__ == "__main__":
    main()
