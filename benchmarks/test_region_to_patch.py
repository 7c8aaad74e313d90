"""From a region of sky to its pixels in a backend's memory: find, plan, read, unpack.

Stores are open and have been asked before, as in a fit that works through a survey.
"""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest

from benchmarks.inputs.field import Field
from benchmarks.limits import copy_of
from benchmarks.sizes import USUAL_BANDS, Measure, Size
from benchmarks.test_transfer import TO_DEVICE
from benchmarks.upstream import circle, store_patch, write_splines
from fpgpu import Survey, get_backend
from fpgpu.backends.base import Backend
from fpgpu.patch.resident import ResidentExposures

OPERATION = "region to patch"


class Case(NamedTuple):
    """What a patch is made of."""

    radius: float
    a_band: int
    bands: int

    def __str__(self) -> str:
        return "-".join(map(str, self))

    @property
    def at(self) -> dict[str, float]:
        return {"radius": self.radius, "exposures a band": self.a_band, "bands": self.bands}


def cases(size: Size) -> list[Case]:
    """The usual patch, and those that differ from it in one thing: the last has everything."""
    usual = Case(size.radius, size.a_band[-1], USUAL_BANDS)
    found = [usual]
    found += [usual._replace(radius=radius) for radius in size.radii]
    found += [usual._replace(bands=bands) for bands in size.bands]
    found += [usual._replace(a_band=a_band, bands=size.bands[-1]) for a_band in size.a_band]
    return list(dict.fromkeys(found))


@pytest.fixture
def survey(field: Field, backend: Backend, case: Case) -> Iterator[Survey]:
    with field.open(backend, case.a_band) as survey:
        yield survey


def test_fpgpu(measure: Measure, field: Field, survey: Survey, case: Case) -> None:
    region, bands, backend = field.region(case.radius), field.bands(case.bands), survey.backend

    def build() -> None:
        with survey.patch(region, bands=bands):
            backend.synchronize()

    plan = survey.plan(region, bands)
    measure(
        OPERATION,
        f"fpgpu {backend.name}",
        build,
        at=case.at,
        n_bytes=plan.pixel_bytes,
        limit=copy_of(backend, TO_DEVICE, plan.pixel_bytes),
    )
    assert plan.n_exp == case.a_band * case.bands
    assert backend.live_allocations == 0


def test_fpgpu_of_shards(measure: Measure, field: Field, backend: Backend, size: Size) -> None:
    case = cases(size)[0]
    region, bands = field.region(case.radius), field.bands(case.bands)
    with field.open(backend, case.a_band, sharded=True) as survey:

        def build() -> None:
            with survey.patch(region, bands=bands):
                backend.synchronize()

        n_bytes = survey.plan(region, bands).pixel_bytes
        measure(
            OPERATION,
            f"fpgpu {backend.name}",
            build,
            detail="sharded store",
            at=case.at,
            n_bytes=n_bytes,
            limit=copy_of(backend, TO_DEVICE, n_bytes),
        )


@pytest.mark.parametrize("planned", [False, True], ids=["region", "plan given"])
def test_fpgpu_with_resident_exposures(
    measure: Measure, field: Field, backend: Backend, size: Size, planned: bool
) -> None:
    case = cases(size)[0]
    region, bands = field.region(case.radius), field.bands(case.bands)
    with field.open(backend, case.a_band) as survey:
        survey.resident = ResidentExposures(backend, size.few * 8 * size.side**2)
        plan = survey.plan(region, bands)

        def build() -> None:
            with survey.patch(plan) if planned else survey.patch(region, bands=bands):
                backend.synchronize()

        build()
        measure(
            OPERATION,
            f"fpgpu {backend.name}",
            build,
            detail="resident exposures, plan given" if planned else "resident exposures",
            at=case.at,
            n_bytes=plan.pixel_bytes,
            limit=copy_of(backend, "device to device", plan.pixel_bytes),
        )
        assert survey.resident.misses == size.few


@pytest.mark.filterwarnings("ignore")
def test_forcepho(
    measure: Measure, field: Field, case: Case, forcepho: ModuleType, tmp_path: Path
) -> None:
    splines = write_splines(tmp_path / "splines.h5")
    patch = store_patch(field.pixels, field.meta(case.a_band), field.psf, splines)
    region, bands = circle(field.region(case.radius)), field.bands(case.bands)
    measure(
        OPERATION,
        "forcepho",
        lambda: patch.build_patch(region, allbands=bands),
        at=case.at,
        rounds=2,
        warm_up=False,
    )
    with (
        field.open(get_backend("cpu"), case.a_band) as survey,
        survey.patch(field.region(case.radius), bands=bands) as ours,
    ):
        for name in ("data", "ierr", "xpix", "ypix"):
            np.testing.assert_array_equal(getattr(patch, name), ours.retrieve(name))
    patch.pixelstore.close()
