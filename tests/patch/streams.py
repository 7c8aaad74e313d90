"""A survey whose memory is counted, its regions, and plans that fail, for tests of streams."""

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fpgpu
from fpgpu import CircularRegion, PatchPlan, Survey
from fpgpu.backends.base import Backend
from fpgpu.patch.device import Patch
from fpgpu.patch.plan import ExposurePlan

__all__ = ["CENTRE", "contents", "regions", "stream_threads", "survey", "without_exposure"]

CENTRE = (53.16, -27.79)
_N_SLOTS = 2


@pytest.fixture
def survey(golden: Path, tmp_path: Path, backend: Backend) -> Iterator[Survey]:
    """A copy of the tiny field; the test fails when it leaves memory allocated or slots lent."""
    shutil.copytree(golden / "tiny", tmp_path / "field")
    with (
        fpgpu.open(tmp_path / "field", backend=backend) as opened,
        backend.staging(slot_bytes=1 << 20, depth=_N_SLOTS) as ring,
    ):
        yield opened
        backend.synchronize()
        assert ring.n_free == _N_SLOTS
        assert backend.live_allocations == 0


def regions(n: int) -> list[CircularRegion]:
    """Neighbouring circles of different sizes, all within the tiny field."""
    return [
        CircularRegion(CENTRE[0] + (k % 5 - 2) * 2e-4, CENTRE[1], (0.4 + 0.1 * (k % 7)) / 3600)
        for k in range(n)
    ]


def without_exposure(plan: PatchPlan) -> PatchPlan:
    """Give a plan whose first exposure is in no store."""
    first = plan.exposures[0]
    gone = ExposurePlan(first.band, "gone", first.shape, first.superpixels)
    return replace(plan, exposures=(gone, *plan.exposures[1:]))


def contents(patch: Patch) -> dict[str, np.ndarray]:
    """Fetch what a patch holds."""
    return {name: np.asarray(values) for name, values in patch.host_arrays().items()}


def stream_threads() -> list[threading.Thread]:
    """List the threads of all streams."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("fpgpu-stream")]
