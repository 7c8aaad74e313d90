"""Opens damaged pixel stores one after another, in a process of its own that may be lost.

Each line printed is a number of a corruption and what became of it: ``ok``, the name of an error of
fpgpu, or ``!`` and another error, or pixels that were verified and are wrong. The process that dies
or hangs leaves the number of the culprit.
"""

import faulthandler
import itertools
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import h5py
import numpy as np

from fpgpu.errors import FpgpuError
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.pixels.records import update_checksum
from fpgpu.stores.shard import find_orphans, read_shard
from fpgpu.superpixels import superpixelize
from tests.stores.imagesets import image_set
from tests.stores.shardsets import exposure, sharded_store, single_store

SIDE = 16
KEYS = [("F090W", "a"), ("F090W", "visit/b"), ("F200W", "a")]
SECONDS = 20
# The names of shards are random; a corruption with a number must always be the same.
_numbers = itertools.count()


Files = dict[str, bytes]


def write_old(path: Path, *imsets: SimpleNamespace) -> None:
    """Write exposures with what forcepho and fpgpu 0.1 note of them, in one file, without index."""
    with h5py.File(path, "w") as h5:
        shape = imsets[0].im.shape
        h5.attrs.update(nside_full=np.array(shape), super_pixel_size=8)
        for imset in imsets:
            values = superpixelize(imset.im, imset.ierr, 8)
            dataset = h5.create_dataset(f"{imset.band}/{imset.expID}/data", data=values)
            dataset.attrs.update(
                counts_to_flux=1.0,
                flux_units="image",
                image_name="image.fits",
                fpgpu_version="0.1.0",
                fpgpu_checksum=update_checksum(values),
            )


def pristine(folder: Path) -> dict[str, Files]:
    """Return the files of small stores of every kind, of which most bytes are metadata."""
    path = folder / "pristine.h5"
    write_old(path, *(image_set(*key, side=SIDE) for key in KEYS))
    stores = {"0.1": {"pixels.h5": path.read_bytes()}}
    for libver in ("earliest", "latest"):
        with h5py.File(path, "w", libver=libver) as h5:
            h5.attrs.update(nside_full=SIDE, super_pixel_size=8)
            shape = (SIDE // 8, SIDE // 8, 128)
            values = np.ones(shape, "f4")
            h5["F090W/plain/data"] = values
            h5.create_dataset("F090W/zip/data", data=values, compression="gzip", shuffle=True)
            h5.create_dataset("F200W/sum/data", data=values, chunks=True, fletcher32=True)
            h5["F200W/sum/data"].attrs.update(counts_to_flux=1.0, flux_units="nJy", im="x.fits")
        stores[libver] = {"pixels.h5": path.read_bytes()}
    path.unlink()
    for kind, make in {"sharded": sharded_store, "single": single_store}.items():
        with mock.patch("secrets.token_hex", lambda n: f"{next(_numbers):0{2 * n}x}"):
            home = make(folder / kind, *(exposure(*key, side=SIDE) for key in KEYS))
        files = [home / "pixels.h5", *home.rglob("pixels.shards/[F_]*/*.h5")]
        stores[kind] = {str(path.relative_to(home)): path.read_bytes() for path in files}
        shutil.rmtree(home)
    return stores


def write_damaged(folder: Path, files: Files, rng: random.Random) -> None:
    """Write a store with one damaged file."""
    victim = rng.choice(sorted(files))
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(damaged(content, rng) if name == victim else content)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return a store with flipped bytes, a zeroed or random block, or without its end."""
    damage = bytearray(content)
    kind = rng.choice(["flip", "flip", "flips", "zero", "noise", "swap", "cut"])
    start = rng.randrange(len(damage))
    length = rng.choice([1, 4, 8, 64, 512])
    if kind == "cut":
        del damage[start:]
    elif kind in {"flip", "flips"}:
        for _ in range(1 if kind == "flip" else 20):
            damage[rng.randrange(len(damage))] = rng.randrange(256)
    elif kind == "zero":
        damage[start : start + length] = bytes(len(damage[start : start + length]))
    elif kind == "noise":
        damage[start : start + length] = rng.randbytes(len(damage[start : start + length]))
    else:
        other = rng.randrange(len(damage) - length) if len(damage) > length else 0
        damage[start : start + length] = damage[other : other + length]
    return bytes(damage)


def check(store: PixelStore, band: str, expID: str) -> None:
    """Read an exposure, which is right if it is verified."""
    im, ierr = store.read_exposure(band, expID)
    if store.verify(band, expID).verified and (band, expID) in KEYS:
        made = image_set(band, expID, side=SIDE)
        if not (np.array_equal(im, made.im) and np.array_equal(ierr, made.ierr)):
            raise AssertionError(f"{band}/{expID} was verified and is wrong")


def visit(path: Path) -> Iterator[str]:
    """Do with a store all that can be done, and yield what each step met."""

    def met(step: object) -> str:
        try:
            step()  # type: ignore[operator]
        except FpgpuError as exc:
            return type(exc).__name__
        except Exception as exc:  # noqa: BLE001 (any other error is a finding)
            return f"!{exc!r}"
        return "ok"

    try:
        store = PixelStore(path)
        keys = list(store)
    except FpgpuError as exc:
        yield type(exc).__name__
        return
    except Exception as exc:  # noqa: BLE001
        yield f"!{exc!r}"
        return
    for key in keys[:10]:
        yield met(lambda key=key: check(store, *key))
        yield met(lambda key=key: store.record(*key))
    yield met(store.verify)
    yield met(lambda: repr(store))
    yield met(lambda: find_orphans(path.parent))
    for shard in path.parent.rglob("pixels.shards/[F_]*/*.h5"):
        yield met(lambda shard=shard: read_shard(shard).verify())
    sound = [
        key for key in keys[:10] if key in KEYS and met(lambda k=key: check(store, *k)) == "ok"
    ]
    if max(store.shape) <= 4 * SIDE:
        yield met(lambda: store.add_exposure(image_set("F090W", "a", side=store.shape)))
        yield met(lambda: store.add_exposure(image_set("F770W", "new", side=store.shape)))
        for key in sound:  # what could be read before can be read after
            yield met(lambda key=key: check(store, *key)).replace("IntegrityError", "!lost")
    yield met(lambda: store.data.close())
    store.close()


def main() -> None:
    """Visit the corruptions with the numbers from `first` up to `last`."""
    folder, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    stores = pristine(folder)
    path = folder / "pixels.h5"
    for number in range(first, last):
        rng = random.Random(number)
        shutil.rmtree(folder / "pixels.shards", ignore_errors=True)
        kind = sorted(stores)[number % len(stores)]
        write_damaged(folder, stores[kind], rng)
        sys.stdout.write(f"\n{number}")
        sys.stdout.flush()
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        for outcome in visit(path):
            sys.stdout.write(f" {outcome}")
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
