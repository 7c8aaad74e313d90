"""What is read at a time for a patch: whole exposures, in order, within staging memory."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fpgpu.patch.pixels import Piece, _batches, _count

pieces = st.lists(st.integers(1, 60), max_size=12).map(
    lambda counts: [Piece(number, 0, count) for number, count in enumerate(counts)]
)


@given(pieces=pieces, at_most=st.integers(1, 80), enough=st.integers(1, 80))
def test_batches_hold_every_super_pixel_once_and_in_order(pieces, at_most, enough):
    batches = list(_batches(pieces, at_most, enough))
    given = [(n, k) for n, start, stop in pieces for k in range(start, stop)]
    found = [(n, k) for batch in batches for n, start, stop in batch for k in range(start, stop)]
    assert found == given
    for batch in batches:
        assert _count(batch) <= at_most
        assert len(batch) == 1 or _count(batch) <= enough


@given(pieces=pieces, at_most=st.integers(1, 80), enough=st.integers(1, 80))
def test_only_exposures_too_large_for_staging_memory_are_cut(pieces, at_most, enough):
    for n, start, stop in (piece for batch in _batches(pieces, at_most, enough) for piece in batch):
        whole = pieces[n]
        assert (start, stop) == (whole.start, whole.stop) or whole.stop - whole.start > at_most


@given(pieces=pieces, at_most=st.integers(1, 80), enough=st.integers(1, 80))
def test_no_batch_could_have_taken_the_next_piece(pieces, at_most, enough):
    batches = list(_batches(pieces, at_most, enough))
    for batch, following in pairwise(batches):
        assert _count(batch) + _count(following[:1]) > min(enough, at_most)
