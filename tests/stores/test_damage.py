"""Random damage to all but pixels: an error of fpgpu, or a store whose values are right."""

import json
import os
import subprocess
import sys

import pytest

from fpgpu import MetaStore, PixelStore
from fpgpu.errors import StoreFormatError
from fpgpu.stores.index import FOOTER_BYTES, split_tail
from fpgpu.stores.state import open_state
from tests.sky.made_wcs import sky_gwcs
from tests.stores.imagesets import assert_holds
from tests.stores.shardsets import exposure, sharded_store

COUNTS = {
    "json": (24, 1000),
    "asdf": (14, 1000),
    "psf": (60, 5000),
    "index": (14, 250),
    "record": (10, 250),
    "commit folder": (12, 250),
}


@pytest.mark.parametrize("kind", COUNTS)
@pytest.mark.timeout(3600)
def test_damaged_files_never_do_worse_than_an_error_of_fpgpu(kind, tmp_path, long_form, root):
    count = COUNTS[kind][long_form]
    done = subprocess.run(
        [sys.executable, "-m", "tests.stores.damage", kind, str(tmp_path), str(count), "1"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"the interpreter died: {done.stderr[-2000:]}"
    result = json.loads(done.stdout)
    assert result["surprises"] == []
    assert sum(result["outcomes"].values()) == count
    assert result["outcomes"]["refused"] > count // 20
    assert result["outcomes"]["used"] > count // 20 or kind == "record"


@pytest.fixture
def folder(tmp_path):
    made = exposure(gwcs=sky_gwcs(shape=(64, 64), ra=53.0))
    return sharded_store(tmp_path, made, exposure(expID="e2"))


def test_an_id_that_was_lost_is_that_of_the_index(folder):
    path = folder / "pixels.shards" / ".commit" / "id"
    before = path.read_text()
    path.write_text("x")
    with pytest.raises(StoreFormatError, match="remove this file, and it is made again"):
        PixelStore(folder / "pixels.h5").add_exposure(exposure(expID="e3"))
    path.unlink()
    PixelStore(folder / "pixels.h5").add_exposure(exposure(expID="e3"))
    assert path.read_text() == open_state(folder / "pixels.h5").index.store_id == before


def test_new_metadata_are_kept_when_another_program_cuts_the_index_off(folder):
    with MetaStore(folder / "meta.json") as meta:
        meta.headers["F200W"]["e1"]["TWEAKED"] = 0.25
        meta.write_to_file(folder / "meta.json")
    path = folder / "pixels.h5"
    content = path.read_bytes()
    os.truncate(path, split_tail(content[-FOOTER_BYTES:], len(content)).n_before)
    PixelStore(path).add_exposure(exposure(expID="e3"))
    with MetaStore(folder / "meta.json") as meta:
        assert meta.state is not None
        assert meta.headers["F200W"]["e1"]["TWEAKED"] == 0.25
        assert meta.wcs_kind("F200W", "e1") == "gwcs"
    made = [exposure(expID=name) for name in ("e1", "e2", "e3")]
    assert_holds(PixelStore(path, mode="r"), *made)


def test_the_highest_number_that_can_be_claimed_stops_no_writer(folder):
    commits = folder / "pixels.shards" / ".commit"
    (commits / "claim-999999999999").touch()
    for name in ("e3", "e4"):
        PixelStore(folder / "pixels.h5").add_exposure(exposure(expID=name))
    assert [path.name for path in commits.glob("claim-*")] == ["claim-1000000000001"]
