"""When the power fails, what was not synced may or may not be on the disk, in any combination.

A kill loses nothing that was written, so it cannot tell whether the syncs are in the right places.
Here a change is recorded call by call; then every point of it is taken as the instant of a failure,
calls that no sync had covered are kept or lost by chance, and the folder that results is opened.
"""

import os
import random
from pathlib import Path

import numpy as np
import pytest

from fpgpu.stores.pixel import PixelStore
from tests.stores.imagesets import assert_holds, files_in, image_set, new_store

OLD = image_set(expID="second")
NEW = image_set(expID="second", seed=1)
KEPT = image_set(expID="first")


class Disk:
    """Records what is done to the files of a folder, and tells what a failure may leave."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        self.before = files_in(folder)
        self.inode_of = {name: (folder / name).stat().st_ino for name in self.before}
        self.calls = []
        for name in ("pwrite", "ftruncate", "fsync", "rename", "unlink", "open"):
            monkeypatch.setattr(os, name, self.recorded(name, getattr(os, name)))

    def recorded(self, name, real):
        def call(*args, **kwargs):
            result = real(*args, **kwargs)
            if name in {"rename", "unlink"}:
                names = [Path(a).name for a in args]
                self.calls.append((name, *names))
            elif name == "open":
                if args[1] & os.O_CREAT:
                    self.calls.append(("create", Path(args[0]).name, os.fstat(result).st_ino))
            else:
                data = (bytes(args[1]), args[2]) if name == "pwrite" else args[1:]
                self.calls.append((name, os.fstat(args[0]).st_ino, *data))
            return result

        return call

    def after_failure(self, n_calls, rng):
        """Return the files that a failure after some calls may leave."""
        calls = self.calls[:n_calls]
        folder = self.folder.stat().st_ino
        synced = dict.fromkeys((folder, *self.inode_of.values()), -1)
        for position, call in enumerate(calls):
            if call[0] == "fsync":
                synced[call[1]] = position
        names, contents = dict(self.inode_of), {}
        for name, inode in self.inode_of.items():
            contents[inode] = bytearray(self.before[name])
        # File systems keep the order of changes to a folder, so a failure cuts them at one point.
        named = [p for p, c in enumerate(calls) if c[0] in {"rename", "unlink", "create"}]
        unsure = [p for p in named if p > synced[folder]]
        last_name = rng.choice([synced[folder], *unsure])
        for position, (kind, *args) in enumerate(calls):
            if kind in {"pwrite", "ftruncate"}:
                inode, *rest = args
                if position < synced.get(inode, -1) or rng.random() < 0.5:
                    self.apply(contents.setdefault(inode, bytearray()), *rest)
            elif kind == "create" and position <= last_name:
                names[args[0]] = args[1]
                contents.setdefault(args[1], bytearray())
            elif kind == "unlink" and position <= last_name:
                names.pop(args[0])
            elif kind == "rename" and position <= last_name:
                names[args[1]] = names.pop(args[0])
        return {name: bytes(contents.get(inode, b"")) for name, inode in names.items()}

    @staticmethod
    def apply(content, *change):
        """Apply a pwrite (data, offset) or an ftruncate (length) to a file's content."""
        if len(change) == 1:
            length = change[0]
            content[length:] = bytes(max(0, length - len(content)))
        else:
            data, offset = change
            content.extend(bytes(max(0, offset - len(content))))
            content[offset : offset + len(data)] = data


@pytest.mark.parametrize("imset", [NEW, image_set(expID="third")], ids=["replace", "add"])
def test_after_a_power_failure_the_store_is_old_or_new(imset, tmp_path, long_form):
    folder = tmp_path / "disk"
    folder.mkdir()
    store = new_store(folder / "pixels.h5", KEPT, OLD)
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(folder, patch)
        store.add_exposure(imset)
    assert disk.after_failure(len(disk.calls), random.Random(0)) == files_in(folder)
    rng = random.Random(1)
    path = tmp_path / "pixels.h5"
    outcomes = set()
    for n_calls in range(len(disk.calls) + 1):
        for _ in range(20 if long_form else 4):
            left = disk.after_failure(n_calls, rng)
            for name in ("pixels.h5.journal", "pixels.h5.journal.part"):
                (tmp_path / name).unlink(missing_ok=True)
            for name, content in left.items():
                (tmp_path / name).write_bytes(content)
            survivor = PixelStore(path)
            assert_holds(survivor, KEPT)
            is_new = imset.expID in survivor.exposures("F200W") and np.array_equal(
                survivor.read_exposure("F200W", imset.expID)[0], imset.im
            )
            assert_holds(survivor, imset if is_new else OLD)
            assert len(survivor.verify().verified) == len(survivor)
            outcomes.add(is_new)
    # What was reported as done is new whatever is lost.
    assert is_new
    assert outcomes == {True, False}
