"""However an exposure is stored, a window of it is the slice of the whole, and reads no more."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpgpu.errors import (
    LayoutError,
    MissingStoreError,
    NotInStoreError,
    StoreError,
    StoreFormatError,
)
from fpgpu.stores.hdf5 import extents
from fpgpu.stores.pixel import PixelStore
from fpgpu.superpixels import Window
from tests.stores.imagesets import assert_holds, bits, image_set, new_store

GRID = (8, 12)
SHAPE = (*GRID, 128)
WHOLE = (0, 8, 0, 12)


def rewritten(path, values, **options):
    """Write a store as another program might, with other storage for its one exposure."""
    with h5py.File(path, "w") as h5:
        h5.attrs.update(nside_full=np.array([64, 96]), super_pixel_size=8)
        group = h5.create_group("F200W/e1")
        if options.pop("unallocated", False):
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
            space = h5py.h5s.create_simple(SHAPE)
            h5py.h5d.create(group.id, b"data", h5py.h5t.IEEE_F32LE, space, dcpl=plist)
        else:
            group.create_dataset("data", data=values, **options)


def sharded(path, values):
    """Write a store whose exposure lies in another file."""
    (path.parent / "shards").mkdir()
    with h5py.File(path.parent / "shards" / "e1.h5", "w") as h5:
        h5["F200W/e1/data"] = values
    with h5py.File(path, "w") as h5:
        h5.attrs.update(nside_full=np.array([64, 96]), super_pixel_size=8)
        h5["F200W/e1"] = h5py.ExternalLink("shards/e1.h5", "/F200W/e1")


STORAGE = {
    "contiguous": rewritten,
    "sharded": sharded,
    "user block": lambda path, values: _with_user_block(path, values),
    "chunked": lambda path, values: rewritten(path, values, chunks=(3, 5, 128)),
    "compressed": lambda path, values: rewritten(path, values, compression="gzip", shuffle=True),
    "checksummed": lambda path, values: rewritten(path, values, fletcher32=True),
    "big-endian": lambda path, values: rewritten(path, values.astype(">f4")),
    "float64": lambda path, values: rewritten(path, values.astype("f8")),
}
RAW = {"contiguous", "sharded", "user block"}


def _with_user_block(path, values):
    with h5py.File(path, "w", userblock_size=512) as h5:
        h5.attrs.update(nside_full=np.array([64, 96]), super_pixel_size=8)
        h5["F200W/e1/data"] = values


@pytest.fixture(scope="module")
def values():
    """Super-pixels of every kind of value: NaN payloads, denormals and signed zeros too."""
    rng = np.random.default_rng(1)
    return rng.integers(0, 2**32, SHAPE, dtype=np.uint32).view("<f4")


@pytest.fixture(scope="module", params=STORAGE)
def stored(request, tmp_path_factory, values):
    """A store in one of the ways of storage, and what it should hold."""
    path = tmp_path_factory.mktemp("stored") / "pixels.h5"
    if request.param == "float64":
        # Conversion of a signalling NaN may quieten it, in HDF5 as in the processor.
        values = np.nan_to_num(values, nan=0.5)
    STORAGE[request.param](path, values)
    return request.param, PixelStore(path, mode="r"), values


windows = st.tuples(
    *(st.lists(st.integers(0, n), min_size=2, max_size=2).map(sorted) for n in GRID)
).map(lambda bounds: Window(*bounds[0], *bounds[1]))


@given(window=windows)
def test_a_window_is_the_slice_of_the_whole(stored, window):
    _, store, values = stored
    np.testing.assert_array_equal(
        bits(store.read_window("F200W", "e1", window)), bits(values[window.slices])
    )


@given(window=windows)
def test_a_window_is_read_into_the_memory_of_the_caller(stored, window):
    _, store, values = stored
    arena = np.full((GRID[0], 2 * GRID[1], 128), 7, np.float32)
    out = arena[: window.shape[0], : window.shape[1]]
    assert store.read_window("F200W", "e1", window, out) is out
    np.testing.assert_array_equal(bits(out), bits(values[window.slices]))
    out[...] = 7
    assert (arena == 7).all()


def test_only_plain_storage_is_read_past_hdf5(stored, monkeypatch):
    storage, store, _ = stored
    store.read_window("F200W", "e1", WHOLE)
    calls = []
    through_hdf5 = extents.read_through_hdf5
    monkeypatch.setattr(
        extents, "read_through_hdf5", lambda *a: calls.append(a) or through_hdf5(*a)
    )
    store.read_window("F200W", "e1", WHOLE)
    assert bool(calls) == (storage not in RAW)


def test_a_dataset_without_storage_reads_as_its_fill_value(tmp_path):
    rewritten(tmp_path / "pixels.h5", None, unallocated=True)
    store = PixelStore(tmp_path / "pixels.h5")
    assert not store.read_window("F200W", "e1", WHOLE).any()


@pytest.mark.parametrize(
    ("window", "n_calls"), [((2, 5, 0, 12), 1), ((2, 5, 3, 4), 3), ((0, 8, 0, 12), 1), (WHOLE, 1)]
)
def test_a_window_costs_one_read_a_run_and_no_byte_more(
    window, n_calls, tmp_path, values, monkeypatch
):
    rewritten(tmp_path / "pixels.h5", values)
    store = PixelStore(tmp_path / "pixels.h5")
    store.read_window("F200W", "e1", (0, 1, 0, 1))
    n_read = []
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *args: n_read.append(real(*args)) or n_read[-1])
    result = store.read_window("F200W", "e1", window)
    assert len(n_read) == n_calls
    assert sum(n_read) == result.nbytes


def test_reads_that_the_system_cuts_short_are_continued(tmp_path, values, monkeypatch):
    rewritten(tmp_path / "pixels.h5", values)
    store = PixelStore(tmp_path / "pixels.h5")
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, parts, at: real(fd, [parts[0][:1000]], at))
    np.testing.assert_array_equal(bits(store.read_window("F200W", "e1", WHOLE)), bits(values))


@pytest.mark.parametrize(
    "window", [(0, 9, 0, 1), (-1, 1, 0, 1), (3, 2, 0, 1), (0, 1, 0, 13), (0, 1.5, 0, 1)]
)
def test_windows_outside_the_image_are_refused(window, tmp_path, values):
    rewritten(tmp_path / "pixels.h5", values)
    with pytest.raises(LayoutError):
        PixelStore(tmp_path / "pixels.h5").read_window("F200W", "e1", window)


@pytest.mark.parametrize(
    "out",
    [
        np.empty((8, 12, 128), np.float64),
        np.empty((8, 11, 128), np.float32),
        np.empty((8, 128, 12), np.float32).transpose(0, 2, 1),
        np.broadcast_to(np.float32(0), (8, 12, 128)),
        np.empty((8, 12, 128), ">f4"),
    ],
)
def test_memory_that_does_not_fit_is_refused(out, tmp_path, values):
    rewritten(tmp_path / "pixels.h5", values)
    with pytest.raises(LayoutError, match="out"):
        PixelStore(tmp_path / "pixels.h5").read_window("F200W", "e1", WHOLE, out)


def test_a_file_that_another_program_has_changed_is_to_be_opened_again(tmp_path, values):
    path = tmp_path / "pixels.h5"
    rewritten(path, values)
    store = PixelStore(path)
    store.read_window("F200W", "e1", WHOLE)
    rewritten(path, values[::-1], chunks=True)
    with pytest.raises(StoreError, match="open the store again"):
        store.read_window("F200W", "e1", WHOLE)
    again = PixelStore(path).read_window("F200W", "e1", WHOLE)
    np.testing.assert_array_equal(bits(again), bits(values[::-1]))


def test_a_change_during_a_read_is_noticed(tmp_path, values, monkeypatch):
    path = tmp_path / "pixels.h5"
    rewritten(path, np.zeros(SHAPE, "f4"))
    store = PixelStore(path)
    store.read_window("F200W", "e1", WHOLE)
    real = os.preadv

    def replaced_meanwhile(*args):
        monkeypatch.setattr(os, "preadv", real)
        n_read = real(*args)
        rewritten(path, values)
        return n_read

    monkeypatch.setattr(os, "preadv", replaced_meanwhile)
    with pytest.raises(StoreError, match="open the store again"):
        store.read_window("F200W", "e1", WHOLE)


def _external(path, values):
    rewritten(path, values, external=[(str(path) + ".raw", 0, values.nbytes)])


def _virtual(path, values, source=None):
    layout = h5py.VirtualLayout(SHAPE, "f4")
    layout[:] = h5py.VirtualSource(source or str(path.parent / "other.h5"), "F200W/e1/data", SHAPE)
    rewritten(path.parent / "other.h5", values)
    with h5py.File(path, "w") as h5:
        h5.attrs.update(nside_full=np.array([64, 96]), super_pixel_size=8)
        h5.create_group("F200W/e1").create_virtual_dataset("data", layout)


@pytest.mark.parametrize(
    "write", [_external, _virtual, lambda path, values: _virtual(path, values, ".")]
)
def test_pixels_that_lie_in_other_files_than_links_name_are_refused(write, tmp_path, values):
    """Raw data outside and virtual datasets: HDF5 would follow them anywhere, or into itself."""
    write(tmp_path / "pixels.h5", values)
    store = PixelStore(tmp_path / "pixels.h5")
    with pytest.raises(StoreFormatError, match="no plain or chunked dataset"):
        store.read_exposure("F200W", "e1")
    with pytest.raises(StoreFormatError, match="no plain or chunked dataset"):
        store.add_exposure(image_set(expID="e2", side=(64, 96)))


def test_a_pipe_holds_nobody_up(tmp_path, values):
    sharded(tmp_path / "pixels.h5", values)
    (tmp_path / "shards" / "e1.h5").unlink()
    os.mkfifo(tmp_path / "shards" / "e1.h5")
    with pytest.raises(StoreFormatError, match="no regular file"):
        PixelStore(tmp_path / "pixels.h5").read_exposure("F200W", "e1")
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(StoreFormatError, match="no regular file"):
        PixelStore(tmp_path / "pipe.h5")


def test_a_truncated_file_is_an_error_and_no_crash(tmp_path, values):
    path = tmp_path / "pixels.h5"
    rewritten(path, values)
    store = PixelStore(path)
    store.read_window("F200W", "e1", WHOLE)
    for length in (path.stat().st_size - 1, 30000, 900, 50, 0):
        os.truncate(path, length)
        with pytest.raises(StoreFormatError, match=r"pixels\.h5"):
            store.read_window("F200W", "e1", WHOLE)


def test_a_vanished_file_is_an_error(tmp_path, values):
    path = tmp_path / "pixels.h5"
    rewritten(path, values)
    store = PixelStore(path)
    store.read_window("F200W", "e1", WHOLE)
    path.unlink()
    with pytest.raises(MissingStoreError, match=r"pixels\.h5"):
        store.read_window("F200W", "e1", WHOLE)


def test_a_vanished_or_damaged_shard_is_named(tmp_path, values):
    sharded(tmp_path / "pixels.h5", values)
    store = PixelStore(tmp_path / "pixels.h5")
    assert list(store) == [("F200W", "e1")]
    store.read_window("F200W", "e1", WHOLE)
    shard = tmp_path / "shards" / "e1.h5"
    shard.write_bytes(b"garbage")
    with pytest.raises(StoreFormatError, match=r"e1\.h5: has 7 bytes"):
        store.read_window("F200W", "e1", WHOLE)
    shard.unlink()
    with pytest.raises(MissingStoreError, match=r"e1\.h5: does not exist"):
        store.read_window("F200W", "e1", WHOLE)
    with pytest.raises(MissingStoreError, match=r"F200W/e1 lies in .*e1\.h5.*does not exist"):
        PixelStore(tmp_path / "pixels.h5").read_window("F200W", "e1", WHOLE)


def test_a_shard_is_replaced_by_an_exposure_in_the_store(tmp_path, values):
    sharded(tmp_path / "pixels.h5", values)
    store = PixelStore(tmp_path / "pixels.h5")
    store.read_window("F200W", "e1", WHOLE)
    shard = (tmp_path / "shards" / "e1.h5").read_bytes()
    new = image_set(side=(64, 96))
    store.add_exposure(new)
    assert_holds(store, new)
    assert (tmp_path / "shards" / "e1.h5").read_bytes() == shard


@pytest.mark.parametrize("wrong", [np.zeros((8, 8, 128), "f4"), np.zeros(5), np.zeros(SHAPE, "i4")])
def test_a_dataset_that_cannot_be_superpixels_is_refused(wrong, tmp_path):
    rewritten(tmp_path / "pixels.h5", wrong)
    with pytest.raises(StoreFormatError, match="F200W/e1"):
        PixelStore(tmp_path / "pixels.h5").read_exposure("F200W", "e1")


def test_threads_read_while_others_add(tmp_path):
    first = image_set(expID="first")
    store = new_store(tmp_path / "pixels.h5", first)
    added = [image_set(expID=f"e{i}") for i in range(12)]
    done = threading.Event()

    def read():
        n_read = 0
        while not done.is_set() or n_read == 0:
            assert_holds(store, first)
            assert_holds(PixelStore(store.h5file), first)
            n_read += 1
        return n_read

    with ThreadPoolExecutor(6) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        writers = [pool.submit(PixelStore(store.h5file).add_exposure, e) for e in added]
        try:
            for writer in writers:
                writer.result()
        finally:
            done.set()
        assert all(reader.result() for reader in readers)
    assert_holds(PixelStore(store.h5file), first, *added)
    assert len(PixelStore(store.h5file)) == 13


def test_absent_exposures_raise_without_leaving_handles(tmp_path, values):
    rewritten(tmp_path / "pixels.h5", values)
    store = PixelStore(tmp_path / "pixels.h5")
    before = h5py.h5f.get_obj_count()
    with pytest.raises(NotInStoreError):
        store.read_window("F200W", "e2", WHOLE)
    assert h5py.h5f.get_obj_count() == before


def test_an_unreadable_file_is_an_error(tmp_path, values, monkeypatch):
    rewritten(tmp_path / "pixels.h5", values)
    store = PixelStore(tmp_path / "pixels.h5")
    store.read_window("F200W", "e1", WHOLE)

    def fail(*args):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(StoreError, match="Input/output error"):
        store.read_window("F200W", "e1", WHOLE)
