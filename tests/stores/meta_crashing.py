"""Kills a process at random moments while it rewrites a meta store, and looks at what is left.

Run as a script: prints as JSON which states were seen while the writer lived, which state each
death left, and how many writers had begun to write.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from fpgpu import MetaStore
from tests.sky.made_wcs import sky_gwcs
from tests.stores.metasets import meta_set, write_store

PLACES = {"old": 10.0, "new": 200.0}


def prepare(folder: Path) -> None:
    """Write one store for each state; header, gWCS and sidecar all tell which it is."""
    for state, ra in PLACES.items():
        (folder / state).mkdir()
        sets = [meta_set(f"e{i}", ra=ra, gwcs=sky_gwcs(ra=ra)) for i in range(3)]
        write_store(folder / state / "meta.json", *sets)


def write_for_ever(folder: Path, count: int) -> None:
    """Write the states in turn; the gWCS are copied, so most of the time goes into publishing."""
    stores = [MetaStore(folder / state / "meta.json") for state in PLACES]
    while True:
        for store in stores:
            store.write_to_file(folder / "target" / "meta.json")
            os.write(count, b".")


def time_to_write(folder: Path) -> float:
    """Seconds that writing takes on a machine as busy as this one."""
    with MetaStore(folder / "old" / "meta.json") as store:
        start = time.perf_counter()
        store.write_to_file(folder / "target" / "meta.json")
        return time.perf_counter() - start


def state_of(path: Path) -> str:
    """Name the state a store is in; of files of different states, say so."""
    with MetaStore(path, use_gwcs=True) as store:
        seen = [
            store.headers["F200W"]["e2"]["CRVAL1"],
            store.sky_wcs("F200W", "e2").pixel_to_world(64, 48)[0],
            store.footprint("F200W", "e2")[:, 0].mean(),
        ]
        states = {state for state, ra in PLACES.items() for x in seen if abs(x - ra) < 1}
    return states.pop() if len(states) == 1 else f"mixed: {seen}"


def main(folder: Path, n_kills: int, seed: int) -> None:
    """Kill n writers."""
    rng = random.Random(seed)
    prepare(folder)
    shutil.copytree(folder / "old", folder / "target")
    pace = time_to_write(folder)
    states: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    n_written = 0
    for _ in range(n_kills):
        reading, writing = os.pipe()
        writer = os.fork()
        if writer == 0:
            write_for_ever(folder, writing)
        n_written += len(os.read(reading, 1))
        time.sleep(rng.uniform(0, 3 * pace))
        seen[state_of(folder / "target" / "meta.json")] += 1
        time.sleep(rng.uniform(0, 3 * pace))
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        os.close(reading)
        os.close(writing)
        states[state_of(folder / "target" / "meta.json")] += 1
    with MetaStore(folder / "old" / "meta.json") as store:
        store.write_to_file(folder / "target" / "meta.json")
    left = sorted(path.name for path in (folder / "target").iterdir())
    print(json.dumps({"states": states, "seen": seen, "written": n_written, "left": left}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
