"""Bitmasks by name and number, and counts of flagged pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdatamodels.jwst.datamodels import dqflags

from fpgpu.errors import FlagError, LayoutError
from fpgpu.ingest.flags import HST, JWST, flags_for

# From calwf3's header of data-quality flags.
WFC3 = {
    "SOFTERR": 1,
    "DATALOST": 2,
    "DETECTORPROB": 4,
    "DATAMASKED": 8,
    "HOTPIX": 16,
    "UNSTABLE": 32,
    "WARMPIX": 64,
    "BADBIAS": 128,
    "SATPIXEL": 256,
    "BADFLAT": 512,
    "TRAP": 1024,
    "ATODSAT": 2048,
    "DATAREJECT": 8192,
    "HIGH_CURVATURE": 16384,
}


def test_jwst_flags_are_those_of_the_pipeline():
    pipeline = {name: bit for name, bit in dqflags.pixel.items() if bit}
    assert JWST.by_name == pipeline


def test_hst_flags_are_those_of_calwf3():
    assert WFC3.items() <= HST.by_name.items()
    assert set(HST.by_name) - set(WFC3) == {"DRIZZLEREJECT"}


@pytest.mark.parametrize(
    ("spec", "bits"),
    [
        (5, 5),
        (np.uint32(5), 5),
        ("5", 5),
        ("0x5", 5),
        ("DO_NOT_USE", 1),
        ("DO_NOT_USE+SATURATED", 3),
        ("DO_NOT_USE,JUMP_DET", 5),
        ("do_not_use | jump_det", 5),
        (["DO_NOT_USE", 4], 5),
        (["DO_NOT_USE+SATURATED", "0x4"], 7),
        ("REFERENCE_PIXEL", 1 << 31),
        (0, 0),
        (2**32 - 1, 2**32 - 1),
    ],
)
def test_a_bitmask_can_be_given_in_many_ways(spec, bits):
    assert JWST.parse(spec) == bits


@given(st.sets(st.sampled_from(sorted(JWST.by_name)), min_size=1))
def test_names_and_bits_are_inverse(names):
    assert set(JWST.names(JWST.parse("+".join(names)))) == names
    assert JWST.parse(names) == sum(dqflags.pixel[name] for name in names)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("SATURATE", "did you mean SATURATED"),
        ("DONOTUSE", "did you mean DO_NOT_USE"),
        ("zzz", "known: DO_NOT_USE, SATURATED"),
        ("", "no data-quality flag"),
        (" + ", "no data-quality flag"),
        ([], "no data-quality flag"),
        (-1, "outside 0"),
        ("0x100000000", "outside 0"),
        (1.5, "no bitmask"),
        (True, "no bitmask"),
        (None, "no bitmask"),
    ],
)
def test_nonsense_is_refused_with_a_hint(spec, message):
    with pytest.raises(FlagError, match=message):
        JWST.parse(spec)


def test_the_same_name_means_what_its_observatory_says():
    assert flags_for("HST").parse("HOTPIX") == 16
    assert flags_for("JWST").parse("HOT") == 2048
    assert flags_for(None) is JWST
    with pytest.raises(FlagError, match="HST"):
        flags_for(" hst ").parse("DO_NOT_USE")


def test_each_flag_a_pixel_carries_is_counted():
    mask = np.array([[0, 1, 3], [5, 1 << 31, 0]], np.uint32)
    assert JWST.count(mask) == {
        "DO_NOT_USE": 3,
        "SATURATED": 1,
        "JUMP_DET": 1,
        "REFERENCE_PIXEL": 1,
    }
    assert next(iter(JWST.count(mask))) == "DO_NOT_USE"


@given(st.lists(st.integers(0, 2**32 - 1), max_size=40))
def test_counts_are_those_of_python_integers(values):
    counts = JWST.count(np.array(values, np.uint32))
    expected = {name: sum(bool(v & bit) for v in values) for name, bit in dqflags.pixel.items()}
    assert counts == {name: n for name, n in expected.items() if n}


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<u2", ">u2"])
def test_signed_and_swapped_images_are_bit_patterns(dtype):
    mask = np.array([-32768, 16, 16, 0], ">i2").astype(dtype)
    assert HST.count(mask) == {"HOTPIX": 2, "BIT_15": 1}
    assert HST.names(1 << 15 | 16) == ["HOTPIX", "BIT_15"]


def test_a_boolean_mask_counts_as_bit_zero():
    assert JWST.count(np.array([True, False, True])) == {"DO_NOT_USE": 2}


def test_an_empty_mask_has_no_flags():
    assert JWST.count(np.zeros((0, 3), np.uint32)) == {}


def test_a_float_mask_is_refused():
    with pytest.raises(LayoutError, match="float32"):
        JWST.count(np.zeros((2, 2), np.float32))
