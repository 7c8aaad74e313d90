"""The golden field and its stores, and every backend that runs here, for tests of patches."""

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fpgpu import CircularRegion, MetaStore, PixelStore, PSFStore, get_backend
from fpgpu.backends.availability import cuda_status
from fpgpu.backends.base import Backend
from fpgpu.patch.plan import PatchPlan, make_plan
from fpgpu.patch.stores import Stores
from tests.backends import standin_cupy
from tests.backends.conftest import cuda_class as cuda_class
from tests.sky.conftest import nircam_gwcs as nircam_gwcs

BACKENDS: list[Any] = ["cpu", "cuda over a stand-in"]
if cuda_status().problem is None:  # what the problem is, tests/gpu says
    BACKENDS.append(pytest.param("cuda", marks=pytest.mark.gpu))


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A new backend, which must have its memory back at the end."""
    if request.param == "cpu":
        made = get_backend("cpu")
    elif request.param == "cuda":
        made = get_backend("cuda")
    else:
        make = request.getfixturevalue("cuda_class")
        standin_cupy.set_pace(None)
        made = make(0)
    yield made
    assert [t for t in threading.enumerate() if t.name.startswith("fpgpu-stream")] == []
    made.synchronize()
    gc.collect()  # an error that a test has kept keeps what its frames have
    assert made.live_allocations == 0


@pytest.fixture(scope="session")
def packed(golden: Path) -> dict[str, Any]:
    """Every array of the patch that forcepho packed of the golden field."""
    with np.load(golden / "tiny" / "patch_1p2arcsec_3src.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def stores(golden: Path) -> Iterator[Stores]:
    """The stores that forcepho made of the golden field, to be read only."""
    folder = golden / "tiny"
    with (
        PixelStore(folder / "pixels.h5", mode="r") as pixels,
        MetaStore(folder / "meta.json") as meta,
        PSFStore(folder / "psf.h5") as psf,
    ):
        yield Stores(pixels, meta, psf)


@pytest.fixture(scope="session")
def plan(stores: Stores, packed: dict[str, Any]) -> PatchPlan:
    """The plan of forcepho's patch."""
    bands = [str(band) for band in packed["bandlist"]]
    return make_plan(stores.pixels, stores.meta, CircularRegion(*packed["region"]), bands)


@pytest.fixture(scope="session")
def sources(packed: dict[str, Any]) -> Any:
    """The sources of forcepho's patch."""
    return packed["sourcecat"]
