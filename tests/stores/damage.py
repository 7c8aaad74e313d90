"""Random damage to store files, each used in full afterwards.

Run as a script in a process of its own, which must survive: prints as JSON how many uses went well
and how many ended in an error of fpgpu, and the traceback of anything else. Values that are used
must be right.
"""

import faulthandler
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from fpgpu import CircularRegion, MetaStore, PixelStore, PSFStore
from fpgpu.errors import FpgpuError
from fpgpu.stores.index import FOOTER_BYTES, split_tail
from fpgpu.stores.pixels.records import CHECKSUM
from fpgpu.stores.psfs.file import note_checksums
from fpgpu.stores.shard import find_orphans, read_shard
from fpgpu.stores.state import open_state
from fpgpu.stores.upkeep.repair import repair
from fpgpu.stores.upkeep.verify import verify
from tests.sky.made_wcs import sky_gwcs
from tests.stores.metasets import CENTRE, meta_set, write_store
from tests.stores.shardsets import exposure, sharded_store

MEMORY = 8 << 30
SECONDS = 60
SIDE = 16
KEYS = [("F200W", "e1"), ("F200W", "visit/e2"), ("F444W", "e1")]
TWEAKED = KEYS[2]
NEW = ("F090W", "new")
GOLDEN_PSF = Path(__file__).parents[1] / "data" / "golden" / "tiny" / "psf.h5"

Spoil = Callable[[Path, random.Random], None]
Use = Callable[[Path, random.Random], None]


# --- damage --------------------------------------------------------------------------------------


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


def spoil_file(name: str) -> Spoil:
    """Damage a file of a folder."""

    def spoil(folder: Path, rng: random.Random) -> None:
        path = folder / name
        path.write_bytes(damage(path.read_bytes(), rng))

    return spoil


def spoil_text(name: str) -> Spoil:
    """Damage a text file of a folder, in most cases so that it remains text."""
    spoil = spoil_file(name)

    def spoil_values(folder: Path, rng: random.Random) -> None:
        if rng.randrange(3) == 0:
            spoil(folder, rng)
            return
        path = folder / name
        changed = bytearray(path.read_bytes())
        for _ in range(rng.choice([1, 2, 8])):
            changed[rng.randrange(len(changed))] = rng.choice(b"0123456789.-+EeTF'/= nNaN")
        path.write_bytes(changed)

    return spoil_values


def spoil_main(folder: Path, rng: random.Random) -> None:
    """Damage the index, the footer behind it, or the links before it."""
    path = folder / "pixels.h5"
    content = path.read_bytes()
    tail = split_tail(content[-FOOTER_BYTES:], len(content))
    assert tail is not None
    parts = [
        content[: tail.n_before],
        content[tail.n_before : -FOOTER_BYTES],
        content[-FOOTER_BYTES:],
    ]
    victim = rng.choice([0, 1, 1, 2, 2])
    parts[victim] = damage(parts[victim], rng)
    path.write_bytes(b"".join(parts))


def spoil_record(folder: Path, rng: random.Random) -> None:
    """Damage a shard but for its pixels, or a file of records; now and then there is no index."""
    victims = sorted((folder / "pixels.shards").rglob("*.*"))
    victim = rng.choice([p for p in victims if p.suffix in {".h5", ".records"}])
    content = victim.read_bytes()
    changed = damage(content, rng)
    row = open_state(folder / "pixels.h5").index.rows.get(_key_of(victim))
    if row is not None and len(changed) == len(content):
        pixels = slice(row.offset, row.offset + SIDE**2 * 8)
        changed = changed[: pixels.start] + content[pixels] + changed[pixels.stop :]
    victim.write_bytes(changed)
    if rng.randrange(3) == 0:
        _cut_index_off(folder / "pixels.h5")


def _key_of(shard: Path) -> tuple[str, str]:
    """Tell by its name which exposure a shard holds."""
    return next((k for k in KEYS if _file_name(k) == (shard.parent.name, shard.name[:2])), ("", ""))


def _file_name(key: tuple[str, str]) -> tuple[str, str]:
    return key[0], "vi" if "/" in key[1] else key[1]


def _cut_index_off(path: Path) -> None:
    """Leave of a main file what an HDF5 program does that opens it for writing."""
    content = path.read_bytes()
    tail = split_tail(content[-FOOTER_BYTES:], len(content))
    assert tail is not None
    os.truncate(path, tail.n_before)


def spoil_commit_folder(folder: Path, rng: random.Random) -> None:
    """Damage what lies in ``.commit``, or put something else in its place."""
    home = folder / "pixels.shards" / ".commit"
    victim = rng.choice(sorted(home.iterdir()))
    kind = rng.choice(
        ["bytes", "bytes", "value", "value", "gone", "fifo", "folder", "link", "name"]
    )
    if kind == "bytes":
        victim.write_bytes(damage(victim.read_bytes() or b"0", rng))
    elif kind == "value":
        victim.write_text(json.dumps(_odd(rng, victim)))
    elif kind == "name":
        number = rng.choice([rng.randrange(1000), 999_999_999_999, 10**15, 10**40])
        victim.rename(home / rng.choice([f"claim-{number:012d}", "draft-x.h5", "lease"]))
    else:
        victim.unlink()
        if kind == "fifo":
            os.mkfifo(victim)
        elif kind == "folder":
            victim.mkdir()
        elif kind == "link":
            target = rng.choice(["nowhere", victim.name, "../../meta.json", "/dev/zero", "id"])
            victim.symlink_to(target)


def _odd(rng: random.Random, victim: Path) -> Any:
    """Return what a file holds with an odd value in some place of it."""
    values = [None, True, [], {}, "", "x", 1, -1.5, 1e300, [[1]], [[1, 2]], {"meta.json": [[]]}]
    try:
        found: Any = json.loads(victim.read_bytes())
    except ValueError:
        return rng.choice(values)
    inner, place = {"": found}, ""
    holder: Any = inner
    for _ in range(rng.randrange(4)):  # down to some place
        below = holder[place]
        if not isinstance(below, dict | list) or not below:
            break
        holder = below
        place = rng.choice([*(below if isinstance(below, dict) else range(len(below)))])
    if isinstance(holder, list) and rng.randrange(3) == 0:
        del holder[place]
    else:
        holder[place] = rng.choice(values)
    return inner.get("")


# --- use -----------------------------------------------------------------------------------------


def use_json(folder: Path, _: random.Random) -> None:
    """Ask a meta store for everything that comes from its headers."""
    with MetaStore(folder / "meta.json") as store:
        repr(store)
        for key in store:
            store.headers[key[0]][key[1]]
            store.wcs_kind(*key)
        store.find_exposures(CENTRE, store.bands)
        store.exposures_touching(CircularRegion(*CENTRE, 0.01))
        store.as_table()
        store.write_to_file(folder / "again.json")


def use_asdf(folder: Path, _: random.Random) -> None:
    """Ask a meta store for everything that comes from its gWCS."""
    with MetaStore(folder / "meta.json", use_gwcs=True) as store:
        for key in store:
            store.sky_wcs(*key).pixel_to_world(3, 4)
        store.find_exposures(CENTRE, store.bands)
        store.add_exposure(meta_set("new", gwcs=sky_gwcs()))
        store.write_to_file(folder / "again.json")


def use_psf(folder: Path, _: random.Random) -> None:
    """Ask a PSF store for everything; no number is wrong where a checksum is left."""
    with PSFStore(folder / "psf.h5") as store, PSFStore(GOLDEN_PSF) as golden:
        repr(store)
        for band in store:
            store.lookup(band, (3, 4))
            store.locations(band)
            if CHECKSUM in store.data[band].attrs:
                assert store.table(band).tobytes() == golden.table(band).tobytes()
        store.add_psf("NEW", store.lookup(store.bands[0]))


def made(key: tuple[str, str]) -> Any:
    """Make an exposure of a store folder."""
    return exposure(*key, side=SIDE, gwcs=sky_gwcs(shape=(SIDE, SIDE), ra=53.0))


class Refusals:
    """Counts what fpgpu refuses, and goes on."""

    def __init__(self) -> None:
        self.errors: list[FpgpuError] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        try:
            yield
        except FpgpuError as exc:
            self.errors.append(exc)


def use_folder(folder: Path, rng: random.Random) -> None:
    """Read all of a store folder, then change or mend it; what can be had of it is right.

    Raises
    ------
    FpgpuError
        If anything was refused.
    """
    refusals = Refusals()
    look(folder, refusals)
    for change in rng.sample([add, tweak, mend], 3 if rng.randrange(4) == 0 else 1):
        with refusals.noted():
            change(folder)
    look(folder, refusals)
    if refusals.errors:
        raise refusals.errors[0]


def look(folder: Path, refusals: Refusals) -> None:
    """Compare pixels and sky positions with what was written."""
    with refusals.noted(), PixelStore(folder / "pixels.h5", mode="r") as pixels:
        repr(pixels)
        for key in set(pixels) & {*KEYS, NEW}:
            with refusals.noted():
                pixels.record(*key)
                if pixels.state.is_foreign:  # HDF5 says where they are, without a checksum
                    pixels.verify(*key)
                im, ierr = pixels.read_exposure(*key)
                expected = made(key)
                assert np.array_equal(im, expected.im), key
                assert np.array_equal(ierr, expected.ierr), key
    for use_gwcs in (False, True):
        with refusals.noted(), MetaStore(folder / "meta.json", use_gwcs=use_gwcs) as meta:
            for key in set(meta) & {*KEYS, NEW}:
                with refusals.noted():
                    look_at_sky(meta, key, use_gwcs)
    with refusals.noted():
        find_orphans(folder)
    for shard in folder.rglob("pixels.shards/[F_]*/*.h5"):
        with refusals.noted():
            sky = read_shard(shard).entry.sky
            assert sky is None or abs(sky.fits_outline[:, 0].mean() - 53) < 0.01


def look_at_sky(meta: MetaStore, key: tuple[str, str], use_gwcs: bool) -> None:
    """Compare header, outline and WCS of an exposure with those that it was given."""
    header = meta.headers[key[0]][key[1]]
    assert (header["CRVAL1"], header["CRPIX1"]) == (53.0, SIDE / 2 + 0.5), key
    assert abs(meta.footprint(*key)[:, 0].mean() - 53) < 0.01, key
    middle = meta.sky_wcs(*key).pixel_to_world(SIDE / 2, SIDE / 2)
    assert abs(float(middle[0]) - 53) < 0.01, (key, middle)
    assert type(meta.wcs[key[0]][key[1]]).__module__.startswith("gwcs") is use_gwcs
    if key == TWEAKED:
        assert header.get("TWEAKED", True) is True


def add(folder: Path) -> None:
    """Add an exposure."""
    PixelStore(folder / "pixels.h5").add_exposure(made(NEW))


def tweak(folder: Path) -> None:
    """Change a header."""
    with MetaStore(folder / "meta.json") as meta:
        meta.headers[KEYS[0][0]][KEYS[0][1]]["TWEAKED"] = True
        meta.write_to_file(folder / "meta.json")


def mend(folder: Path) -> None:
    """Check and repair."""
    try:
        verify(folder)
        repair(folder)
    finally:
        verify(folder)


# --- kinds ---------------------------------------------------------------------------------------


def make_meta(folder: Path) -> None:
    """Write a meta store that belongs to no pixel store."""
    sets = [meta_set("e1", gwcs=sky_gwcs()), meta_set("e2", "F090W", gwcs=sky_gwcs())]
    write_store(folder / "meta.json", *sets)


def make_psf(folder: Path) -> None:
    """Copy the golden PSF store; of its bands all but one get a checksum."""
    shutil.copyfile(GOLDEN_PSF, folder / "psf.h5")
    note_checksums(folder / "psf.h5")
    with h5py.File(folder / "psf.h5", "r+") as h5:
        del h5[min(h5)].attrs[CHECKSUM]


def make_folder(folder: Path) -> None:
    """Write a store folder with shards, records of their own, and views."""
    sharded_store(folder, *map(made, KEYS))
    with MetaStore(folder / "meta.json") as meta:
        meta.headers[TWEAKED[0]][TWEAKED[1]]["TWEAKED"] = True
        meta.write_to_file(folder / "meta.json")
    assert len(list(folder.rglob("*.records"))) == 1


class Kind(NamedTuple):
    """What is damaged, and how it is used."""

    make: Callable[[Path], None]
    spoil: Spoil
    use: Use


KINDS = {
    "json": Kind(make_meta, spoil_text("meta.json"), use_json),
    "asdf": Kind(make_meta, spoil_text("meta.asdf"), use_asdf),
    "psf": Kind(make_psf, spoil_file("psf.h5"), use_psf),
    "index": Kind(make_folder, spoil_main, use_folder),
    "record": Kind(make_folder, spoil_record, use_folder),
    "commit folder": Kind(make_folder, spoil_commit_folder, use_folder),
}


def main(kind: str, home: Path, n: int, seed: int, first: int = 0) -> None:
    """Damage one kind of file n times."""
    warnings.simplefilter("ignore")
    logging.disable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    make, spoil, use = KINDS[kind]
    (home / "template").mkdir()
    make(home / "template")
    outcomes: Counter[str] = Counter()
    surprises = []
    for case in range(first, first + n):
        rng = random.Random(f"{seed} {case}")
        folder = home / f"case {case}"
        shutil.copytree(home / "template", folder)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            spoil(folder, rng)
            use(folder, rng)
            outcomes["used"] += 1
        except FpgpuError:
            outcomes["refused"] += 1
        except Exception:  # noqa: BLE001 (this is what is looked for)
            surprises.append(f"seed {seed}, case {case}: {traceback.format_exc(limit=-6)}")
        faulthandler.cancel_dump_traceback_later()
        shutil.rmtree(folder)
    print(json.dumps({"outcomes": outcomes, "surprises": surprises[:5]}))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
