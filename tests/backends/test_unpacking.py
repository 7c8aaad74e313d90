"""Unpacking on the CPU, part by part: cuts of what is read, compiled and by NumPy."""

import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpgpu.backends import cpu, reference
from fpgpu.backends.arguments import PatchPixels, StagedExposure
from fpgpu.backends.cpu import CpuBackend
from fpgpu.backends.unpacking import Piece, batches, count
from fpgpu.jit import compiled_module

GRID = (6, 9)


@pytest.fixture(params=["compiled", "by NumPy"], autouse=True)
def _numba(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Unpack with Numba, and where it is not installed."""
    if request.param == "by NumPy":
        monkeypatch.setitem(sys.modules, "numba", None)
        monkeypatch.delitem(sys.modules, "fpgpu.backends.compiled", raising=False)
    compiled_module.cache_clear()
    yield
    compiled_module.cache_clear()


def pixels(n: int, size: int = 8) -> PatchPixels:
    return PatchPixels(*np.full((4, n * size * size), 7, np.float32))


@settings(max_examples=60)
@given(
    counts=st.lists(st.integers(0, 40), max_size=6),
    size=st.sampled_from([1, 3, 8]),
    max_snr=st.sampled_from([0.0, 1.5]),
    slot=st.integers(1, 50),
    at_once=st.integers(1, 50),
    seed=st.integers(0, 1000),
)
def test_parts_are_what_all_are_at_once(
    counts: list[int],
    size: int,
    max_snr: float,
    slot: int,
    at_once: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    n = sum(counts)
    places = np.stack([rng.integers(0, side, n, np.int32) for side in GRID], axis=1)
    superpixels = rng.normal(size=(n, 2 * size * size)).astype(np.float32)
    for odd in (np.nan, -np.nan, np.inf, -np.inf, -0.0):
        superpixels[rng.random(superpixels.shape) < rng.choice([0, 0.03])] = odd
    backgrounds = rng.choice([0.0, 0.25], len(counts)).tolist()
    expected = reference.unpack(superpixels, places, counts, backgrounds, size, max_snr)
    exposures = [
        StagedExposure(None, count, background, GRID)
        for count, background in zip(counts, backgrounds, strict=True)
    ]

    def read(start: int, stop: int, to: Any) -> None:
        to[...] = superpixels[start:stop]

    out, backend = pixels(n, size), CpuBackend()
    with (
        backend.staging(slot_bytes=slot * 8 * size * size, depth=1),
        patch.object(cpu, "AT_ONCE", at_once * 8 * size * size),
    ):
        first_bad = backend.unpack(exposures, places, out, size, max_snr=max_snr, read=read)
    for found, array in zip(out, expected, strict=True):
        np.testing.assert_array_equal(found.view(np.uint32), array.view(np.uint32))
    bad = np.flatnonzero(~np.isfinite(superpixels).all(axis=1))
    assert first_bad() == (int(bad[0]) if bad.size else None)


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
