"""The meta store: what is in it, what goes in, and that forcepho's files stay as they are."""

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits

from fpgpu import MetaStore
from fpgpu.errors import (
    ExposureNameError,
    MissingStoreError,
    NotInStoreError,
    StoreConflictError,
    StoreFormatError,
    StoreWriteError,
    UnusableExposureError,
    WCSError,
)
from fpgpu.stores.metadata.lazy import LazyTable
from tests.stores.metasets import CENTRE, meta_set, same_header, write_store


@pytest.fixture
def tiny(golden):
    return golden / "tiny" / "meta.json"


# --- forcepho's files ------------------------------------------------------------------------


def test_forcephos_store_reads_the_same(tiny):
    stored = json.loads(tiny.read_text())
    with MetaStore(tiny) as store:
        assert {b: {e: h.tostring() for e, h in x.items()} for b, x in store.headers.items()} == (
            stored
        )
        assert list(store) == [(band, expID) for band in stored for expID in stored[band]]


def test_rewriting_forcephos_store_gives_the_same_bytes(tiny, tmp_path):
    with MetaStore(tiny) as store:
        store.write_to_file(tmp_path / "meta.json")
    assert (tmp_path / "meta.json").read_bytes() == tiny.read_bytes()


def test_adding_the_golden_exposures_gives_forcephos_store(golden, tiny, tmp_path):
    store = MetaStore()
    for path in sorted((golden / "tiny").glob("exp_*.fits.gz")):
        header = fits.getheader(path, "SCI")
        name = path.name.removesuffix(".fits.gz")
        store.add_exposure(SimpleNamespace(hdr=header, band=header["FILTER"], expID=name))
    store.write_to_file(tmp_path / "meta.json")
    assert json.loads((tmp_path / "meta.json").read_text()) == json.loads(tiny.read_text())


def test_read_from_file_returns_plain_dicts(tiny):
    headers = MetaStore().read_from_file(tiny)
    assert type(headers) is dict
    assert type(headers["F200W"]) is dict
    assert headers["F200W"]["exp_f200w_00"]["NAXIS1"] == 128


# --- contents --------------------------------------------------------------------------------


def test_a_store_in_memory_has_everything_a_stored_one_has():
    store = MetaStore()
    assert (len(store), store.nexp, store.bands, list(store)) == (0, 0, [], [])
    assert dict(store.wcs) == dict(store.tree) == dict(store.headers) == {}
    store.add_exposure(meta_set("e1"))
    assert store.find_exposures(CENTRE, ["F200W"]) == (["e1"], ["F200W"])
    assert store.wcs["F200W"]["e1"].naxis == 2


def test_contents_are_told():
    store = MetaStore()
    for band, expID in [("B", "e2"), ("A", "e1"), ("B", "sub/e1")]:
        store.add_exposure(meta_set(expID, band))
    assert store.bands == ["B", "A"]
    assert store.exposures("B") == ["e2", "sub/e1"]
    assert list(store) == [("B", "e2"), ("B", "sub/e1"), ("A", "e1")]
    assert len(store) == store.nexp == 3
    assert ("B", "sub/e1") in store
    assert ("A", "e2") not in store
    assert ("C", "e1") not in store
    assert "B" not in store
    assert repr(store) == "<MetaStore in memory: 3 exposures (B 2, A 1), FITS WCS>"


def test_the_repr_names_the_file(tiny):
    with MetaStore(tiny) as store:
        assert "meta.json: 6 exposures (F090W 2, F200W 2, F444W 2)" in repr(store)


def test_what_is_not_there_is_named(tiny):
    with MetaStore(tiny) as store:
        with pytest.raises(NotInStoreError, match=r"F115W.*F090W, F200W"):
            store.exposures("F115W")
        with pytest.raises(NotInStoreError, match="nope"):
            store.headers["F200W"]["nope"]
        for question in (store.sky_wcs, store.footprint, store.wcs_kind, store.sip_fit):
            with pytest.raises(NotInStoreError, match="nope"):
                question("F200W", "nope")


# --- headers are a dict of dicts ---------------------------------------------------------------


def test_headers_are_parsed_when_asked_for_and_kept(tiny):
    with MetaStore(tiny) as store:
        band = store.headers["F200W"]
        assert "0 in memory" in repr(band)
        assert band["exp_f200w_00"] is band["exp_f200w_00"]
        assert "1 in memory" in repr(band)


def test_a_change_inside_a_header_is_written(tiny, tmp_path):
    with MetaStore(tiny) as store:
        store.headers["F200W"]["exp_f200w_00"]["TWEAK"] = 1.5
        store.write_to_file(tmp_path / "meta.json")
    with MetaStore(tmp_path / "meta.json") as again:
        assert again.headers["F200W"]["exp_f200w_00"]["TWEAK"] == 1.5
        assert "TWEAK" not in again.headers["F200W"]["exp_f200w_01"]


def test_a_moved_header_moves_the_footprint_at_the_next_writing(tiny, tmp_path):
    with MetaStore(tiny) as store:
        store.footprint("F200W", "exp_f200w_00")
        store.headers["F200W"]["exp_f200w_00"]["CRVAL2"] = 45.0
        store.write_to_file(tmp_path / "meta.json")
    with MetaStore(tmp_path / "meta.json") as again:
        assert np.all(np.abs(again.footprint("F200W", "exp_f200w_00")[:, 1] - 45) < 0.01)


def test_queries_follow_replaced_added_and_removed_headers():
    store = MetaStore()
    store.add_exposure(meta_set("e1"))
    store.add_exposure(meta_set("e2", dec=10.0))
    assert store.find_exposures(CENTRE, ["F200W"])[0] == ["e1"]
    store.headers["F200W"]["e2"] = store.headers["F200W"]["e1"]
    assert store.find_exposures(CENTRE, ["F200W"])[0] == ["e1", "e2"]
    del store.headers["F200W"]["e1"]
    assert store.find_exposures(CENTRE, ["F200W"])[0] == ["e2"]
    assert list(store.wcs["F200W"]) == ["e2"]
    store.headers["F115W"] = {"x": meta_set("x").hdr}
    assert store.find_exposures(CENTRE, ["F115W"])[0] == ["x"]
    del store.headers["F200W"]
    assert store.bands == ["F115W"]


def test_headers_are_made_once_by_many_threads(tiny):
    with MetaStore(tiny) as store:
        found = []
        barrier = threading.Barrier(8)

        def read():
            barrier.wait()
            found.append(
                (store.headers["F200W"]["exp_f200w_00"], store.wcs["F200W"]["exp_f200w_00"])
            )

        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({(id(header), id(wcs)) for header, wcs in found}) == 1
    assert len(found) == 8


class SlowToLeave:
    """A lock that lets the next thread in before its holder goes on."""

    def __init__(self):
        self.lock = threading.RLock()

    def __enter__(self):
        self.lock.acquire()

    def __exit__(self, *exc):
        self.lock.release()
        time.sleep(0.05)


def test_a_value_is_made_once_whenever_threads_take_turns():
    made = []
    table = LazyTable("header", lambda *key: made.append(key) or object(), lock=SlowToLeave())
    table.declare("F200W", ["e1"])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: table["F200W"]["e1"], range(4)))
    assert made == [("F200W", "e1")]
    assert len({*map(id, found)}) == 1


# --- what goes in ----------------------------------------------------------------------------


def test_the_given_header_is_not_kept_nor_changed():
    given = meta_set("e1")
    before = given.hdr.tostring()
    store = MetaStore()
    store.add_exposure(given)
    assert given.hdr.tostring() == before
    assert same_header(store.headers["F200W"]["e1"], given.hdr)
    given.hdr["CRVAL1"] = 0.0
    assert store.headers["F200W"]["e1"]["CRVAL1"] == CENTRE[0]


def test_a_header_without_a_filter_is_refused():
    imset = meta_set("e1")
    del imset.hdr["FILTER"]
    store = MetaStore()
    with pytest.raises(UnusableExposureError, match=r"F200W/e1.*lacks FILTER"):
        store.add_exposure(imset)
    assert len(store) == 0


@pytest.mark.parametrize("keyword", ["NAXIS1", "NAXIS2"])
def test_a_header_with_half_a_size_is_refused(keyword):
    imset = meta_set("e1")
    del imset.hdr[keyword]
    with pytest.raises(WCSError, match=f"F200W/e1.*no {keyword}"):
        MetaStore().add_exposure(imset)


def test_a_header_without_a_wcs_is_refused():
    imset = meta_set("e1")
    for keyword in ("CTYPE1", "CTYPE2"):
        del imset.hdr[keyword]
    with pytest.raises(WCSError, match="F200W/e1"):
        MetaStore().add_exposure(imset)


def test_what_is_no_header_is_refused():
    imset = SimpleNamespace(hdr={"NAXIS1": 8}, band="F200W", expID="e1")
    with pytest.raises(UnusableExposureError, match=r"dict.*expected an astropy.io.fits.Header"):
        MetaStore().add_exposure(imset)


@pytest.mark.parametrize("name", ["", "../e1", "/e1", "a//b"])
def test_unsafe_names_are_refused(name):
    store = MetaStore()
    with pytest.raises(ExposureNameError):
        store.add_exposure(meta_set(name))
    with pytest.raises(ExposureNameError):
        store.add_exposure(meta_set("e1", band=name))
    assert list(store) == []


def test_colliding_names_are_refused_and_replacing_is_not():
    store = MetaStore()
    store.add_exposure(meta_set("sub/x"))
    with pytest.raises(ExposureNameError, match="enclose"):
        store.add_exposure(meta_set("sub"))
    store.add_exposure(meta_set("sub/x", dec=5.0))
    assert store.headers["F200W"]["sub/x"]["CRVAL2"] == 5.0
    assert len(store) == 1


# --- bad files -------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / "no.json", tmp_path / "nowhere" / "meta.json"):
        with pytest.raises(MissingStoreError, match=path.name):
            MetaStore(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "JSON"),
        (b"\x89HDF\r\n", "JSON"),
        (b'{"F200W": {"e1": "SIM', "JSON"),
        (b"[" * 100_000, "JSON"),
        (b"[]", "top level.*found list"),
        (b'{"F200W": []}', "band 'F200W'.*found list"),
        (b'{"F200W": {"e1": 3}}', "F200W/e1.*found int"),
    ],
)
def test_what_is_no_meta_store_is_refused(tmp_path, content, why):
    (tmp_path / "meta.json").write_bytes(content)
    with pytest.raises(StoreFormatError, match=rf"meta\.json.*{why}"):
        MetaStore(tmp_path / "meta.json")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "END"),
        ("garbage", "END"),
        (meta_set().hdr.tostring()[:400], "END"),
        ("X" + meta_set().hdr.tostring(), "END"),
        (meta_set().hdr.tostring().replace("NAXIS ", "NAX\nIS", 1), "printable"),
        (meta_set().hdr.tostring().replace("FILTER", "FILTÉR", 1), "printable"),
    ],
)
def test_a_damaged_header_is_named_when_it_is_needed(tmp_path, text, why):
    good = meta_set().hdr.tostring()
    (tmp_path / "meta.json").write_text(json.dumps({"F200W": {"good": good, "bad": text}}))
    with MetaStore(tmp_path / "meta.json") as store:
        assert store.headers["F200W"]["good"]["NAXIS1"] == 128
        with pytest.raises(StoreFormatError, match=rf"meta\.json: exposure F200W/bad.*{why}"):
            store.headers["F200W"]["bad"]


def test_a_folder_or_a_pipe_is_no_meta_store(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path, tmp_path / "pipe.json"):
        with pytest.raises(StoreFormatError, match="regular file"):
            MetaStore(path)


def test_a_missing_naxis_is_a_clear_error_when_positions_are_asked_for(tmp_path):
    header = meta_set().hdr
    del header["NAXIS1"]
    (tmp_path / "meta.json").write_text(json.dumps({"F200W": {"e1": header.tostring()}}))
    with (
        MetaStore(tmp_path / "meta.json") as store,
        pytest.raises(WCSError, match=r"F200W/e1.*NAXIS1"),
    ):
        store.find_exposures(CENTRE, ["F200W"])


@pytest.mark.parametrize("name", ["meta.txt", "meta", "meta.json.bak", ".json"])
def test_the_name_must_end_in_json(tmp_path, name):
    with pytest.raises(StoreWriteError, match="must end in"):
        MetaStore().write_to_file(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_fits_cannot_hold_leaves_the_file_as_it_is(tmp_path):
    path = write_store(tmp_path / "meta.json", meta_set("e1"))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    store = MetaStore(path)
    store.headers["F200W"]["e1"] = SimpleNamespace()
    with pytest.raises(UnusableExposureError, match="F200W/e1"):
        store.write_to_file(path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_what_somebody_else_added_meanwhile_is_not_lost(tmp_path):
    path = write_store(tmp_path / "meta.json", meta_set(expID="a"))
    with MetaStore(path) as first, MetaStore(path) as second:
        first.add_exposure(meta_set(expID="b"))
        second.add_exposure(meta_set(expID="c"))
        first.write_to_file(path)
        with pytest.raises(StoreConflictError, match="changed by somebody else"):
            second.write_to_file(path)
        # One's own change is no conflict.
        first.add_exposure(meta_set(expID="d"))
        first.write_to_file(path)
        second.write_to_file(tmp_path / "elsewhere.json")
    with MetaStore(path) as store:
        assert [expID for _, expID in store] == ["a", "b", "d"]
