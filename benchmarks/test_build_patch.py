"""From a region to a patch in memory: every exposure of a field, circles of 3 and 10 arcsec."""

from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest

from benchmarks.fields import BANDS, Field, radius_of, write_shards
from benchmarks.sizes import Measure, Size
from fpgpu import PixelStore, get_backend
from fpgpu.patch.build import build_patch
from fpgpu.patch.resident import ResidentExposures
from fpgpu.patch.stores import Stores

RADII = [3.0, 10.0]


def operation(size: Size, radius: float) -> str:
    return f"build a patch of {size.few} exposures, r = {radius:g} arcsec"


@pytest.mark.parametrize("radius", RADII)
def test_fpgpu(measure: Measure, size: Size, field: Field, radius: float) -> None:
    plan = field.plan(radius_of(size, radius))
    backend = get_backend("cpu")

    def build() -> None:
        build_patch(field.stores, plan, backend=backend).free()

    measure(operation(size, radius), "fpgpu, CPU, of a plan", build, n_bytes=plan.pixel_bytes)
    assert plan.n_exp == size.few
    assert backend.live_allocations == 0


@pytest.mark.parametrize("radius", RADII)
def test_fpgpu_of_a_region(measure: Measure, size: Size, field: Field, radius: float) -> None:
    backend = get_backend("cpu")

    def build() -> None:
        plan = field.plan(radius_of(size, radius))
        build_patch(field.stores, plan, backend=backend).free()

    n_bytes = field.plan(radius_of(size, radius)).pixel_bytes
    measure(operation(size, radius), "fpgpu, CPU", build, n_bytes=n_bytes)


@pytest.fixture(scope="module")
def sharded(field: Field) -> Iterator[Stores]:
    """The field with a file for each exposure."""
    path = write_shards(field.folder / "sharded.h5", field)
    with PixelStore(path, mode="r") as pixels:
        yield field.stores._replace(pixels=pixels)


@pytest.mark.parametrize("radius", RADII)
def test_fpgpu_of_shards(
    measure: Measure, size: Size, field: Field, sharded: Stores, radius: float
) -> None:
    plan = field.plan(radius_of(size, radius))
    backend = get_backend("cpu")

    def build() -> None:
        build_patch(sharded, plan, backend=backend).free()

    measure(
        operation(size, radius),
        "fpgpu, CPU, of a plan, sharded store",
        build,
        n_bytes=plan.pixel_bytes,
    )


def test_fpgpu_of_resident_exposures(measure: Measure, size: Size, field: Field) -> None:
    plan = field.plan(radius_of(size, 3.0))
    backend = get_backend("cpu")
    with ResidentExposures(backend, size.few * 8 * size.side**2) as resident:

        def build() -> None:
            build_patch(field.stores, plan, backend=backend, resident=resident).free()

        build()
        measure(
            operation(size, 3.0),
            "fpgpu, CPU, of a plan, resident exposures",
            build,
            n_bytes=plan.pixel_bytes,
        )
        assert resident.misses == size.few


@pytest.mark.parametrize("radius", RADII)
def test_forcepho(
    measure: Measure, size: Size, field: Field, forcepho_patch: ModuleType, radius: float
) -> None:
    patch = forcepho_patch(field.folder / "meta.json")
    region = field.region(radius_of(size, radius))
    measure(
        operation(size, radius),
        "forcepho",
        lambda: patch.build_patch(region, None, allbands=BANDS),
        n_bytes=field.plan(radius_of(size, radius)).pixel_bytes,
        rounds=3,
    )
    with build_patch(
        field.stores, field.plan(radius_of(size, radius)), backend=get_backend("cpu")
    ) as ours:
        for name in ("data", "ierr", "xpix", "ypix"):
            np.testing.assert_array_equal(getattr(patch, name), ours.retrieve(name))
