"""Kills a process at random moments while it rewrites a meta store, and looks at what is left.

Run as a script: prints as JSON which states were seen while the writer lived, which state each
death left, and how many writers had begun to write. A store of two files has a state for each; in
a folder with a pixel store both are of one commit.
"""

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NoReturn

from fpgpu import MetaStore, PixelStore
from tests.sky.made_wcs import sky_gwcs
from tests.stores.metasets import meta_set, write_store
from tests.stores.shardsets import exposure, sharded_store

PLACES = {"old": 10.0, "new": 200.0}
NAMES = [f"e{i}" for i in range(3)]
SHAPE = (16, 16)


def prepare(folder: Path, indexed: bool) -> None:
    """Write one store for each state, whose headers and gWCS tell which it is, and the target."""
    for state, ra in PLACES.items():
        (folder / state).mkdir()
        gwcs = sky_gwcs(ra=ra, shape=SHAPE)
        sets = [meta_set(name, ra=ra, gwcs=gwcs, shape=SHAPE) for name in NAMES]
        write_store(folder / state / "meta.json", *sets)
    (folder / "target").mkdir()
    if indexed:
        sharded_store(folder / "target", *(exposure(expID=name, side=16) for name in NAMES))
    with MetaStore(folder / "old" / "meta.json") as store:
        store.write_to_file(folder / "target" / "meta.json")


def write_for_ever(folder: Path, count: int) -> NoReturn:
    """Write the states in turn, each from what is there, and tell before each."""
    try:
        sources = [MetaStore(folder / state / "meta.json") for state in ("new", "old")]
        for number in range(10_000):
            os.write(count, b".")
            sources[number % 2].write_to_file(folder / "target" / "meta.json")
    finally:
        os._exit(1)


def time_to_write(folder: Path) -> float:
    """Seconds that writing takes on a machine as busy as this one."""
    start = time.perf_counter()
    for state in ("new", "old"):
        with MetaStore(folder / state / "meta.json") as store:
            store.write_to_file(folder / "target" / "meta.json")
    return (time.perf_counter() - start) / 2


def named(places: list[float]) -> str:
    """Name the state that positions are of; of several states, say so."""
    states = {state for state, ra in PLACES.items() for x in places if abs(x - ra) < 1}
    near = all(min(abs(x - ra) for ra in PLACES.values()) < 1 for x in places)
    return states.pop() if len(states) == 1 and near else f"mixed: {places}"


def states_of(path: Path) -> tuple[str, str]:
    """Name the states of headers and of gWCS."""
    with MetaStore(path, use_gwcs=True) as store:
        headers = [store.headers["F200W"][name]["CRVAL1"] for name in NAMES]
        gwcs = [float(store.sky_wcs("F200W", name).pixel_to_world(8, 8)[0]) for name in NAMES]
        if store.state is not None:  # of the index, of the same commit
            gwcs += [float(store.footprint("F200W", name)[:, 0].mean()) for name in NAMES]
        return named(headers), named(gwcs)


def main(folder: Path, n_kills: int, seed: int, indexed: bool) -> None:
    """Kill n writers."""
    rng = random.Random(seed)
    prepare(folder, indexed)
    target = folder / "target" / "meta.json"
    pace = time_to_write(folder)
    states: Counter[str] = Counter()
    n_written = n_whole = 0
    for _ in range(n_kills):
        reading, writing = os.pipe()
        writer = os.fork()
        if writer == 0:
            write_for_ever(folder, writing)
        n_written += len(os.read(reading, 1))
        time.sleep(rng.uniform(0, 2 * pace))
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        os.close(reading)
        os.close(writing)
        found = states_of(target)
        states[" ".join(sorted(set(found)))] += 1
        n_whole += found[0] == found[1]
        if indexed:
            with PixelStore(folder / "target" / "pixels.h5", mode="r") as pixels:
                assert len(pixels.verify().verified) == len(NAMES)
    for state in ("new", "old"):  # life goes on
        with MetaStore(folder / state / "meta.json") as store:
            store.write_to_file(target)
        assert states_of(target) == (state, state)
    names = [path.name for path in (folder / "target").iterdir()]
    left = {name: 1 for name in sorted(names) if not name.endswith((".part.json", ".part.asdf"))}
    print(json.dumps({"states": states, "written": n_written, "whole": n_whole, "left": [*left]}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "indexed")
