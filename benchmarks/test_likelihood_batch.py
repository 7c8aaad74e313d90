"""Evaluating one scene and many at once on a patch in a backend's memory, as a sampler does.

The limit is a copy of the pixels there, which says little of it: there is much to compute for each.
"""

import numpy as np
import pytest

from benchmarks.gpu.sameness import N_SOURCES, n_batch, scene_of, small_region
from benchmarks.inputs.field import Field
from benchmarks.limits import copy_of
from benchmarks.sizes import Measure, Size
from fpgpu.backends.base import Backend


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_batch_of_scenes(
    measure: Measure, field: Field, backend: Backend, size: Size, many: bool
) -> None:
    number = n_batch(size) if many else 1
    if many and backend.device is None:
        pytest.skip("on the host a batch takes as long as its scenes one by one")
    sources, region = field.sources(N_SOURCES), small_region(field)
    with field.open(backend) as survey, survey.patch(region, sources, field.bands()) as patch:
        scenes = np.stack([scene_of(patch, sources)] * number)
        scenes["fluxes"] *= np.linspace(1, 2, number, dtype="f4")[:, None, None]
        n_bytes = patch.plan.pixel_bytes
        found = measure(
            "evaluate scenes",
            f"fpgpu {backend.name}",
            lambda: patch.evaluate_unchecked(scenes),
            at={"pixels": patch.plan.n_pixels, "sources": N_SOURCES, "batch": number},
            n_bytes=n_bytes,
            limit=copy_of(backend, "device to device", n_bytes),
        )
        alone = patch.evaluate(scenes[-1])
    assert np.array_equal(found.chi2[-1], alone.chi2)
    assert np.array_equal(found.derivatives[-1], alone.derivatives)
    assert np.isfinite(found.chi2).all()
