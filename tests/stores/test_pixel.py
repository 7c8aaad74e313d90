"""A pixel store holds what was added, tells what it holds, and refuses what it cannot take."""

import pickle

import h5py
import numpy as np
import pytest

import fpgpu
from fpgpu.errors import (
    ExposureNameError,
    LayoutError,
    MissingStoreError,
    NotInStoreError,
    StoreConflictError,
    StoreFormatError,
    StoreWriteError,
    UnusableExposureError,
)
from fpgpu.ingest.exposure import ImageNameSet
from fpgpu.stores.pixel import PixelStore
from tests.stores.imagesets import SIDE, assert_holds, files_in, image_set, new_store


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pixels.h5"


def test_opening_without_a_size_creates_nothing_and_the_first_exposure_does(path):
    store = PixelStore(path)
    assert not path.exists()
    assert "not created yet" in repr(store)
    store.add_exposure(image_set(side=2048))
    assert_holds(PixelStore(path, mode="r"), image_set(side=2048))


@pytest.mark.parametrize(
    ("given", "shape", "size"),
    [
        ({"nside_full": 96}, (96, 96), 8),
        ({"nside_full": (64, 96), "super_pixel_size": 4}, (64, 96), 4),
        ({"super_pixel_size": 16}, (2048, 2048), 16),
    ],
)
def test_a_new_store_remembers_its_size(given, shape, size, path):
    PixelStore(path, **given)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file.attrs["nside_full"], shape)
        assert file.attrs["nside_full"].dtype == np.int64
        assert file.attrs["super_pixel_size"] == size
        assert list(file) == []
    again = PixelStore(path)
    assert (again.shape, again.super_pixel_size, len(again)) == (shape, size, 0)
    assert PixelStore(path, mode="r").bands == []
    with pytest.raises(StoreConflictError):
        PixelStore(path, 128)
    again.add_exposure(image_set(side=shape))
    assert len(PixelStore(path)) == 1


@pytest.mark.parametrize(
    "read",
    [
        len,
        list,
        lambda s: s.bands,
        lambda s: s.exposures("F200W"),
        lambda s: s.data,
        lambda s: s.read_exposure("F200W", "e1"),
        lambda s: s.record("F200W", "e1"),
        lambda s: ("F200W", "e1") in s,
        lambda s: s.verify(),
    ],
)
def test_reading_a_store_that_does_not_exist_raises(read, path):
    with pytest.raises(MissingStoreError, match=r"pixels\.h5"):
        read(PixelStore(path))
    assert not path.exists()


def test_a_mistyped_path_raises_at_once_when_only_reading(path):
    with pytest.raises(MissingStoreError, match=r"pixels\.h5"):
        PixelStore(path, mode="r")


def test_arguments_that_contradict_the_file_are_refused(path):
    new_store(path, image_set())
    assert PixelStore(path).shape == (SIDE, SIDE)
    assert PixelStore(path, SIDE, 8).nside_super == SIDE // 8
    with pytest.raises(StoreConflictError, match="64 x 64 pixels, but nside_full=2048"):
        PixelStore(path, 2048)
    with pytest.raises(StoreConflictError, match="super_pixel_size=16"):
        PixelStore(path, super_pixel_size=16)


def test_a_store_that_another_created_with_another_size_is_not_written(path):
    late = PixelStore(path)
    new_store(path, image_set())
    with pytest.raises(StoreConflictError, match=r"64 x 64 .* 2048 x 2048"):
        late.add_exposure(image_set(side=2048))


@pytest.mark.parametrize("nside", [100, 0, -8, (64, 60), (64, 64, 64), 64.5, "wide", 1 << 40])
def test_sizes_that_are_no_whole_number_of_superpixels_are_refused(nside, path):
    with pytest.raises(LayoutError):
        PixelStore(path, nside)


def test_defaults_are_those_of_forcepho(path):
    store = PixelStore(path)
    assert (store.nside_full, store.super_pixel_size, store.nside_super) == (2048, 8, 256)
    assert store.pix_dtype == np.float32


def test_opening_builds_no_coordinates(path, monkeypatch):
    new_store(path, image_set())
    monkeypatch.setattr("fpgpu.superpixels.pixel_coordinates", None)
    PixelStore(path)


def test_coordinates_past_32767_do_not_wrap(path):
    store = PixelStore(path, (32776, 8))
    assert store.xpix.max() == 32775
    assert store.ypix.max() == 7


def test_what_it_holds(path):
    sets = [image_set(*key) for key in [("F090W", "b"), ("F090W", "a/x"), ("F200W", "a")]]
    store = new_store(path, *sets)
    assert store.bands == ["F090W", "F200W"]
    assert store.exposures("F090W") == ["a/x", "b"]
    assert list(store) == [("F090W", "a/x"), ("F090W", "b"), ("F200W", "a")]
    assert len(store) == 3
    assert store.bands == ["F090W", "F200W"], "now that all were listed"
    assert ("F090W", "a/x") in store
    assert "F090W/a/x" in store
    for absent in [("F090W", "a"), ("F090W", "c"), ("X", "a"), "F090W", None, ("F090W", ".."), 3]:
        assert absent not in store
    assert repr(store) == f"<PixelStore {str(path)!r} 64x64 (F090W: 2, F200W: 1)>"
    assert_holds(store, *sets)


def test_an_opened_store_keeps_its_state_and_one_opened_afterwards_has_the_new_one(path):
    old, new = image_set(expID="a"), image_set(expID="a", seed=1)
    first = new_store(path, old)
    second = PixelStore(path)
    first.add_exposure(image_set(expID="b"))
    first.add_exposure(new)
    assert second.exposures("F200W") == ["a"]
    assert_holds(second, old)
    assert_holds(first, new)
    assert first.exposures("F200W") == PixelStore(path).exposures("F200W") == ["a", "b"]


def test_a_store_that_was_not_there_shows_when_somebody_has_made_it(path):
    early = PixelStore(path)
    new_store(path, image_set())
    assert early.exposures("F200W") == ["e1"]


def test_a_batch_is_one_commit(path):
    sets = [image_set(expID=f"e{i}", seed=i) for i in range(5)]
    store = new_store(path, image_set("F090W"))
    generation = store.state.index.generation

    def add_all():
        with store.batch():
            for imset in sets:
                store.add_exposure(imset)
            assert len(PixelStore(path)) == 1
            store.add_exposure(image_set(expID="bad", side=72))

    with pytest.raises(LayoutError):
        add_all()
    assert PixelStore(path).state.index.generation == generation + 1
    assert_holds(PixelStore(path), *sets)


def test_absent_bands_and_exposures_are_named_with_what_comes_close(path):
    store = new_store(path, image_set("F200W", "jw01_cal"))
    with pytest.raises(NotInStoreError, match=r"F20W.*did you mean 'F200W'"):
        store.exposures("F20W")
    with pytest.raises(NotInStoreError, match=r"jw01_cat.*did you mean 'jw01_cal'"):
        store.read_exposure("F200W", "jw01_cat")
    with pytest.raises(NotInStoreError, match="it holds 1: F200W"):
        store.verify("Y")
    with pytest.raises(KeyError):
        store.record("F200W", "")


def test_the_record_tells_how_an_exposure_was_calibrated(path):
    imset = image_set()
    imset.hdr = {"ABMAG": 26.0}
    imset.names = ImageNameSet("im.fits", "err.fits", None, False)
    imset.mask = np.zeros((SIDE, SIDE), np.uint32)
    imset.mask[:2, 0] = 4
    imset.mask[3, 0] = 2
    imset.ierr[5, 5] = np.nan
    imset.provenance = {"reader": "plain", "residual": 1e-5, "n_flags": 7}
    store = PixelStore(path, SIDE)
    told = store.add_exposure(imset, bitmask=4, do_fluxcal=True)
    record = store.record("F200W", "e1")
    assert record == told
    assert record.counts_to_flux == pytest.approx(1e9 * 10 ** (0.4 * (8.9 - 26.0)), rel=1e-14)
    assert (record.flux_units, record.bitmask_applied) == ("nJy", 4)
    assert record.names == {"im": "im.fits", "err": "err.fits"}
    assert record.provenance == imset.provenance
    assert (record.masked.n_pixels, record.masked.n_masked) == (SIDE**2, 3)
    assert (record.masked.n_flagged, record.masked.n_bad_err) == (2, 1)
    assert record.version == fpgpu.__version__
    im, ierr = store.read_exposure("F200W", "e1")
    masked = (imset.mask & 4 != 0) | np.isnan(imset.ierr)
    assert not ierr[masked].any()
    assert not im[masked].any()
    assert ierr[~masked].all()


@pytest.mark.parametrize(
    ("header", "do_fluxcal", "units"),
    [({}, False, "image"), ({}, True, "counts"), ({"ABMAG": 26.0}, True, "nJy")],
)
def test_units_are_named_as_forcepho_names_them(header, do_fluxcal, units, path):
    imset = image_set()
    imset.hdr = header
    store = PixelStore(path, SIDE)
    store.add_exposure(imset, do_fluxcal=do_fluxcal)
    assert store.record("F200W", "e1").flux_units == units


def test_an_integer_mask_without_bitmask_masks_the_flagged_pixel_and_no_row(path):
    imset = image_set()
    imset.mask = np.zeros((SIDE, SIDE), np.int32)
    imset.mask[10, 20] = 1
    _, ierr = _added(path, imset).read_exposure("F200W", "e1")
    assert np.argwhere(ierr == 0).tolist() == [[10, 20]]


def test_inputs_are_not_changed(path):
    imset = image_set()
    imset.bkg = np.full((SIDE, SIDE), 0.5, np.float32)
    imset.ierr[0, 0] = np.inf
    imset.mask = np.ones((SIDE, SIDE), bool) & (np.arange(SIDE) > 60)
    imset.hdr = {"ABMAG": 26.0}
    before = {name: getattr(imset, name).copy() for name in ("im", "ierr", "bkg", "mask")}
    PixelStore(path, SIDE).add_exposure(imset, do_fluxcal=True)
    for name, values in before.items():
        np.testing.assert_array_equal(getattr(imset, name), values)


def test_integer_images_are_converted(path):
    imset = image_set()
    imset.im = np.arange(SIDE**2, dtype=np.int16).reshape(SIDE, SIDE)
    assert_holds(_added(path, imset), imset)


def test_absent_mask_and_background_may_be_false(path):
    imset = image_set()
    imset.mask = imset.bkg = False
    assert_holds(_added(path, imset), imset)


def test_values_can_be_kept_and_read_as_float64(path):
    imset = image_set()
    store = new_store(path, imset, pix_dtype=np.float64)
    assert store.data["F200W/e1/data"].dtype == np.float64
    assert store.read_window("F200W", "e1", (0, 1, 0, 1)).dtype == np.float64
    assert_holds(store, imset)
    assert_holds(PixelStore(path), imset)
    assert store.verify().verified == [("F200W", "e1")]


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"im": np.zeros((72, 64))}, LayoutError, "all images of a store have one size"),
        ({"im": np.zeros(64)}, LayoutError, "one size"),
        ({"ierr": np.zeros((64, 72))}, LayoutError, "ierr"),
        ({"im": np.zeros((64, 64), complex)}, LayoutError, "complex"),
        ({"im": np.full((64, 64), "x")}, LayoutError, "real numbers"),
        ({"mask": np.zeros((64, 64), float)}, LayoutError, "mask"),
        ({"bkg": np.zeros((8, 8))}, LayoutError, "bkg"),
        (
            {"im": np.full((64, 64), 3e38), "bkg": np.full((64, 64), -3e38)},
            UnusableExposureError,
            "range",
        ),
        ({"band": "../up"}, ExposureNameError, "slash"),
        ({"band": ""}, ExposureNameError, "empty"),
        ({"expID": "a/../b"}, ExposureNameError, r"\.\."),
        ({"expID": "/abs"}, ExposureNameError, "absolute"),
        ({"expID": ""}, ExposureNameError, "empty"),
        ({"expID": "e0/inside"}, ExposureNameError, "inside the existing"),
        ({"expID": "sub"}, ExposureNameError, "enclose the existing"),
        ({"provenance": {"checksum": 1}}, UnusableExposureError, "checksum"),
        ({"provenance": {"history": "a\0b"}}, StoreWriteError, "HDF5"),
    ],
)
def test_what_cannot_be_taken_is_refused_and_leaves_the_store_as_it_was(change, error, match, path):
    store = new_store(path, image_set(expID="e0"), image_set(expID="sub/x"))
    before = files_in(path.parent)
    imset = image_set(expID="new")
    vars(imset).update(change)
    with pytest.raises(error, match=match):
        store.add_exposure(imset)
    assert files_in(path.parent) == before


def test_a_refused_first_exposure_leaves_the_store_empty(path):
    store = PixelStore(path, SIDE)
    before = files_in(path.parent)
    with pytest.raises(LayoutError):
        store.add_exposure(image_set(side=72))
    imset = image_set()
    imset.provenance = {"history": "a\0b"}
    with pytest.raises(StoreWriteError):
        store.add_exposure(imset)
    assert files_in(path.parent) == before
    assert len(PixelStore(path)) == 0


@pytest.mark.parametrize("cause", ["no weight", "no uncertainty", "no flux", "flagged"])
def test_an_exposure_without_weight_is_stored_with_a_warning(path, cause, caplog):
    """As forcepho stores it: one empty image of many must not end a loop."""
    imset = image_set()
    if cause == "flagged":
        imset.mask = np.ones(imset.im.shape, np.int32)
    else:
        values = {"no weight": 0, "no uncertainty": np.nan, "no flux": np.nan}
        (imset.im if cause == "no flux" else imset.ierr)[:] = values[cause]
    store = new_store(path, image_set(expID="e0"), imset)
    flux, ierr = store.read_exposure("F200W", "e1")
    np.testing.assert_array_equal(flux, imset.im if cause == "no weight" else 0 * flux)
    assert not ierr.any()
    assert "F200W/e1: is stored with zero weight" in caplog.text
    assert "F200W/e0" not in caplog.text


def test_a_failed_replacement_keeps_the_old_data(path):
    old = image_set()
    store = new_store(path, old)
    bad = image_set(seed=1)
    bad.provenance = {"checksum": 1}
    with pytest.raises(UnusableExposureError):
        store.add_exposure(bad)
    assert_holds(store, old)


def test_who_has_a_state_open_reads_it_after_exposures_were_replaced(path):
    old, new = image_set(seed=1), image_set(seed=2)
    new_store(path, old)
    with PixelStore(path) as reader, h5py.File(path, "r", swmr=True) as theirs:
        PixelStore(path).add_exposure(new)
        assert_holds(reader, old)
        superpixels = reader.read_window("F200W", "e1", (0, 8, 0, 8))
        np.testing.assert_array_equal(theirs["F200W/e1/data"][:], superpixels)
    assert_holds(PixelStore(path), new)


def test_replacing_an_exposure_many_times_keeps_the_others(path):
    others = [image_set("F090W", f"e{i}") for i in range(3)]
    store = new_store(path, *others)
    for seed in range(20):
        store.add_exposure(image_set(seed=seed))
    assert_holds(store, *others, image_set(seed=19))
    assert len(store.verify().verified) == 4


def test_what_is_no_exposure_is_neither_listed_nor_lost(path):
    with h5py.File(path, "w") as h5:
        h5.attrs.update(nside_full=SIDE, super_pixel_size=8)
        h5["F200W/notes"] = [1.0]
        h5["odd/data"] = [1.0]
        h5.create_group("F200W/empty")
        h5["away"] = h5py.SoftLink("/nowhere")
        h5["F200W/e1/data"] = np.ones((8, 8, 128), "f4")
    store = PixelStore(path)
    assert list(store) == [("F200W", "e1")]
    store.add_exposure(image_set("F200W", "empty"))
    store.add_exposure(image_set("F200W", "notes"))
    assert store.bands == PixelStore(path).bands == ["F200W"]
    assert store.exposures("F200W") == ["e1", "empty", "notes"]
    (aside,) = path.with_suffix(".shards").glob("pixels-*.h5")
    with h5py.File(aside) as h5:
        assert h5["F200W/notes"][0] == h5["odd/data"][0] == 1.0


def test_a_store_opened_for_reading_is_not_written(path):
    new_store(path, image_set())
    with pytest.raises(StoreWriteError, match="mode='r'"):
        PixelStore(path, mode="r").add_exposure(image_set(expID="x"))


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_a_file_that_is_no_hdf5_file_is_refused(content, path):
    path.write_bytes(content)
    with pytest.raises(StoreFormatError, match=r"pixels\.h5"):
        PixelStore(path)
    assert path.read_bytes() == content


def test_an_hdf5_file_that_is_no_pixel_store_is_refused(path):
    with h5py.File(path, "w") as h5:
        h5.attrs["title"] = "something else"
    with pytest.raises(StoreFormatError, match=r"no root attribute nside_full"):
        PixelStore(path)
    with h5py.File(path, "r+") as h5:
        h5.attrs.update(nside_full=100, super_pixel_size=8)
    with pytest.raises(StoreFormatError, match="make no sense"):
        PixelStore(path)


@pytest.mark.parametrize("side", [np.nan, np.inf, [64, -np.inf]])
def test_sizes_that_are_not_finite_are_refused(path, side):
    with pytest.raises(LayoutError, match="nside_full must be an integer, not"):
        PixelStore(path, nside_full=side)
    with h5py.File(path, "w") as h5:
        h5.attrs.update(nside_full=side, super_pixel_size=8)
    with pytest.raises(StoreFormatError, match="make no sense: nside_full must be an integer"):
        PixelStore(path)


def test_a_folder_or_a_pipe_is_no_store(path):
    with pytest.raises(StoreFormatError, match="folder"):
        PixelStore(path.parent, mode="r")


def test_a_pickled_store_opens_the_same_file(path):
    imset = image_set()
    store = new_store(path, imset, timeout=3.0)
    copy = pickle.loads(pickle.dumps(store))
    assert copy.timeout == store.timeout
    assert_holds(copy, imset)


def test_unknown_modes_and_dtypes_are_refused(path):
    with pytest.raises(LayoutError, match="mode"):
        PixelStore(path, mode="w")
    with pytest.raises(LayoutError, match="pix_dtype"):
        PixelStore(path, pix_dtype=np.int32)


def _added(path, imset):
    return new_store(path, imset)
