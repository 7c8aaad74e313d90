"""WCS of stored exposures: of the kind asked for, whole, celestial, never silently another."""

import gc
import re
from types import SimpleNamespace

import asdf
import numpy as np
import pytest
from astropy.wcs import WCS

from fpgpu import MetaStore, SkyWCS
from fpgpu.errors import (
    MissingStoreError,
    NotInStoreError,
    StoreConflictError,
    StoreError,
    StoreFormatError,
    WCSError,
)
from fpgpu.sky.sip import fit_sip
from tests.sky.made_wcs import cube_header, sky_gwcs
from tests.stores.metasets import CENTRE, meta_set, write_store

BOX = ((-0.5, 127.5), (-0.5, 95.5))
FAR = {"ra": 10.0, "dec": 5.0}  # where the gWCS of `mixed` puts an exposure, its header does not


@pytest.fixture
def mixed(tmp_path):
    """A store whose gWCS and FITS WCS are far apart and so cannot be mistaken."""
    gwcs = sky_gwcs(**FAR, bounding_box=BOX)
    return write_store(
        tmp_path / "meta.json",
        meta_set("e1", gwcs=gwcs, sip=fit_sip(SkyWCS.from_gwcs(gwcs, (128, 96)), (128, 96))),
        meta_set("e2", gwcs=sky_gwcs(**FAR)),
    )


def is_far(native):
    ra, dec = native.pixel_to_world_values(64, 48)
    return np.hypot(ra - FAR["ra"], dec - FAR["dec"]) < 0.01


# --- which kind ------------------------------------------------------------------------------


def test_the_fits_wcs_is_the_default(mixed):
    with MetaStore(mixed) as store:
        assert isinstance(store.wcs["F200W"]["e1"], WCS)
        assert store.gwcs_file is None
        assert store.find_exposures(CENTRE, ["F200W"])[0] == ["e1", "e2"]
        assert store.find_exposures((10, 5), ["F200W"])[0] == []


@pytest.mark.parametrize("load_all", [False, True])
def test_gwcs_is_used_when_asked_for(mixed, load_all):
    with MetaStore(mixed, use_gwcs=True, load_all=load_all) as store:
        assert store.gwcs_file == str(mixed.with_suffix(".asdf"))
        assert is_far(store.wcs["F200W"]["e1"])
        assert store.sky_wcs("F200W", "e1").kind == "gwcs"
        assert store.find_exposures((10, 5), ["F200W"])[0] == ["e1", "e2"]
        assert store.find_exposures(CENTRE, ["F200W"])[0] == []


def test_populating_keeps_to_what_was_asked_for(mixed):
    with MetaStore(mixed, use_gwcs=True) as store:
        store.populate_wcs()
        assert is_far(store.wcs["F200W"]["e1"])
    with MetaStore(mixed) as store:
        store.populate_wcs()
        assert not is_far(store.wcs["F200W"]["e1"])


def test_populating_from_a_file_uses_its_gwcs_from_then_on(mixed):
    with MetaStore(mixed) as store:
        assert not is_far(store.wcs["F200W"]["e1"])
        assert store.find_exposures(CENTRE, ["F200W"])[0] == ["e1", "e2"]
        store.populate_wcs(gwcs_file=mixed.with_suffix(".asdf"))
        assert is_far(store.wcs["F200W"]["e1"])
        assert store.find_exposures(CENTRE, ["F200W"])[0] == []
        assert store.find_exposures((10, 5), ["F200W"])[0] == ["e1", "e2"]


def test_a_missing_asdf_file_is_reported_at_opening(tmp_path):
    path = write_store(tmp_path / "meta.json", meta_set("e1"))
    with pytest.raises(MissingStoreError, match=r"meta\.asdf.*without use_gwcs"):
        MetaStore(path, use_gwcs=True)
    with MetaStore(path) as store, pytest.raises(MissingStoreError, match="no such file"):
        store.populate_wcs(tmp_path / "other.asdf")
    with MetaStore(path) as store, pytest.raises(MissingStoreError, match="no such file"):
        store.populate_wcs(path / "other.asdf")
    with MetaStore(path) as store, pytest.raises(StoreError, match="is no regular file"):
        store.populate_wcs(tmp_path)


def test_exposures_without_gwcs_are_reported_and_never_get_the_other_kind(tmp_path):
    path = write_store(
        tmp_path / "meta.json", meta_set("e1", gwcs=sky_gwcs()), meta_set("e2"), meta_set("e3")
    )
    with MetaStore(path, use_gwcs=True) as store:
        assert store.without_gwcs() == [("F200W", "e2"), ("F200W", "e3")]
        assert [store.wcs_kind("F200W", e) for e in ("e1", "e2")] == ["gwcs", "fits"]
        with pytest.raises(NotInStoreError, match=r"F200W/e2.*no gWCS"):
            store.wcs["F200W"]["e2"]
        with pytest.raises(NotInStoreError, match="no gWCS"):
            store.find_exposures(CENTRE, ["F200W"])
        with pytest.raises(NotInStoreError, match="2 exposures: F200W/e2, F200W/e3"):
            store.populate_wcs()
    with pytest.raises(NotInStoreError, match="2 exposures"):
        MetaStore(path, use_gwcs=True, load_all=True)


# --- the gWCS themselves ---------------------------------------------------------------------


def test_gwcs_come_back_as_they_were(mixed):
    x, y = np.meshgrid(np.linspace(0, 127, 9), np.linspace(0, 95, 7))
    with MetaStore(mixed, use_gwcs=True) as store:
        expected = sky_gwcs(**FAR).pixel_to_world_values(x, y)
        found = store.wcs["F200W"]["e1"].pixel_to_world_values(x, y)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_real_gwcs_come_back_as_they_were(shared_data, tmp_path):
    with asdf.open(shared_data / "gwcs" / "nrcb5-wcs.asdf", lazy_load=False) as tree:
        gwcs = tree["wcs"]
    path = write_store(tmp_path / "meta.json", meta_set("e1", gwcs=gwcs, shape=(2048, 2048)))
    x, y = np.meshgrid(np.linspace(0, 2047, 5), np.linspace(0, 2047, 5))
    with MetaStore(path, use_gwcs=True) as store:
        found = store.wcs["F200W"]["e1"].pixel_to_world_values(x, y)
    np.testing.assert_allclose(found, gwcs.pixel_to_world_values(x, y), rtol=0, atol=1e-9)


def test_blocks_of_the_asdf_file_do_not_vanish(mixed):
    """Other programs write arrays as binary blocks."""
    file = mixed.with_suffix(".asdf")
    with MetaStore(mixed) as store:
        tree = {band: dict(exposures) for band, exposures in store.tree.items()}
    asdf.AsdfFile(tree).write_to(file, all_array_storage="internal")
    assert b"\xd3BLK" in file.read_bytes()
    store = MetaStore(mixed, use_gwcs=True, load_all=True)
    first = store.wcs["F200W"]["e1"]
    store.close()
    mixed.with_suffix(".asdf").unlink()
    del store
    gc.collect()
    assert is_far(first)


def test_gwcs_of_a_file_that_was_replaced_meanwhile_are_refused(mixed):
    """What is read belongs to the moment of opening."""
    with MetaStore(mixed, use_gwcs=True) as store:
        write_store(mixed, meta_set("e1", gwcs=sky_gwcs()), meta_set("e9"))
        with pytest.raises(StoreConflictError, match=r"meta\.asdf: was changed .* open it again"):
            store.wcs["F200W"]["e1"]
        assert store.exposures("F200W") == ["e1", "e2"]
        assert store.headers["F200W"]["e2"]["NAXIS1"] == 128


def test_the_tree_is_forcephos(mixed):
    with MetaStore(mixed) as store:
        assert {band: list(exposures) for band, exposures in store.tree.items()} == {
            "F200W": ["e1", "e2"]
        }
        assert is_far(store.tree["F200W"]["e2"])


def test_forcephos_way_of_reading_the_asdf_file_works(mixed):
    import asdf

    with asdf.open(mixed.with_suffix(".asdf")) as file:
        assert is_far(file.tree["F200W"]["e1"])


def test_a_bounding_box_costs_no_exposure_at_the_corners(mixed):
    with MetaStore(mixed, use_gwcs=True) as store:
        wcs = store.sky_wcs("F200W", "e1")
        for x in (-0.4, 127.4):
            for y in (-0.4, 95.4):
                position = [float(v) for v in wcs.pixel_to_world(x, y)]
                assert "e1" in store.find_exposures(position, ["F200W"])[0]


# --- changes ---------------------------------------------------------------------------------


def test_replacing_an_exposure_by_one_without_gwcs_drops_the_old_gwcs(mixed):
    with MetaStore(mixed) as store:
        store.add_exposure(meta_set("e1"))
        store.write_to_file(mixed)
    with MetaStore(mixed) as store:
        assert store.without_gwcs() == [("F200W", "e1")]
        store.add_exposure(meta_set("e2"))
        store.write_to_file(mixed)
    assert not mixed.with_suffix(".asdf").exists()


def test_untouched_gwcs_are_copied_not_made(mixed):
    before = mixed.with_suffix(".asdf").read_bytes()
    with MetaStore(mixed) as store:
        store.add_exposure(meta_set("e3"))
        store.write_to_file(mixed)
    assert mixed.with_suffix(".asdf").read_bytes() == before
    with MetaStore(mixed) as store:
        assert store.without_gwcs() == [("F200W", "e3")]


def test_adding_a_gwcs_keeps_the_others(mixed):
    with MetaStore(mixed) as store:
        store.add_exposure(meta_set("e3", gwcs=sky_gwcs()))
        store.write_to_file(mixed)
    with MetaStore(mixed, use_gwcs=True) as store:
        assert store.without_gwcs() == []
        assert is_far(store.wcs["F200W"]["e2"])
        assert store.find_exposures(CENTRE, ["F200W"])[0] == ["e3"]


def test_removing_a_header_removes_its_gwcs(mixed):
    with MetaStore(mixed) as store:
        del store.headers["F200W"]["e1"]
        store.write_to_file(mixed)
    with MetaStore(mixed) as store:
        assert list(store.tree["F200W"]) == ["e2"]


def test_a_replaced_wcs_is_used_and_can_be_taken_back(mixed):
    with MetaStore(mixed) as store:
        store.wcs["F200W"]["e1"] = sky_gwcs(**FAR)
        assert store.find_exposures((10, 5), ["F200W"])[0] == ["e1"]
        assert store.sky_wcs("F200W", "e1").kind == "gwcs"
        del store.wcs["F200W"]["e1"]
        assert store.find_exposures((10, 5), ["F200W"])[0] == []
        assert isinstance(store.wcs["F200W"]["e1"], WCS)


# --- headers of other kinds --------------------------------------------------------------------


def test_of_a_header_with_three_axes_the_celestial_part_is_taken():
    store = MetaStore()
    header = cube_header()
    header["FILTER"] = "F200W"
    store.add_exposure(SimpleNamespace(hdr=header, band="F200W", expID="cube"))
    store.add_exposure(meta_set("flat"))
    cube, flat = (store.wcs["F200W"][e] for e in ("cube", "flat"))
    assert cube.naxis == 2
    assert cube.sip is not None
    np.testing.assert_allclose(
        cube.pixel_to_world_values(3, 90), flat.pixel_to_world_values(3, 90), atol=1e-12
    )
    assert store.find_exposures(CENTRE, ["F200W"])[0] == ["cube", "flat"]


def test_a_gwcs_makes_up_for_a_header_without_a_wcs(tmp_path):
    imset = meta_set("e1", gwcs=sky_gwcs())
    del imset.hdr["CTYPE1"], imset.hdr["CTYPE2"]
    path = write_store(tmp_path / "meta.json", imset)
    with MetaStore(path, use_gwcs=True) as store:
        assert store.find_exposures(CENTRE, ["F200W"])[0] == ["e1"]
    with MetaStore(path) as store, pytest.raises(WCSError, match="F200W/e1"):
        store.find_exposures(CENTRE, ["F200W"])


@pytest.mark.parametrize("gwcs", ["text", WCS(meta_set().hdr)])
def test_what_is_no_gwcs_is_refused(gwcs):
    store = MetaStore()
    with pytest.raises(WCSError, match="F200W/e1"):
        store.add_exposure(meta_set("e1", gwcs=gwcs))
    assert len(store) == 0


def test_beside_a_new_gwcs_the_others_are_written_as_they_are(mixed, monkeypatch):
    made, write_to = [], asdf.AsdfFile.write_to

    def counted(*args, **options):
        made.append(args)
        write_to(*args, **options)

    monkeypatch.setattr(asdf.AsdfFile, "write_to", counted)
    with MetaStore(mixed) as store:
        store.add_exposure(meta_set("e3", gwcs=sky_gwcs()))
        store.write_to_file(mixed)
    assert len(made) == 1
    with MetaStore(mixed) as store:
        assert [is_far(store.tree["F200W"][e]) for e in ("e1", "e2", "e3")] == [True, True, False]


@pytest.mark.parametrize("form", ["inline", "internal", "without history"])
def test_gwcs_of_another_program_stay_beside_a_new_one(mixed, form):
    file = mixed.with_suffix(".asdf")
    with MetaStore(mixed) as store:
        tree = {band: dict(exposures) for band, exposures in store.tree.items()}
    storage = "internal" if form == "internal" else "inline"
    asdf.AsdfFile(tree).write_to(file, all_array_storage=storage)
    if form == "without history":
        file.write_bytes(re.sub(rb"\nhistory:(\n[ -].*)*", b"", file.read_bytes()))
        assert b"extension_class" not in file.read_bytes()
    with MetaStore(mixed) as store:
        store.add_exposure(meta_set("e3", gwcs=sky_gwcs()))
        store.write_to_file(mixed)
    with asdf.open(file) as found:
        assert [is_far(found["F200W"][e]) for e in ("e1", "e2", "e3")] == [True, True, False]


# --- bad ASDF files --------------------------------------------------------------------------


def test_a_damaged_asdf_file_is_an_error_only_where_it_is_needed(mixed):
    mixed.with_suffix(".asdf").write_bytes(b"no ASDF at all")
    with MetaStore(mixed) as store:
        assert store.find_exposures(CENTRE, ["F200W"])[0] == ["e1", "e2"]
    with (
        MetaStore(mixed, use_gwcs=True) as store,
        pytest.raises(StoreFormatError, match=r"meta\.asdf.*ASDF"),
    ):
        store.wcs["F200W"]["e1"]


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        ({"F200W": 3}, "'F200W'.*found a scalar"),
        ({"F200W": {"e1": {"a": 1}, "e2": 2}}, "F200W/e1.*gWCS"),
    ],
)
def test_an_asdf_file_of_something_else_is_refused(mixed, tree, why):
    import asdf

    asdf.AsdfFile(tree).write_to(mixed.with_suffix(".asdf"))
    with (
        MetaStore(mixed, use_gwcs=True) as store,
        pytest.raises(StoreFormatError, match=rf"meta\.asdf.*{why}"),
    ):
        store.wcs["F200W"]["e1"]
