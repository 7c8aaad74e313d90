"""Unpacking on the CPU, part by part: cuts of what is read, and coordinates by another core."""

import threading
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpgpu.backends import reference, unpacking
from fpgpu.backends.arguments import PatchPixels, StagedExposure
from fpgpu.backends.cpu import CpuBackend
from fpgpu.backends.unpacking import Piece, batches, count

GRID = (6, 9)


@pytest.fixture(params=["one core", "two cores"], autouse=True)
def _cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill coordinates in the calling thread, and in another one however few they are."""
    cores = {0} if request.param == "one core" else {0, 1}
    monkeypatch.setattr(unpacking.os, "sched_getaffinity", lambda _: cores)
    monkeypatch.setattr(unpacking, "_WORTH_A_THREAD", 0)


def pixels(n: int, size: int = 8) -> PatchPixels:
    return PatchPixels(*np.full((4, n * size * size), 7, np.float32))


def unpack_zeros(places: Any, out: PatchPixels) -> None:
    """Unpack one exposure of zeros that is read."""
    places = np.array(places, np.int32)
    exposure = StagedExposure(None, len(places), grid=GRID)
    CpuBackend().unpack([exposure], places, out, read=lambda *part: part[2].fill(0))


@settings(max_examples=60)
@given(
    counts=st.lists(st.integers(0, 40), max_size=6),
    size=st.sampled_from([1, 3, 8]),
    max_snr=st.sampled_from([0.0, 1.5]),
    slot=st.integers(1, 50),
    seed=st.integers(0, 1000),
)
def test_parts_are_what_all_are_at_once(
    counts: list[int], size: int, max_snr: float, slot: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    n = sum(counts)
    places = np.stack([rng.integers(0, side, n, np.int32) for side in GRID], axis=1)
    superpixels = rng.normal(size=(n, 2 * size * size)).astype(np.float32)
    superpixels[rng.random(superpixels.shape) < 0.1] = np.nan
    backgrounds = rng.choice([0.0, 0.25], len(counts)).tolist()
    expected = reference.unpack(superpixels, places, counts, backgrounds, size, max_snr)
    exposures = [
        StagedExposure(None, count, background, GRID)
        for count, background in zip(counts, backgrounds, strict=True)
    ]

    def read(start: int, stop: int, to: Any) -> None:
        to[...] = superpixels[start:stop]

    out, backend = pixels(n, size), CpuBackend()
    with backend.staging(slot_bytes=slot * 8 * size * size, depth=1):
        first_bad = backend.unpack(exposures, places, out, size, max_snr=max_snr, read=read)
    for found, array in zip(out, expected, strict=True):
        np.testing.assert_array_equal(found.view(np.uint32), array.view(np.uint32))
    bad = np.flatnonzero(~np.isfinite(superpixels).all(axis=1))
    assert first_bad() == (int(bad[0]) if bad.size else None)


def test_what_goes_wrong_with_coordinates_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(unpacking, "_fill_coordinates", fail)
    with pytest.raises(MemoryError, match="no room"):
        unpack_zeros([(0, 0)], pixels(1))


def test_where_no_thread_can_be_started_it_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    out = pixels(1)
    unpack_zeros([(2, 3)], out)
    assert (out.xpix[0], out.ypix[0]) == (16, 24)


def test_nothing_is_written_any_more_when_reading_failed() -> None:
    def read(*_: Any) -> None:
        raise RuntimeError

    before = threading.active_count()
    exposure, places = StagedExposure(None, 9, grid=GRID), np.zeros((9, 2), np.int32)
    with pytest.raises(RuntimeError):
        CpuBackend().unpack([exposure], places, pixels(9), read=read)
    assert threading.active_count() == before


whole_exposures = st.lists(st.integers(1, 60), max_size=12).map(
    lambda counts: [
        Piece(number, stop - count, stop)
        for number, (count, stop) in enumerate(zip(counts, np.cumsum(counts).tolist(), strict=True))
    ]
)


@given(pieces=whole_exposures, at_most=st.integers(1, 80), enough=st.integers(1, 80))
def test_batches_hold_every_super_pixel_once_and_in_order(
    pieces: list[Piece], at_most: int, enough: int
) -> None:
    found = list(batches(pieces, at_most, enough))
    given = [(n, k) for n, start, stop in pieces for k in range(start, stop)]
    assert [
        (n, k) for batch in found for n, start, stop in batch for k in range(start, stop)
    ] == given
    for batch in found:
        assert count(batch) <= at_most
        assert len(batch) == 1 or count(batch) <= enough


@given(pieces=whole_exposures, at_most=st.integers(1, 80), enough=st.integers(1, 80))
def test_only_exposures_too_large_for_staging_memory_are_cut(
    pieces: list[Piece], at_most: int, enough: int
) -> None:
    for piece in (piece for batch in batches(pieces, at_most, enough) for piece in batch):
        whole = pieces[piece.exposure]
        assert piece == whole or whole.stop - whole.start > at_most


@given(pieces=whole_exposures, at_most=st.integers(1, 80), enough=st.integers(1, 80))
def test_no_batch_could_have_taken_the_next_piece(
    pieces: list[Piece], at_most: int, enough: int
) -> None:
    for batch, following in pairwise(batches(pieces, at_most, enough)):
        assert count(batch) + count(following[:1]) > min(enough, at_most)
