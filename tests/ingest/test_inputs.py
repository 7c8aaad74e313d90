"""An input holds all that decides what its exposures become."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fpgpu.errors import (
    ExposureNameError,
    FlagError,
    FpgpuError,
    UnusableExposureError,
    WCSError,
)
from fpgpu.ingest.find import find_inputs
from fpgpu.ingest.inputs import CalibrationOptions, Input, ReadOptions, options_digest
from fpgpu.ingest.naming import name_exposure
from fpgpu.ingest.readers import read_exposure, read_exposures

FULL = Input(
    Path("a_sci.fits"),
    {"wht": Path("a_wht.fits"), "bkg": Path("a_bkg.fits")},
    ReadOptions(pad=True, split_by_detector={"f200w", "F090W"}, band_names={"f444w": "f444wx"}),
    CalibrationOptions(bitmask=["DO_NOT_USE", 4], background_offset=0.25, max_snr=100.0),
)


def test_an_input_survives_a_pickle_and_names_its_files():
    again = pickle.loads(pickle.dumps(FULL))
    assert again == FULL
    assert hash(again) == hash(FULL)
    assert options_digest(again) == options_digest(FULL)
    assert again.files == (Path("a_sci.fits"), Path("a_bkg.fits"), Path("a_wht.fits"))


def test_the_digest_is_that_of_the_options_and_the_same_in_every_process():
    code = (
        "from tests.ingest.test_inputs import FULL; from fpgpu.ingest.inputs import options_digest;"
        "print(options_digest(FULL))"
    )
    for seed in ("0", "1"):
        ran = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
            env={"PYTHONHASHSEED": seed},
        )
        assert ran.stdout.strip() == options_digest(FULL)


def test_the_digest_tells_options_apart_but_not_files():
    some = [
        Input("a.fits"),
        Input("a.fits", options=ReadOptions(pad=True)),
        Input("a.fits", options=ReadOptions(framedir="a")),
        Input("a.fits", {"bkg": "b.fits"}),
        Input("a.fits", {"mask": "b.fits"}),
        Input("a.fits", calibration=CalibrationOptions(bitmask=0)),
        Input("a.fits", calibration=CalibrationOptions(do_fluxcal=False)),
        Input("a.fits", calibration=CalibrationOptions(max_snr=3)),
    ]
    assert len({options_digest(item) for item in some}) == len(some)
    assert options_digest(Input("a.fits")) == options_digest(Input("b.fits"))
    assert options_digest(Input("", options=ReadOptions(bands=["F200W", "f090w"]))) == (
        options_digest(Input("", options=ReadOptions(bands=("F090W", "F200W"))))
    )


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: ReadOptions(wcs="best"), WCSError, "expected one of auto"),
        (lambda: ReadOptions(expID="{stem"), ExposureNameError, "malformed"),
        (lambda: ReadOptions(expID="{stem.__class__}"), ExposureNameError, "has the field"),
        (lambda: ReadOptions(expID="{stem!r}"), ExposureNameError, "without a format"),
        (lambda: CalibrationOptions(bitmask="DEAF"), FlagError, "DEAD"),
        (lambda: CalibrationOptions(max_snr=0), UnusableExposureError, "positive"),
        (lambda: CalibrationOptions(background_offset=np.nan), UnusableExposureError, "finite"),
        (lambda: ReadOptions(pad="no"), UnusableExposureError, "pad is 'no'; expected true or"),
        (lambda: ReadOptions(err_scale="x"), UnusableExposureError, "expected a positive number"),
        (lambda: ReadOptions(abmag=10**400), UnusableExposureError, "expected an AB magnitude"),
        (lambda: ReadOptions(band_names={1: "a"}), UnusableExposureError, "names with new names"),
        (lambda: ReadOptions(tile=2048.5), UnusableExposureError, "an integer or two"),
        (lambda: Input("a", {"error": "b"}), UnusableExposureError, "expected one of err"),
        (lambda: find_inputs(3), TypeError, "cannot be ingested"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_an_exposure_is_named_by_a_pattern(cal_file):
    options = ReadOptions(
        expID="{TELESCOP}/{folder}/{stem}.{band}",
        framedir=cal_file.parent.parent,
        band_names={"f200w": "F2"},
    )
    exposure = read_exposure(cal_file, options)
    assert exposure.band == "F2"
    assert exposure.expID == f"jwst/{cal_file.parent.name}/{cal_file.stem}.F2"
    with pytest.raises(UnusableExposureError, match="NOWHERE, which the header does not have"):
        read_exposure(cal_file, ReadOptions(expID="{NOWHERE}"))


@pytest.mark.parametrize(
    ("pattern", "part", "expID"),
    [
        ("", "", "a_flc"),
        ("", "sci2", "a_flc_sci2"),
        ("{part}/{stem}", "sci2", "sci2/a_flc"),
        ("{stem}_{part}", "", "a_flc"),
        ("{EXPTIME}/{stem}", "x00y01", "507.0/a_flc_x00y01"),
    ],
)
def test_the_parts_of_a_file_never_share_a_name(pattern, part, expID):
    header = {"FILTER": "F606W", "EXPTIME": 507.0}
    assert name_exposure(header, "a_flc.fits", ReadOptions(expID=pattern), part) == ("F606W", expID)


def test_only_the_bands_that_are_asked_for_are_read(cal_file):
    def keys(*bands):
        return [e.band for e in read_exposures(Input(cal_file, options=ReadOptions(bands=bands)))]

    assert keys() == keys("f200w", "F090W") == ["F200W"]
    assert keys("F090W") == []
    with pytest.raises(FpgpuError, match=r"no exposure of the bands.*F090W.*it has F200W"):
        read_exposure(cal_file, ReadOptions(bands=["F090W"]))


def test_an_exposure_in_memory_is_an_input_and_is_not_changed_into_a_file(cal_file):
    exposure = read_exposure(cal_file)
    (item,) = find_inputs(exposure, calibration=CalibrationOptions(bitmask="HOT"))
    (again,) = read_exposures(item)
    assert pickle.loads(pickle.dumps(item)) == item
    assert item.files == ()
    assert again.bitmask == 1 << 11
    assert again.provenance["reader"] == "memory"
    assert exposure.bitmask == 1
    assert exposure.provenance["reader"] == "jwst"
    np.testing.assert_array_equal(again.im, exposure.im)


def test_the_bad_bits_the_offset_and_the_cap_are_those_asked_for(cal_file):
    plain = read_exposure(cal_file)
    calibration = CalibrationOptions(bitmask="0", background_offset=-1.5, max_snr=2.0)
    (exposure,) = read_exposures(Input(cal_file, calibration=calibration))
    assert exposure.mask is None
    assert exposure.bitmask is None
    assert exposure.hdr["TWEAKBG"] == -1.5
    with np.errstate(invalid="ignore"):
        snr = plain.im * plain.ierr
        over = snr > 2
        assert over.any()
        np.testing.assert_allclose((plain.im * exposure.ierr)[over], 2, rtol=1e-6)
    np.testing.assert_array_equal(exposure.ierr[~over], plain.ierr[~over])
