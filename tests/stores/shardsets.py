"""Sharded stores for tests, and what plain h5py sees of a store."""

import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np

from fpgpu import MetaStore, PixelStore
from fpgpu.stores.commit import commit_shards, holding
from fpgpu.stores.shard import Shard, write_shard
from fpgpu.stores.upkeep.forms import consolidate
from fpgpu.stores.views import write_views
from tests.sky.made_wcs import tan_header
from tests.stores.imagesets import SIDE, image_set

KEYS = [("F200W", "e1"), ("F200W", "visit1/e1"), ("F444W", "visit1/deep/e 3")]


def exposure(
    band: str = "F200W", expID: str = "e1", *, seed: int = 0, side: int = SIDE, **more: Any
) -> SimpleNamespace:
    """Make an exposure that both stores take."""
    made = image_set(band, expID, side=side, seed=seed)
    made.hdr = tan_header(shape=(side, side), ra=53.0 + seed)
    made.hdr["FILTER"] = band
    made.names = f"{Path(expID).name}.fits"
    vars(made).update(more)
    return made


def shards_of(folder: Path, *exposures: SimpleNamespace, **options: Any) -> list[Shard]:
    """Write exposures as shards."""
    return [write_shard(folder, e, shape=e.im.shape, **options) for e in exposures]


def publish(
    folder: Path, shards: Iterable[Shard], removed: Collection[tuple[str, str]] = ()
) -> None:
    """Make shards part of a store, as an ingest does."""
    commit_shards(folder / "pixels.h5", list(shards), removed)
    write_views(folder / "pixels.h5")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a store as another writer does."""
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with holding(folder / "pixels.h5"):
            taken.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert taken.wait(10)
        yield
    finally:
        done.set()
        holder.join()


def sharded_store(folder: Path, *exposures: SimpleNamespace) -> Path:
    """Make a store folder of the sharded form."""
    publish(folder, shards_of(folder, *exposures))
    return folder


def single_store(folder: Path, *exposures: SimpleNamespace) -> Path:
    """Make a store folder with all exposures in one file."""
    sharded_store(folder, *exposures)
    consolidate(folder, now=True)
    return folder


def as_h5py_sees(path: Path, keys: list[tuple[str, str]]) -> dict[str, Any]:
    """Read a store as forcepho does, and all that could tell two stores apart."""
    with h5py.File(path, "r", swmr=True) as h5:
        return {
            # forcepho writes one number where an image is square, fpgpu always two.
            "root": {
                name: (
                    np.broadcast_to(value, 2).tolist() if name == "nside_full" else value,
                    h5.attrs.get_id(name).dtype,
                )
                for name, value in h5.attrs.items()
            },
            "bands": sorted(h5),
            **{f"{band}/{expID}": _seen(h5[f"{band}/{expID}/data"]) for band, expID in keys},
        }


def _seen(dataset: h5py.Dataset) -> dict[str, Any]:
    """Return values, layout and attributes of a dataset."""
    attributes = {
        name: (value, dataset.attrs.get_id(name).get_type().encode())
        for name, value in dataset.attrs.items()
    }
    return {
        "values": dataset[:].tobytes(),
        "rows": dataset[1:3, 2].tobytes(),
        "shape": (dataset.shape, dataset.maxshape, dataset.ndim, dataset.size),
        "dtype": dataset.dtype.str,
        "storage": (dataset.chunks, dataset.compression, dataset.fillvalue, dataset.nbytes),
        "name": dataset.name,
        "attributes": attributes,
        "group": [name for name in sorted(dataset.parent) if not name.startswith("fpgpu_")],
    }


def state_of(folder: Path) -> dict[tuple[str, str], tuple[bytes, float]]:
    """Return pixels and sky position of every exposure; fails where the two stores disagree."""
    with PixelStore(folder / "pixels.h5", mode="r") as pixels, MetaStore(folder / "meta.json") as m:
        assert sorted(pixels) == sorted(m)
        assert len(pixels.verify().verified) == len(pixels)
        return {
            key: (
                np.stack(pixels.read_exposure(*key)).tobytes(),
                m.headers[key[0]][key[1]]["CRVAL1"],
            )
            for key in pixels
        }
