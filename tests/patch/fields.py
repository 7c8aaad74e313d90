"""Stores of exposures that need no pixels, for tests of plans."""

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
from astropy.io import fits

from fpgpu import MetaStore, PixelStore
from tests.sky.made_wcs import tan_header

__all__ = ["dithered", "empty_pixels", "meta_of"]


def meta_of(exposures: Iterable[tuple[str, str, fits.Header]]) -> MetaStore:
    """Make a meta store in memory of (band, expID, header)."""
    store = MetaStore()
    for band, expID, header in exposures:
        imset: Any = SimpleNamespace(hdr=header.copy(), band=band, expID=expID)
        imset.hdr["FILTER"] = band
        store.add_exposure(imset)
    return store


def empty_pixels(path: Path, meta: MetaStore, shape: tuple[int, int]) -> PixelStore:
    """Write a pixel store that has the exposures of a meta store, with no values written."""
    with h5py.File(path, "w") as file:
        file.attrs["nside_full"], file.attrs["super_pixel_size"] = np.array(shape), 8
        for band, expID in meta:
            size = (shape[0] // 8, shape[1] // 8, 128)
            file.create_dataset(f"{band}/{expID}/data", size, "<f4")
    return PixelStore(path, mode="r")


def dithered(
    n: int, centre: tuple[float, float], shape: tuple[int, int], *, sip: float = 1e-6, seed: int = 0
) -> list[tuple[str, str, fits.Header]]:
    """Headers of exposures at random angles whose centres are within half a side of a place."""
    rng = np.random.default_rng(seed)
    scale = 0.06
    reach = 0.5 * min(shape) * scale / 3600
    made = []
    for k in range(n):
        dec = float(np.clip(centre[1] + rng.uniform(-reach, reach), -90, 90))
        stretch = max(np.cos(np.deg2rad(dec)), 1e-3)
        ra = float((centre[0] + rng.uniform(-reach, reach) / stretch) % 360)
        header = tan_header(ra, dec, shape, scale, float(rng.uniform(0, 360)), sip)
        made.append((("F090W", "F200W")[k % 2], f"e{k:03d}", header))
    return made
