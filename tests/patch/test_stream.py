"""Streams of patches: their order, what is built ahead, whose memory it is, and how they end."""

import gc
import threading
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from astropy.table import Table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fpgpu import CircularRegion, Survey
from fpgpu.errors import NotInStoreError, PlanError, RegionError, ReleasedMemoryError
from fpgpu.patch.build import build_patch
from fpgpu.patch.device import Patch
from fpgpu.patch.stream import PatchStream, StreamedPatch
from tests.patch.streams import CENTRE, contents, regions, stream_threads, without_exposure
from tests.patch.streams import survey as survey

SOURCES = Table([[CENTRE[0], CENTRE[0] + 1e-5], [CENTRE[1], CENTRE[1]]], names=["ra", "dec"])


def same(one: Patch, other: Patch) -> bool:
    """Whether two patches hold the same bits."""
    first, second = contents(one), contents(other)
    return first.keys() == second.keys() and all(
        np.array_equal(first[name], second[name]) for name in first
    )


class Watched:
    """Builds patches of a survey, and lets the test see and hold how far that is."""

    def __init__(self, survey: Survey) -> None:
        self.survey = survey
        self.begun: list[str] = []
        self.built = 0
        self.asked = 0
        self.allowed = threading.Semaphore(1000)
        self.most_live = 0
        self._patches: weakref.WeakSet[Patch] = weakref.WeakSet()
        self._changed = threading.Condition()

    def stream(self, n: int, depth: int) -> PatchStream:
        return PatchStream(
            self._regions(n), self.survey.plan, self._build, self.survey.backend, depth=depth
        )

    def wait_until_begun(self, n: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.begun) >= n, timeout=60)

    def wait_until_built(self, n: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.built >= n, timeout=60)

    def _regions(self, n: int) -> Iterator[CircularRegion]:
        for region in regions(n):
            self.asked += 1
            yield region

    def _build(self, plan: object, catalog: object) -> Patch:
        with self._changed:
            self.begun.append(threading.current_thread().name)
            self._changed.notify_all()
        assert self.allowed.acquire(timeout=60)
        patch = build_patch(self.survey, plan, catalog, backend=self.survey.backend)  # type: ignore[arg-type]
        with self._changed:
            self.built += 1
            self._patches.add(patch)
            live = sum(not other.freed for other in list(self._patches))
            self.most_live = max(self.most_live, live)
            self._changed.notify_all()
        return patch


# --- what comes, and in which order --------------------------------------------------------------


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kinds=st.lists(st.sampled_from(["region", "plan", "lost"]), max_size=8), depth=st.integers(1, 4)
)
def test_each_region_gives_what_it_gives_alone_in_order(
    survey: Survey, kinds: list[str], depth: int
) -> None:
    entries = []
    for kind, region in zip(kinds, regions(len(kinds)), strict=True):
        plan = survey.plan(region)
        entries.append({"region": region, "plan": plan, "lost": without_exposure(plan)}[kind])
    seen = []
    with survey.stream(entries, SOURCES, depth=depth) as stream:
        for item in stream:
            assert item.region is entries[item.index]
            seen.append((item.index, "lost" if item.error else "there"))
            if item.error is None:
                with survey.patch(item.region, SOURCES) as alone:
                    assert same(item.patch, alone)
            else:
                with pytest.raises(NotInStoreError, match="gone") as caught:
                    _ = item.patch
                assert caught.value is item.error
    assert seen == [(k, "lost" if kind == "lost" else "there") for k, kind in enumerate(kinds)]
    assert survey.backend.live_allocations == 0


def test_a_region_may_bring_its_own_sources(survey: Survey) -> None:
    first, second, third = regions(3)
    entries = [first, (second, SOURCES[:1]), (survey.plan(third), None)]
    with survey.stream(entries, SOURCES, margin=None) as stream:
        assert [item.patch.n_sources for item in stream] == [2, 1, 0]


def test_each_patch_takes_the_sources_of_its_region(survey: Survey) -> None:
    # A catalogue of a survey: two sources in each region, and thousands elsewhere.
    asked = regions(5)
    ra = np.repeat([region.ra for region in asked], 2) + np.tile([0.0, 1e-5], 5)
    everywhere = np.concatenate([ra, np.linspace(60, 61, 4000)])
    catalog = {"ra": everywhere, "dec": np.full(len(everywhere), CENTRE[1])}
    with survey.stream(asked, catalog) as stream:
        taken = [item.patch.sources.tolist() for item in stream]
    away = np.cos(np.deg2rad(CENTRE[1])) * abs(everywhere - [[region.ra] for region in asked])
    reach = [[region.radius + 0.5 / 3600] for region in asked]
    assert taken == [np.flatnonzero(inside).tolist() for inside in away < reach]
    assert [2 * k in rows for k, rows in enumerate(taken)] == [True] * 5


def test_bands_selection_and_options_are_those_of_a_patch(survey: Survey) -> None:
    (region,) = regions(1)
    bands = iter(["F444W", "F090W"])
    with (
        survey.stream([region] * 2, bands=bands, select="overlap", max_snr=1.0) as stream,
        survey.patch(region, bands=["F444W", "F090W"], select="overlap", max_snr=1.0) as alone,
    ):
        assert [same(item.patch, alone) for item in stream] == [True, True]


def test_an_error_of_the_regions_comes_after_the_patches_before_it(survey: Survey) -> None:
    def asked() -> Iterator[CircularRegion]:
        yield from regions(2)
        yield CircularRegion(float("nan"), 0.0, 1.0)

    stream = survey.stream(asked(), depth=5)
    assert [next(stream).patch.n_sources for _ in range(2)] == [0, 0]
    with pytest.raises(RegionError):
        next(stream)
    assert stream.closed
    with pytest.raises(StopIteration):
        next(stream)


def test_a_stream_without_depth_is_refused(survey: Survey) -> None:
    with pytest.raises(PlanError, match="depth 0 builds nothing ahead"):
        survey.stream(regions(1), depth=0)


# --- ahead, but not too far ----------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 3])
def test_the_next_patches_are_built_while_one_is_in_use(survey: Survey, depth: int) -> None:
    watched = Watched(survey)
    with watched.stream(10, depth) as stream:
        assert watched.asked == 0
        next(stream)
        watched.wait_until_begun(1 + depth)
        assert watched.asked == 1 + depth
        next(stream)
        watched.wait_until_begun(2 + depth)
        assert watched.asked == 2 + depth
    assert len(watched.begun) == 2 + depth
    assert set(watched.begun) == {"fpgpu-stream"}


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_stream_holds_one_patch_more_than_its_depth(survey: Survey, depth: int) -> None:
    watched = Watched(survey)
    with watched.stream(12, depth) as stream:
        for k, item in enumerate(stream):
            watched.wait_until_built(min(12, k + 1 + depth))
            assert not item.patch.freed
    assert watched.most_live == 1 + depth


def test_a_consumer_faster_than_the_thread_waits_for_it(survey: Survey) -> None:
    watched = Watched(survey)
    watched.allowed = threading.Semaphore(0)
    timer = threading.Timer(0.2, watched.allowed.release, [5])
    with watched.stream(5, 2) as stream:
        timer.start()
        assert [item.index for item in stream] == list(range(5))
    timer.join()


# --- whose memory it is --------------------------------------------------------------------------


def test_a_patch_is_freed_when_the_next_is_asked_for_unless_it_was_kept(survey: Survey) -> None:
    with survey.stream(regions(3)) as stream:
        first, second = next(stream).patch, next(stream).keep()
        assert first.freed
        with pytest.raises(ReleasedMemoryError):
            first.retrieve("data")
        third = next(stream).patch
        assert not third.freed
    assert third.freed
    with second:
        assert second.retrieve("data").size == second.plan.n_pixels


# --- ends ----------------------------------------------------------------------------------------


def test_the_end_of_the_regions_closes_the_stream(survey: Survey) -> None:
    stream = survey.stream(regions(3))
    assert len(list(stream)) == 3
    assert stream.closed
    assert survey.backend.live_allocations == 0
    assert not stream_threads()
    assert list(survey.stream([])) == []


@pytest.mark.parametrize("n_used", [0, 1, 4])
def test_closing_early_frees_everything(survey: Survey, n_used: int) -> None:
    stream = survey.stream(regions(20), depth=3)
    patches = [next(stream).patch for _ in range(n_used)]
    stream.close()
    stream.close()
    assert all(patch.freed for patch in patches)
    assert survey.backend.live_allocations == 0
    assert not stream_threads()
    assert "closed" in repr(stream)
    with pytest.raises(StopIteration):
        next(stream)


def test_closing_waits_for_the_patch_being_built_and_builds_no_other(survey: Survey) -> None:
    watched = Watched(survey)
    watched.allowed = threading.Semaphore(1)
    stream = watched.stream(10, 4)
    next(stream)
    watched.wait_until_begun(2)
    timer = threading.Timer(0.5, watched.allowed.release, [9])
    timer.start()
    stream.close()
    assert (len(watched.begun), watched.built) == (2, 2)
    assert survey.backend.live_allocations == 0
    timer.join()


def test_an_error_of_the_consumer_closes_the_stream(survey: Survey) -> None:
    def use(item: StreamedPatch) -> None:
        raise ZeroDivisionError(item.index)

    with pytest.raises(ZeroDivisionError), survey.stream(regions(9)) as stream:
        use(next(stream))
    assert survey.backend.live_allocations == 0
    assert not stream_threads()


def test_a_stream_that_is_dropped_builds_no_more_and_its_memory_comes_back(survey: Survey) -> None:
    watched = Watched(survey)
    for item in watched.stream(50, 4):
        assert not item.patch.freed
        break
    del item
    gc.collect()
    for thread in stream_threads():
        thread.join(60)
    assert len(watched.begun) <= 5
    assert survey.backend.live_allocations == 0


def test_streams_of_one_survey_run_side_by_side(survey: Survey) -> None:
    asked = regions(12)
    with survey.stream(asked, SOURCES) as one, survey.stream(asked[::-1], SOURCES) as other:
        pairs = [(a.patch.plan, b.patch.plan) for a, b in zip(one, other, strict=True)]
    assert [a for a, _ in pairs] == [b for _, b in pairs][::-1]
