"""The PSF store: both layouts read, the nearest mixture found, and how it is written."""

import threading
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st

from fpgpu import PSF_COLS, PSF_DTYPE, PSFStore, SkyWCS
from fpgpu.errors import (
    ExposureNameError,
    IntegrityError,
    LayoutError,
    MissingStoreError,
    NotInStoreError,
    StoreFormatError,
)
from tests.sky.made_wcs import sky_gwcs, tan_header


def mixtures(n_locations=4, n_radii=3, n_gauss=2, seed=0):
    """Valid mixtures in the flat layout; `amp` of the first Gaussian tells the location."""
    rng = np.random.default_rng(seed)
    made = np.zeros((n_locations, n_radii, n_gauss), PSF_DTYPE)
    made["amp"] = rng.uniform(0.1, 1, made.shape)
    made["amp"][:, 0, 0] = np.arange(n_locations)
    made["xcen"], made["ycen"] = rng.normal(size=(2, *made.shape))
    made["Cxx"], made["Cyy"] = rng.uniform(1, 2, (2, *made.shape))
    made["Cxy"] = rng.uniform(-0.9, 0.9, made.shape)
    made["sersic_bin"] = np.arange(n_radii)[:, None]
    return made


def documented(flat):
    """The same in the layout that forcepho's documentation describes."""
    dtype = [("gauss_params", np.float32, 6), ("sersic_bin", np.int32)]
    made = np.zeros(flat.shape, dtype)
    for i, name in enumerate(PSF_COLS):
        made["gauss_params"][..., i] = flat[name]
    made["sersic_bin"] = flat["sersic_bin"]
    return made


CORNERS = np.array([[0.0, 0.0], [0.0, 100.0], [100.0, 0.0], [100.0, 100.0]])


@pytest.fixture
def store(tmp_path):
    with PSFStore(tmp_path / "psf.h5") as made:
        made.add_psf("F200W", mixtures(), CORNERS)
        yield made


@pytest.fixture
def golden_psf(golden):
    return golden / "tiny" / "psf.h5"


def write_band(path, mode="w", **datasets):
    with h5py.File(path, mode) as h5:
        for name, values in datasets.items():
            h5[f"F200W/{name}"] = values


# --- reading ---------------------------------------------------------------------------------


def test_forcephos_stores_are_read_as_they_are(golden_psf):
    with PSFStore(golden_psf) as store, h5py.File(golden_psf) as h5:
        assert store.bands == list(h5)
        for band in h5:
            rows = h5[band]["parameters"][:]
            locations = h5[band]["detector_locations"][:]
            assert store.n_psf_per_source(band) == h5[band].attrs["n_psf_per_source"] == 36
            np.testing.assert_array_equal(store.locations(band), locations.T)
            np.testing.assert_array_equal(store.lookup(band), rows[0])
            np.testing.assert_array_equal(store.lookup_many(band, locations.T), rows)


def test_forcephos_own_file_is_read(shared_data):
    with PSFStore(shared_data / "forcepho" / "sersic1_psf.h5") as store:
        assert store.bands == ["CLEAR"]
        assert store.locations("CLEAR") is None
        found = store.lookup("CLEAR", (100, 100))
        assert found.dtype == PSF_DTYPE
        assert list(found["sersic_bin"]) == list(range(9))


def test_patches_of_forcepho_hold_row_zero(golden):
    """What forcepho packed for its own patch is what `lookup` gives without a position."""
    with np.load(golden / "tiny" / "patch_1p2arcsec_3src.npz") as patch:
        packed = patch["psfgauss"]
    with PSFStore(golden / "tiny" / "psf.h5") as store:
        first = store.lookup(store.bands[0])
    for name in PSF_DTYPE.names:
        np.testing.assert_array_equal(np.ravel(packed[name])[: len(first)], first[name])


def test_the_documented_layout_gives_the_same(tmp_path):
    flat = mixtures()
    write_band(tmp_path / "a.h5", parameters=flat.reshape(4, 6), detector_locations=CORNERS.T)
    write_band(tmp_path / "b.h5", psfs=documented(flat), detector_locations=CORNERS.T)
    with PSFStore(tmp_path / "a.h5") as a, PSFStore(tmp_path / "b.h5") as b:
        np.testing.assert_array_equal(a.lookup("F200W"), b.lookup("F200W"))
        np.testing.assert_array_equal(
            a.lookup_many("F200W", CORNERS), b.lookup_many("F200W", CORNERS)
        )


def test_other_byte_orders_and_chunks_are_read(tmp_path):
    flat = mixtures().reshape(4, 6)
    with h5py.File(tmp_path / "psf.h5", "w") as h5:
        h5.create_dataset(
            "F200W/parameters", data=flat.astype(PSF_DTYPE.newbyteorder(">")), compression="gzip"
        )
    with PSFStore(tmp_path / "psf.h5") as store:
        np.testing.assert_array_equal(store.lookup("F200W"), flat[0])
        assert store.lookup("F200W").dtype == PSF_DTYPE


def test_one_handle_serves_all_accesses(store):
    assert store.data is store.data
    assert isinstance(store.data, h5py.File)
    handle = store.data
    store.close()
    assert not handle
    assert store.data["F200W/parameters"].shape == (4, 6)


def test_contents_are_told(store):
    assert "F200W" in store
    assert "F115W" not in store
    assert (list(store), len(store)) == (["F200W"], 1)
    assert repr(store).endswith("psf.h5: F200W>")


def test_what_is_returned_can_be_changed_without_harm(store):
    store.lookup("F200W")["amp"] = 7
    store.lookup_many("F200W", CORNERS)["amp"] = 7
    store.locations("F200W")[:] = 7
    assert store.lookup("F200W")["amp"][0] == 0
    assert store.lookup("F200W", (99, 99))["amp"][0] == 3


# --- positions -------------------------------------------------------------------------------


@given(
    st.integers(1, 30),
    st.lists(st.tuples(st.floats(-50, 150), st.floats(-50, 150)), min_size=1, max_size=20),
    st.integers(0, 99),
)
def test_the_nearest_location_is_found(tmp_path_factory, n_locations, positions, seed):
    locations = np.random.default_rng(seed).uniform(0, 100, (n_locations, 2))
    with PSFStore(tmp_path_factory.mktemp("psf") / "psf.h5") as store:
        store.add_psf("F200W", mixtures(n_locations), locations)
        found = store.lookup_many("F200W", positions)["amp"][:, 0].astype(int)
        for (x, y), number in zip(positions, found, strict=True):
            distance = np.hypot(x - locations[:, 0], y - locations[:, 1])
            assert distance[number] == distance.min()
            assert store.lookup("F200W", (x, y))["amp"][0] == number


def test_of_equally_near_locations_the_first_is_taken_as_by_forcepho(store):
    assert store.lookup("F200W", (50, 50))["amp"][0] == 0


def test_many_positions_are_answered_in_pieces(store, monkeypatch):
    positions = np.random.default_rng(1).uniform(0, 100, (50, 2))
    whole = store.lookup_many("F200W", positions)
    monkeypatch.setattr("fpgpu.stores.psf.CHUNK", 9)
    np.testing.assert_array_equal(store.lookup_many("F200W", positions), whole)
    assert store.lookup_many("F200W", np.empty((0, 2))).shape == (0, 6)


@pytest.mark.parametrize("xy", [(np.nan, 1), (1, np.inf), (1,), (1, 2, 3), 5, "ab", [[1, 2]], {}])
def test_bad_positions_are_refused(store, xy):
    with pytest.raises(LayoutError, match="xy"):
        store.lookup("F200W", xy)


@pytest.mark.parametrize("xy", [(1, 2), np.zeros((2, 3)), [[np.nan, 1]], "ab"])
def test_bad_lists_of_positions_are_refused(store, xy):
    with pytest.raises(LayoutError, match="xy"):
        store.lookup_many("F200W", xy)


def test_without_locations_one_mixture_serves_everywhere_and_several_are_ambiguous(tmp_path):
    write_band(tmp_path / "one.h5", parameters=mixtures(1).reshape(1, 6))
    write_band(tmp_path / "many.h5", parameters=mixtures(4).reshape(4, 6))
    with PSFStore(tmp_path / "one.h5") as one, PSFStore(tmp_path / "many.h5") as many:
        assert one.lookup("F200W", (3, 4)).shape == (6,)
        assert many.lookup("F200W")["amp"][0] == 0
        with pytest.raises(StoreFormatError, match="no detector_locations"):
            many.lookup("F200W", (3, 4))


@pytest.mark.parametrize(
    "wcs",
    [
        WCS(tan_header(shape=(101, 101), sip=0)),
        SkyWCS.from_header(tan_header(shape=(101, 101), sip=0)),
        sky_gwcs(shape=(101, 101)),
    ],
)
def test_a_source_gets_the_psf_of_its_place(store, wcs):
    sky = wcs if isinstance(wcs, SkyWCS) else SkyWCS.from_native(wcs)
    for number, (x, y) in enumerate(np.clip(CORNERS, 10, 90)):
        ra, dec = (float(v) for v in sky.pixel_to_world(x, y))
        source = SimpleNamespace(ra=ra, dec=dec)
        assert store.get_local_psf("F200W", source, wcs)["amp"][0] == number
    assert store.get_local_psf("F200W", source)["amp"][0] == 0
    assert store.get_local_psf(band="F200W")["amp"][0] == 0


def test_a_source_without_a_place_is_refused(store):
    wcs = SkyWCS.from_header(tan_header())
    for source in (None, SimpleNamespace(ra=1.0)):
        with pytest.raises(LayoutError, match="needs ra and dec"):
            store.get_local_psf("F200W", source, wcs)
    with pytest.raises(LayoutError, match="no pixel"):
        store.get_local_psf("F200W", SimpleNamespace(ra=233.16, dec=27.79), wcs)


# --- what is refused -------------------------------------------------------------------------


def test_a_missing_store_or_band_is_named(tmp_path, store):
    missing = PSFStore(tmp_path / "no.h5")
    assert "no such file" in repr(missing)
    with pytest.raises(MissingStoreError, match=r"no\.h5"):
        missing.lookup("F200W")
    assert not (tmp_path / "no.h5").exists()
    with pytest.raises(NotInStoreError, match=r"F115W.*F200W"):
        store.lookup("F115W")


@pytest.mark.parametrize("content", [b"", b"no HDF5", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_what_is_no_hdf5_is_refused(tmp_path, content):
    (tmp_path / "psf.h5").write_bytes(content)
    store = PSFStore(tmp_path / "psf.h5")
    with pytest.raises(StoreFormatError, match=r"psf\.h5"):
        store.lookup("F200W")
    with pytest.raises(StoreFormatError, match=r"psf\.h5"):
        store.add_psf("F200W", mixtures(1))
    assert (tmp_path / "psf.h5").read_bytes() == content


SPOILT = {
    "amp is not finite": {"amp": np.nan},
    "xcen is not finite": {"xcen": np.inf},
    "Cxy is not finite": {"Cxy": np.nan},
    "not positive definite": {"Cxx": 0},
    "covariance matrix": {"Cxx": -1, "Cyy": -1},
    r"covariance matrix is not positive definite .*Cxy 2": {"Cxy": 2},
    r"sersic_bin is not in 0 \.\. 9": {"sersic_bin": 10},
    r"location 2, Gaussian 3: sersic_bin": {"sersic_bin": -1},
}


@pytest.mark.parametrize("why", SPOILT)
def test_mixtures_that_no_kernel_can_evaluate_are_refused_on_both_ways(tmp_path, why):
    spoilt = mixtures()
    for name, value in SPOILT[why].items():
        spoilt[name][2, 1, 1] = value
    write_band(tmp_path / "psf.h5", parameters=spoilt.reshape(4, 6))
    store = PSFStore(tmp_path / "psf.h5")
    with pytest.raises(StoreFormatError, match=rf"psf\.h5: band F200W/parameters: .*{why}"):
        store.lookup("F200W")
    with pytest.raises(LayoutError, match=why):
        store.add_psf("NEW", spoilt, CORNERS)
    assert "NEW" not in store


@pytest.mark.parametrize(
    ("datasets", "why"),
    [
        ({"other": np.zeros(3)}, "holds other; expected"),
        ({"parameters": np.zeros((4, 6))}, "fields float64"),
        ({"parameters": mixtures()[0, 0, 0]}, "shape"),
        ({"parameters": mixtures()[:0].reshape(0, 6)}, "shape"),
        ({"parameters": mixtures()[["amp", "sersic_bin"]].reshape(4, 6)}, "fields amp"),
        ({"parameters": mixtures().reshape(4, 6), "detector_locations": CORNERS}, r"\(2, 4\)"),
        ({"parameters": mixtures().reshape(4, 6), "detector_locations": "here"}, "numbers"),
        (
            {"parameters": mixtures().reshape(4, 6), "detector_locations": CORNERS.T * np.nan},
            "not finite",
        ),
    ],
)
def test_other_structures_are_refused(tmp_path, datasets, why):
    write_band(tmp_path / "psf.h5", **datasets)
    with (
        PSFStore(tmp_path / "psf.h5") as store,
        pytest.raises(StoreFormatError, match=rf"psf\.h5: band F200W.*{why}"),
    ):
        store.lookup("F200W")


def test_a_count_that_contradicts_the_data_is_refused(tmp_path):
    write_band(tmp_path / "psf.h5", parameters=mixtures().reshape(4, 6))
    with h5py.File(tmp_path / "psf.h5", "a") as h5:
        h5["F200W"].attrs["n_psf_per_source"] = 5
    with (
        PSFStore(tmp_path / "psf.h5") as store,
        pytest.raises(StoreFormatError, match="n_psf_per_source is 5, but there are 6"),
    ):
        store.lookup("F200W")


# --- damage ----------------------------------------------------------------------------------


def damage(path, dataset, offset=5):
    """Flip a bit of a number, where HDF5 keeps no checksum of it."""
    with h5py.File(path) as h5:
        place = h5[f"F200W/{dataset}"].id.get_offset() + offset
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["parameters", "detector_locations"])
def test_a_type_of_values_in_the_place_of_a_dataset_is_refused(tmp_path, name):
    write_band(
        tmp_path / "psf.h5", parameters=mixtures().reshape(4, 6), detector_locations=CORNERS.T
    )
    with h5py.File(tmp_path / "psf.h5", "r+") as h5:
        kind = h5["F200W"][name].dtype
        del h5["F200W"][name]
        h5["F200W"][name] = kind
    with PSFStore(tmp_path / "psf.h5") as store, pytest.raises(StoreFormatError, match="a dataset"):
        store.lookup("F200W")


@pytest.mark.parametrize("dataset", ["parameters", "detector_locations"])
def test_a_damaged_number_is_refused_with_the_way_on(store, tmp_path, dataset):
    store.add_psf("F115W", mixtures(1))
    damage(tmp_path / "psf.h5", dataset)
    with pytest.raises(IntegrityError, match=r"psf\.h5: band F200W: .* write the band again with"):
        store.lookup("F200W")
    assert store.lookup("F115W").shape == (6,)
    store.add_psf("F444W", mixtures(1))  # what is copied beside it is no better
    with pytest.raises(IntegrityError):
        store.table("F200W")
    store.add_psf("F200W", mixtures(), CORNERS)
    np.testing.assert_array_equal(store.lookup_many("F200W", CORNERS), mixtures().reshape(4, 6))


def test_numbers_that_damage_makes_absurd_are_told_as_damage(store, tmp_path):
    with h5py.File(tmp_path / "psf.h5", "r+") as h5:
        h5["F200W/detector_locations"][0, 0] = np.nan
    with pytest.raises(IntegrityError, match="does not match its checksum"):
        store.locations("F200W")


def test_a_band_that_another_program_writes_anew_has_no_checksum(store, tmp_path):
    path = tmp_path / "psf.h5"
    with h5py.File(path, "r+") as h5:  # a new group, as scripts around forcepho write it
        del h5["F200W"]
        group = h5.create_group("F200W")
        group.attrs["n_psf_per_source"] = 6
        group["parameters"] = mixtures(1, seed=5).reshape(1, 6)
    np.testing.assert_array_equal(store.lookup("F200W"), mixtures(1, seed=5).reshape(6))


def test_a_band_that_another_program_changes_in_place_is_refused_until_that_is_said(
    store, tmp_path
):
    with h5py.File(tmp_path / "psf.h5", "r+") as h5:
        h5["F200W/parameters"][...] = mixtures(seed=5).reshape(4, 6)
    with pytest.raises(IntegrityError, match="delete the attribute fpgpu_checksum of the band"):
        store.lookup("F200W")
    store.close()
    with h5py.File(tmp_path / "psf.h5", "r+") as h5:
        del h5["F200W"].attrs["fpgpu_checksum"]
    np.testing.assert_array_equal(store.lookup("F200W"), mixtures(seed=5).reshape(4, 6)[0])


# --- writing ---------------------------------------------------------------------------------


def test_what_is_written_equals_forcephos_file(golden_psf, tmp_path):
    with PSFStore(golden_psf) as source, PSFStore(tmp_path / "psf.h5") as target:
        for band in source:
            target.add_psf(band, source.data[band]["parameters"][:], source.locations(band))
    with h5py.File(golden_psf) as expected, h5py.File(tmp_path / "psf.h5") as found:
        assert list(found) == list(expected)
        for band in expected:
            assert set(found[band]) == set(expected[band])
            # What fpgpu adds is ignored by forcepho, which asks for attributes by their names.
            own = {"fpgpu_checksum": found[band].attrs["fpgpu_checksum"]}
            assert dict(found[band].attrs) == {**expected[band].attrs, **own}
            assert found[band].attrs["n_psf_per_source"].dtype == np.int64
            for name in expected[band]:
                assert found[band][name].dtype == expected[band][name].dtype
                np.testing.assert_array_equal(found[band][name][()], expected[band][name][()])


@pytest.mark.parametrize("convert", [lambda m: m, documented, lambda m: m.reshape(4, 6)])
def test_both_layouts_can_be_given(tmp_path, convert):
    with PSFStore(tmp_path / "psf.h5") as store:
        store.add_psf("F200W", convert(mixtures()), CORNERS)
        np.testing.assert_array_equal(store.lookup_many("F200W", CORNERS), mixtures().reshape(4, 6))


def test_one_location_may_come_without_axis_and_place(tmp_path):
    with PSFStore(tmp_path / "psf.h5") as store:
        store.add_psf("F200W", mixtures(1).reshape(6))
        np.testing.assert_array_equal(store.lookup("F200W", (1, 2)), mixtures(1).reshape(6))


@pytest.mark.parametrize("place", [None, [(1.0, 2.0)], (1.0, 2.0)])
@pytest.mark.parametrize("convert", [lambda m: m, documented])
def test_one_location_may_come_as_radii_and_gaussians(tmp_path, convert, place):
    with PSFStore(tmp_path / "psf.h5") as store:
        store.add_psf("F200W", convert(mixtures(1)[0]), place)
        assert store.n_radii("F200W") == 3
        np.testing.assert_array_equal(store.lookup("F200W", (1, 2)), mixtures(1).reshape(6))


def test_rows_with_a_place_each_are_locations(tmp_path):
    # The same bin everywhere, and as many places as rows: no radii.
    rows = mixtures(n_locations=4, n_radii=1)[:, 0]
    with PSFStore(tmp_path / "psf.h5") as store:
        store.add_psf("F200W", rows, CORNERS)
        assert store.n_psf_per_source("F200W") == 2
        with pytest.raises(LayoutError, match="4 mixtures without locations"):
            store.add_psf("F115W", rows)


def test_the_documented_layout_of_one_location_is_read(tmp_path):
    write_band(tmp_path / "psf.h5", psfs=documented(mixtures(1)[0]))
    with PSFStore(tmp_path / "psf.h5") as store:
        np.testing.assert_array_equal(store.lookup("F200W"), mixtures(1).reshape(6))


def test_a_file_with_a_radius_missing_says_so(tmp_path):
    gap = mixtures()
    gap["sersic_bin"][2, 1] = 2
    write_band(tmp_path / "psf.h5", parameters=gap.reshape(4, 6), detector_locations=CORNERS.T)
    with (
        PSFStore(tmp_path / "psf.h5") as store,
        pytest.raises(StoreFormatError, match=r"F200W: location 2 has no Gaussian of sersic_bin 1"),
    ):
        store.n_radii("F200W")


def test_light_that_is_lost_is_told_with_the_sum(tmp_path, caplog):
    sound = mixtures(2)
    sound["amp"] = 0.5
    with PSFStore(tmp_path / "psf.h5") as store:
        store.add_psf("F200W", sound, CORNERS[:2])
        assert store.n_radii("F200W") == 3
        assert caplog.text == ""
        sound["amp"][1, 2] = 0.375
        store.add_psf("F200W", sound, CORNERS[:2])
        assert "F200W: the amplitudes of sersic_bin 2 at location 1 sum to 0.75;" in caplog.text
        caplog.clear()
        store.lookup("F200W")
        assert "sum to 0.75; expected about 1" in caplog.text


def test_other_bands_and_attributes_stay(store, tmp_path):
    with h5py.File(tmp_path / "psf.h5", "a") as h5:
        h5.attrs.update(author="someone", version=3)
        h5["F200W"].attrs["note"] = "kept"
    store.add_psf("F115W", mixtures(1, seed=2))
    store.add_psf("F115W", mixtures(1, seed=3))
    assert store.bands == ["F115W", "F200W"]
    assert dict(store.data.attrs) == {"author": "someone", "version": 3}
    assert store.data["F200W"].attrs["note"] == "kept"
    np.testing.assert_array_equal(store.lookup_many("F200W", CORNERS), mixtures().reshape(4, 6))
    np.testing.assert_array_equal(store.lookup("F115W"), mixtures(1, seed=3).reshape(6))
    assert [path.name for path in tmp_path.iterdir()] == ["psf.h5"]


def test_a_handle_of_somebody_else_does_not_stop_a_writer(store, tmp_path):
    with h5py.File(tmp_path / "psf.h5", "r") as other:
        store.add_psf("F115W", mixtures(1))
        assert list(other) == ["F200W"]
    assert store.bands == ["F115W", "F200W"]


def test_writers_of_different_bands_do_not_lose_each_other(tmp_path):
    def write(band):
        PSFStore(tmp_path / "psf.h5").add_psf(band, mixtures(1))

    threads = [threading.Thread(target=write, args=(f"F{i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with PSFStore(tmp_path / "psf.h5") as store:
        assert store.bands == [f"F{i}" for i in range(6)]


def test_a_band_that_is_a_link_to_another_file_is_not_copied_in(tmp_path):
    write_band(tmp_path / "other.h5", parameters=mixtures(1))
    with h5py.File(tmp_path / "psf.h5", "w") as h5:
        h5["F090W"] = h5py.ExternalLink("other.h5", "F200W")
    before = (tmp_path / "psf.h5").read_bytes()
    with pytest.raises(StoreFormatError, match="F090W is a link to another place"):
        PSFStore(tmp_path / "psf.h5").add_psf("F115W", mixtures(1))
    assert (tmp_path / "psf.h5").read_bytes() == before


def test_mixtures_that_lie_in_another_file_are_not_read(tmp_path):
    write_band(tmp_path / "other.h5", parameters=mixtures(1))
    with h5py.File(tmp_path / "psf.h5", "w") as h5:
        h5["F090W/parameters"] = h5py.ExternalLink("other.h5", "F200W/parameters")
    with (
        PSFStore(tmp_path / "psf.h5") as store,
        pytest.raises(StoreFormatError, match="parameters is a link to another place"),
    ):
        store.table("F090W")


def test_what_cannot_be_stored_leaves_the_file_as_it_is(store, tmp_path):
    before = (tmp_path / "psf.h5").read_bytes()
    gap = mixtures()
    gap["sersic_bin"][1][gap["sersic_bin"][1] == 1] = 2
    halves = mixtures().astype([*[(name, "f4") for name in PSF_COLS], ("sersic_bin", "f8")])
    halves["sersic_bin"][2] += 0.5
    for parameters, locations, why in [
        (mixtures(), None, "without locations"),
        (mixtures(), CORNERS[:3], r"expected \(4, 2\)"),
        (mixtures(), CORNERS.T, r"expected \(4, 2\)"),
        (mixtures(), CORNERS + np.inf, "finite"),
        (mixtures(1), "centre", "^locations is 'centre'"),
        (np.zeros((4, 6)), CORNERS, "fields"),
        (halves, CORNERS, "sersic_bin are not whole"),
        (gap, CORNERS, "location 1 has no Gaussian of sersic_bin 1"),
    ]:
        with pytest.raises(LayoutError, match=why):
            store.add_psf("F115W", parameters, locations)
    with pytest.raises(ExposureNameError):
        store.add_psf("../F115W", mixtures(1))
    assert (tmp_path / "psf.h5").read_bytes() == before
