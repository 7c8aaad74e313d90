"""Packing the sources of a patch: their astrometry in every exposure, and their PSFs there."""

from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

from benchmarks.inputs.field import N_GAUSS, Field
from benchmarks.sizes import USUAL_SOURCES, Measure, Size
from benchmarks.upstream import catalog, circle, store_patch, write_splines
from fpgpu import get_backend
from fpgpu.patch.pack import FORCEPHO_RADII as RADII
from fpgpu.patch.pack import pack_metadata

OPERATION = "pack metadata"


class Case(NamedTuple):
    """How much is packed."""

    sources: int
    a_band: int
    gwcs: bool = False

    @property
    def detail(self) -> str:
        return "gWCS" if self.gwcs else "FITS WCS"

    def __str__(self) -> str:
        return "-".join(map(str, self))

    @property
    def at(self) -> dict[str, float]:
        return {"sources": self.sources, "exposures a band": self.a_band}


def cases(size: Size) -> list[Case]:
    """The usual sources, and cases that differ from them in one thing."""
    usual = Case(USUAL_SOURCES, size.a_band[-1])
    found = [usual, usual._replace(gwcs=True)]
    found += [usual._replace(sources=sources) for sources in size.sources]
    found += [usual._replace(a_band=a_band) for a_band in size.a_band]
    return list(dict.fromkeys(found))


def test_fpgpu(measure: Measure, field: Field, case: Case) -> None:
    with field.open(get_backend("cpu"), case.a_band, gwcs=case.gwcs) as survey:
        plan = survey.plan(field.region(), field.bands())
        sources = field.sources(case.sources)
        packed = measure(
            OPERATION,
            "fpgpu cpu",
            lambda: pack_metadata(survey.meta, survey.psf, plan, sources),
            detail=case.detail,
            at=case.at,
        )
    expected = plan.n_exp * case.sources * len(RADII) * N_GAUSS
    assert packed.arrays["psfgauss"].size == expected


@pytest.mark.filterwarnings("ignore")
def test_forcepho(
    measure: Measure, field: Field, case: Case, forcepho: ModuleType, tmp_path: Path
) -> None:
    splines = write_splines(tmp_path / "splines.h5")
    meta = field.gwcs if case.gwcs else field.meta(case.a_band)
    patch = store_patch(field.pixels, meta, field.psf, splines, gwcs=case.gwcs)
    patch.build_patch(circle(field.region()), allbands=field.bands())
    sources = catalog(field, case.sources)

    def fresh_scene() -> tuple[tuple[Any, ...], dict[str, Any]]:
        # Packing shifts the sources of the scene, so each call needs a new one.
        return (patch.set_scene(sources),), {}

    measure(
        OPERATION,
        "forcepho",
        patch.pack_meta,
        detail=case.detail,
        at=case.at,
        setup=fresh_scene,
        rounds=1 if case.gwcs else 2,  # a gWCS takes it ten seconds
        warm_up=False,
    )
    with field.open(get_backend("cpu"), case.a_band, gwcs=case.gwcs) as survey:
        plan = survey.plan(field.region(), field.bands())
        ours = pack_metadata(
            survey.meta, survey.psf, plan, field.sources(case.sources), psf_per_source=False
        ).arrays
    np.testing.assert_array_equal(patch.psfgauss.view("u4"), ours["psfgauss"].view("u4"))
    # Its inverse of a gWCS comes with the gWCS: an approximation, and none outside of its box.
    there = np.isfinite(patch.crpix)
    assert there.mean() > 0.8
    np.testing.assert_allclose(patch.crpix[there], ours["crpix"][there], rtol=0, atol=0.1)
    patch.pixelstore.close()
