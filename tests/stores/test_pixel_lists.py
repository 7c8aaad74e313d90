"""Lists of super-pixels of several exposures, read at once, are what each list gives alone."""

import os

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpgpu.errors import LayoutError, NotInStoreError, StoreFormatError
from fpgpu.stores.pixel import PixelStore
from tests.stores.imagesets import bits, image_set, new_store

EXPOSURES = ["e1", "e2", "linked", "chunked"]
GRID = (8, 8)

places = st.lists(st.tuples(*(st.integers(0, n - 1) for n in GRID)), max_size=20)
parts = st.lists(st.tuples(st.sampled_from(EXPOSURES), places), max_size=6)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A store with two exposures in its file, one in another file and one in chunks."""
    folder = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(0)
    values = {expID: rng.normal(size=(*GRID, 128)).astype("f4") for expID in EXPOSURES}
    with h5py.File(folder / "one.h5", "w") as other:
        other["linked/data"] = values["linked"]
    with h5py.File(folder / "pixels.h5", "w") as h5:
        h5.attrs.update(nside_full=64, super_pixel_size=8)
        band = h5.create_group("F200W")
        band["e1/data"], band["e2/data"] = values["e1"], values["e2"]
        band["linked"] = h5py.ExternalLink("one.h5", "/linked")
        band.create_dataset("chunked/data", data=values["chunked"], chunks=(3, 2, 128))
    return folder / "pixels.h5"


def as_lists(chosen):
    return [("F200W", name, np.array(pairs, np.int32).reshape(-1, 2)) for name, pairs in chosen]


def read(store, lists):
    out = np.full((sum(len(places) for _, _, places in lists), 128), 7, np.float32)
    reader(store, lists)(0, len(out), out)
    return out


def reader(store, lists):
    places = np.concatenate([np.empty((0, 2), np.int32), *(places for *_, places in lists)])
    counts = [len(places) for *_, places in lists]
    return store.reader.list_reader([(band, expID) for band, expID, _ in lists], counts, places)


@settings(max_examples=60)
@given(chosen=parts)
def test_lists_follow_each_other(path, chosen):
    store, lists = PixelStore(path), as_lists(chosen)
    alone = [store.read_superpixels(*each) for each in lists]
    for _ in range(2):  # when nothing is known of where they are, and when all of it is
        np.testing.assert_array_equal(
            bits(read(store, lists)), bits(np.concatenate([np.empty((0, 128), "f4"), *alone]))
        )
        store = PixelStore(path)


@settings(max_examples=60)
@given(chosen=parts, data=st.data())
def test_parts_are_parts_of_all(path, chosen, data):
    store, lists = PixelStore(path), as_lists(chosen)
    whole = read(store, lists)
    start, stop = sorted(data.draw(st.integers(0, len(whole))) for _ in range(2))
    part = np.full((stop - start, 128), 7, np.float32)
    reader(store, lists)(start, stop, part)
    np.testing.assert_array_equal(bits(part), bits(whole[start:stop]))


def test_what_lies_in_one_file_is_read_through_one_opening(path, monkeypatch):
    store = PixelStore(path)
    lists = as_lists([("e1", [(0, 0), (0, 1)]), ("e2", [(0, 2)]), ("linked", [(5, 5)])])
    expected = read(store, lists)
    opened, n_read = [], []
    real_open, real_read = os.open, os.preadv
    monkeypatch.setattr(os, "open", lambda *args: opened.append(args[0]) or real_open(*args))
    monkeypatch.setattr(os, "preadv", lambda *args: n_read.append(1) or real_read(*args))
    np.testing.assert_array_equal(read(store, lists), expected)
    assert [str(name).rpartition("/")[2] for name in opened] == ["pixels.h5", "one.h5"]
    assert len(n_read) == 3


def test_a_place_outside_is_refused_with_its_number_in_its_own_list(path):
    store = PixelStore(path)
    lists = as_lists([("e1", [(0, 0), (0, 1)]), ("e2", [(0, 2), (0, 8)])])
    read(store, as_lists([("e1", [(0, 0)]), ("e2", [(0, 0)])]))
    with pytest.raises(LayoutError, match=r"place 1 is .0, 8., outside the grid of 8 x 8"):
        read(store, lists)


def test_memory_that_does_not_fit_is_refused(path):
    store = PixelStore(path)
    lists = as_lists([("e1", [(0, 0)]), ("e2", [(0, 0)])])
    read(store, lists)
    for out in (np.empty((3, 128), "f4"), np.empty((2, 128), "f8"), np.empty((4, 128), "f4")[::2]):
        with pytest.raises(LayoutError, match="out"):
            reader(store, lists)(0, 2, out)


def test_an_exposure_that_is_not_there_or_a_file_cut_short_is_an_error(tmp_path):
    store = new_store(tmp_path / "pixels.h5")
    for expID in ("e1", "e2"):
        store.add_exposure(image_set(expID=expID))
    lists = as_lists([("e1", [(0, 0)]), ("e2", [(7, 7)])])
    read(store, lists)
    with pytest.raises(NotInStoreError, match="e3"):
        read(store, [*lists, *as_lists([("e3", [(0, 0)])])])
    (shard,) = tmp_path.glob("pixels.shards/F200W/e2-*.h5")
    os.truncate(shard, shard.stat().st_size // 2)
    with pytest.raises(StoreFormatError, match=r"e2-.*\.h5: has .* bytes, .* were expected"):
        read(store, lists)


def test_an_exposure_replaced_since_is_read_as_it_was_when_opened(tmp_path):
    store = new_store(tmp_path / "pixels.h5")
    for expID in ("e1", "e2"):
        store.add_exposure(image_set(expID=expID))
    reader = PixelStore(store.h5file)
    lists = as_lists([("e1", [(1, 2)]), ("e2", [(3, 4)])])
    old = read(reader, lists)
    store.add_exposure(image_set(expID="e2", seed=1))
    np.testing.assert_array_equal(read(reader, lists), old)
    new = read(PixelStore(store.h5file), lists)
    assert (new[1] != old[1]).any()
    np.testing.assert_array_equal(new[1], store.read_superpixels("F200W", "e2", [[3, 4]])[0])
