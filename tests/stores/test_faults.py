"""Any call of the operating system that fails below Python: an error, and one state or the other.

What `tests.stores.test_pixel_hardships` and others do by replacing functions of Python's `os`, here
a preloaded library does to all code of the process, that of HDF5 included.
"""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fpgpu import MetaStore, PixelStore
from fpgpu.errors import StoreWriteError
from fpgpu.stores.upkeep.merge import merge
from fpgpu.stores.upkeep.repair import repair
from fpgpu.stores.views import write_views
from tests.stores.faults import CHANGES, add_psf
from tests.stores.shardsets import exposure, sharded_store, shards_of, state_of

ALL = 1_000_000
PARTS = 3
# What errors say where the change is made all the same.
DONE = "the change is made|pixels.h5 is complete"
DONE_OF_A_FILE = "it is replaced"
# Changes one after the other: of two files, and of a store that is new and what goes into it.
IN_TWO = {"write_to_file, bare", "first add"}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler, so calls below Python cannot be made to fail")
    target = tmp_path_factory.mktemp("faults") / "faults.so"
    source = Path(__file__).with_name("faults.c")
    command = [compiler, "-shared", "-fPIC", "-Wall", source, "-o", target, "-ldl"]
    subprocess.run(command, check=True)
    return target


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", range(PARTS))
def test_a_call_that_fails_is_an_error_and_the_store_is_old_or_new(
    part, library, tmp_path, root, long_form
):
    n = ALL if long_form else 2
    names = [*CHANGES][part::PARTS]
    done = subprocess.run(
        [sys.executable, "-m", "tests.stores.faults", tmp_path, str(n), *names],
        cwd=root,
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name, (short, *outcomes) in json.loads(done.stdout).items():
        made = DONE_OF_A_FILE if name.endswith("psf") else DONE
        for at, number, for_good, status, *met in (short, *outcomes):
            where = f"{name}: call {at} fails with errno {number}, {for_good=}: {met}"
            assert status == 0, f"{where}\n{done.stderr[-3000:]}"
            failed, error, found = met
            assert failed or number == errno.ENOSPC, where  # which removing a file does not meet
            if name in IN_TWO:
                assert error or found == "new", where
            else:
                assert found == ("new" if error == "" or re.search(made, error) else "old"), where
        assert short[5:] == ["", "new"], f"{name}: writes that are short: {short}"
        assert len(outcomes) >= 2


# --- what this has found, each by itself ---------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    return sharded_store(tmp_path / "stores", exposure(), exposure(expID="e2"))


@pytest.fixture
def failing(monkeypatch):
    """Make a function of `os` fail where the last of its paths has a part of a name."""

    def fail(call, part):
        real = getattr(os, call)

        def refuse(*args, **kwargs):
            if part in os.fspath(args[-1]):
                raise OSError(errno.EIO, "Input/output error")
            return real(*args, **kwargs)

        monkeypatch.setattr(os, call, refuse)

    return fail


def test_a_draft_that_cannot_be_removed_is_no_error(folder, failing):
    failing("unlink", "draft-")
    PixelStore(folder / "pixels.h5").add_exposure(exposure(expID="new"))
    assert ("F200W", "new") in state_of(folder)


@pytest.mark.parametrize(("call", "part"), [("replace", "meta.json"), ("unlink", "meta.asdf")])
def test_views_that_cannot_be_written_are_told_with_what_is_done(folder, failing, call, part):
    PixelStore(folder / "pixels.h5").add_exposure(exposure(expID="new"))
    failing(call, part)
    with pytest.raises(
        StoreWriteError, match=rf"{part}: .*pixels\.h5 is complete, and 'fpgpu view"
    ):
        write_views(folder / "pixels.h5")


def test_who_writes_headers_keeps_others_out_until_the_views_are_written(folder, monkeypatch):
    held = []
    lease = folder / "pixels.shards" / ".commit" / "lease"
    monkeypatch.setattr("fpgpu.stores.meta.write_views", lambda _: held.append(lease.exists()))
    with MetaStore(folder / "meta.json") as meta:
        meta.headers["F200W"]["e1"]["CRVAL1"] = 57.0
        meta.write_to_file(folder / "meta.json")
    assert held == [True]


def test_a_repair_that_cannot_write_says_so(folder, failing):
    shards_of(folder, exposure(expID="new"))
    failing("rename", "pixels.h5")
    with pytest.raises(StoreWriteError, match="Input/output error"):
        repair(folder)


def test_a_repair_that_cannot_remove_says_so(folder, failing):
    (folder / "pixels.shards" / "F200W" / ".killed.h5.part").touch()
    failing("unlink", ".killed")
    with pytest.raises(StoreWriteError, match="what was mended before that stays"):
        repair(folder)


def test_a_merge_of_exposures_alone_says_that_they_are_merged(folder, failing, tmp_path):
    other = sharded_store(tmp_path / "other", exposure(expID="e3"))
    add_psf(other, "F200W", 1)
    failing("replace", "psf.h5")
    with pytest.raises(StoreWriteError, match=r"psf\.h5: .* the exposures are merged"):
        merge([other], folder)
    assert ("F200W", "e3") in PixelStore(folder / "pixels.h5")
