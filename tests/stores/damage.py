"""Random damage to store files, each used in full afterwards.

Run as a script in a process of its own, which must survive: prints as JSON how many uses went well
and how many ended in an error of fpgpu, and the traceback of anything else.
"""

import json
import logging
import random
import resource
import shutil
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from fpgpu import CircularRegion, MetaStore, PSFStore
from fpgpu.errors import FpgpuError
from tests.sky.made_wcs import sky_gwcs
from tests.stores.metasets import CENTRE, meta_set, write_store

MEMORY = 8 << 30


def damage(content: bytes, rng: random.Random) -> bytes:
    """Change some bytes, drop some, add some, or cut the rest off."""
    changed = bytearray(content)
    start = rng.randrange(len(changed))
    length = min(rng.choice([1, 1, 2, 8, 64, 1024]), len(changed) - start)
    match rng.randrange(8):
        case 0:
            changed[start] ^= 1 << rng.randrange(8)
        case 1:
            changed[start : start + length] = rng.randbytes(length)
        case 2:
            changed[start : start + length] = bytes(length)
        case 3:
            del changed[start : start + length]
        case 4:
            changed[start:start] = rng.randbytes(length)
        case 5:
            del changed[start:]
        case _:  # what a text format may take for a value
            text = rng.choices(b"0123456789.-+EeTF'/= nNaN", k=length)
            changed[start : start + length] = bytes(text)
    return bytes(changed)


def use_meta(path: Path) -> None:
    """Ask a meta store for everything that comes from its headers or its sidecar."""
    with MetaStore(path) as store:
        repr(store)
        for key in store:
            store.headers[key[0]][key[1]]
            store.wcs_kind(*key)
        store.find_exposures(CENTRE, store.bands)
        store.exposures_touching(CircularRegion(*CENTRE, 0.01))
        store.as_table()
        store.write_to_file(path.with_name("again.json"))


def use_gwcs(path: Path) -> None:
    """Ask a meta store for everything that comes from its gWCS."""
    with MetaStore(path, use_gwcs=True) as store:
        for key in store:
            store.sky_wcs(*key).pixel_to_world(3, 4)
        store.find_exposures(CENTRE, store.bands)
        store.add_exposure(meta_set("new", gwcs=sky_gwcs()))
        store.write_to_file(path.with_name("again.json"))


def use_psf(path: Path) -> None:
    """Ask a PSF store for everything."""
    with PSFStore(path) as store:
        repr(store)
        for band in store:
            store.lookup(band, (3, 4))
            store.locations(band)
        store.add_psf("NEW", store.lookup(store.bands[0]))


def make_meta(folder: Path) -> Path:
    """Write the store that is damaged."""
    sets = [meta_set("e1", gwcs=sky_gwcs()), meta_set("e2", "F090W", gwcs=sky_gwcs())]
    return write_store(folder / "meta.json", *sets)


def make_psf(folder: Path) -> Path:
    """Copy the golden PSF store."""
    golden = Path(__file__).parents[1] / "data" / "golden" / "tiny" / "psf.h5"
    return Path(shutil.copyfile(golden, folder / "psf.h5"))


KINDS: dict[str, tuple[Callable[[Path], Path], str, Callable[[Path], None]]] = {
    "json": (make_meta, "meta.json", use_meta),
    "sidecar": (make_meta, "meta.fpgpu.npz", use_meta),
    "asdf": (make_meta, "meta.asdf", use_gwcs),
    "psf": (make_psf, "psf.h5", use_psf),
}


def main(kind: str, folder: Path, n: int, seed: int) -> None:
    """Damage one kind of file n times."""
    warnings.simplefilter("ignore")
    logging.disable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    make, name, use = KINDS[kind]
    path = make(folder)
    victim = folder / name
    content = victim.read_bytes()
    outcomes: Counter[str] = Counter()
    surprises = []
    for case in range(n):
        victim.write_bytes(damage(content, random.Random(f"{seed} {case}")))
        try:
            use(path)
            outcomes["used"] += 1
        except FpgpuError:
            outcomes["refused"] += 1
        except Exception:  # noqa: BLE001 (this is what is looked for)
            surprises.append(f"seed {seed}, case {case}: {traceback.format_exc(limit=-6)}")
    print(json.dumps({"outcomes": outcomes, "surprises": surprises[:5]}))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
