"""The stores of a field whose exposures all cover one position."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import h5py
import numpy as np
from astropy.io.fits import Header
from astropy.table import Table

from benchmarks.sizes import SIZES, Size
from fpgpu import PSF_DTYPE, CircularRegion, MetaStore, PixelStore, PSFStore
from fpgpu.demo.telescope import Pointing
from fpgpu.ingest.exposure import ImageSet
from fpgpu.patch.pack import RADII
from fpgpu.patch.plan import PatchPlan, make_plan
from fpgpu.patch.stores import Stores
from fpgpu.sky.sip import fit_sip
from fpgpu.sky.wcs import SkyWCS

__all__ = [
    "BANDS",
    "N_GAUSS",
    "POSITION",
    "Field",
    "radius_of",
    "write_field",
    "write_gwcs",
    "write_shards",
]

BANDS = ["F090W", "F200W", "F444W"]
POSITION = (53.0, -27.0)
N_GAUSS = 4
_SCALE = 0.031  # arcsec per pixel
_N_SRC = 15
_ALIGNED = {"alignment_threshold": 65536, "alignment_interval": 4096}


class Field(NamedTuple):
    """The stores of a field, and sources in its middle."""

    folder: Path
    stores: Stores
    sources: Table

    def region(self, radius: float) -> CircularRegion:
        """A circle of a radius in arcsec."""
        return CircularRegion(*POSITION, radius / 3600)

    def plan(self, radius: float) -> PatchPlan:
        """The patch of a radius in arcsec."""
        return make_plan(self.stores.pixels, self.stores.meta, self.region(radius), BANDS)


def radius_of(size: Size, radius: float) -> float:
    """A radius in arcsec that takes as much of the detectors of a size as of a survey's."""
    return radius * size.side / SIZES["survey"].side


def write_field(folder: Path, size: Size) -> Iterator[Field]:
    """Write the stores, and open them for as long as the generator is."""
    rng = np.random.default_rng(1)
    side, n_exp = size.side, size.few
    _write_pixels(folder / "pixels.h5", side, n_exp, rng)
    _write_meta(folder / "meta.json", side, n_exp, rng)
    _write_psf(folder / "psf.h5", side, rng)
    offsets = rng.uniform(-2, 2, (2, _N_SRC)) / 3600
    sources = Table([POSITION[0] + offsets[0], POSITION[1] + offsets[1]], names=["ra", "dec"])
    with (
        PixelStore(folder / "pixels.h5", mode="r") as pixels,
        MetaStore(folder / "meta.json") as meta,
        PSFStore(folder / "psf.h5") as psf,
    ):
        yield Field(folder, Stores(pixels, meta, psf), sources)


def write_gwcs(path: Path, size: Size) -> Path:
    """Write a meta store of the same exposures that have a gWCS, with its refit, as ingest does."""
    rng = np.random.default_rng(2)
    store, shape = MetaStore(), (size.side, size.side)
    for band, expID in _names(size.few):
        pointing = Pointing(*POSITION, float(rng.uniform(0, 360)), _SCALE, shape)
        gwcs = pointing.gwcs()
        sip = fit_sip(SkyWCS.from_gwcs(gwcs, shape), shape)
        header = sip.to_header()
        header["NAXIS"], header["NAXIS1"], header["NAXIS2"], header["FILTER"] = 2, *shape, band
        store.add_exposure(SimpleNamespace(hdr=header, band=band, expID=expID, gwcs=gwcs, sip=sip))
    store.write_to_file(path)
    return path


def write_shards(path: Path, field: Field) -> Path:
    """Write the same pixels with a file for each exposure, and a store that links to them."""
    with h5py.File(field.folder / "pixels.h5") as old, h5py.File(path, "w") as main:
        main.attrs.update(old.attrs)
        for band, expID in field.stores.meta:
            group, name = f"{band}/{expID}", f"{path.stem}.shards/{band}/{Path(expID).name}.h5"
            shard = path.parent / name
            shard.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(shard, "w", **_ALIGNED) as file:
                old.copy(group, file.require_group(band), name=expID)
            main[group] = h5py.ExternalLink(name, f"/{group}")
    return path


def _names(n_exp: int) -> Iterator[tuple[str, str]]:
    for n in range(n_exp):
        yield BANDS[n % len(BANDS)], f"visit{n // 12:03d}/e{n:05d}"


def _write_pixels(path: Path, side: int, n_exp: int, rng: np.random.Generator) -> None:
    """Write exposures aligned to pages, as fpgpu does."""
    values = rng.normal(size=(side // 8, side // 8, 128)).astype(np.float32)
    with h5py.File(path, "w", **_ALIGNED) as file:
        file.attrs["nside_full"], file.attrs["super_pixel_size"] = side, 8
        for band, expID in _names(n_exp):
            file[f"{band}/{expID}/data"] = values


def _write_meta(path: Path, side: int, n_exp: int, rng: np.random.Generator) -> None:
    """Write headers with SIP distortion, at random roll angles about the position."""
    store = MetaStore()
    for band, expID in _names(n_exp):
        angle = rng.uniform(0, 2 * np.pi)
        cos, sin = _SCALE / 3600 * np.cos(angle), _SCALE / 3600 * np.sin(angle)
        dx, dy = rng.uniform(-0.1, 0.1, 2) * side
        header = Header(
            {
                "NAXIS": 2, "NAXIS1": side, "NAXIS2": side, "FILTER": band,
                "CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "CUNIT1": "deg",
                "CUNIT2": "deg", "CRPIX1": side / 2 + dx, "CRPIX2": side / 2 + dy,
                "CRVAL1": POSITION[0], "CRVAL2": POSITION[1],
                "CD1_1": -cos, "CD1_2": sin, "CD2_1": sin, "CD2_2": cos,
                "A_ORDER": 3, "B_ORDER": 3, "A_2_0": 1e-6, "A_1_2": 1e-10, "B_0_2": -1e-6,
            }
        )  # fmt: skip
        store.add_exposure(ImageSet(None, None, None, None, header, band, expID, None))
    store.write_to_file(path)


def _write_psf(path: Path, side: int, rng: np.random.Generator) -> None:
    """Write PSFs that vary over the detector."""
    mixtures = np.zeros((16, len(RADII) * N_GAUSS), PSF_DTYPE)
    mixtures["amp"] = rng.uniform(0.1, 1, mixtures.shape) / N_GAUSS
    mixtures["Cxx"], mixtures["Cyy"] = rng.uniform(1, 4, (2, *mixtures.shape))
    mixtures["sersic_bin"] = np.repeat(np.arange(len(RADII)), N_GAUSS)
    store = PSFStore(path)
    for band in BANDS:
        store.add_psf(band, mixtures, rng.uniform(0, side, (16, 2)))
