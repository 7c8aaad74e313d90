"""From a plan to a patch in memory: every exposure of a field, circles of 3 and 10 arcsec."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest
from astropy.io.fits import Header
from astropy.table import Table

from benchmarks.sizes import Measure, Size
from fpgpu import PSF_DTYPE, CircularRegion, MetaStore, PixelStore, PSFStore, get_backend
from fpgpu.ingest.exposure import ImageSet
from fpgpu.patch.build import build_patch
from fpgpu.patch.pack import RADII, pack_metadata
from fpgpu.patch.plan import PatchPlan, make_plan
from fpgpu.patch.resident import ResidentExposures
from fpgpu.patch.stores import Stores

BANDS = ["F090W", "F200W", "F444W"]
POSITION = (53.0, -27.0)
_SCALE = 0.031 / 3600  # degrees per pixel
_N_GAUSS = 4
_N_SRC = 15


class Field(NamedTuple):
    """The stores of a field, and sources in its middle."""

    stores: Stores
    sources: Table


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory, size: Size) -> Iterator[Field]:
    """Exposures that all cover the position, written once."""
    folder = tmp_path_factory.mktemp("field")
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
        yield Field(Stores(pixels, meta, psf), sources)


def _names(n_exp: int) -> Iterator[tuple[str, str]]:
    for n in range(n_exp):
        yield BANDS[n % len(BANDS)], f"visit{n // 12:03d}/e{n:05d}"


def _write_pixels(path: Path, side: int, n_exp: int, rng: np.random.Generator) -> None:
    """Write exposures aligned to pages, as fpgpu does."""
    values = rng.normal(size=(side // 8, side // 8, 128)).astype(np.float32)
    options = {"alignment_threshold": 65536, "alignment_interval": 4096}
    with h5py.File(path, "w", **options) as file:
        file.attrs["nside_full"], file.attrs["super_pixel_size"] = side, 8
        for band, expID in _names(n_exp):
            file[f"{band}/{expID}/data"] = values


def _write_meta(path: Path, side: int, n_exp: int, rng: np.random.Generator) -> None:
    """Write headers with SIP distortion, at random roll angles about the position."""
    store = MetaStore()
    for band, expID in _names(n_exp):
        angle = rng.uniform(0, 2 * np.pi)
        cos, sin = _SCALE * np.cos(angle), _SCALE * np.sin(angle)
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
    mixtures = np.zeros((16, len(RADII) * _N_GAUSS), PSF_DTYPE)
    mixtures["amp"] = rng.uniform(0.1, 1, mixtures.shape) / _N_GAUSS
    mixtures["Cxx"], mixtures["Cyy"] = rng.uniform(1, 4, (2, *mixtures.shape))
    mixtures["sersic_bin"] = np.repeat(np.arange(len(RADII)), _N_GAUSS)
    store = PSFStore(path)
    for band in BANDS:
        store.add_psf(band, mixtures, rng.uniform(0, side, (16, 2)))


def plan_of(field: Field, radius: float) -> PatchPlan:
    region = CircularRegion(*POSITION, radius / 3600)
    return make_plan(field.stores.pixels, field.stores.meta, region, BANDS)


@pytest.mark.parametrize("radius", [3.0, 10.0])
def test_fpgpu_build_patch(measure: Measure, size: Size, field: Field, radius: float) -> None:
    plan = plan_of(field, min(radius, 0.012 * size.side))
    backend = get_backend("cpu")

    def build() -> None:
        with build_patch(field.stores, plan, field.sources, backend=backend):
            pass

    measure(
        f"build a patch of {size.few} exposures, r = {radius:g} arcsec",
        "fpgpu, CPU",
        build,
        n_bytes=plan.pixel_bytes,
    )
    assert plan.n_exp == size.few
    assert backend.live_allocations == 0


def test_fpgpu_build_patch_of_resident_exposures(
    measure: Measure, size: Size, field: Field
) -> None:
    plan = plan_of(field, 3.0)
    backend = get_backend("cpu")
    with ResidentExposures(backend, size.few * 8 * size.side**2) as resident:

        def build() -> None:
            with build_patch(field.stores, plan, field.sources, backend=backend, resident=resident):
                pass

        build()
        measure(
            f"build a patch of {size.few} exposures, r = 3 arcsec",
            "fpgpu, CPU, resident exposures",
            build,
            n_bytes=plan.pixel_bytes,
        )
        assert resident.misses == size.few


def test_fpgpu_pack_metadata(measure: Measure, size: Size, field: Field) -> None:
    plan = plan_of(field, 3.0)
    packed = measure(
        f"pack the metadata of {size.few} exposures and {_N_SRC} sources",
        "fpgpu",
        lambda: pack_metadata(field.stores.meta, field.stores.psf, plan, field.sources),
    )
    assert packed.arrays["psfgauss"].size == size.few * _N_SRC * len(RADII) * _N_GAUSS
