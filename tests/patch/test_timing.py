"""Where the time of a patch goes, on every backend."""

from fpgpu.backends.base import Backend
from fpgpu.patch.plan import PatchPlan
from fpgpu.patch.stores import Stores
from fpgpu.patch.timing import PHASES, time_patch


def test_every_phase_that_there_is_takes_time(
    stores: Stores, plan: PatchPlan, backend: Backend
) -> None:
    times = time_patch(stores, plan.region, backend=backend, repeats=1)
    assert list(times.seconds) == list(PHASES)
    assert times.n_pixels == plan.n_pixels
    # Something crosses a bus only where the backend's memory is not the host's.
    idle = {"upload"} if backend.name == "cpu" else set()
    for phase in set(PHASES) - {"other"}:
        assert (times.seconds[phase] > 0) == (phase not in idle)


def test_the_sources_are_packed_too(
    stores: Stores, plan: PatchPlan, sources: object, backend: Backend
) -> None:
    bands = plan.bandlist[:1]
    times = time_patch(stores, plan.region, sources, bands, backend=backend, repeats=1)
    assert (times.n_sources, times.n_exp) == (3, 2)


def test_one_band_may_be_named_alone(stores: Stores, plan: PatchPlan, backend: Backend) -> None:
    times = time_patch(stores, plan.region, None, plan.bandlist[0], backend=backend, repeats=1)
    assert times.n_exp == plan.band_N[0]
