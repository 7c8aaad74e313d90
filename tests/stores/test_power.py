"""A power failure at any instant leaves a store as before or as after; what returned stays done."""

import json
import os
import re
import shutil

import numpy as np
import pytest

from fpgpu import MetaStore, PixelStore, PSFStore
from fpgpu.errors import MissingStoreError
from fpgpu.stores.shard import write_shard
from fpgpu.stores.upkeep.forms import consolidate, split
from fpgpu.stores.upkeep.remove import remove
from fpgpu.stores.upkeep.repair import repair
from fpgpu.stores.upkeep.verify import verify
from tests.sky.made_wcs import sky_gwcs
from tests.stores.imagesets import image_set
from tests.stores.powercut import cuts, lay_out, recorded
from tests.stores.shardsets import exposure, publish, sharded_store, shards_of, single_store
from tests.stores.test_psf import mixtures

SIDE = 16


def made(name, seed=0, band="F200W"):
    """Make an exposure with a gWCS; pixels, header and gWCS tell its seed."""
    gwcs = sky_gwcs(ra=53.125 + seed, shape=(SIDE, SIDE))
    return exposure(band, name, seed=seed, side=SIDE, gwcs=gwcs)


def add(folder, *exposures):
    store = PixelStore(folder / "pixels.h5", SIDE)
    with store.batch():
        for each in exposures:
            store.add_exposure(each)


def ingest(folder, *exposures, removed=()):
    publish(folder, shards_of(folder, *exposures), removed)


def tweak(folder):
    with MetaStore(folder / "meta.json") as meta:
        meta.headers["F200W"]["a"]["CRVAL1"] += 1
        meta.write_to_file(folder / "meta.json")


def take_up(folder):
    """Commit a shard whose writer died before folder and name were synced, with `repair`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fpgpu.stores.disk.fsync", lambda path: None)
        write_shard(folder, made("new", 5, band="F444W"), shape=SIDE)
    repair(folder)


CHANGES = {
    "first add": (None, lambda folder: add(folder, made("new", 5))),
    "first ingest": (None, lambda folder: ingest(folder, made("a", 1), made("b", 2))),
    "add": (sharded_store, lambda folder: add(folder, made("new", 5))),
    "add to one file": (single_store, lambda folder: add(folder, made("new", 5))),
    "replace": (sharded_store, lambda folder: add(folder, made("a", 7))),
    "all at once": (
        sharded_store,
        lambda folder: ingest(folder, made("a", 7), made("c", 3), removed=[("F200W", "b")]),
    ),
    "tweak": (sharded_store, tweak),
    "remove": (sharded_store, lambda folder: remove(folder, ["*/a"])),
    "consolidate": (sharded_store, consolidate),
    "consolidate now": (sharded_store, lambda folder: consolidate(folder, now=True)),
    "split": (single_store, split),
    "take up": (sharded_store, take_up),
}


def held(folder):
    """Return pixels, header and gWCS of every exposure; None where there is no store."""
    if not (folder / "pixels.h5").exists():
        with pytest.raises(MissingStoreError, match="check the path"):
            PixelStore(folder / "pixels.h5", mode="r")
        return None
    with PixelStore(folder / "pixels.h5", mode="r") as pixels, MetaStore(folder / "meta.json") as m:
        assert sorted(pixels) == sorted(m)
        entries = {key: m.entry(*key) for key in pixels}
        return {
            key: (np.stack(pixels.read_exposure(*key)).tobytes(), entry.text, entry.gwcs_bytes())
            for key, entry in entries.items()
        }


def right_ascension(gwcs):
    """Return what tells a gWCS of `made` from others, as ASDF has it."""
    return re.search(rb"\d+\.125", gwcs)[0]


def assert_forcepho_sees_no_mixture(folder, state, other):
    """What meta.json lists has there the header of its pixels, and their gWCS or none yet."""
    views = {path.name: path.read_bytes() for path in folder.glob("meta.*")}
    for band, texts in json.loads(views.get("meta.json", "{}")).items():
        for key in {(band, expID) for expID in texts} & state.keys():
            _, header, gwcs = state[key]
            assert texts[key[1]] == header
            wrong = right_ascension(other[key][2]) if key in other else b""
            if wrong not in {b"", right_ascension(gwcs)}:
                assert wrong not in views.get("meta.asdf", b"")


def assert_goes_on(folder, state):
    """The next writer needs nobody's help, and `repair` puts all in order."""
    add(folder, made("later", 9))
    later = held(folder)
    assert {**later, **(state or {})} == later
    assert ("F200W", "later") in later
    repair(folder, delete_orphans=True)
    again = held(folder)
    assert {**again, **later} == again
    assert verify(folder, wcs=False).ok


@pytest.fixture(autouse=True)
def in_haste(monkeypatch):
    """A lease that was lost with the power is taken over soon."""
    monkeypatch.setattr("fpgpu.stores.lease._NAMELESS_SECONDS", 0.02)


@pytest.mark.parametrize("name", CHANGES)
def test_a_store_is_as_before_or_as_after(name, tmp_path, long_form, monkeypatch):
    make, change = CHANGES[name]
    home, folder = tmp_path / "home", tmp_path / "cut"
    home.mkdir()
    if make is not None:
        make(home, made("a", 1), made("b", 2))
    # A store that knows its size comes before its first exposure.
    before = [held(home)] if make is not None else [None, {}]
    instants = recorded(home, change)
    after = held(home)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # the power stays from here on
    found = set()
    for n, (last, tree) in enumerate(cuts(instants)):
        if not long_form and n % 8 and last < len(instants) - 1:
            continue
        lay_out(tree, folder)
        state = held(folder)
        assert state == after or (state in before and last < len(instants) - 1)
        other = before[0] if state == after else after
        assert_forcepho_sees_no_mixture(folder, state or {}, other or {})
        if n % (5 if long_form else 40) == 0:
            assert_goes_on(folder, state)
        found.add(state == after)
    assert found == {False, True} or before == [after]


def test_what_another_program_has_just_written_is_safe_with_the_next_commit(golden, tmp_path):
    home, folder = tmp_path / "home", tmp_path / "cut"
    home.mkdir()

    def change(home):
        shutil.copy(golden / "tiny" / "pixels.h5", home / "pixels.h5")
        PixelStore(home / "pixels.h5").add_exposure(image_set(expID="new", side=128))

    *_, last = recorded(home, change)
    for _, tree in cuts([last]):
        lay_out(tree, folder)
        with PixelStore(folder / "pixels.h5") as cut, PixelStore(home / "pixels.h5") as whole:
            assert list(cut) == list(whole)
            for key in whole:
                np.testing.assert_array_equal(cut.read_exposure(*key), whole.read_exposure(*key))


@pytest.mark.parametrize("is_first", [True, False])
def test_a_psf_store_has_the_old_or_the_new_bands(is_first, tmp_path):
    home, folder = tmp_path / "home", tmp_path / "cut"
    home.mkdir()

    def bands(folder):
        if not (folder / "psf.h5").exists():
            return None
        with PSFStore(folder / "psf.h5") as store:
            return {band: store.table(band).tobytes() for band in store}

    def change(folder):
        with PSFStore(folder / "psf.h5") as store:
            store.add_psf("F444W", mixtures(1, seed=2))

    if not is_first:
        with PSFStore(home / "psf.h5") as store:
            store.add_psf("F200W", mixtures(1))
            store.add_psf("F444W", mixtures(1, seed=1))
    before = bands(home)
    instants = recorded(home, change)
    after = bands(home)
    found = []
    for last, tree in cuts(instants):
        lay_out(tree, folder)
        found.append(bands(folder))
        assert found[-1] == after or (found[-1] == before and last < len(instants) - 1)
        change(folder)
        assert bands(folder) == after
    assert before in found
    assert after in found
