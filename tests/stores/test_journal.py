"""A journal undoes exactly its own change, or refuses."""

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpgpu.errors import StoreFormatError
from fpgpu.stores.hdf5.journal import Journal, Saved, journal_path, write_all
from fpgpu.stores.pixel import PixelStore
from tests.stores.imagesets import assert_holds, files_in, image_set, new_store

OLD = bytes(range(100))
# Two ranges change and the file grows by 20 bytes.
JOURNAL = Journal(100, 120, [Saved(10, OLD[10:14], b"ABCD"), Saved(50, OLD[50:58], b"EFGHIJKL")])
NEW = OLD[:10] + b"ABCD" + OLD[14:50] + b"EFGHIJKL" + OLD[58:] + b"x" * 20


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


def rolled_back(path, content):
    """Return the content after rolling back the journal beside it."""
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDWR)
    try:
        Journal.read(path).roll_back(descriptor, path)
    finally:
        os.close(descriptor)
    return path.read_bytes()


def test_what_is_written_is_read_back(path):
    JOURNAL.write(path)
    assert Journal.read(path) == JOURNAL
    assert list(files_in(path.parent)) == ["store.journal"]


@given(data=st.data())
def test_any_mixture_of_old_and_new_bytes_becomes_the_old_state(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("journal") / "store"
    JOURNAL.write(path)
    length = data.draw(st.integers(100, 120))
    flips = data.draw(st.binary(min_size=120, max_size=120))
    old = OLD.ljust(120, b"\0")
    mixture = bytes(o if f % 2 else n for o, n, f in zip(old, NEW, flips, strict=True))[:length]
    assert rolled_back(path, mixture) == OLD
    assert not journal_path(path).exists()


@pytest.mark.parametrize(
    "other",
    [
        NEW[:11] + b"?" + NEW[12:],  # written by another program
        NEW + b"more",
        OLD[:-1],
        b"",
        random.Random(0).randbytes(110),
    ],
)
def test_a_journal_of_another_file_is_refused_and_nothing_touched(other, path):
    JOURNAL.write(path)
    with pytest.raises(StoreFormatError, match="not the file"):
        rolled_back(path, other)
    assert path.read_bytes() == other
    assert journal_path(path).exists()


@pytest.mark.parametrize("position", range(0, 150, 7))
def test_a_damaged_journal_is_refused(position, path):
    JOURNAL.write(path)
    content = bytearray(journal_path(path).read_bytes())
    content[position % len(content)] ^= 0x10
    journal_path(path).write_bytes(content)
    with pytest.raises(StoreFormatError, match="damaged"):
        Journal.read(path)


@pytest.mark.parametrize("length", [0, 1, 8, 31, 32, 33, 100])
def test_a_journal_cut_short_is_refused(length, path):
    JOURNAL.write(path)
    os.truncate(journal_path(path), length)
    with pytest.raises(StoreFormatError, match="damaged"):
        Journal.read(path)


def test_a_store_with_a_damaged_journal_is_refused_with_the_way_out(tmp_path):
    imset = image_set()
    new_store(tmp_path / "pixels.h5", imset)
    journal_path(tmp_path / "pixels.h5").write_bytes(b"FPGPUJ1\n" + bytes(90))
    before = files_in(tmp_path)
    with pytest.raises(StoreFormatError, match=r"pixels\.h5\.journal.*remove this file"):
        PixelStore(tmp_path / "pixels.h5")
    assert files_in(tmp_path) == before
    journal_path(tmp_path / "pixels.h5").unlink()
    assert_holds(PixelStore(tmp_path / "pixels.h5"), imset)


def test_an_unfinished_journal_does_not_count(tmp_path):
    imset = image_set()
    store = new_store(tmp_path / "pixels.h5", imset)
    (tmp_path / "pixels.h5.journal.part").write_bytes(b"half of one")
    assert_holds(PixelStore(tmp_path / "pixels.h5"), imset)
    store.add_exposure(image_set(expID="next"))
    assert list(files_in(tmp_path)) == ["pixels.h5"]


def test_a_journal_whose_store_was_removed_does_not_spoil_a_new_store(tmp_path):
    JOURNAL.write(tmp_path / "pixels.h5")
    imset = image_set()
    new_store(tmp_path / "pixels.h5", imset)
    assert_holds(PixelStore(tmp_path / "pixels.h5"), imset)


def test_writes_that_the_system_cuts_short_are_continued(tmp_path, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, bytes(data)[:7], at))
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    write_all(descriptor, OLD, 5)
    os.close(descriptor)
    assert (tmp_path / "file").read_bytes() == bytes(5) + OLD
