"""Exposures are taken out of both stores at once, and their space is given back."""

import pytest

from fpgpu import MetaStore, PixelStore
from fpgpu.errors import MissingStoreError, NotInStoreError, StoreBusyError
from fpgpu.stores.upkeep.remove import remove
from fpgpu.stores.upkeep.verify import verify
from tests.sky.made_wcs import sky_gwcs
from tests.stores.imagesets import files_in
from tests.stores.shardsets import (
    KEYS,
    exposure,
    held,
    publish,
    sharded_store,
    shards_of,
    single_store,
    state_of,
)


@pytest.fixture(params=["sharded", "single", "mixed"])
def folder(request, tmp_path):
    made = [exposure(*key, seed=i, gwcs=sky_gwcs(shape=(64, 64))) for i, key in enumerate(KEYS)]
    if request.param == "sharded":
        return sharded_store(tmp_path, *made)
    single_store(tmp_path, *made)
    if request.param == "mixed":
        publish(tmp_path, shards_of(tmp_path, *made[:2]))
        with PixelStore(tmp_path / "pixels.h5") as pixels:
            pixels.add_exposure(made[1])
    return tmp_path


@pytest.mark.parametrize(
    ("patterns", "gone"),
    [
        (["F200W/e1"], [0]),
        (["F200W/*"], [0, 1]),
        (["*/e1"], [0, 1]),
        (["F444W/visit1/deep/e 3", "F200W/visit1/e1"], [1, 2]),
        (["F[24]*W/*1/*"], [1, 2]),
        (["F200W/e?", "F200W/e1"], [0]),
        (["*"], [0, 1, 2]),
    ],
)
def test_what_a_pattern_means_goes_and_the_rest_stays(patterns, gone, folder):
    before = state_of(folder)
    expected = [KEYS[i] for i in gone]
    assert remove(folder, patterns, dry_run=True) == expected
    assert state_of(folder) == before
    assert remove(folder, patterns) == expected
    assert state_of(folder) == {key: before[key] for key in before if key not in expected}
    assert verify(folder).ok
    with MetaStore(folder / "meta.json") as meta:
        assert meta.without_gwcs() == []


def test_a_pattern_that_matches_nothing_removes_nothing(folder):
    before = files_in(folder)
    for patterns in (["F200W/e1", "F200W/none*"], ["F200W"], [""], ["../*"]):
        with pytest.raises(NotInStoreError, match="no exposure matches"):
            remove(folder, patterns)
    with pytest.raises(NotInStoreError, match=r"write 'F200W/\*'"):
        remove(folder, ["F200W"])
    assert files_in(folder) == before


def test_names_with_brackets_mean_themselves(tmp_path):
    folder = sharded_store(tmp_path, *(exposure("F1", name) for name in ("a[1]", "a1", "*")))
    assert remove(folder, ["F1/a[1]"]) == [("F1", "a[1]")]
    assert remove(folder, ["F1/*"]) == [("F1", "*")]
    assert list(state_of(folder)) == [("F1", "a1")]


def test_what_only_one_of_the_stores_holds_goes_too(folder):
    with MetaStore(folder / "meta.json") as meta:
        meta.add_exposure(exposure("F444W", "ghost"))
        del meta.headers["F200W"]["e1"]
        meta.write_to_file(folder / "meta.json")
    remove(folder, ["F444W/ghost", "F200W/e1"])
    assert sorted(state_of(folder)) == KEYS[1:]


def test_damage_of_another_exposure_is_no_hindrance(tmp_path):
    folder = sharded_store(tmp_path, *(exposure(*key) for key in KEYS))
    (damaged,) = (tmp_path / "pixels.shards" / "F444W").glob("*.h5")
    damaged.write_bytes(b"")
    remove(folder, ["F200W/*"])
    remove(folder, ["F444W/*"])
    assert list(PixelStore(folder / "pixels.h5")) == []


def test_one_at_a_time_and_only_from_a_store(folder, tmp_path):
    with held(folder), pytest.raises(StoreBusyError):
        remove(folder, ["*"])
    with pytest.raises(MissingStoreError):
        remove(tmp_path / "nowhere", ["*"])
