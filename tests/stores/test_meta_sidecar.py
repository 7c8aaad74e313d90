"""The sidecar: makes opening fast, is never needed, and is never believed when it is wrong."""

import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from fpgpu import MetaStore, SkyWCS
from fpgpu.errors import StoreError, StoreFormatError
from fpgpu.sky.sip import fit_sip
from fpgpu.stores.metadata import outlines
from fpgpu.stores.metadata.pieces import FileIndex
from fpgpu.stores.metadata.records import Ragged, SkyColumns, SkyRecord
from fpgpu.stores.metadata.sidecar import Sidecar
from tests.sky.made_wcs import sky_gwcs
from tests.stores.metasets import CENTRE, meta_set, write_store


@pytest.fixture
def path(tmp_path):
    return write_store(
        tmp_path / "meta.json", meta_set("e1", gwcs=sky_gwcs()), meta_set("e2"), meta_set("sub/e3")
    )


def sidecar_of(path: Path) -> Path:
    return path.with_name("meta.fpgpu.npz")


@pytest.fixture
def traced(monkeypatch):
    """Places of the exposures whose footprint was worked out."""
    places = []
    real = outlines.Outlines._trace

    def count(self, key, kind, shape):
        places.append((*key, kind))
        return real(self, key, kind, shape)

    monkeypatch.setattr(outlines.Outlines, "_trace", count)
    return places


def test_queries_read_nothing_but_the_sidecar(path, traced):
    """The JSON has the same size and time, but nothing in it could be read."""
    status = path.stat()
    path.write_bytes(b"x" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with MetaStore(path) as store:
        assert list(store) == [("F200W", "e1"), ("F200W", "e2"), ("F200W", "sub/e3")]
        assert store.find_exposures(CENTRE, ["F200W"])[0] == ["e1", "e2", "sub/e3"]
        assert [store.wcs_kind(*key) for key in store] == ["gwcs", "fits", "fits"]
        with pytest.raises(StoreFormatError, match=r"not the content.*meta\.fpgpu\.npz"):
            store.headers["F200W"]["e1"]
    assert traced == []


def test_remembered_footprints_are_those_of_the_wcs(path):
    with MetaStore(path, use_gwcs=True) as store:
        found = store.footprint("F200W", "e1")
        np.testing.assert_array_equal(found, SkyWCS.from_gwcs(sky_gwcs(), (128, 96)).footprint())
    with MetaStore(path) as store:
        expected = SkyWCS.from_header(store.headers["F200W"]["e1"]).footprint()
        np.testing.assert_array_equal(store.footprint("F200W", "e1"), expected)


def test_without_it_everything_works(path, traced):
    sidecar_of(path).unlink()
    with MetaStore(path) as store:
        assert store.find_exposures(CENTRE, ["F200W"])[0] == ["e1", "e2", "sub/e3"]
        assert [store.wcs_kind(*key) for key in store] == ["gwcs", "fits", "fits"]
        assert len(traced) == 3
        store.write_to_file(path)
    assert sidecar_of(path).exists()


def test_a_copy_of_the_store_with_other_times_is_recognised(path, tmp_path, traced):
    for name in ("meta.json", "meta.asdf", "meta.fpgpu.npz"):
        shutil.copyfile(path.with_name(name), tmp_path / name.replace("meta", "copy"))
        os.utime(tmp_path / name.replace("meta", "copy"), (1, 1))
    with MetaStore(tmp_path / "copy.json", use_gwcs=True) as store:
        assert store.footprint("F200W", "e1").shape == (32, 2)
        assert store.without_gwcs() == [("F200W", "e2"), ("F200W", "sub/e3")]
    assert traced == []


def test_after_a_foreign_change_only_changed_headers_are_looked_at(path, traced):
    stored = json.loads(path.read_text())
    moved = meta_set("e2", dec=10.0).hdr.tostring()
    stored["F200W"]["e2"] = moved
    stored["F999W"] = {"new": moved}
    path.write_text(json.dumps(stored))
    with MetaStore(path) as store:
        assert store.find_exposures(CENTRE, ["F200W"])[0] == ["e1", "sub/e3"]
        assert traced == [("F200W", "e2", "fits")]
        assert store.find_exposures((CENTRE[0], 10.0), ["F200W", "F999W"])[0] == ["e2", "new"]
        assert len(traced) == 2
        store.write_to_file(path)
    with MetaStore(path) as store:
        assert store.find_exposures((CENTRE[0], 10.0), ["F200W", "F999W"])[0] == ["e2", "new"]
        assert len(traced) == 2


def test_a_changed_keyword_does_not_lose_the_refit_of_the_gwcs(path, tmp_path, traced):
    sky = SkyWCS.from_gwcs(sky_gwcs(), (128, 96))
    write_store(path, meta_set("e1", gwcs=sky_gwcs(), sip=fit_sip(sky, (128, 96))))
    stored = json.loads(path.read_text())
    header = meta_set("e1").hdr
    header["TWEAK"] = 1.0
    stored["F200W"]["e1"] = header.tostring()
    path.write_text(json.dumps(stored))
    with MetaStore(path, use_gwcs=True) as store:
        store.headers["F200W"]["e1"]["TWEAK"] = 2.0
        store.write_to_file(path)
    with MetaStore(path, use_gwcs=True) as store:
        assert store.sip_fit("F200W", "e1").residual < 1e-3
        store.footprint("F200W", "e1")
        assert store.headers["F200W"]["e1"]["TWEAK"] == 2.0
    assert ("F200W", "e1", "gwcs") not in traced


def test_foreign_gwcs_are_not_taken_for_those_that_were_remembered(path, tmp_path, traced):
    (tmp_path / "other").mkdir()
    other = write_store(
        tmp_path / "other" / "meta.json", meta_set("e2", gwcs=sky_gwcs(ra=10.0, dec=5.0))
    )
    shutil.copyfile(other.with_suffix(".asdf"), path.with_suffix(".asdf"))
    with MetaStore(path, use_gwcs=True) as store:
        assert store.without_gwcs() == [("F200W", "e1"), ("F200W", "sub/e3")]
        np.testing.assert_allclose(store.footprint("F200W", "e2").mean(axis=0), (10, 5), atol=1e-3)
    with MetaStore(path) as store:
        store.find_exposures(CENTRE, ["F200W"])
    assert traced == [("F200W", "e2", "gwcs")]


def test_a_removed_asdf_file_is_noticed(path):
    path.with_suffix(".asdf").unlink()
    with MetaStore(path) as store:
        assert store.wcs_kind("F200W", "e1") == "fits"
        assert store.sip_fit("F200W", "e1") is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: b"no zip",
        lambda content: content[:-30],
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"F200W", b"F200X", 1),
        lambda content: content[:200] + bytes(20) + content[220:],
    ],
)
def test_a_damaged_one_is_ignored_with_a_warning(path, spoil, caplog, traced):
    content = sidecar_of(path).read_bytes()
    sidecar_of(path).write_bytes(spoil(content))
    with caplog.at_level(logging.WARNING), MetaStore(path) as store:
        assert store.find_exposures(CENTRE, ["F200W"])[0] == ["e1", "e2", "sub/e3"]
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "meta.fpgpu.npz: damaged and ignored" in caplog.text
    assert len(traced) == 3


def test_a_folder_in_its_place_is_an_error_that_names_it(path):
    sidecar_of(path).unlink()
    sidecar_of(path).mkdir()
    with pytest.raises(StoreError, match=r"meta\.fpgpu\.npz"):
        MetaStore(path)


def test_it_holds_no_pickles(path):
    with np.load(sidecar_of(path), allow_pickle=False) as arrays:
        assert {arrays[name].dtype.kind for name in arrays} <= {"f", "i", "u", "b"}


def test_an_exposure_without_a_usable_wcs_is_no_obstacle(tmp_path):
    """forcepho writes whatever header it is given."""
    broken = meta_set().hdr
    del broken["NAXIS1"]
    good = meta_set().hdr.tostring()
    stored = {"F200W": {"bad": broken.tostring()}, "F444W": {"good": good}, "F115W": {}}
    path = tmp_path / "meta.json"
    path.write_text(json.dumps(stored))
    for _ in range(2):
        with MetaStore(path) as store:
            store.write_to_file(path)
            assert store.find_exposures(CENTRE, ["F444W"])[0] == ["good"]
            assert store.bands == ["F200W", "F444W", "F115W"]
    assert sidecar_of(path).exists()


def test_records_survive_writing_and_reading(tmp_path):
    rng = np.random.default_rng(5)
    records = {
        ("A", "e/1"): SkyRecord(b"\1" * 32, (3, 4), rng.normal(size=(4, 2)), None, None, False),
        ("A", "e 2"): SkyRecord(b"\2" * 32, (0, 0), None, None, None, True),
        ("B", "é"): SkyRecord(b"\3" * 32, (9, 8), rng.normal(size=(5, 2)), rng.normal(size=(3, 2))),
    }
    names = {"A": ["e/1", "e 2"], "empty": [], "B": ["é"]}
    spans = np.array([[1, 5], [9, 20], [22, 22]])
    digests = np.arange(96, dtype=np.uint8).reshape(3, 32)
    headers = FileIndex(22, 2**62, names, b"{", spans, digests)
    whole = FileIndex(5, 1, None, b"", spans[:1], digests[:1])
    Sidecar(headers, whole, SkyColumns.of([*records.values()])).write(tmp_path / "s.npz")
    again = Sidecar.read((tmp_path / "s.npz").read_bytes(), tmp_path)
    assert again is not None
    assert (again.json.size, again.json.mtime_ns, again.json.names) == (22, 2**62, names)
    np.testing.assert_array_equal(again.json.spans, spans)
    np.testing.assert_array_equal(again.json.digests, digests)
    assert again.asdf is not None
    assert again.asdf.names is None
    for key, record in records.items():
        found = again.records[key]
        assert (found.digest, found.shape, found.has_gwcs) == (
            record.digest,
            record.shape,
            record.has_gwcs,
        )
        np.testing.assert_equal(found.fits_outline, record.fits_outline)
        np.testing.assert_equal(found.gwcs_outline, record.gwcs_outline)


def test_an_empty_store_has_one_too(tmp_path):
    path = write_store(tmp_path / "meta.json")
    with MetaStore(path) as store:
        assert list(store) == []
    assert path.read_text() == "{}"


@pytest.mark.parametrize(
    "shape",
    [
        [2**59 + 2, 32],  # 64 values, were it not for the end of an int64
        [-8, -8],
        [64, -1],
        [-1, 0],
        [8, 9],
    ],
)
def test_shapes_that_the_values_cannot_have_are_refused(shape):
    with pytest.raises(ValueError, match="64 values"):
        Ragged(np.zeros(64), np.array([shape]))
