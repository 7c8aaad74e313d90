"""Changes of stores in which a call of the operating system fails, below Python.

Run as a script with the library made of ``faults.c`` preloaded; prints what it found as JSON. One
interpreter start serves hundreds of failures, each in a forked process.
"""

import ctypes
import errno
import functools
import itertools
import json
import logging
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py

from fpgpu import MetaStore, PixelStore, PSFStore
from fpgpu.errors import FpgpuError
from fpgpu.ingest.pipeline import ingest
from fpgpu.stores.shard import write_shard
from fpgpu.stores.upkeep.forms import consolidate, split
from fpgpu.stores.upkeep.merge import merge
from fpgpu.stores.upkeep.remove import remove
from fpgpu.stores.upkeep.repair import repair
from fpgpu.stores.upkeep.verify import verify
from tests.ingest.smallfiles import make_small_files
from tests.sky.made_wcs import sky_gwcs
from tests.stores.crashing import in_child
from tests.stores.metasets import meta_set, write_store
from tests.stores.shardsets import exposure, sharded_store, single_store
from tests.stores.test_psf import mixtures

SIDE = 32
LONGEST_SECONDS = 60
MANY = 1_000_000

State = dict[str, Any]
Fault = tuple[int, int, bool]


def made(name: str, seed: int) -> Any:
    """Make an exposure whose pixels, header and gWCS tell its seed; most have no gWCS."""
    gwcs = sky_gwcs(ra=53.0 + seed, shape=(SIDE, SIDE)) if name == "a" else None
    return exposure("F200W", name, seed=seed, side=SIDE, gwcs=gwcs)


def add(folder: Path, name: str, seed: int) -> None:
    """Add or replace an exposure."""
    PixelStore(folder / "pixels.h5", SIDE).add_exposure(made(name, seed))


def sharded(folder: Path) -> None:
    """Make a store of shards, what may be merged into it, and files that may be ingested."""
    sharded_store(folder, made("a", 1), made("b", 2))
    sharded_store(folder.with_name("other"), made("c", 3), made("d", 4))
    make_small_files(folder.with_name("other"), 1, SIDE)


def single(folder: Path) -> None:
    """Make a store of one file."""
    single_store(folder, made("a", 1), made("b", 2))


def with_orphan(folder: Path) -> None:
    """Make a store, and beside it all that is to be put in order."""
    sharded(folder)
    (folder / "pixels.shards" / "F200W" / ".killed.h5.part").touch()
    write_shard(folder, made("new", 5), shape=(SIDE, SIDE))
    (folder / "meta.asdf").unlink()


def ingested(folder: Path) -> None:
    """Make a store of an exposure that is ingested again."""
    sharded(folder)
    take_in(folder, bitmask=4)


def take_in(folder: Path, bitmask: int = 1) -> None:
    """Ingest an exposure."""
    ingest(folder.with_name("other") / "e0.fits", folder, executor="serial", bitmask=bitmask)


def bare(folder: Path) -> None:
    """Make a meta store without pixels."""
    folder.mkdir()
    write_store(folder / "meta.json", meta_set("a", gwcs=sky_gwcs()))


def tweak(folder: Path) -> None:
    """Change a header, and add an exposure where there are no pixels."""
    with MetaStore(folder / "meta.json") as meta:
        meta.headers["F200W"]["a"]["CRVAL1"] = 57.0
        if meta.state is None:
            meta.add_exposure(meta_set("new", gwcs=sky_gwcs()))
        meta.write_to_file(folder / "meta.json")


def with_psf(folder: Path) -> None:
    """Make a PSF store of two bands."""
    folder.mkdir()
    for seed, band in enumerate(("F200W", "F444W")):
        add_psf(folder, band, seed)


def add_psf(folder: Path, band: str, seed: int) -> None:
    """Add or replace the PSF of a band."""
    with PSFStore(folder / "psf.h5") as psf:
        psf.add_psf(band, mixtures(1, seed=seed))


CHANGES: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "first add": (Path.mkdir, lambda folder: add(folder, "a", 1)),
    "add": (sharded, lambda folder: add(folder, "new", 5)),
    "replace": (sharded, lambda folder: add(folder, "a", 7)),
    "add to one file": (single, lambda folder: add(folder, "new", 5)),
    "first ingest": (sharded, take_in),
    "ingest again": (ingested, take_in),
    "remove": (sharded, lambda folder: remove(folder, ["*/a"])),
    "merge": (sharded, lambda folder: merge([folder.with_name("other")], folder)),
    "consolidate": (sharded, lambda folder: consolidate(folder, now=True)),
    "split": (single, split),
    "repair": (with_orphan, repair),
    "write_to_file": (sharded, tweak),
    "write_to_file, bare": (bare, tweak),
    "first add_psf": (Path.mkdir, lambda folder: add_psf(folder, "F444W", 7)),
    "add_psf": (with_psf, lambda folder: add_psf(folder, "F444W", 7)),
}


def held(folder: Path) -> State:
    """Return all that the stores of a folder hold, to the bit; fails where readers differ."""
    found: State = {}
    main, meta_file, psf_file = (folder / name for name in ("pixels.h5", "meta.json", "psf.h5"))
    if main.exists():
        with PixelStore(main, mode="r") as pixels, h5py.File(main, "r", swmr=True) as h5:
            assert pixels.verify().unchecked == []
            for name in map("/".join, pixels):
                found[f"pixels {name}"] = h5[f"{name}/data"][...].tobytes()
                found[f"form {name}"] = type(h5.get(name, getlink=True)).__name__
    if main.exists() or meta_file.exists():
        with MetaStore(meta_file) as meta:
            for key in meta:
                entry = meta.entry(*key)
                found[f"header {'/'.join(key)}"] = entry.text
                found[f"gwcs {'/'.join(key)}"] = entry.gwcs_bytes()
    # forcepho's view may lack exposures, and never has others' headers.
    for band, texts in json.loads(meta_file.read_text()).items() if meta_file.exists() else ():
        assert all(found[f"header {band}/{name}"] == text for name, text in texts.items())
    if psf_file.exists():
        with PSFStore(psf_file) as psf:
            found |= {f"psf {band}": psf.table(band).tobytes() for band in psf}
    return found


def change_later(folder: Path, name: str) -> None:
    """Make another change."""
    if name.endswith("add_psf"):
        add_psf(folder, "LATER", 9)
    elif name.endswith("bare"):
        tweak(folder)
    else:
        add(folder, "later", 9)


def leftovers(folder: Path) -> list[str]:
    """List what nobody needs who is not at work."""
    return [
        str(path)
        for path in folder.rglob("*")
        if path.suffix == ".lease" or path.name == "lease" or ".part" in path.name
        or path.name.startswith("draft-")
    ]  # fmt: skip


def fail(folder: Path, name: str, fault: Fault) -> list[str]:
    """Make a change in which a call fails; return the call, and the error that was met."""
    library, error = ctypes.CDLL(None), ""
    library.faults_disarm.restype = ctypes.c_char_p
    library.faults_arm(os.fspath(folder).encode(), *fault)
    try:
        CHANGES[name][1](folder)
    except FpgpuError as exc:
        error = f"{type(exc).__name__}: {exc}"
    return [library.faults_disarm().decode(), error]


def go_on(folder: Path, name: str, states: list[State], is_dead: bool) -> list[str]:
    """Tell which state a failed change has left; fails where what comes next does not succeed."""
    before, after = states
    state = held(folder)
    found = "new" if state == after else "old" if state == before else "neither"
    if name.endswith("bare") and all(state[key] in (before.get(key), after[key]) for key in state):
        found = "one of two" if found == "neither" else found
    if found != "new":
        CHANGES[name][1](folder)
    assert held(folder) == after
    change_later(folder, name)
    assert is_dead or not leftovers(folder), leftovers(folder)
    if not name.endswith("psf"):
        repair(folder, delete_orphans=True)
        assert not leftovers(folder), leftovers(folder)
    later = held(folder)
    assert all(later[key] == after[key] for key in after if not key.startswith("form"))
    if (folder / "pixels.h5").exists():
        assert verify(folder, wcs=False).ok, verify(folder, wcs=False).problems
    return [found]


def begin(home: Path) -> Path:
    """Lay out the store that is to be changed."""
    shutil.rmtree(home / "now", ignore_errors=True)
    shutil.copytree(home / "template", home / "now")
    return home / "now" / "stores"


def attempt(home: Path, name: str, fault: Fault, states: list[State]) -> list[Any]:
    """Make a change with a fault in a process of its own; tell how that ended and what it met."""
    folder, told = begin(home), home / "told"
    told.write_text("")
    # Where a device is gone for good, who could not remove its lease seems to be at work.
    is_dead = fault[1] == errno.EIO and fault[2]

    def tell(*steps: Callable[[], list[str]]) -> int:
        def work() -> None:
            signal.alarm(LONGEST_SECONDS)
            with told.open("a") as file:
                for step in steps:
                    print(*step(), sep="\n", file=file, flush=True)

        return in_child(work)

    first = functools.partial(fail, folder, name, fault)
    then = functools.partial(go_on, folder, name, states, is_dead)
    status = (tell(first) or tell(then)) if is_dead else tell(first, then)
    return [*fault, status, *told.read_text().splitlines()]


def main() -> None:
    """Run changes in a folder, with some of their calls failing, or all."""
    logging.disable(logging.WARNING)
    home, n, *names = sys.argv[1:]
    outcomes = {}
    for name in names:
        place = Path(home) / name.replace(" ", "-")
        (place / "template").mkdir(parents=True)
        CHANGES[name][0](place / "template" / "stores")
        changed = begin(place)
        fail(changed, name, (MANY, errno.EIO, False))
        n_calls = MANY - ctypes.CDLL(None).faults_left()
        states = [held(place / "template" / "stores"), held(changed)]
        faults = list(
            itertools.product(range(1, n_calls + 1), (errno.EIO, errno.ENOSPC), (False, True))
        )
        chosen = sorted(random.Random(name).sample(faults, min(int(n), len(faults))))
        # First all writes are short.
        outcomes[name] = [attempt(place, name, f, states) for f in ((1, 0, True), *chosen)]
    sys.stdout.write(json.dumps(outcomes))


if __name__ == "__main__":
    main()
