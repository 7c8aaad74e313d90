"""However an exposure is stored, a list of super-pixels is what indexing the whole would give."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpgpu.errors import LayoutError, NotInStoreError, StoreFormatError
from fpgpu.stores.pixel import PixelStore
from tests.stores.imagesets import bits
from tests.stores.test_pixel_read import GRID, rewritten
from tests.stores.test_pixel_read import stored as stored
from tests.stores.test_pixel_read import values as values

lists = st.lists(st.tuples(*(st.integers(0, n - 1) for n in GRID)), max_size=40)


def as_places(pairs):
    return np.array(pairs, np.int32).reshape(-1, 2)


@given(pairs=lists)
def test_a_list_is_what_indexing_gives_in_any_order(stored, pairs):
    _, store, whole = stored
    places = as_places(pairs)
    found = store.read_superpixels("F200W", "e1", places)
    np.testing.assert_array_equal(bits(found), bits(whole[places[:, 0], places[:, 1]]))


def test_a_list_is_read_into_the_memory_of_the_caller(stored):
    _, store, whole = stored
    arena = np.full((7, 128), 7, np.float32)
    places = as_places([(1, 2), (1, 3), (5, 0)])
    assert store.read_superpixels("F200W", "e1", places, arena[2:5]).base is arena
    np.testing.assert_array_equal(bits(arena[2:5]), bits(whole[[1, 1, 5], [2, 3, 0]]))
    assert (arena[[0, 1, 5, 6]] == 7).all()


@pytest.mark.parametrize(
    ("pairs", "n_calls"),
    [
        ([(2, 3), (2, 4), (2, 5)], 1),
        ([(2, 3), (2, 5)], 2),
        ([(2, 11), (3, 0)], 1),
        ([(3, 0), (2, 11)], 2),
        ([], 0),
    ],
)
def test_neighbours_in_the_file_are_read_at_once_and_nothing_between(
    pairs, n_calls, tmp_path, values, monkeypatch
):
    rewritten(tmp_path / "pixels.h5", values)
    store = PixelStore(tmp_path / "pixels.h5")
    store.read_superpixels("F200W", "e1", [[0, 0]])
    n_read = []
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *args: n_read.append(real(*args)) or n_read[-1])
    result = store.read_superpixels("F200W", "e1", as_places(pairs))
    assert len(n_read) == n_calls
    assert sum(n_read) == result.nbytes


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([[0, 12]], "place 0 is .0, 12., outside the grid of 8 x 12"),
        ([[0, 0], [-1, 0]], "place 1 is"),
        ([[0.0, 1.0]], "expected integers"),
        ([0, 1], r"shape \(2,\)"),
    ],
)
def test_what_is_no_place_in_the_image_is_refused(places, message, tmp_path, values):
    rewritten(tmp_path / "pixels.h5", values)
    with pytest.raises(LayoutError, match=message):
        PixelStore(tmp_path / "pixels.h5").read_superpixels("F200W", "e1", places)


def test_memory_that_does_not_fit_is_refused(tmp_path, values):
    rewritten(tmp_path / "pixels.h5", values)
    store = PixelStore(tmp_path / "pixels.h5")
    with pytest.raises(LayoutError, match=r"expected .1, 128. of float32"):
        store.read_superpixels("F200W", "e1", [[0, 0]], np.empty((2, 128), np.float32))
    with pytest.raises(LayoutError, match="contiguous"):
        store.read_superpixels("F200W", "e1", [[0, 0]] * 2, np.empty((4, 128), np.float32)[::2])


def test_a_missing_exposure_or_a_truncated_file_is_an_error(tmp_path, values):
    path = tmp_path / "pixels.h5"
    rewritten(path, values)
    store = PixelStore(path)
    with pytest.raises(NotInStoreError, match="e2"):
        store.read_superpixels("F200W", "e2", [[0, 0]])
    store.read_superpixels("F200W", "e1", [[0, 0]])
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(StoreFormatError, match=r"pixels\.h5"):
        store.read_superpixels("F200W", "e1", [[0, 0]])
