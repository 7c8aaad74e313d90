"""Whatever is wrong with a store folder is found, and mended where that needs no guess."""

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from fpgpu import MetaStore, PixelStore, PSFStore
from fpgpu.errors import MissingStoreError, StoreBusyError, StoreWriteError
from fpgpu.sky.sip import fit_sip
from fpgpu.sky.wcs import SkyWCS
from fpgpu.stores.alone import alone_in
from fpgpu.stores.shards import find_orphans, publish_shards, read_shard
from fpgpu.stores.upkeep.forms import consolidate
from fpgpu.stores.upkeep.problems import KINDS
from fpgpu.stores.upkeep.repair import repair
from fpgpu.stores.upkeep.verify import verify
from tests.sky.made_wcs import sky_gwcs
from tests.stores.imagesets import files_in
from tests.stores.shardsets import (
    KEYS,
    exposure,
    sharded_store,
    shards_of,
    single_store,
    state_of,
)

NAMES = ["/".join(key) for key in KEYS]


@pytest.fixture
def exposures():
    made = [exposure(*key, seed=i) for i, key in enumerate(KEYS)]
    made[1].gwcs = sky_gwcs(shape=(64, 64))
    made[1].sip = fit_sip(SkyWCS.from_native(made[1].gwcs, (64, 64)), (64, 64))
    return made


@pytest.fixture
def folder(tmp_path, exposures):
    return sharded_store(tmp_path / "stores", *exposures)


def shard_of(folder, key=KEYS[0]):
    shards = map(read_shard, sorted((folder / "pixels.shards").rglob("*.h5")))
    return next(shard.file for shard in shards if shard.key == key)


def found(folder, **options):
    """Kind and place of all problems; every one says what to do."""
    verdict = verify(folder, **options)
    assert all(p.kind in KINDS and p.what and p.remedy for p in verdict.problems)
    return sorted((p.kind, p.where) for p in verdict.problems)


def steps(repaired, done):
    return [step.where for step in repaired.steps if step.done is done]


def test_a_sound_store_has_no_problems_and_is_not_changed(folder, exposures, tmp_path):
    before = files_in(folder)
    verdict = verify(folder)
    assert verdict.ok
    assert (verdict.n_exposures, verdict.n_verified, verdict.n_unchecked) == (3, 3, 0)
    assert verdict.n_wcs == 1
    assert files_in(folder) == before
    assert repair(folder).steps == []
    assert files_in(folder) == before
    consolidate(folder)
    assert verify(folder).ok
    assert verify(single_store(tmp_path / "single", *exposures)).ok


def test_stores_of_forcepho_are_sound_without_checksums(golden, tmp_path):
    for name in ("pixels.h5", "meta.json", "psf.h5"):
        shutil.copy(golden / "tiny" / name, tmp_path / name)
    verdict = verify(tmp_path)
    assert verdict.problems == []
    assert (verdict.n_exposures, verdict.n_verified, verdict.n_unchecked) == (6, 0, 6)


def change_pixel(file, key, value):
    with h5py.File(file, "r+") as h5:
        h5["/".join(key)]["data"][2, 3, 100] = value


def test_changed_pixels_are_found(folder):
    change_pixel(shard_of(folder), KEYS[0], 1.5)
    assert found(folder) == [("damaged", NAMES[0])]
    assert found(folder, pixels=False) == []
    assert repair(folder).steps == []
    assert found(folder) == [("damaged", NAMES[0])]


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_values_that_a_fit_cannot_bear_are_found_also_without_checksum(value, golden, tmp_path):
    for name in ("pixels.h5", "meta.json"):
        shutil.copy(golden / "tiny" / name, tmp_path / name)
    change_pixel(tmp_path / "pixels.h5", ("F090W", "exp_f090w_00"), value)
    assert found(tmp_path) == [("not finite", "F090W/exp_f090w_00")]


def test_a_missing_shard_is_named_and_repair_tells_that_it_cannot_help(folder):
    shard_of(folder).unlink()
    assert found(folder) == [("missing shard", NAMES[0])]
    repaired = repair(folder)
    assert steps(repaired, True) == []
    assert steps(repaired, False) == [NAMES[0]]
    assert found(folder) == [("missing shard", NAMES[0])]


def test_a_truncated_shard_is_unreadable(folder):
    os.truncate(shard_of(folder), 9000)
    assert found(folder) == [("unreadable", NAMES[0])]
    assert NAMES[0] in steps(repair(folder), False)


def test_an_exposure_of_another_size_is_found(folder, tmp_path):
    other = sharded_store(tmp_path / "other", exposure(*KEYS[0], side=128))
    shutil.copy(shard_of(other), shard_of(folder))
    assert found(folder) == [("wrong shape", NAMES[0])]


def test_a_header_of_another_size_is_found(folder):
    with MetaStore(folder / "meta.json") as meta:
        meta.headers[KEYS[0][0]][KEYS[0][1]]["NAXIS1"] = 128
        meta.write_to_file(folder / "meta.json")
    assert found(folder) == [("wrong shape", NAMES[0])]


def test_a_refit_that_is_not_of_its_gwcs_is_found(tmp_path, exposures):
    exposures[1].gwcs = sky_gwcs(shape=(64, 64), scale=0.0601)
    folder = sharded_store(tmp_path / "stores", *exposures)
    assert found(folder) == [("WCS", NAMES[1])]
    assert found(folder, wcs=False) == []


def test_an_orphan_that_the_store_lacks_is_linked(folder):
    shards = shards_of(folder, exposure("F090W", "new/one", seed=5))
    assert found(folder) == [("orphan", shards[0].path)]
    assert steps(repair(folder), True) == [shards[0].path]
    assert verify(folder).ok
    assert ("F090W", "new/one") in state_of(folder)


def test_an_orphan_with_the_same_bits_is_deleted(folder, exposures):
    (twin,) = shards_of(folder, exposures[0])
    assert found(folder) == [("orphan", twin.path)]
    assert steps(repair(folder), True) == [twin.path]
    assert not twin.file.exists()
    assert verify(folder).ok


def test_an_orphan_that_differs_is_kept_until_somebody_decides(folder):
    before = state_of(folder)
    (other,) = shards_of(folder, exposure(*KEYS[0], seed=77))
    repaired = repair(folder)
    assert steps(repaired, True) == []
    assert "another version" in repaired.steps[0].what
    assert other.file.exists()
    assert steps(repair(folder, delete_orphans=True), True) == [other.path]
    assert state_of(folder) == before
    assert verify(folder).ok


def test_orphans_that_differ_from_each_other_are_kept(folder):
    pair = shards_of(folder, *(exposure("F090W", "x", seed=i) for i in range(2)))
    same = shards_of(folder, *(exposure("F090W", "y") for _ in range(3)))
    repaired = repair(folder)
    assert sorted(steps(repaired, False)) == sorted(shard.path for shard in pair)
    assert len(steps(repaired, True)) == len(same)
    assert ("F090W", "y") in state_of(folder)
    assert ("F090W", "x") not in state_of(folder)


def test_an_orphan_whose_name_collides_is_kept_and_the_others_go_in(folder):
    colliding, fine = shards_of(folder, exposure("F200W", "visit1"), exposure("F200W", "zz"))
    repaired = repair(folder)
    assert steps(repaired, False) == [colliding.path]
    assert steps(repaired, True) == [fine.path]


def test_a_damaged_orphan_is_never_linked(folder):
    shards = shards_of(folder, exposure("F090W", "a"), exposure("F090W", "b"))
    change_pixel(shards[0].file, ("F090W", "a"), 7)
    os.truncate(shards[1].file, 5000)
    repaired = repair(folder)
    assert sorted(steps(repaired, False)) == sorted(shard.path for shard in shards)
    assert found(folder) == sorted(("orphan", shard.path) for shard in shards)


def test_headers_that_the_meta_store_lacks_come_from_the_shards(folder):
    before = state_of(folder)
    with MetaStore(folder / "meta.json") as meta:
        del meta.headers["F200W"]["visit1/e1"]
        del meta.headers["F444W"]
        meta.write_to_file(folder / "meta.json")
    assert found(folder) == [("only in pixels", NAMES[1]), ("only in pixels", NAMES[2])]
    assert steps(repair(folder), True) == NAMES[1:]
    assert verify(folder).n_wcs == 1
    assert state_of(folder) == before


@pytest.mark.parametrize("lost", [["meta.json", "meta.asdf", "meta.fpgpu.npz"], ["meta.json"]])
def test_a_lost_meta_store_is_made_again(folder, lost):
    before = state_of(folder)
    for name in lost:
        (folder / name).unlink()
    assert ("unreadable", "meta.json") in found(folder)
    assert steps(repair(folder), True)[: len(NAMES)] == NAMES
    assert state_of(folder) == before
    assert verify(folder).ok


def test_a_lost_main_file_is_made_again(folder):
    before = state_of(folder)
    (folder / "pixels.h5").unlink()
    assert ("unreadable", "pixels.h5") in found(folder)
    assert len(steps(repair(folder), True)) == len(NAMES)
    assert state_of(folder) == before
    assert verify(folder).ok


def test_headers_without_pixels_are_told(folder):
    with MetaStore(folder / "meta.json") as meta:
        meta.add_exposure(exposure("F444W", "ghost"))
        meta.write_to_file(folder / "meta.json")
    assert found(folder) == [("only in meta", "F444W/ghost")]
    assert steps(repair(folder), False) == ["F444W/ghost"]


def test_exposures_without_header_or_shard_are_told(tmp_path, exposures):
    folder = single_store(tmp_path, *exposures)
    with MetaStore(folder / "meta.json") as meta:
        del meta.headers["F444W"]
        meta.write_to_file(folder / "meta.json")
    assert found(folder) == [("only in pixels", NAMES[2])]
    assert steps(repair(folder), False) == [NAMES[2]]


def test_a_sidecar_that_cannot_be_used_is_made_again(folder):
    sidecar = folder / "meta.fpgpu.npz"
    for content in (b"garbage", sidecar.read_bytes()[:-100]):
        sidecar.write_bytes(content)
        assert found(folder) == [("sidecar", sidecar.name)]
        assert steps(repair(folder), True) == [sidecar.name]
        assert verify(folder).ok
    sidecar.unlink()
    assert verify(folder).ok


def test_leftovers_of_killed_writers_go(folder):
    band = folder / "pixels.shards" / "F200W"
    leftovers = [band / ".e9-0123.h5.part", folder / ".fpgpu-scratch-0123456789abcdef" / "x"]
    for path in leftovers:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    assert [kind for kind, _ in found(folder)] == ["leftover", "leftover"]
    assert len(steps(repair(folder), True)) == 2
    assert not any(path.exists() for path in leftovers)
    assert verify(folder).ok


@pytest.mark.parametrize(
    "target", ["/etc/hostname", "../outside.h5", "pixels.h5", "pixels.shards", "link.h5", ""]
)
def test_links_out_of_the_folder_are_found_and_not_followed(target, folder):
    shutil.copy(shard_of(folder), folder.parent / "outside.h5")
    (folder / "link.h5").symlink_to(folder.parent / "outside.h5")
    with h5py.File(folder / "pixels.h5", "r+") as h5:
        del h5[NAMES[0]]
        h5.id.links.create_external(NAMES[0].encode(), target.encode() or b" ", b"/F200W/e1")
    kinds = [kind for kind, where in found(folder) if where == NAMES[0]]
    assert kinds in (["refused link"], ["unreadable"], ["missing shard"])
    assert NAMES[0] in steps(repair(folder), False)


def test_a_publication_that_stopped_half_way_is_told_and_finished(folder, monkeypatch):
    shards = shards_of(folder, exposure("F090W", "new"))
    real = os.replace

    def fail(source, target):
        if str(target).endswith("meta.json"):
            raise OSError(5, "I/O error")
        real(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(StoreWriteError, match="completed when the store is next opened"):
        publish_shards(folder, shards)
    monkeypatch.undo()
    assert found(folder, pixels=False)[0][0] == "interrupted"
    assert ("F090W", "new") in state_of(folder)
    repair(folder)
    assert verify(folder).ok


def test_psfs_that_cannot_be_used_are_told(folder, golden):
    shutil.copy(golden / "tiny" / "psf.h5", folder / "psf.h5")
    assert verify(folder).ok
    with PSFStore(folder / "psf.h5") as psf:
        (band, other, _), table = psf.bands, psf.table(psf.bands[0])
    with h5py.File(folder / "psf.h5", "r+") as h5:
        table["amp"][0, 0] = np.nan
        h5[band]["parameters"][...] = table
        table = h5[other]["parameters"][...]
        table["sersic_bin"][3][table["sersic_bin"][3] == 4] = 5
        h5[other]["parameters"][...] = table
    assert found(folder) == [("PSF", f"psf.h5: {band}"), ("PSF", f"psf.h5: {other}")]
    (folder / "psf.h5").write_bytes(b"garbage")
    assert found(folder) == [("PSF", "psf.h5")]


def test_a_folder_in_use_is_not_repaired(folder):
    with alone_in(folder), pytest.raises(StoreBusyError):
        repair(folder)


def test_a_folder_of_nothing_is_refused(tmp_path):
    for check in (verify, repair):
        with pytest.raises(MissingStoreError, match="fpgpu ingest"):
            check(tmp_path)
        with pytest.raises(MissingStoreError):
            check(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_a_garbage_main_file_is_told_and_not_touched(folder):
    (folder / "pixels.h5").write_bytes(b"garbage")
    assert ("unreadable", "pixels.h5") in found(folder)
    # Moved away, it is made again from the shards.
    (folder / "pixels.h5").rename(folder / "garbage")
    repair(folder)
    assert verify(folder).ok


def test_what_an_interrupted_single_file_left_among_the_shards_goes(tmp_path, exposures):
    folder = single_store(tmp_path, *exposures)
    (folder / "pixels.shards").mkdir()
    os.link(folder / "pixels.h5", folder / "pixels.shards" / "base-0123.h5")
    assert found(folder) == [("orphan", "pixels.shards/base-0123.h5")]
    assert steps(repair(folder), True) == ["pixels.shards/base-0123.h5"]
    assert verify(folder).ok
    with PixelStore(folder / "pixels.h5") as pixels:
        assert len(pixels.verify().verified) == 3


def test_where_a_shard_was_published_twice_the_old_one_is_not_an_orphan(folder):
    publish_shards(folder, shards_of(folder, exposure(*KEYS[0], seed=3)))
    assert find_orphans(folder) == []
    assert verify(Path(str(folder))).ok
