"""Key header fields of a meta store as a FITS table."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from fpgpu import MetaStore
from fpgpu.errors import StoreWriteError
from tests.stores.metasets import CENTRE, meta_set

FIELDS = {
    "FILENAME": "jw01_cal.fits",
    "OBSERVTN": "007",
    "VISITGRP": "02",
    "SEQ_ID": "1",
    "DATE-OBS": "2024-01-01",
    "DETECTOR": "NRCA1",
    "SCA_NUM": 481,
    "EXPCOUNT": 6,
    "EFFEXPTM": 311.366,
    "EXPSTART": 60310.123456789,
    "PA_APER": 12.5,
}


@pytest.fixture
def store():
    full, bare = meta_set("e1", shape=(128, 96)), meta_set("sub/e2", "F090W", shape=(64, 32))
    full.hdr.update(FIELDS)
    made = MetaStore()
    made.add_exposure(full)
    made.add_exposure(bare)
    return made


def test_the_fields_of_each_exposure_are_in_its_row(store):
    table = store.as_table()
    assert list(table["band"]) == ["F200W", "F090W"]
    assert list(table["expID"]) == ["e1", "sub/e2"]
    for keyword, value in FIELDS.items():
        name = {"OBSERVTN": "observatn", "VISITGRP": "visit_grp"}.get(keyword, keyword.lower())
        assert table[name][0] == value
        assert table[name].mask[1]
    assert list(table["filter"]) == ["F200W", "F090W"]
    assert (list(table["nx"]), list(table["ny"])) == ([128, 64], [96, 32])


def test_positions_are_of_the_middle_of_the_detector(store):
    """The reference pixel of a FITS WCS may lie anywhere."""
    shifted = meta_set("e3", sip=0)
    shifted.hdr["CRPIX1"] += 1000
    store.add_exposure(shifted)
    table = store.as_table()
    centred = table[table["expID"] != "e3"]
    np.testing.assert_allclose(centred["ra"], CENTRE[0], atol=1e-7)
    np.testing.assert_allclose(centred["dec"], CENTRE[1], atol=1e-7)
    assert table["ra"].unit == "deg"
    row = table[table["expID"] == "e3"][0]
    assert np.hypot(row["ra"] - CENTRE[0], row["dec"] - CENTRE[1]) > 0.01
    assert store.find_exposures((row["ra"], row["dec"]), ["F200W"])[0] == ["e3"]


def test_a_value_of_another_type_is_masked(store):
    store.headers["F200W"]["e1"]["SCA_NUM"] = "N/A"
    assert store.as_table()["sca_num"].mask[0]


def test_the_file_is_a_fits_table_of_the_same(store, tmp_path):
    store.to_table(tmp_path / "t.fits", info={"FIELD": "deep"})
    with fits.open(tmp_path / "t.fits") as hdus:
        assert isinstance(hdus[1], fits.BinTableHDU)
        assert hdus[1].header["FIELD"] == "deep"
    written, expected = Table.read(tmp_path / "t.fits"), store.as_table()
    assert written.colnames == expected.colnames
    for name in expected.colnames:
        values = [v for v, bad in zip(expected[name], expected[name].mask, strict=True) if not bad]
        mask = expected[name].mask
        assert [v for v, bad in zip(written[name], mask, strict=True) if not bad] == values


def test_an_existing_file_is_replaced_only_when_that_is_said(store, tmp_path):
    path = tmp_path / "t.fits"
    store.to_table(path)
    before = path.read_bytes()
    with pytest.raises(StoreWriteError, match="overwrite=True"):
        store.to_table(path)
    assert path.read_bytes() == before
    store.add_exposure(meta_set("e9"))
    store.to_table(path, overwrite=True)
    assert len(Table.read(path)) == 3


def test_an_empty_store_makes_an_empty_table(tmp_path):
    MetaStore().to_table(tmp_path / "t.fits", overwrite=True)
    assert len(Table.read(tmp_path / "t.fits")) == 0
