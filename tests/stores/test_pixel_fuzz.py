"""However a store is damaged, the interpreter lives, nothing hangs, and errors are fpgpu's own."""

import struct
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from fpgpu.errors import IntegrityError, StoreError, StoreFormatError
from fpgpu.stores.hdf5.guard import opened_guarded
from fpgpu.stores.pixel import PixelStore
from tests.stores.corruptions import write_old
from tests.stores.imagesets import assert_holds, image_set, new_store
from tests.stores.shardsets import exposure, sharded_store, single_store

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(3600)
def test_random_damage_is_survived(tmp_path, long_form):
    n_corruptions = 2000 if long_form else 60
    command = [sys.executable, "-m", "tests.stores.corruptions", tmp_path, "0", str(n_corruptions)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3000)
    lines = run.stdout.strip().splitlines()
    assert run.returncode == 0, f"died of corruption {lines[-1:]}: {run.stderr[-2000:]}"
    assert len(lines) == n_corruptions
    assert [line for line in lines if "!" in line] == []
    outcomes = {word for line in lines for word in line.split()[1:]}
    assert outcomes >= {"ok", "StoreFormatError", "IntegrityError"}


@pytest.mark.parametrize("make", [sharded_store, single_store])
def test_a_changed_pixel_is_found_and_its_exposure_named(make, tmp_path):
    keys = [("F090W", "a"), ("F200W", "sub/b"), ("F200W", "c")]
    path = make(tmp_path, *(exposure(*key) for key in keys)) / "pixels.h5"
    store = PixelStore(path)
    assert sorted(store.verify().verified) == sorted(keys)
    extent = store.state.extent(("F200W", "sub/b"))
    damage(Path(extent.filename), extent.offset + 1000, b"\xff")
    store = PixelStore(path)
    with pytest.raises(IntegrityError, match=r"1 of 3 exposures do not match.*: F200W/sub/b;"):
        store.verify()
    with pytest.raises(IntegrityError, match="F200W/sub/b"):
        store.verify("F200W")
    assert store.verify("F090W").verified == [("F090W", "a")]
    assert store.verify("F200W", "c").verified == [("F200W", "c")]
    store.add_exposure(image_set("F200W", "sub/b"))
    assert len(store.verify().verified) == 3


@pytest.fixture
def heap(tmp_path):
    """A store of fpgpu 0.1, and where the global heap with the strings of its exposure begins."""
    path = tmp_path / "pixels.h5"
    write_old(path, image_set())
    content = path.read_bytes()
    assert content.count(b"GCOL") == 1
    return path, content.find(b"GCOL")


def damage(path, offset, data):
    """Overwrite some bytes of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_free_space_of_no_size_does_not_stop_the_process_for_ever(heap):
    path, start = heap
    size = struct.unpack_from("<Q", path.read_bytes(), start + 8)[0]
    damage(path, start + 16, struct.pack("<HHIQ", 0, 0, 0, 0) * ((size - 16) // 16))
    with pytest.raises(StoreFormatError, match=r"pixels\.h5"):
        PixelStore(path).record("F200W", "e1")


def test_a_string_that_its_heap_does_not_have_is_an_error_and_no_null_pointer(heap):
    path, start = heap
    index = struct.unpack_from("<H", path.read_bytes(), start + 16)[0]
    damage(path, start + 16, struct.pack("<H", index + 500))
    with pytest.raises(StoreFormatError, match="no such object"):
        PixelStore(path).record("F200W", "e1")
    # Nor does HDF5 follow it when the exposure is to be replaced.
    with pytest.raises(StoreError):
        PixelStore(path).add_exposure(image_set())
    # The pixels can still be had.
    im, _ = PixelStore(path).read_exposure("F200W", "e1")
    np.testing.assert_array_equal(im, image_set().im)


def test_a_string_longer_than_its_place_is_an_error(heap):
    path, start = heap
    content = path.read_bytes()
    reference = content.find(struct.pack("<Q", start))
    assert reference > 0
    damage(path, reference - 4, struct.pack("<I", 1 << 30))
    with pytest.raises(StoreFormatError, match="no such object"):
        PixelStore(path).record("F200W", "e1")


def test_a_string_of_wide_characters_is_an_error_and_no_overrun(heap):
    path, _ = heap
    content = path.read_bytes()
    name = content.find(b"flux_units\0")
    kind = content.find(b"\x19\x01\x01\x00", name)
    # Size and precision of a character: one byte, 8 bits.
    assert (content[kind + 12], content[kind + 18]) == (1, 8)
    damage(path, kind + 12, b"\x02")
    damage(path, kind + 18, b"\x10")
    with pytest.raises(StoreFormatError, match="wide characters"):
        PixelStore(path).record("F200W", "e1")


def test_an_attribute_of_fpgpu_that_lost_its_type_is_an_error_and_not_an_absent_checksum(heap):
    path, _ = heap
    content = path.read_bytes()
    name = content.find(b"fpgpu_checksum\0")
    kind = content.find(b"\x19\x01\x01\x00", name)
    damage(path, kind + 1, b"\xb5")
    with pytest.raises(StoreFormatError, match="fpgpu_checksum"):
        PixelStore(path).verify()


@pytest.mark.parametrize("make", [write_old, new_store])
def test_attributes_of_other_programs_do_not_matter(make, tmp_path):
    path = tmp_path / "pixels.h5"
    imset = image_set()
    make(path, imset)
    with h5py.File(path, "r+") as h5:
        attributes = h5["F200W/e1/data"].attrs
        attributes["table"] = np.zeros(3, [("a", "f4"), ("b", "i4")])
        attributes["long"] = np.zeros(5000)
        attributes["words"] = ["several", "words"]
        attributes["flag"] = True
        attributes["nothing"] = h5py.Empty("f4")
        attributes["link"] = h5["F200W"].ref
        del attributes  # which keeps the shard open that it is in
    store = PixelStore(path)
    assert store.record("F200W", "e1").flux_units == "image"
    store.add_exposure(image_set(expID="e2"))
    store.add_exposure(imset)
    assert_holds(store, imset)


def test_a_guarded_file_reads_as_any_other(golden):
    path = golden / "tiny" / "pixels.h5"
    with opened_guarded(str(path)) as guarded, h5py.File(path) as plain:
        node = "F444W/exp_f444w_01/data"
        assert dict(guarded[node].attrs) == dict(plain[node].attrs)
        np.testing.assert_array_equal(guarded[node][:], plain[node][:])
