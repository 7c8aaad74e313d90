"""Random damage to store files, each used in full afterwards.

Run as a script in a process of its own, which must survive: prints as JSON how many uses went well
and how many ended in an error of fpgpu, and the traceback of anything else.
"""

import io
import json
import logging
import os
import random
import resource
import shutil
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

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


def forge(content: bytes, rng: random.Random) -> bytes:
    """Change values in the arrays of a sidecar whose checksums are right again afterwards."""
    with np.load(io.BytesIO(content)) as file:
        arrays = {name: file[name].copy() for name in file}
    array = arrays[rng.choice([name for name in arrays if arrays[name].size])]
    values = array.reshape(-1)
    for _ in range(rng.choice([1, 1, 3])):
        where = rng.randrange(values.size)
        match rng.randrange(4):
            case 0:
                values[where] = 0
            case 1 if values.dtype != bool:
                values[where] += np.array(rng.choice([1, 7, 100])).astype(values.dtype)
            case 2 if values.dtype.kind in "fi":
                values[where] = -values[where]
            case _:
                raw = values.view(np.uint8)
                raw[rng.randrange(raw.size)] ^= np.uint8(1 << rng.randrange(8))
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


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


def use_both(path: Path) -> None:
    """Ask a meta store for everything."""
    use_meta(path)
    use_gwcs(path)


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
    "json, time kept": (make_meta, "meta.json", use_meta),
    "sidecar": (make_meta, "meta.fpgpu.npz", use_meta),
    "sidecar, forged": (make_meta, "meta.fpgpu.npz", use_both),
    "asdf": (make_meta, "meta.asdf", use_gwcs),
    "asdf, time kept": (make_meta, "meta.asdf", use_gwcs),
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
    content, times = victim.read_bytes(), (1, victim.stat().st_mtime_ns)
    spoil = forge if kind == "sidecar, forged" else damage
    outcomes: Counter[str] = Counter()
    surprises = []
    for case in range(n):
        victim.write_bytes(spoil(content, random.Random(f"{seed} {case}")))
        if kind.endswith("time kept"):  # as by a disk that forgets
            os.utime(victim, ns=times)
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
