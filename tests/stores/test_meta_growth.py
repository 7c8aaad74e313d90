"""A meta store that grows: only what is new is made, and the rest is copied."""

import json
import os
import pickle
from functools import cache

import asdf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpgpu import MetaStore
from fpgpu.errors import ExposureNameError, NotInStoreError, StoreError, StoreFormatError
from fpgpu.sky.sip import fit_sip
from fpgpu.sky.wcs import SkyWCS
from fpgpu.stores.metadata import gwcs_text
from fpgpu.stores.metadata.entries import MetaEntry, new_entry
from fpgpu.stores.metadata.gwcs_text import GwcsText
from tests.sky.made_wcs import sky_gwcs
from tests.stores.metasets import CENTRE, meta_set, write_store

FILES = ("meta.json", "meta.asdf", "meta.fpgpu.npz")


@cache
def prepared(kind: int) -> MetaEntry:
    """An exposure of one of a few kinds; even ones have a gWCS."""
    ra, gwcs, sip = 10.0 + kind, None, None
    if kind % 2 == 0:
        gwcs = sky_gwcs(ra=ra)
        sip = fit_sip(SkyWCS.from_gwcs(gwcs, (128, 96)), (128, 96)) if kind % 4 == 0 else None
    header = meta_set(ra=ra).hdr
    header["NOTE"] = '"quoted" \\ back'
    imset = meta_set("e", gwcs=gwcs, sip=sip)
    imset.hdr = header
    return new_entry(imset).with_gwcs_text()


def entry(band: str, expID: str, kind: int) -> MetaEntry:
    return prepared(kind)._replace(key=(band, expID))


def ra_of(store: MetaStore, band: str, expID: str) -> list[float]:
    """Right ascension by everything that is stored of an exposure."""
    answers = [store.headers[band][expID]["CRVAL1"], store.footprint(band, expID)[:, 0].mean()]
    if store.wcs_kind(band, expID) == "gwcs":
        answers.append(store.tree[band][expID].pixel_to_world_values(63.5, 47.5)[0])
        sip = store.sip_fit(band, expID)
        answers += [] if sip is None else [sip.crval[0]]
    return answers


def contents(folder):
    """The files; of a sidecar, all but the times of the files it belongs to."""
    found = {}
    for path in sorted(folder.iterdir()):
        found[path.name] = path.read_bytes()
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                found[path.name] = {
                    name: arrays[name][:1].tolist() if "stat" in name else arrays[name].tolist()
                    for name in arrays
                }
    return found


# --- the same files as written whole -----------------------------------------------------------

names = st.tuples(st.sampled_from(["F1", "F2", "null"]), st.sampled_from(["a", "b/x", "é𝄞", "1"]))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.tuples(names, st.integers(0, 4)), max_size=4)),
        st.tuples(st.just("remove"), st.lists(names, max_size=3)),
        st.tuples(st.just("reopen"), st.just([])),
    ),
    max_size=5,
)


@settings(max_examples=20, deadline=None)
@given(steps)
def test_a_store_changed_in_steps_equals_one_written_whole(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("steps")
    (folder / "grown").mkdir()
    (folder / "whole").mkdir()
    grown, path = MetaStore(), folder / "grown" / "meta.json"
    expected: dict[str, dict[str, int]] = {}
    for step, arguments in steps:
        if step == "add":
            grown.add_prepared(*(entry(*key, kind) for key, kind in arguments))
            for (band, expID), kind in arguments:
                expected.setdefault(band, {})[expID] = kind
        elif step == "remove":
            keys = [key for key in dict.fromkeys(arguments) if key in grown]
            grown.remove(*keys)
            for band, expID in keys:
                del expected[band][expID]
                expected = {b: e for b, e in expected.items() if e}
        grown.write_to_file(path)
        if step == "reopen":
            grown.close()
            grown = MetaStore(path)
    grown.write_to_file(path)
    grown.close()
    whole = MetaStore()
    whole.add_prepared(*(entry(b, e, k) for b, kinds in expected.items() for e, k in kinds.items()))
    whole.write_to_file(folder / "whole" / "meta.json")
    found, wanted = contents(folder / "grown"), contents(folder / "whole")
    # The order of the bands in the ASDF file is that in which they first had a gWCS.
    if "meta.asdf" in wanted:
        assert sorted(found.pop("meta.asdf").splitlines()) == sorted(
            wanted.pop("meta.asdf").splitlines()
        )
        for sidecar in (found["meta.fpgpu.npz"], wanted["meta.fpgpu.npz"]):
            for name in [name for name in sidecar if name.startswith("asdf_")]:
                del sidecar[name]
    assert found == wanted
    assert json.loads(found["meta.json"]) == {
        band: {expID: prepared(kind).text for expID, kind in kinds.items()}
        for band, kinds in expected.items()
    }
    with MetaStore(path) as store:
        for band, kinds in expected.items():
            for expID, kind in kinds.items():
                np.testing.assert_allclose(ra_of(store, band, expID), 10 + kind, atol=1e-3)


ODD = ["1234", "null", "a: b #c", "{x}", '"q"', "'s'", "é", "𝄞", "- &a", "*b", "x" * 250, "y" * 3]
DEEP = "/".join("abcdefgh"[k] * 250 for k in range(8))


def test_asdf_reads_the_file_as_the_tree_of_all_gwcs(tmp_path):
    """Also with names that mean something else in YAML, and ones too long for one line of it."""
    path = tmp_path / "meta.json"
    for number, expID in enumerate([*ODD, DEEP]):
        with MetaStore(path) if path.exists() else MetaStore() as store:
            store.add_prepared(entry(ODD[number % 8], expID, 2 * (number % 3)))
            store.write_to_file(path)
    with asdf.open(path.with_suffix(".asdf"), lazy_load=False, memmap=False) as file:
        tree = {band: dict(x) for band, x in file.tree.items() if band not in gwcs_text.ASDF_KEYS}
    with MetaStore(path) as store:
        assert {b: list(x) for b, x in store.tree.items()} == {b: list(x) for b, x in tree.items()}
        assert store.nexp == len(ODD) + 1
        for band, expID in store:
            found, wanted = store.tree[band][expID], tree[band][expID]
            assert found.pixel_to_world_values(3, 4) == wanted.pixel_to_world_values(3, 4)
            assert found.world_to_pixel_values(10, 0) == wanted.world_to_pixel_values(10, 0)


def test_a_gwcs_reads_the_same_without_the_sidecar(tmp_path):
    path = write_store(tmp_path / "meta.json", meta_set("e1", gwcs=sky_gwcs()))
    with MetaStore(path) as store:
        indexed = store.tree["F200W"]["e1"]
    path.with_name("meta.fpgpu.npz").unlink()
    with MetaStore(path) as store:
        plain = store.tree["F200W"]["e1"]
    x, y = np.meshgrid(np.arange(0, 128, 7), np.arange(0, 96, 7))
    np.testing.assert_array_equal(
        indexed.pixel_to_world_values(x, y), plain.pixel_to_world_values(x, y)
    )
    assert GwcsText.of(indexed, "") == GwcsText.of(plain, "")


# --- what is old is left alone -----------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    store = MetaStore()
    store.add_prepared(*(entry("F1", f"e{i}", i) for i in range(5)), entry("F2", "e0", 0))
    store.write_to_file(tmp_path / "meta.json")
    return tmp_path / "meta.json"


def test_adding_reads_and_makes_nothing_of_what_is_there(path, monkeypatch):
    with MetaStore(path) as store, monkeypatch.context() as patch:
        for module in (json, asdf):
            patch.setattr(module, "loads" if module is json else "open", None)
        store._contents.files._snapshot.read_range = None
        store.add_prepared(entry("F1", "new", 2), entry("F9", "new", 4))
        store.write_to_file(path)
    with MetaStore(path) as store:
        assert store.exposures("F1") == ["e0", "e1", "e2", "e3", "e4", "new"]
        for (band, expID), ra in [(("F1", "e3"), 13), (("F1", "new"), 12), (("F9", "new"), 14)]:
            np.testing.assert_allclose(ra_of(store, band, expID), ra, atol=1e-3)


@pytest.mark.parametrize("name", ["meta.json", "meta.asdf"])
def test_one_exposure_is_read_without_the_others(path, name):
    """Damage in the text of one exposure is met when that is asked for, and named."""
    file = path.with_name(name)
    status, content = file.stat(), file.read_bytes()
    mark = b"CRVAL1" if name == "meta.json" else b"forward"
    where = content.index(mark)  # of F1/e0
    file.write_bytes(content[:where] + b"#" + content[where + 1 :])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    with MetaStore(path) as store:
        table = store.headers if name == "meta.json" else store.tree
        with pytest.raises(StoreFormatError, match=r"not the content.*npz"):
            table["F1"]["e0"]
        assert table["F1"]["e2"] is table["F1"]["e2"]
        assert store.find_exposures((10.0, CENTRE[1]), ["F1"])[0] == ["e0"]


def test_headers_that_were_looked_at_are_copied_and_changed_ones_written(path):
    before = json.loads(path.read_text())
    with MetaStore(path) as store:
        assert store.headers["F1"]["e2"]["NAXIS1"] == 128
        store.headers["F1"]["e1"]["CRVAL1"] = 99.0
        store.write_to_file(path)
    after = json.loads(path.read_text())
    assert "99.0" in after["F1"].pop("e1") != before["F1"].pop("e1")
    assert after == before
    with MetaStore(path) as store:
        assert store.find_exposures((99.0, CENTRE[1]), ["F1"])[0] == ["e1"]


def test_a_replaced_gwcs_is_written_and_its_refit_forgotten(path):
    with MetaStore(path, use_gwcs=True) as store:
        store.tree["F1"]["e0"] = sky_gwcs(ra=77.0)
        store.write_to_file(path)
    with MetaStore(path) as store:
        assert store.sip_fit("F1", "e0") is None
        assert store.sip_fit("F2", "e0") is not None
        assert store.tree["F1"]["e0"].pixel_to_world_values(63.5, 47.5)[0] == pytest.approx(77)
        assert store.tree["F1"]["e2"].pixel_to_world_values(63.5, 47.5)[0] == pytest.approx(12)


def test_writing_again_and_again_from_one_store_keeps_all(path):
    with MetaStore(path) as store:
        for number in range(4):
            store.add_prepared(entry("F1", f"new{number}", number))
            store.write_to_file(path)
    with MetaStore(path) as store:
        assert store.exposures("F1")[5:] == ["new0", "new1", "new2", "new3"]
        np.testing.assert_allclose(ra_of(store, "F1", "new2"), 12, atol=1e-3)


def test_a_file_that_shrank_is_no_source(path):
    with MetaStore(path) as store:
        path.write_bytes(path.read_bytes()[:-100])
        store.add_prepared(entry("F1", "new", 1))
        with pytest.raises(StoreError, match="open the store again"):
            store.write_to_file(path.with_name("other.json"))
    assert not path.with_name("other.json").exists()


# --- many at once --------------------------------------------------------------------------------


def test_entries_are_prepared_in_other_processes(path):
    made = pickle.loads(pickle.dumps(new_entry(meta_set("p", gwcs=sky_gwcs())).with_gwcs_text()))
    with MetaStore(path, use_gwcs=True) as store:
        store.add_prepared(made)
        assert store.find_exposures(CENTRE, ["F200W"])[0] == ["p"]
        assert store.wcs["F200W"]["p"].pixel_to_world_values(63.5, 47.5)[0] == pytest.approx(
            CENTRE[0]
        )
        store.write_to_file(path)
    with MetaStore(path, use_gwcs=True) as store:
        assert store.find_exposures(CENTRE, ["F200W"])[0] == ["p"]


def test_a_gwcs_as_text_is_an_asdf_file_of_its_own():
    text = GwcsText.of(sky_gwcs(), "somewhere")
    assert GwcsText.from_asdf(text.to_asdf(), "somewhere") == text
    made = text.make("somewhere")
    assert made.pixel_to_world_values(1, 2) == sky_gwcs().pixel_to_world_values(1, 2)
    with pytest.raises(StoreFormatError, match=r"somewhere.*not the ASDF text"):
        GwcsText.from_asdf(b"#ASDF 1.0.0\n", "somewhere")


def test_all_are_added_or_none(path):
    with MetaStore(path) as store:
        with pytest.raises(ExposureNameError, match="enclose"):
            store.add_prepared(entry("F1", "fine", 1), entry("F1", "x/y", 1), entry("F1", "x", 1))
        assert "fine" not in store.exposures("F1")
        store.add_prepared(entry("F1", "fine", 1))
        with pytest.raises(ExposureNameError, match="inside"):
            store.add_prepared(entry("F1", "e1/x", 1))


def test_removing_takes_everything_of_an_exposure(path):
    with MetaStore(path) as store:
        store.remove(("F2", "e0"), ("F1", "e2"))
        store.write_to_file(path)
    with MetaStore(path) as store:
        assert (store.bands, store.exposures("F1")) == (["F1"], ["e0", "e1", "e3", "e4"])
        assert {b: list(x) for b, x in store.tree.items()} == {"F1": ["e0", "e4"]}
        with pytest.raises(NotInStoreError, match="F1/e2"):
            store.remove(("F1", "e0"), ("F1", "e2"))
        assert ("F1", "e0") in store
    assert "e2" not in json.loads(path.read_text())["F1"]


def test_removing_the_last_gwcs_removes_the_file(path):
    with MetaStore(path) as store:
        store.remove(*[key for key in store if store.wcs_kind(*key) == "gwcs"])
        store.write_to_file(path)
    assert sorted(p.name for p in path.parent.iterdir()) == ["meta.fpgpu.npz", "meta.json"]


def test_a_band_that_asdf_needs_for_itself_is_refused():
    with pytest.raises(ExposureNameError, match="ASDF file has an entry 'history'"):
        MetaStore().add_exposure(meta_set("e1", band="history", gwcs=sky_gwcs()))


def test_entries_move_to_another_store_as_they_are(path, tmp_path):
    (tmp_path / "other").mkdir()
    with MetaStore(path) as store:
        other = MetaStore()
        other.add_prepared(*(store.entry(*key) for key in store))
        other.write_to_file(tmp_path / "other" / "meta.json")
    for name in ("meta.json", "meta.asdf"):
        assert (tmp_path / "other" / name).read_bytes() == path.with_name(name).read_bytes()
