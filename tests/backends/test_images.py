"""Host images through a device give the bits that NumPy gives."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fpgpu.backends.base import Backend
from fpgpu.backends.images import calibrate_on, superpixelize_on
from fpgpu.calibration import calibrate_images
from fpgpu.errors import LayoutError, UnusableExposureError
from fpgpu.superpixels import superpixelize

SHAPE = (16, 24)


@pytest.fixture
def device(cuda_class: Any) -> Backend:
    backend: Backend = cuda_class(0)
    return backend


def images(dtype: str, fits: bool, n: int = 4) -> list[npt.NDArray[Any]]:
    """Positive images of a dtype ``[x, y]``, in either order of memory."""
    rng = np.random.default_rng(5)
    shape = SHAPE[::-1] if fits else SHAPE
    planes = [rng.integers(1, 100, shape).astype(dtype) for _ in range(n)]
    return [plane.T if fits else plane for plane in planes]


@pytest.mark.parametrize("fits", [False, True])
@pytest.mark.parametrize("dtype", ["f4", ">f4", "f2", "u2", ">i2", "i1", "f8", "i4"])
def test_superpixelize(device: Backend, dtype: str, fits: bool) -> None:
    im, ierr, *_ = images(dtype, fits)
    found = superpixelize_on(device, im, ierr)
    np.testing.assert_array_equal(found, superpixelize(im, ierr))
    assert found.dtype == np.float32


@pytest.mark.parametrize("fits", [False, True])
@pytest.mark.parametrize("dtype", ["f4", ">f4", "u2", "f8"])
@pytest.mark.parametrize("mask_dtype", ["?", "u1", ">i4", "i8"])
def test_calibrate(device: Backend, dtype: str, fits: bool, mask_dtype: str) -> None:
    im, ierr, bkg, area = images(dtype, fits)
    mask = (im % 4).astype(mask_dtype)
    options: dict[str, Any] = {"bitmask": 2, "factor": 0.3, "area": area}
    found, counts = calibrate_on(device, im, ierr, mask, bkg, **options)
    flux, weight, expected = calibrate_images(im, ierr, mask, bkg, **options)
    np.testing.assert_array_equal(found, superpixelize(flux, weight))
    assert counts == expected
    assert counts.n_flagged > 0


@pytest.mark.parametrize(("dtype", "used"), [("f4", True), ("u2", True), ("f8", False)])
def test_the_device_is_used_where_float32_is_enough(
    device: Backend, monkeypatch: pytest.MonkeyPatch, dtype: str, used: bool
) -> None:
    launched = []
    monkeypatch.setattr(device, "_launch", lambda launch, *args: launched.append(launch.kernel))
    im, ierr, *_ = images(dtype, fits=False)
    superpixelize_on(device, im, ierr)
    assert launched == (["superpixelize"] if used else [])


def test_one_wide_plane_is_enough_for_the_host(device: Backend) -> None:
    im, ierr, *_ = images("f4", fits=False)
    bkg = np.full(SHAPE, 1 + 1e-12)
    found, _ = calibrate_on(device, im, ierr, None, bkg)
    flux, weight, _ = calibrate_images(im, ierr, None, bkg)
    np.testing.assert_array_equal(found, superpixelize(flux, weight))


def test_wider_results_are_left_to_the_host(device: Backend) -> None:
    im, ierr, *_ = images("f4", fits=False)
    assert superpixelize_on(device, im, ierr, dtype=np.float64).dtype == np.float64


def test_mistakes_are_the_same_on_a_device(device: Backend) -> None:
    im, ierr, *_ = images("f4", fits=False)
    for backend in (device, None):
        with pytest.raises(LayoutError, match=r"ierr has shape \(24, 16\)"):
            superpixelize_on(backend, im, ierr.T)
        with pytest.raises(LayoutError, match="no whole number"):
            superpixelize_on(backend, im[1:], ierr[1:])
        with pytest.raises(UnusableExposureError, match="leave the range of float32"):
            calibrate_on(backend, im, ierr, factor=1e38)
        with pytest.raises(UnusableExposureError, match="flux factor"):
            calibrate_on(backend, im, ierr, factor=0)
