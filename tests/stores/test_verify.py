"""Whatever is wrong with a store folder is found, and mended where that needs no guess."""

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from fpgpu import MetaStore, PSFStore
from fpgpu.errors import MissingStoreError, StoreBusyError, StoreFormatError
from fpgpu.sky.sip import fit_sip
from fpgpu.sky.wcs import SkyWCS
from fpgpu.stores.shard import find_orphans, read_shard
from fpgpu.stores.upkeep.forms import consolidate
from fpgpu.stores.upkeep.problems import KINDS
from fpgpu.stores.upkeep.repair import repair
from fpgpu.stores.upkeep.verify import record_checksums, verify
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
    assert found(folder) == [("unreadable", NAMES[0])]


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
    assert steps(repair(folder), True) == [shards[0].path, "meta.json"]
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
    assert len(steps(repaired, True)) == len(same) + 1
    assert ("F090W", "y") in state_of(folder)
    assert ("F090W", "x") not in state_of(folder)


def test_an_orphan_whose_name_collides_is_kept_and_the_others_go_in(folder):
    colliding, fine = shards_of(folder, exposure("F200W", "visit1"), exposure("F200W", "zz"))
    repaired = repair(folder)
    assert steps(repaired, False) == [colliding.path]
    assert steps(repaired, True) == [fine.path, "meta.json"]


def test_a_damaged_orphan_is_never_linked(folder):
    shards = shards_of(folder, exposure("F090W", "a"), exposure("F090W", "b"))
    change_pixel(shards[0].file, ("F090W", "a"), 7)
    os.truncate(shards[1].file, 5000)
    repaired = repair(folder)
    assert sorted(steps(repaired, False)) == sorted(shard.path for shard in shards)
    assert found(folder) == sorted(("orphan", shard.path) for shard in shards)


def test_headers_that_the_store_lacks_are_told(folder):
    before = state_of(folder)
    with MetaStore(folder / "meta.json") as meta:
        del meta.headers["F200W"]["visit1/e1"]
        del meta.headers["F444W"]
        meta.write_to_file(folder / "meta.json")
    assert found(folder) == [("only in pixels", NAMES[1]), ("only in pixels", NAMES[2])]
    assert steps(repair(folder), False) == NAMES[1:]
    with MetaStore(folder / "meta.json") as meta:
        for key in KEYS[1:]:
            meta.add_exposure(exposure(*key, seed=KEYS.index(key)))
        meta.write_to_file(folder / "meta.json")
    assert verify(folder).ok
    assert state_of(folder) == before


@pytest.mark.parametrize("lost", [["meta.json", "meta.asdf"], ["meta.json"], ["meta.asdf"]])
def test_lost_views_are_no_harm_and_made_again(folder, lost):
    before = files_in(folder)
    for name in lost:
        (folder / name).unlink()
    assert found(folder) == [("view", "meta.json")]
    assert steps(repair(folder), True) == ["meta.json"]
    after = files_in(folder)
    assert all(after[name] == before[name] for name in ("meta.json", "meta.asdf", "pixels.h5"))
    assert verify(folder).ok


@pytest.mark.parametrize("name", ["meta.json", "meta.asdf"])
def test_a_number_that_changed_in_a_view_is_told_and_not_blessed(folder, name):
    text = (folder / name).read_text()
    digit = text.index("53.", text.index("CRVAL1")) if name == "meta.json" else text.index("1.0e")
    (folder / name).write_text(text[:digit] + "7" + text[digit + 1 :])
    assert ("changed", "meta.json") in found(folder)
    assert steps(repair(folder), False) == ["meta.json"]
    assert ("changed", "meta.json") in found(folder)
    for view in ("meta.json", "meta.asdf"):
        (folder / view).unlink()
    repair(folder)
    assert verify(folder).ok
    assert state_of(folder)[KEYS[0]][1] == 53.0


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


def test_leftovers_of_killed_writers_go(folder):
    band = folder / "pixels.shards" / "F200W"
    leftovers = [band / ".e9-0123.h5.part", folder / "pixels.shards" / ".commit" / "id-12.part"]
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


def test_recorded_checksums_tell_of_damaged_psfs(folder, golden):
    path = folder / "psf.h5"
    shutil.copy(golden / "tiny" / "psf.h5", path)
    with PSFStore(path) as psf:
        before = {band: psf.table(band).tobytes() for band in psf}
    record_checksums(folder)
    recorded = path.read_bytes()
    with h5py.File(path) as h5, PSFStore(path) as psf:
        assert all("fpgpu_checksum" in h5[band].attrs for band in h5)
        assert {band: psf.table(band).tobytes() for band in psf} == before
        damaged = next(iter(h5))
        offset = h5[f"{damaged}/parameters"].id.get_offset()
    assert found(folder) == []
    record_checksums(folder)
    assert path.read_bytes() == recorded
    path.write_bytes(recorded[:offset] + bytes([recorded[offset] ^ 1]) + recorded[offset + 1 :])
    assert found(folder) == [("PSF", f"psf.h5: {damaged}")]


def test_a_folder_in_use_is_not_repaired(folder):
    with held(folder), pytest.raises(StoreBusyError):
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


def test_where_a_shard_was_published_twice_the_old_one_is_not_an_orphan(folder):
    publish(folder, shards_of(folder, exposure(*KEYS[0], seed=3)))
    assert find_orphans(folder) == []
    assert verify(Path(str(folder))).ok


def test_a_changed_record_of_a_shard_is_found(folder):
    file = shard_of(folder)
    content = bytearray(file.read_bytes())
    place = content.index(b"CRVAL1")
    content[place + 20] ^= 1
    file.write_bytes(content)
    assert found(folder) == [("unreadable", NAMES[0])]
    with pytest.raises(StoreFormatError, match="do not match the checksum in the index"):
        MetaStore(folder / "meta.json").headers["F200W"]["e1"]


def test_checksums_that_are_not_known_are_recorded_when_asked_for(golden, tmp_path):
    for name in ("pixels.h5", "meta.json"):
        shutil.copy(golden / "tiny" / name, tmp_path / name)
    assert len(record_checksums(tmp_path)) == 6
    verdict = verify(tmp_path)
    assert (verdict.n_verified, verdict.n_unchecked) == (6, 0)
    change_pixel(
        next((tmp_path / "pixels.shards").glob("pixels-*.h5")), ("F090W", "exp_f090w_00"), 0.5
    )
    assert ("damaged", "F090W/exp_f090w_00") in found(tmp_path)
    assert record_checksums(tmp_path) == []
