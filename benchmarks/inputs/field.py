"""The stores of a field: exposures that all cover one position, at random roll angles.

One pixel store serves every number of exposures: a meta store with fewer of them is a field with
fewer of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
from astropy.table import Table

from benchmarks.sizes import USUAL_BANDS, USUAL_SOURCES, Size
from fpgpu import PSF_DTYPE, CircularRegion, MetaStore, PixelStore, PSFStore, Survey
from fpgpu.backends.base import Backend
from fpgpu.demo.telescope import Pointing
from fpgpu.patch.pack import FORCEPHO_RADII as RADII
from fpgpu.sky.sip import fit_sip
from fpgpu.sky.wcs import SkyWCS

__all__ = [
    "BANDS",
    "N_GAUSS",
    "POSITION",
    "Field",
    "field_bytes",
    "field_recipe",
    "write_field",
    "write_psf",
]

BANDS = ["F090W", "F115W", "F150W", "F200W", "F356W", "F444W"]
POSITION = (53.0, -27.0)
N_GAUSS = 4
_SCALE = 0.031  # arcsec per pixel
_N_PSF = 16
_ALIGNED: dict[str, Any] = {"alignment_threshold": 65536, "alignment_interval": 4096}


@dataclass(frozen=True)
class Field:
    """Files of a field, and what is asked of them."""

    folder: Path
    size: Size

    @property
    def pixels(self) -> Path:
        """The pixel store."""
        return self.folder / "pixels.h5"

    @property
    def sharded(self) -> Path:
        """A pixel store of the usual bands that has a file for each exposure."""
        return self.folder / "sharded.h5"

    @property
    def psf(self) -> Path:
        """The PSF store."""
        return self.folder / "psf.h5"

    @property
    def gwcs(self) -> Path:
        """A meta store of the usual bands that has a gWCS for every exposure."""
        return self.folder / "gwcs.json"

    def meta(self, a_band: int | None = None) -> Path:
        """Give the meta store with some exposures of every band, by default all."""
        return self.folder / f"meta-{a_band or self.size.a_band[-1]}.json"

    def bands(self, number: int = USUAL_BANDS) -> list[str]:
        """The first bands."""
        return BANDS[:number]

    def region(self, radius: float | None = None) -> CircularRegion:
        """Give a circle that every exposure covers; the radius in arcsec."""
        return CircularRegion(*POSITION, (radius or self.size.radius) / 3600)

    def sources(self, number: int = USUAL_SOURCES, radius: float | None = None) -> Table:
        """Draw sources inside the usual region, or one of another radius in arcsec."""
        offsets = np.random.default_rng(number).uniform(-0.6, 0.6, (2, number))
        ra, dec = (
            centre + offset * (radius or self.size.radius) / 3600
            for centre, offset in zip(POSITION, offsets, strict=True)
        )
        return Table([ra, dec], names=["ra", "dec"])

    def open(
        self,
        backend: Backend,
        a_band: int | None = None,
        *,
        gwcs: bool = False,
        sharded: bool = False,
        psf: Path | None = None,
    ) -> Survey:
        """Open the stores, or those with other PSFs."""
        meta = MetaStore(self.gwcs, use_gwcs=True) if gwcs else MetaStore(self.meta(a_band))
        pixels = PixelStore(self.sharded if sharded else self.pixels, mode="r")
        return Survey(pixels, meta, PSFStore(psf or self.psf), backend=backend)


def field_recipe(size: Size) -> dict[str, Any]:
    """All that decides what `write_field` writes."""
    return {
        "recipe": 5,
        "side": size.side,
        "bands": size.bands[-1],
        "exposures a band": size.a_band,
    }


def field_bytes(size: Size) -> int:
    """About how much that takes on disk; pixels are nearly all of it."""
    return 8 * size.side**2 * (size.bands[-1] + USUAL_BANDS) * size.a_band[-1]


def write_field(folder: Path, size: Size) -> None:
    """Write pixel stores of both forms, meta stores with and without gWCS, and a PSF store."""
    rng = np.random.default_rng(1)
    exposures = list(_exposures(size, rng))
    _write_pixels(folder / "pixels.h5", size.side, exposures, rng)
    _write_shards(folder, [e for e in exposures if e.band in BANDS[:USUAL_BANDS]])
    for a_band in size.a_band:
        _write_meta(folder / f"meta-{a_band}.json", exposures, a_band, size.bands[-1], gwcs=False)
    _write_meta(folder / "gwcs.json", exposures, size.a_band[-1], USUAL_BANDS, gwcs=True)
    write_psf(folder / "psf.h5", size, rng)


def _exposures(size: Size, rng: np.random.Generator) -> Iterator[SimpleNamespace]:
    """Point at the position, each time a little beside it and with another roll."""
    shape, reach = (size.side, size.side), 0.1 * size.side * _SCALE / 3600
    for number in range(size.a_band[-1]):
        for band in BANDS[: size.bands[-1]]:
            ra, dec = POSITION + rng.uniform(-reach, reach, 2)
            gwcs = Pointing(ra, dec, rng.uniform(0, 360), _SCALE, shape).gwcs()
            sip = fit_sip(SkyWCS.from_gwcs(gwcs, shape), shape)
            header = sip.to_header()
            header.update(NAXIS=2, NAXIS1=size.side, NAXIS2=size.side, FILTER=band)
            expID = f"visit{number // 4:03d}/e{number:05d}"
            yield SimpleNamespace(
                hdr=header, band=band, expID=expID, number=number, gwcs=gwcs, sip=sip
            )


def _write_pixels(
    path: Path, side: int, exposures: list[SimpleNamespace], rng: np.random.Generator
) -> None:
    """Write exposures aligned to pages, as fpgpu does, each with values of its own."""
    values = rng.normal(size=(side // 8, side // 8, 128)).astype(np.float32)
    with h5py.File(path, "w", **_ALIGNED) as file:
        file.attrs["nside_full"], file.attrs["super_pixel_size"] = side, 8
        for exposure in exposures:
            file[f"{exposure.band}/{exposure.expID}/data"] = values
            values += np.float32(0.25)


def _write_shards(folder: Path, exposures: list[SimpleNamespace]) -> None:
    """Copy exposures to files of their own, and write a store that links to them."""
    with h5py.File(folder / "pixels.h5") as old, h5py.File(folder / "sharded.h5", "w") as main:
        main.attrs.update(old.attrs)
        for exposure in exposures:
            group = f"{exposure.band}/{exposure.expID}"
            name = f"sharded.shards/{exposure.band}/e{exposure.number:05d}.h5"
            shard = folder / name
            shard.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(shard, "w", **_ALIGNED) as file:
                old.copy(group, file.require_group(exposure.band), name=exposure.expID)
            main[group] = h5py.ExternalLink(name, f"/{group}")


def _write_meta(
    path: Path, exposures: list[SimpleNamespace], a_band: int, n_bands: int, *, gwcs: bool
) -> None:
    store = MetaStore()
    for exposure in sorted(exposures, key=lambda e: (BANDS.index(e.band), e.number)):
        if exposure.number < a_band and exposure.band in BANDS[:n_bands]:
            kept = exposure if gwcs else SimpleNamespace(**vars(exposure) | {"gwcs": None})
            store.add_exposure(kept)
    store.write_to_file(path)


def write_psf(path: Path, size: Size, rng: np.random.Generator, n_gauss: int = N_GAUSS) -> None:
    """Write PSFs that vary over the detector."""
    mixtures = np.zeros((_N_PSF, len(RADII) * n_gauss), PSF_DTYPE)
    mixtures["amp"] = 1 / n_gauss
    mixtures["Cxx"], mixtures["Cyy"] = rng.uniform(1, 4, (2, *mixtures.shape))
    mixtures["sersic_bin"] = np.repeat(np.arange(len(RADII)), n_gauss)
    store = PSFStore(path)
    for band in BANDS[: size.bands[-1]]:
        store.add_psf(band, mixtures, rng.uniform(0, size.side, (_N_PSF, 2)))
