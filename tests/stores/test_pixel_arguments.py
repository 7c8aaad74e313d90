"""What a user may mistype when calling a pixel or meta store: an error of fpgpu's own, in words."""

import numpy as np
import pytest

from fpgpu import MetaStore
from fpgpu.errors import FpgpuError, LayoutError, RegionError, UnusableExposureError
from tests.stores.imagesets import image_set, new_store


@pytest.fixture
def store(tmp_path):
    return new_store(tmp_path / "pixels.h5", image_set(expID="first"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"bitmask": "DO_NOT_USE"}, LayoutError, "bitmask is 'DO_NOT_USE'; expected an integer"),
        ({"bitmask": -1}, LayoutError, "bitmask is -1"),
        ({"bitmask": 1.5}, LayoutError, "bitmask is 1.5"),
    ],
)
def test_a_bitmask_that_is_none_is_refused(store, arguments, error, message):
    with pytest.raises(error, match=message):
        store.add_exposure(image_set(expID="second"), **arguments)
    assert len(store) == 1


def test_a_bitmask_of_numpy_is_one(store):
    assert store.add_exposure(image_set(expID="second"), bitmask=np.uint32(5)).bitmask_applied == 5


def test_what_is_no_image_set_is_refused_by_what_it_lacks(store):
    with pytest.raises(UnusableExposureError, match="a NoneType cannot be stored: it has no im"):
        store.add_exposure(None)


def test_a_flux_calibration_needs_a_header(store):
    imset = image_set(expID="second")
    imset.hdr = None
    with pytest.raises(UnusableExposureError, match="second: has no header to calibrate"):
        store.add_exposure(imset, do_fluxcal=True)


@pytest.mark.parametrize("names", [("i", "e", None, None), ["i", "e", None, None]])
def test_names_in_a_plain_sequence_have_forcephos_order(store, names):
    imset = image_set(expID="second")
    imset.names = names
    assert store.add_exposure(imset).names == {"im": "i", "err": "e"}
    assert store.record("F200W", "second").names == {"im": "i", "err": "e"}


def test_why_no_pixel_has_weight_is_said_in_words(store, caplog):
    imset = image_set(expID="second")
    imset.im = np.full_like(imset.im, np.nan)
    store.add_exposure(imset)
    assert "4096 of 4096 pixels masked: 4096 with flux not finite, 0" in caplog.text


@pytest.mark.parametrize("window", [(0, 1, 0), 3, None])
def test_a_window_has_four_bounds(store, window):
    with pytest.raises(LayoutError, match="expected bounds"):
        store.read_window("F200W", "first", window)


def test_a_size_has_two_sides(store):
    with pytest.raises(LayoutError, match="found shape 16"):
        store.pixel_coordinates(imsize=16)


@pytest.mark.parametrize("region", [(53.1, -27.8), None, "a region"])
def test_a_position_is_no_region(golden, region):
    with (
        MetaStore(golden / "tiny" / "meta.json") as meta,
        pytest.raises(RegionError, match="expected a CircularRegion"),
    ):
        meta.exposures_touching(region)
    assert issubclass(RegionError, FpgpuError)
