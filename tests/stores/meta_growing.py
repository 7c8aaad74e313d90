"""Kills a process at random moments while it adds to a meta store and removes from it.

Run as a script: prints as JSON how many exposures were told to be durable, how many of these were
missing or wrong after a death, and how many deaths left files that do not belong together.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import asdf

from fpgpu import MetaStore
from fpgpu.stores.metadata.entries import MetaEntry, new_entry
from tests.sky.made_wcs import sky_gwcs
from tests.stores.metasets import meta_set

KEPT = 12
"""Exposures that a store holds; older ones are removed while new ones are added."""


def prepared(kind: int) -> MetaEntry:
    """Make an exposure of one of two kinds, whose place on the sky tells which it is."""
    ra = 10.0 + kind
    return new_entry(meta_set("e", ra=ra, gwcs=sky_gwcs(ra=ra))).with_gwcs_text()


def grow_for_ever(path: Path, kinds: list[MetaEntry], told: int) -> None:
    """Add an exposure, remove another, and tell the number of each that is durable."""
    with MetaStore(path) as store:
        number = 1 + max(int(expID[1:]) for _, expID in store)
    while True:
        with MetaStore(path) as store:
            band = f"F{number % 3}"
            store.add_prepared(kinds[number % 2]._replace(key=(band, f"e{number}")))
            store.remove(*[key for key in store if int(key[1][1:]) <= number - KEPT])
            store.write_to_file(path)
        os.write(told, number.to_bytes(8, "little"))
        number += 1


def problems(path: Path, durable: int) -> list[str]:
    """Say what is missing or wrong in a store after a death."""
    found = []
    with MetaStore(path, use_gwcs=True) as store, asdf.open(path.with_suffix(".asdf")) as file:
        numbers = sorted(int(expID[1:]) for _, expID in store)
        newest = max(numbers)
        if newest not in (durable, durable + 1) or numbers != [
            *range(newest - KEPT + 1, newest + 1)
        ]:
            found.append(f"{durable} were durable, {numbers} are there")
        if {(b, e) for b in store.bands for e in file.tree[b]} != set(store):
            found.append("the gWCS are those of other exposures")
        for band, expID in store:
            ra = 10.0 + int(expID[1:]) % 2
            places = [
                store.headers[band][expID]["CRVAL1"],
                store.footprint(band, expID)[:, 0].mean(),
            ]
            if int(expID[1:]) in (numbers[0], *numbers[-2:]):  # a gWCS takes long to make
                places.append(store.wcs[band][expID].pixel_to_world_values(63.5, 47.5)[0])
            if any(abs(place - ra) > 1e-3 for place in places):
                found.append(f"{band}/{expID} is at {places}")
    return found


def main(folder: Path, n_kills: int, seed: int) -> None:
    """Kill n writers."""
    rng = random.Random(seed)
    path, kinds = folder / "meta.json", [prepared(0), prepared(1)]
    store = MetaStore()
    for number in range(KEPT):
        store.add_prepared(kinds[number % 2]._replace(key=(f"F{number % 3}", f"e{number}")))
    store.write_to_file(path)
    durable, found = KEPT - 1, []
    for _ in range(n_kills):
        reading, writing = os.pipe()
        writer = os.fork()
        if writer == 0:
            grow_for_ever(path, kinds, writing)
        os.close(writing)
        told = os.read(reading, 8)
        time.sleep(rng.uniform(0, 0.08))
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        while told:
            durable, told = int.from_bytes(told, "little"), os.read(reading, 8)
        os.close(reading)
        found += problems(path, durable)
        with MetaStore(path) as store:
            durable = max(int(expID[1:]) for _, expID in store)
    left = sorted(p.name for p in folder.iterdir() if p.name.startswith("meta"))
    print(json.dumps({"durable": durable, "problems": found, "left": left}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
