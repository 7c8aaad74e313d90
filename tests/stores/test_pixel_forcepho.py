"""Pixel stores are forcepho's: what either writes the other reads, bit for bit."""

import json
import shutil

import h5py
import numpy as np
import pytest

from fpgpu.stores.pixel import PixelStore
from tests.stores.imagesets import assert_holds, bits, golden_set, image_set, new_store


@pytest.fixture(scope="module")
def ours(tmp_path_factory, golden):
    """The golden field as fpgpu stores it."""
    path = tmp_path_factory.mktemp("ours") / "pixels.h5"
    store = PixelStore(path, 128)
    for file in sorted((golden / "tiny").glob("exp_*.fits.gz")):
        store.add_exposure(golden_set(file), bitmask=1, do_fluxcal=True)
    return path


@pytest.fixture
def theirs(golden):
    """The golden field as forcepho stored it."""
    return golden / "tiny" / "pixels.h5"


def datasets_of(path):
    """Return name and content of all exposures, read as forcepho reads them."""

    def below(group, name):
        for key in group:
            if key == "data":
                found[f"{name}/data"] = group[key][:]
            elif hasattr(group[key], "keys"):
                below(group[key], f"{name}/{key}".lstrip("/"))

    found = {}
    with h5py.File(path, "r", swmr=True) as h5:
        below(h5, "")
    return found


def test_datasets_equal_those_of_forcepho_bit_for_bit(ours, theirs):
    mine, expected = datasets_of(ours), datasets_of(theirs)
    assert mine.keys() == expected.keys()
    assert len(expected) == 6
    for name, values in expected.items():
        assert mine[name].dtype == values.dtype == np.dtype("<f4")
        np.testing.assert_array_equal(bits(mine[name]), bits(values), err_msg=name)


def test_attributes_have_the_values_and_types_of_forcepho(ours, theirs):
    names = ["/", *datasets_of(theirs)]
    with h5py.File(ours) as mine, h5py.File(theirs) as expected:
        for name in names:
            ours_here, theirs_here = mine[name].attrs, expected[name].attrs
            added = set(ours_here) - set(theirs_here)
            assert set(theirs_here) <= set(ours_here)
            assert all(attribute.startswith("fpgpu_") for attribute in added)
            for attribute, value in theirs_here.items():
                if attribute == "nside_full":  # one side is enough for forcepho
                    np.testing.assert_array_equal(ours_here[attribute], [value, value])
                    continue
                assert ours_here[attribute] == value
                here, there = (a.get_id(attribute) for a in (ours_here, theirs_here))
                assert here.get_type() == there.get_type()
                assert here.shape == there.shape


def test_layout_is_what_the_listing_of_a_store_of_forcepho_says(ours, golden):
    listing = json.loads((golden / "store_layout.json").read_text())["pixels"]
    listed = next(entry for entry in listing if entry["kind"] == "dataset")
    root = next(entry for entry in listing if entry["kind"] == "file")
    with h5py.File(ours) as h5:
        dataset = h5["F090W/exp_f090w_00/data"]
        assert dataset.maxshape == dataset.shape == (16, 16, 128)
        assert dataset.dtype.str == listed["dtype"]
        assert (dataset.chunks, dataset.compression) == (listed["chunks"], listed["compression"])
        assert dataset.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
        assert dataset.id.get_storage_size() == dataset.nbytes
        assert h5.id.get_create_plist().get_version()[0] == root["superblock"]
        types = {name: h5.attrs.get_id(name).dtype.name for name in h5.attrs}
        assert types == {name: a["np"] for name, a in root["attrs"].items()}


def test_a_store_of_forcepho_reads_through_fpgpu(theirs):
    expected = datasets_of(theirs)
    store = PixelStore(theirs, mode="r")
    assert store.shape == (128, 128)
    assert [f"{band}/{expID}/data" for band, expID in store] == list(expected)
    for (band, expID), values in zip(store, expected.values(), strict=True):
        np.testing.assert_array_equal(
            bits(store.read_window(band, expID, (0, 16, 0, 16))), bits(values)
        )
    record = store.record("F200W", "exp_f200w_01")
    assert record.counts_to_flux == pytest.approx(1e9 * 10 ** (0.4 * (8.9 - 28.0)), rel=1e-14)
    assert (record.flux_units, record.bitmask_applied) == ("nJy", 1)
    assert record.names == dict.fromkeys(("im", "err", "mask", "bkg"), "exp_f200w_01.fits")
    assert (record.checksum, record.version, record.masked) == (None, None, None)


def test_verification_tells_that_exposures_of_forcepho_have_no_checksum(theirs):
    verified, unchecked = PixelStore(theirs, mode="r").verify()
    assert verified == []
    assert len(unchecked) == 6


def test_exposures_go_into_a_store_of_forcepho(theirs, tmp_path):
    path = shutil.copy(theirs, tmp_path / "pixels.h5")
    before = datasets_of(path)
    added, replaced = (image_set("F200W", name, side=128) for name in ("new", "exp_f200w_00"))
    store = PixelStore(path)
    store.add_exposure(added)
    store.add_exposure(replaced)
    assert_holds(store, added, replaced)
    after = datasets_of(path)
    for name in before.keys() - {"F200W/exp_f200w_00/data"}:
        np.testing.assert_array_equal(bits(after[name]), bits(before[name]))


def test_a_non_square_store_states_both_sides(tmp_path):
    imset = image_set(side=(32, 48))
    new_store(tmp_path / "pixels.h5", imset)
    with h5py.File(tmp_path / "pixels.h5") as h5:
        np.testing.assert_array_equal(h5.attrs["nside_full"], [32, 48])
        assert h5.attrs["nside_full"].dtype == np.int64
    assert_holds(PixelStore(tmp_path / "pixels.h5"), imset)


@pytest.mark.parametrize(("prefix", "sides"), [("sq", 64), ("rect", (64, 96))])
def test_coordinates_corners_and_order_are_those_of_forcepho(prefix, sides, golden, tmp_path):
    store = PixelStore(tmp_path / "pixels.h5", sides)
    with np.load(golden / "superpixels.npz") as expected:
        np.testing.assert_array_equal(store.xpix, expected[f"{prefix}_xpix"])
        np.testing.assert_array_equal(store.ypix, expected[f"{prefix}_ypix"])
        np.testing.assert_array_equal(store.superpixel_corners(), expected[f"{prefix}_corners"])
        found = store.superpixelize(expected[f"{prefix}_im"], expected[f"{prefix}_ierr"])
        np.testing.assert_array_equal(bits(found), bits(expected[f"{prefix}_superpixels"]))
        assert store.xpix.dtype == expected[f"{prefix}_xpix"].dtype
