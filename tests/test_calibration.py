"""Calibration and masking, against forcepho's own files and a pixel-by-pixel calculation."""

import ctypes
import math
from dataclasses import astuple
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from astropy import units as u
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from fpgpu import tiling
from fpgpu.calibration import MaskCounts, calibrate_images, calibrated_superpixels
from fpgpu.errors import LayoutError, UnusableExposureError
from fpgpu.fluxes import flux_calibration
from fpgpu.superpixels import images_from_superpixels

Planes = dict[str, npt.NDArray[Any] | None]

SPECIAL = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-45, -1e-40, -2.5, 1e38, 3.4e38, -1.0]


@pytest.fixture(autouse=True, scope="module")
def small_tiles() -> Any:
    """Make the tiles so small that small images have several, unequal ones, and threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiling, "_LONG", 16)
        patch.setattr(tiling, "_SHORT", 8)
        patch.setattr(tiling, "_SMALLEST_SHARE", 128)
        patch.setattr(tiling, "n_threads", lambda: 3)
        yield


# --- The truth: one pixel at a time, in Python numbers ---


def f32(x: float) -> float:
    """Round to float32, to infinity beyond its range."""
    return ctypes.c_float(x).value


def same(x: float) -> float:
    return x


def true_pixel(
    im: float,
    ierr: float,
    flagged: bool,
    bkg: float,
    area: float | None,
    factor: float,
    rounded: tuple[Any, Any],
) -> tuple[float, float, tuple[bool, ...]]:
    """Calibrate one pixel; float64 results of float32 operands round to the right float32.

    `rounded` are the roundings of the image and of its inverse uncertainty after every step.
    """
    round_im, round_ierr = rounded
    flux = round_im(im - bkg)
    bad_flux = not math.isfinite(flux)
    bad_err = not math.isfinite(ierr) or ierr < 0
    bad_area = area is not None and not (math.isfinite(area) and area > 0)
    masked = bad_flux or bad_err or flagged or bad_area
    if masked:
        flux, ierr = (round_im(bkg) if math.isfinite(bkg) else 0.0), 0.0
    flux, ierr = round_im(flux * round_im(factor)), round_ierr(ierr * round_ierr(1 / factor))
    if area is not None and not bad_area:
        flux, ierr = round_im(flux * area), round_ierr(ierr / area)
    return f32(flux), f32(ierr), (masked, bad_flux, bad_err, flagged, bad_area)


def is_flagged(mask: npt.NDArray[Any] | None, at: tuple[int, int], bitmask: int | None) -> bool:
    if mask is None:
        return False
    if mask.dtype == bool or not bitmask:
        return bool(mask[at])
    stored = int(mask[at]) % 2 ** (8 * mask.itemsize)  # a negative number has no further bits
    return (stored & bitmask) != 0


def true_images(
    planes: Planes, bitmask: int | None, factor: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], MaskCounts]:
    im, ierr, mask, bkg, area = (planes[n] for n in ("im", "ierr", "mask", "bkg", "area"))
    assert im is not None
    assert ierr is not None
    narrow = ("f4", "i2", "u2")
    rounded = tuple(f32 if plane.dtype.str[1:] in narrow else same for plane in (im, ierr))
    result = np.empty((2, *im.shape), np.float32)
    counts = np.zeros(5, int)
    for at in np.ndindex(im.shape):
        flux, weight, causes = true_pixel(
            float(im[at]),
            float(ierr[at]),
            is_flagged(mask, at, bitmask),
            0.0 if bkg is None else float(bkg[at]),
            None if area is None else float(area[at]),
            factor,
            rounded,
        )
        result[(0, *at)], result[(1, *at)] = flux, weight
        counts += causes
    return result[0], result[1], MaskCounts(im.size, *(int(n) for n in counts))


# --- Random exposures ---


def draw_plane(
    rng: np.random.Generator, shape: tuple[int, int], dtype: str, special: float, fits_order: bool
) -> npt.NDArray[Any]:
    """Draw pixel values of which a fraction is special, in one of the usual memory layouts."""
    if np.dtype(dtype).kind == "f":
        with np.errstate(all="ignore"):
            chosen = rng.choice(SPECIAL, shape).astype(dtype)
        values = np.where(rng.random(shape) < special, chosen, rng.normal(3, 2, shape))
    elif dtype == "bool":
        values = rng.random(shape) < 0.1
    else:
        bounds = np.iinfo(dtype)
        values = rng.integers(
            bounds.min, bounds.max, shape, endpoint=True, dtype=dtype.lstrip("<>")
        )
        values[rng.random(shape) < 0.7] = 0
    plane = values.astype(dtype)
    plane = np.ascontiguousarray(plane.T).T if fits_order else plane
    plane.flags.writeable = False  # the caller's arrays stay as they are
    return plane


@st.composite
def exposures(draw: st.DrawFn) -> tuple[Planes, int | None, float]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.sampled_from([(8, 8), (16, 24), (24, 16), (8, 40)]))
    special = draw(st.sampled_from([0.0, 0.02, 0.3]))
    pixels = st.sampled_from([">f4", "<f4", "<f4", "f8", "i2", "i4", "u2"])
    flags = st.sampled_from([None, "bool", "<u4", ">u4", ">i4", ">i2", "u1", "i8"])
    kinds = {
        "im": draw(pixels),
        "ierr": draw(st.sampled_from([">f4", "<f4", "<f4", "f8"])),
        "mask": draw(flags),
        "bkg": draw(st.one_of(st.none(), pixels)),
        "area": draw(st.sampled_from([None, "<f4", ">f4"])),
    }
    planes: Planes = {
        name: None if kind is None else draw_plane(rng, shape, kind, special, draw(st.booleans()))
        for name, kind in kinds.items()
    }
    bitmask = draw(st.sampled_from([None, 0, 1, 6, 1 << 31]))
    factor = draw(st.sampled_from([1.0, 38.0189396320562, 1e-7, 52.48074602497712]))
    return planes, bitmask, factor


def outcome(calibrate: Any, planes: Planes, **options: Any) -> Any:
    """Return what a calibration gives, as bits, or the error it raises."""
    try:
        *images, counts = calibrate(**planes, **options)
    except UnusableExposureError as error:
        return str(error)
    return [np.ascontiguousarray(image).tobytes() for image in images], counts


def superpixels_as_images(**options: Any) -> tuple[Any, ...]:
    superpixels, counts = calibrated_superpixels(**options)
    return (*images_from_superpixels(superpixels), counts)


@given(exposures())
@settings(max_examples=120, deadline=None)
def test_the_fast_path_and_the_plain_one_give_the_same_bits(
    exposure: tuple[Planes, int | None, float],
) -> None:
    planes, bitmask, factor = exposure
    plain = outcome(calibrate_images, planes, bitmask=bitmask, factor=factor)
    fast = outcome(superpixels_as_images, planes, bitmask=bitmask, factor=factor)
    assert fast == plain


@given(exposures())
@settings(max_examples=60, deadline=None)
def test_every_pixel_is_calibrated_as_specified(
    exposure: tuple[Planes, int | None, float],
) -> None:
    planes, bitmask, factor = exposure
    flux, weight, counts = true_images(planes, bitmask, factor)
    found = outcome(superpixels_as_images, planes, bitmask=bitmask, factor=factor)
    overflows = np.argwhere(~(np.isfinite(flux) & np.isfinite(weight)))
    if len(overflows):
        x, y = overflows[0]
        assert found.startswith(f"{len(overflows)} pixels leave the range of float32")
        assert f"[x, y] = [{x}, {y}]" in found
    else:
        assert found == ([flux.tobytes(), weight.tobytes()], counts)


# --- forcepho's own answers ---


def read_tiny(path: Path) -> tuple[dict[str, npt.NDArray[Any]], float, str]:
    """Read an exposure as forcepho's scripts do."""
    with fits.open(path) as hdus, np.errstate(divide="ignore"):
        planes = {
            "im": hdus["SCI"].data.T,
            "ierr": (1 / hdus["ERR"].data).T,
            "mask": hdus["DQ"].data.T,
            "bkg": hdus["BKG"].data.T,
        }
        return planes, *flux_calibration(hdus["SCI"].header)


@pytest.mark.parametrize(
    "path", ["F090W/exp_f090w_00", "F090W/exp_f090w_01", "F200W/exp_f200w_00",
             "F200W/exp_f200w_01", "F444W/exp_f444w_00", "F444W/exp_f444w_01"]
)  # fmt: skip
def test_forcepho_stores_the_same_bits(golden: Path, path: str) -> None:
    planes, factor, units = read_tiny(golden / "tiny" / f"{path.split('/')[1]}.fits.gz")
    with h5py.File(golden / "tiny" / "pixels.h5", "r") as store:
        expected = store[path]["data"][:]
        assert store[path]["data"].attrs["counts_to_flux"] == factor
        assert store[path]["data"].attrs["flux_units"] == units
    superpixels, counts = calibrated_superpixels(**planes, bitmask=1, factor=factor)
    assert superpixels.dtype == expected.dtype
    assert superpixels.tobytes() == expected.tobytes()
    assert counts.n_flagged == np.count_nonzero(planes["mask"] & 1)
    assert counts.n_masked > counts.n_flagged


# --- Single rules ---


def calibrate_one(**planes: Any) -> tuple[float, float, MaskCounts]:
    """Calibrate an image of equal pixels, and return one of them."""
    options = {name: planes.pop(name) for name in ("bitmask", "factor") if name in planes}
    full = {name: np.full((8, 8), value) for name, value in planes.items()}
    superpixels, counts = calibrated_superpixels(**full, **options)
    return float(superpixels[0, 0, 0]), float(superpixels[0, 0, 64]), counts


NAN, INF = np.float32(np.nan), np.float32(np.inf)
ONE, TWO = np.float32(1), np.float32(2)


@pytest.mark.parametrize(
    ("planes", "flux", "weight", "causes"),
    [
        ({}, -1, 2, (0, 0, 0, 0, 0)),
        ({"im": NAN}, 2, 0, (1, 1, 0, 0, 0)),
        ({"im": INF}, 2, 0, (1, 1, 0, 0, 0)),
        ({"ierr": NAN}, 2, 0, (1, 0, 1, 0, 0)),
        ({"ierr": INF}, 2, 0, (1, 0, 1, 0, 0)),  # no error at all
        ({"ierr": -TWO}, 2, 0, (1, 0, 1, 0, 0)),
        ({"ierr": 0 * ONE}, -1, 0, (0, 0, 0, 0, 0)),  # an infinite error
        ({"bkg": NAN}, 0, 0, (1, 1, 0, 0, 0)),
        ({"mask": np.uint32(5), "bitmask": 1}, 2, 0, (1, 0, 0, 1, 0)),
        ({"mask": np.uint32(4), "bitmask": 1}, -1, 2, (0, 0, 0, 0, 0)),
        ({"mask": np.uint32(4)}, 2, 0, (1, 0, 0, 1, 0)),
        ({"mask": np.uint32(4), "bitmask": 0}, 2, 0, (1, 0, 0, 1, 0)),
        ({"mask": np.int32(-(2**31)), "bitmask": 1 << 31}, 2, 0, (1, 0, 0, 1, 0)),
        ({"mask": np.uint8(255), "bitmask": 256}, -1, 2, (0, 0, 0, 0, 0)),
        ({"mask": np.True_, "bitmask": 4}, 2, 0, (1, 0, 0, 1, 0)),
        ({"mask": np.False_}, -1, 2, (0, 0, 0, 0, 0)),
        ({"area": TWO}, -2, 1, (0, 0, 0, 0, 0)),
        ({"area": NAN}, 2, 0, (1, 0, 0, 0, 1)),
        ({"area": 0 * ONE}, 2, 0, (1, 0, 0, 0, 1)),
        ({"area": TWO, "im": NAN}, 4, 0, (1, 1, 0, 0, 0)),
        ({"factor": 4.0}, -4, 0.5, (0, 0, 0, 0, 0)),
        ({"factor": 4.0, "im": NAN}, 8, 0, (1, 1, 0, 0, 0)),
    ],
)
def test_what_becomes_of_a_pixel(
    planes: dict[str, Any], flux: float, weight: float, causes: tuple[int, ...]
) -> None:
    found = calibrate_one(**{"im": ONE, "ierr": TWO, "bkg": TWO, **planes})
    assert found[:2] == (flux, weight)
    assert astuple(found[2]) == (64, *(64 * cause for cause in causes))


def test_counts_of_tiles_add_up() -> None:
    assert MaskCounts(1, 2, 3, 4, 5, 6) + MaskCounts(10, 20, 30) == MaskCounts(11, 22, 33, 4, 5, 6)


def test_the_result_goes_where_it_is_asked_to_go() -> None:
    im = np.full((16, 8), 3.0, np.float32)
    out = np.zeros((4, 2, 32), np.float32)
    superpixels, _ = calibrated_superpixels(im, im, size=4, out=out)
    assert superpixels is out
    assert (out == 3).all()


def test_values_beyond_float32_are_refused_with_their_place() -> None:
    im = np.zeros((16, 16))
    im[5, 9] = im[12, 3] = 1e39
    for calibrate in (calibrate_images, calibrated_superpixels):
        with pytest.raises(UnusableExposureError, match=r"^2 pixels .* \[x, y\] = \[5, 9\]"):
            calibrate(im, np.ones_like(im))


@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan, math.inf, 1e39, 1e-39])
def test_factors_without_meaning_are_refused(factor: float) -> None:
    with pytest.raises(UnusableExposureError, match=r"flux factor of .* check ABMAG"):
        calibrated_superpixels(np.ones((8, 8)), np.ones((8, 8)), factor=factor)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ierr": np.ones((8, 16))}, r"ierr has shape \(8, 16\), but im has \(8, 8\)"),
        ({"mask": np.ones((1, 8), int)}, r"mask has shape \(1, 8\)"),
        ({"bkg": 1.5}, r"bkg has shape \(\)"),
        ({"area": np.ones(64)}, r"area has shape \(64,\)"),
        ({"im": np.ones((8, 8), complex)}, "im has dtype complex128; expected real numbers"),
        ({"mask": np.ones((8, 8))}, "mask has dtype float64; expected bool or integers"),
        ({"bkg": np.ma.ones((8, 8))}, "bkg is a masked array"),
        ({"im": np.ones(8)}, r"im has shape \(8,\); expected two axes"),
    ],
)
def test_planes_that_do_not_fit_together_are_refused(wrong: Any, message: str) -> None:
    planes = {"im": np.ones((8, 8)), "ierr": np.ones((8, 8)), **wrong}
    for calibrate in (calibrate_images, calibrated_superpixels):
        with pytest.raises(LayoutError, match=message):
            calibrate(**planes)


def test_super_pixels_are_whole_and_float32() -> None:
    ones = np.ones((8, 12))
    with pytest.raises(LayoutError, match="8 x 12 pixels is no whole number"):
        calibrated_superpixels(ones, ones)
    with pytest.raises(LayoutError, match="out has dtype float64; expected float32"):
        calibrated_superpixels(ones, ones, size=4, out=np.zeros((2, 3, 32)))  # type: ignore[arg-type]


# --- From header to factor ---


@pytest.mark.parametrize("zero_point", [8.9, 25, 26.94, np.float32(28.0865)])
def test_a_zero_point_is_the_magnitude_of_one_count(zero_point: float) -> None:
    factor, units = flux_calibration({"ABMAG": zero_point, "BUNIT": "MJy/sr", "PIXAR_SR": 1e-14})
    assert units == "nJy"
    assert factor == pytest.approx((float(zero_point) * u.ABmag).to_value(u.nJy), rel=1e-12)


@pytest.mark.parametrize("unit", ["MJy/sr", "MJy / sr", " MJy sr-1 "])
def test_surface_brightness_becomes_flux_in_a_pixel(unit: str) -> None:
    factor, units = flux_calibration(fits.Header({"BUNIT": unit, "PIXAR_SR": 2.29e-14}))
    assert units == "nJy"
    assert factor == pytest.approx((1 * u.MJy / u.sr * 2.29e-14 * u.sr).to_value(u.nJy), rel=1e-14)


@pytest.mark.parametrize("hdr", [{}, {"BUNIT": "MJy/sr"}, {"BUNIT": "DN/s", "PIXAR_SR": 1e-14}])
def test_without_calibration_counts_remain(
    hdr: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert flux_calibration(hdr) == (1.0, "counts")
    assert "no flux calibration" in caplog.text


@pytest.mark.parametrize(
    ("hdr", "message"),
    [
        ({"ABMAG": "28.1"}, "ABMAG = '28.1' in the header; expected a finite number"),
        ({"ABMAG": math.nan}, "ABMAG = nan"),
        ({"ABMAG": True}, "ABMAG = True"),
        ({"ABMAG": 2800.0}, "no AB magnitude"),
        ({"BUNIT": "MJy/sr", "PIXAR_SR": 0.0}, "PIXAR_SR = 0.0 is no area"),
        ({"BUNIT": "MJy/sr", "PIXAR_SR": None}, "PIXAR_SR = None"),
    ],
)
def test_calibrations_without_meaning_are_refused(hdr: dict[str, Any], message: str) -> None:
    with pytest.raises(UnusableExposureError, match=message):
        flux_calibration(hdr)
