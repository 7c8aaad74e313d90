"""Store folders of one geometry become one, all exposures at once, nothing lost silently."""

import errno
import shutil

import h5py
import pytest

from fpgpu import MetaStore, PSFStore
from fpgpu.errors import (
    ExposureNameError,
    IntegrityError,
    MissingStoreError,
    StoreConflictError,
    StoreFormatError,
    StoreWriteError,
)
from fpgpu.stores.upkeep.forms import consolidate
from fpgpu.stores.upkeep.merge import merge
from fpgpu.stores.upkeep.verify import verify
from tests.sky.made_wcs import sky_gwcs
from tests.stores.imagesets import files_in
from tests.stores.shardsets import exposure, sharded_store, single_store, state_of


@pytest.fixture
def north(tmp_path):
    made = exposure("F200W", "a", seed=1, gwcs=sky_gwcs(shape=(64, 64)))
    return sharded_store(tmp_path / "north", made, exposure("F200W", "v/b", seed=2))


@pytest.fixture
def south(tmp_path):
    return single_store(tmp_path / "south", exposure("F200W", "c", seed=3), exposure("F444W", "a"))


def test_all_exposures_of_all_folders_are_there(north, south, tmp_path):
    before = files_in(north), files_in(south)
    out = tmp_path / "out"
    done = merge([north, south], out)
    assert sorted(done.added) == ["F200W/a", "F200W/c", "F200W/v/b", "F444W/a"]
    assert state_of(out) == {**state_of(north), **state_of(south)}
    assert (files_in(north), files_in(south)) == before
    assert verify(out).ok
    with MetaStore(out / "meta.json") as meta:
        assert len(meta.without_gwcs()) == 3
    # Merging again changes nothing, for all is there already.
    before = files_in(out)
    again = merge([north, south, out], out)
    assert (again.added, again.replaced) == ([], [])
    assert files_in(out) == before


@pytest.mark.parametrize("form", ["sharded", "single"])
def test_into_a_folder_that_holds_others(form, north, south):
    if form == "single":
        consolidate(north)
    merge([south], north)
    assert len(state_of(north)) == 4
    assert verify(north).ok


def test_what_collides_is_refused_unless_it_is_to_be_replaced(north, south, tmp_path):
    other = sharded_store(tmp_path / "other", exposure("F200W", "a", seed=9))
    before = files_in(north)
    with pytest.raises(StoreConflictError, match=r"F200W/a would be there more than once"):
        merge([south, other], north)
    assert files_in(north) == before
    done = merge([south, other], north, replace=True)
    assert done.replaced == ["F200W/a"]
    assert state_of(north)["F200W", "a"] == state_of(other)["F200W", "a"]
    with pytest.raises(StoreConflictError):
        merge([north, sharded_store(tmp_path / "x", exposure("F200W", "a"))], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_names_inside_each_other_are_refused(north, tmp_path):
    other = sharded_store(tmp_path / "other", exposure("F200W", "v"))
    before = files_in(north)
    with pytest.raises(ExposureNameError):
        merge([other], north)
    with pytest.raises(ExposureNameError):
        merge([other, north], tmp_path / "out")
    assert files_in(north) == before


def test_other_sizes_are_refused(north, tmp_path):
    large = sharded_store(tmp_path / "large", exposure("F200W", "z", side=128))
    why = r"images of \d+ x \d+ in super-pixels of 8; only stores of one size"
    with pytest.raises(StoreConflictError, match=why):
        merge([large], north)
    with pytest.raises(StoreConflictError, match=why):
        merge([north, large], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_whose_stores_disagree_or_that_are_none_are_refused(north, south, tmp_path):
    with pytest.raises(MissingStoreError):
        merge([north, tmp_path / "nowhere"], tmp_path / "out")
    with MetaStore(south / "meta.json") as meta:
        del meta.headers["F444W"]
        meta.write_to_file(south / "meta.json")
    with pytest.raises(StoreFormatError, match=r"disagree about F444W/a; see 'fpgpu verify"):
        merge([north, south], tmp_path / "out")
    with pytest.raises(StoreConflictError, match="no folders"):
        merge([], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damage_stops_a_merge_and_leaves_nothing(north, south, tmp_path):
    with h5py.File(south / "pixels.h5", "r+") as h5:
        h5["F444W/a/data"][0, 0, 0] = 9
    before = files_in(north)
    with pytest.raises(IntegrityError, match="F444W/a"):
        merge([south], north)
    assert files_in(north) == before
    with pytest.raises(IntegrityError):
        merge([north, south], tmp_path / "out")
    assert not list(tmp_path.glob("out/**/*.h5"))


def test_an_error_after_the_commit_removes_nothing_that_it_names(north, south, monkeypatch):
    wanted = {**state_of(north), **state_of(south)}

    def fail_at_the_end(path):
        if path == north.resolve():
            raise OSError(errno.EIO, "cannot be synced")

    monkeypatch.setattr("fpgpu.stores.commit.fsync", fail_at_the_end)
    with pytest.raises(StoreWriteError, match="the change is made"):
        merge([south], north)
    assert state_of(north) == wanted


def test_psfs_come_along(north, south, golden, tmp_path):
    shutil.copy(golden / "tiny" / "psf.h5", north / "psf.h5")
    with PSFStore(north / "psf.h5") as psf:
        bands = psf.bands
        table, places = psf.table(bands[0]), psf.locations(bands[0])
    PSFStore(south / "psf.h5").add_psf("F999W", table, places + 1)
    PSFStore(south / "psf.h5").add_psf(bands[0], table, places)
    out = tmp_path / "out"
    done = merge([north, south], out)
    assert sorted(done.psf_bands) == sorted([*bands, "F999W"])
    with PSFStore(out / "psf.h5") as psf:
        assert psf.table("F999W").tobytes() == psf.table(bands[0]).tobytes() == table.tobytes()
        assert psf.locations("F999W").tolist() == (places + 1).tolist()
    table["amp"] *= 2
    PSFStore(south / "psf.h5").add_psf(bands[0], table, places)
    before = files_in(out)
    with pytest.raises(StoreConflictError, match=f"the PSFs of {bands[0]} differ"):
        merge([south], out)
    assert files_in(out) == before
    merge([south], out, replace=True)
    with PSFStore(out / "psf.h5") as psf:
        assert psf.table(bands[0]).tobytes() == table.tobytes()
