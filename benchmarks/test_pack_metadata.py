"""Astrometry and PSFs of many sources on every exposure of a field, with FITS WCS and gWCS."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.fields import BANDS, N_GAUSS, Field, radius_of, write_gwcs
from benchmarks.sizes import Measure, Size
from fpgpu import MetaStore
from fpgpu.patch.pack import RADII, pack_metadata
from fpgpu.patch.plan import PatchPlan, make_plan

KINDS = ["FITS", "gWCS"]


@pytest.fixture(scope="module")
def meta_files(field: Field, size: Size) -> dict[str, Path]:
    """Meta stores of the field with each kind of WCS."""
    return {
        "FITS": field.folder / "meta.json",
        "gWCS": write_gwcs(field.folder / "gwcs.json", size),
    }


def operation(size: Size, field: Field, kind: str) -> str:
    return f"pack the metadata of {size.few} exposures and {len(field.sources)} sources, {kind}"


def plan_of(field: Field, size: Size, meta: MetaStore) -> PatchPlan:
    return make_plan(field.stores.pixels, meta, field.region(radius_of(size, 3.0)), BANDS)


class Scene:
    """As much of forcepho's scenes as its packing looks at, with positions of their own."""

    def __init__(self, catalog: Any) -> None:
        self.sources = [
            SimpleNamespace(ra=row["ra"], dec=row["dec"], radii=RADII) for row in catalog
        ]
        self.n_active = len(self.sources)


@pytest.mark.parametrize("kind", KINDS)
def test_fpgpu(
    measure: Measure, size: Size, field: Field, meta_files: dict[str, Path], kind: str
) -> None:
    with MetaStore(meta_files[kind], use_gwcs=kind == "gWCS") as meta:
        plan = plan_of(field, size, meta)
        packed = measure(
            operation(size, field, kind),
            "fpgpu",
            lambda: pack_metadata(meta, field.stores.psf, plan, field.sources),
            rounds=15,
        )
    n_gaussians = size.few * len(field.sources) * len(RADII) * N_GAUSS
    assert packed.arrays["psfgauss"].size == n_gaussians


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_forcepho(
    measure: Measure,
    size: Size,
    field: Field,
    meta_files: dict[str, Path],
    forcepho_patch: Any,
    kind: str,
) -> None:
    patch = forcepho_patch(meta_files[kind])
    few = field.sources[: 15 if kind == "FITS" or size.few < 10 else 2]  # seconds each
    with MetaStore(meta_files[kind], use_gwcs=kind == "gWCS") as meta:
        plan = plan_of(field, size, meta)
        names = [(exposure.band, exposure.expID) for exposure in plan.exposures]
        patch.bands, patch.bandlist = [band for band, _ in names], list(plan.bandlist)
        patch.hdrs = [patch.metastore.headers[band][expID] for band, expID in names]
        patch.wcses = [meta.wcs[band][expID] for band, expID in names]
        patch.n_exp, patch.n_bands, patch.n_exp_per_band = plan.n_exp, plan.n_bands, plan.band_N
        way = "forcepho" if len(few) == len(field.sources) else f"forcepho, {len(few)} sources only"
        measure(operation(size, field, kind), way, lambda: patch.pack_meta(Scene(few)), rounds=1)
        ours = pack_metadata(meta, field.stores.psf, plan, few, psf_per_source=False)
    np.testing.assert_array_equal(patch.psfgauss.view("u4"), ours.arrays["psfgauss"].view("u4"))
    # Its inverse of a gWCS comes with the gWCS: an approximation, and none outside of its box.
    there = np.isfinite(patch.crpix)
    assert there.mean() > 0.8
    np.testing.assert_allclose(patch.crpix[there], ours.arrays["crpix"][there], rtol=0, atol=0.1)
