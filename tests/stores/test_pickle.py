"""Stores go to other processes and back, with what was changed in memory, as forcepho's do."""

import copy
import pickle

import numpy as np
import pytest
from astropy.wcs import WCS

from fpgpu.errors import StoreConflictError
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.psf import PSFStore
from tests.sky.made_wcs import sky_gwcs
from tests.stores.metasets import CENTRE, meta_set, same_header, write_store

COPIES = [lambda store: pickle.loads(pickle.dumps(store)), copy.deepcopy]


@pytest.fixture(params=COPIES, ids=["pickle", "deepcopy"])
def copied(request):
    return request.param


@pytest.fixture
def path(tmp_path):
    sets = meta_set("e1", gwcs=sky_gwcs()), meta_set("sub/e2", "F090W", gwcs=sky_gwcs())
    return write_store(tmp_path / "meta.json", *sets)


def test_a_meta_store_of_a_file(copied, path):
    store = MetaStore(path, use_gwcs=True)
    other = copied(store)
    path.unlink()
    assert list(other) == list(store)
    for band, expID in store:
        assert same_header(other.headers[band][expID], store.headers[band][expID])
        np.testing.assert_array_equal(other.footprint(band, expID), store.footprint(band, expID))
        pixel = 17.0, 41.0
        np.testing.assert_allclose(
            other.wcs[band][expID](*pixel), store.wcs[band][expID](*pixel), rtol=0, atol=1e-12
        )
    assert (other.use_gwcs, other.gwcs_file) == (True, store.gwcs_file)
    assert other.find_exposures(CENTRE, ["F200W"]) == (["e1"], ["F200W"])


def test_a_meta_store_that_was_changed(copied, path, tmp_path):
    store = MetaStore(path)
    store.headers["F200W"]["e1"]["TWEAKBG"] = 0.25
    store.remove(("F090W", "sub/e2"))
    store.add_exposure(meta_set("e3"))
    moved = WCS(store.headers["F200W"]["e3"])
    moved.wcs.crval += 0.5
    store.wcs["F200W"]["e3"] = moved
    store.image_shape = (64, 64)
    other = copied(store)
    assert list(other) == [("F200W", "e1"), ("F200W", "e3")]
    assert other.headers["F200W"]["e1"]["TWEAKBG"] == 0.25
    np.testing.assert_array_equal(other.wcs["F200W"]["e3"].wcs.crval, moved.wcs.crval)
    assert other.find_exposures(moved.wcs.crval, ["F200W"]) == (["e3"], ["F200W"])
    assert other.image_shape == (64, 64)
    assert other.wcs_kind("F200W", "e1") == "gwcs"
    other.write_to_file(tmp_path / "other.json")
    assert MetaStore(tmp_path / "other.json").headers["F200W"]["e1"]["TWEAKBG"] == 0.25


def test_a_copy_does_not_write_over_what_others_added(copied, path):
    other = copied(MetaStore(path))
    newer = MetaStore(path)
    newer.add_exposure(meta_set("e9"))
    newer.write_to_file(path)
    other.add_exposure(meta_set("e4"))
    with pytest.raises(StoreConflictError):
        other.write_to_file(path)


def test_a_psf_store(copied, golden):
    store = PSFStore(golden / "tiny" / "psf.h5")
    np.testing.assert_array_equal(copied(store).table("F200W"), store.table("F200W"))
    assert store.bands == copied(store).bands
