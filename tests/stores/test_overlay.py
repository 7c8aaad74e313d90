"""An overlay behaves as a file would, and leaves the file alone."""

import io
import itertools
import os

import h5py
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fpgpu.stores.hdf5.overlay import Overlay

LENGTH = 60
offsets = st.integers(0, LENGTH + 20)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("write"), offsets, st.binary(min_size=1, max_size=30)),
        st.tuples(st.just("read"), offsets, st.integers(0, 40)),
    ),
    max_size=30,
)


@given(content=st.binary(max_size=LENGTH), steps=actions)
def test_it_reads_what_a_file_would_after_the_same_writes(content, steps, tmp_path_factory):
    path = tmp_path_factory.mktemp("overlay") / "file"
    path.write_bytes(content)
    model = io.BytesIO(content)
    with path.open("rb") as file:
        overlay = Overlay(file.fileno())
        for action, offset, argument in steps:
            overlay.seek(offset)
            model.seek(offset)
            if action == "write":
                assert overlay.write(argument) == model.write(argument)
                assert overlay.size == len(model.getvalue())
            else:
                # HDF5 asks for whole blocks; what lies past the end is zero.
                assert overlay.read(argument) == model.read(argument).ljust(argument, b"\0")
                assert overlay.tell() == offset + argument
        applied = bytearray(content.ljust(overlay.size, b"\0"))
        changes = overlay.changes()
        for segment in changes:
            applied[segment.offset : segment.end] = segment.content
        assert bytes(applied) == model.getvalue()
        assert all(a.end < b.offset for a, b in itertools.pairwise(changes))
    assert path.read_bytes() == content


def test_it_seeks_as_a_file(tmp_path):
    (tmp_path / "file").write_bytes(bytes(10))
    with (tmp_path / "file").open("rb") as file:
        overlay = Overlay(file.fileno())
        assert overlay.seek(0, os.SEEK_END) == 10
        assert overlay.seek(-3, os.SEEK_CUR) == 7
        assert overlay.truncate() == 7
        assert overlay.seek(0, os.SEEK_END) == 7


def test_hdf5_changes_a_file_through_it_without_touching_the_file(tmp_path):
    path = tmp_path / "file.h5"
    with h5py.File(path, "w") as h5:
        h5["a"] = np.arange(1000)
    before = path.read_bytes()
    with path.open("rb") as file:
        overlay = Overlay(file.fileno())
        with h5py.File(overlay, "r+") as h5:
            h5["b"] = np.arange(2000)
            h5["a"][0] = 7
    assert path.read_bytes() == before
    with path.open("r+b") as file:
        for segment in overlay.changes():
            file.seek(segment.offset)
            file.write(segment.content)
        file.truncate(overlay.size)
    with h5py.File(path) as h5:
        np.testing.assert_array_equal(h5["b"], np.arange(2000))
        assert h5["a"][0] == 7
