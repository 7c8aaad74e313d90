"""Super-pixels unpacked in turn are the pixels that the reference gives of all at once."""

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpgpu.backends import reference, unpacking
from fpgpu.backends.arguments import PatchPixels
from fpgpu.backends.cpu import CpuBackend
from fpgpu.backends.unpacking import Unpacker
from fpgpu.errors import KernelLaunchError, LayoutError

GRID = (6, 9)


@pytest.fixture(params=["one core", "two cores"], autouse=True)
def _cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill coordinates in the calling thread, and in another one however few they are."""
    cores = {0} if request.param == "one core" else {0, 1}
    monkeypatch.setattr(unpacking.os, "sched_getaffinity", lambda _: cores)
    monkeypatch.setattr(unpacking, "_WORTH_A_THREAD", 0)


def pixels(n: int, size: int = 8) -> PatchPixels:
    return PatchPixels(*np.full((4, n * size * size), 7, np.float32))


def unpacker(places: Any, out: PatchPixels, **options: Any) -> Unpacker:
    return Unpacker(CpuBackend(), places, out, 8, grid=GRID, **options)


@settings(max_examples=60)
@given(
    counts=st.lists(st.integers(0, 40), max_size=6),
    size=st.sampled_from([1, 3, 8]),
    max_snr=st.sampled_from([0.0, 1.5]),
    seed=st.integers(0, 1000),
)
def test_parts_are_what_all_are_at_once(
    counts: list[int], size: int, max_snr: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    n = sum(counts)
    places = np.stack([rng.integers(0, side, n, np.int32) for side in GRID], axis=1)
    superpixels = rng.normal(size=(n, 2 * size * size)).astype(np.float32)
    superpixels[rng.random(superpixels.shape) < 0.1] = np.nan
    backgrounds = rng.choice([0.0, 0.25], len(counts)).tolist()
    expected = reference.unpack(superpixels, places, counts, backgrounds, size, max_snr)
    out, memory = pixels(n, size), np.empty((40, 2 * size * size), np.float32)
    with Unpacker(CpuBackend(), places, out, size, grid=GRID, max_snr=max_snr) as parts:
        for stop, count, background in zip(np.cumsum(counts), counts, backgrounds, strict=True):
            memory[:count] = superpixels[stop - count : stop]
            parts.add(memory[:count], background)
        parts.finish()
    for found, array in zip(out, expected, strict=True):
        np.testing.assert_array_equal(found.view(np.uint32), array.view(np.uint32))


def test_super_pixels_that_are_too_many_or_missing_are_refused() -> None:
    places = np.zeros((3, 2), np.int32)
    with unpacker(places, pixels(3)) as parts:
        parts.add(np.zeros((2, 128), np.float32))
        with pytest.raises(LayoutError, match="2 super-pixels came where 1 are left"):
            parts.add(np.zeros((2, 128), np.float32))
        with pytest.raises(LayoutError, match="1 super-pixels that there are places of"):
            parts.finish()
        parts.add(np.zeros((1, 128), np.float32))
        parts.finish()


@pytest.mark.parametrize("place", [(6, 0), (0, 9), (-1, 0)])
def test_places_outside_the_exposures_are_refused(place: tuple[int, int]) -> None:
    out = pixels(2)
    with pytest.raises(KernelLaunchError, match=r"places\[1, \d\] is"):
        unpacker(np.array([(0, 0), place], np.int32), out)
    assert all((array == 7).all() for array in out)


def test_arrays_that_do_not_fit_are_refused() -> None:
    places, out = np.zeros((2, 2), np.int32), pixels(2)
    with pytest.raises(LayoutError, match=r"ypix has shape \(64,\); expected \(128\)"):
        unpacker(places, out._replace(ypix=np.zeros(64, np.float32)))
    with pytest.raises(LayoutError, match="overlap in memory"):
        unpacker(places, out._replace(ypix=out.xpix))
    with pytest.raises(KernelLaunchError, match="max_snr"):
        unpacker(places, out, max_snr=-1.0)
    with unpacker(places, out) as parts:
        with pytest.raises(LayoutError, match="superpixels has shape"):
            parts.add(np.zeros((2, 64), np.float32))
        with pytest.raises(LayoutError, match="superpixels has dtype float64"):
            parts.add(np.zeros((2, 128)))


def test_what_goes_wrong_with_coordinates_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(unpacking, "_fill_coordinates", fail)
    with (  # noqa: PT012 - either here or there
        pytest.raises(MemoryError, match="no room"),
        unpacker(np.zeros((1, 2), np.int32), pixels(1)) as parts,
    ):
        parts.add(np.zeros((1, 128), np.float32))
        parts.finish()


def test_where_no_thread_can_be_started_it_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    out = pixels(1)
    with unpacker(np.array([[2, 3]], np.int32), out) as parts:
        parts.add(np.zeros((1, 128), np.float32))
        parts.finish()
    assert (out.xpix[0], out.ypix[0]) == (16, 24)


def test_nothing_is_written_after_the_block_also_when_it_fails() -> None:
    before = threading.active_count()
    with pytest.raises(RuntimeError), unpacker(np.zeros((9, 2), np.int32), pixels(9)):
        raise RuntimeError
    assert threading.active_count() == before
