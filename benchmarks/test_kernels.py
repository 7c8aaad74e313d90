"""The operations of every backend on 1 to 64 exposures, beside its own copy of as many bytes.

The bytes of an operation are half of all that it reads and writes: a copy of so many bytes moves as
much. Everything is in the backend's memory before, and so is the room for the results.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.devices import require_memory, stack
from benchmarks.inputs.images import image_set, random_image
from benchmarks.sizes import BATCHES, Measure, Size
from fpgpu.backends.arguments import ExposurePlanes, PatchPixels, StagedExposure
from fpgpu.backends.base import Backend
from fpgpu.calibration import calibrated_superpixels
from fpgpu.fluxes import flux_calibration
from fpgpu.layout import ImageFlag
from fpgpu.superpixels import superpixelize

STORED = {
    "[x, y]": ImageFlag(0),
    "as in FITS": ImageFlag.FITS_ORDER | ImageFlag.SWAP_IMAGE | ImageFlag.SWAP_ERROR,
}
N_SOURCES = 15
N_LOCATIONS = 16  # of PSFs on a detector

pytestmark = pytest.mark.parametrize("n_exp", BATCHES)


def as_stored(image: npt.NDArray[Any], stored: str) -> npt.NDArray[Any]:
    """Return an image ``[x, y]`` in the order and byte order in which it is stored."""
    return image if stored == "[x, y]" else np.ascontiguousarray(image.T, ">f4")


@pytest.mark.parametrize("stored", STORED)
def test_superpixelize(
    measure_on: Measure, backend: Backend, size: Size, n_exp: int, stored: str
) -> None:
    n_bytes = 8 * n_exp * size.side**2
    require_memory(backend, 3 * n_bytes)
    images = random_image(size.side, 1), random_image(size.side, 2)
    im, ierr = (stack(backend, as_stored(image, stored), n_exp) for image in images)
    out = backend.superpixelize(im, ierr, flags=STORED[stored])
    measure_on(
        "superpixelize a batch",
        lambda: backend.superpixelize(im, ierr, flags=STORED[stored], out=out),
        detail=stored,
        at={"side": size.side, "batch": n_exp},
        n_bytes=n_bytes,
        outputs=[out],
    )
    for number in {0, n_exp - 1}:
        np.testing.assert_array_equal(backend.download(out[number]), superpixelize(*images))


@pytest.mark.parametrize("stored", STORED)
def test_images_from_superpixels(
    measure_on: Measure, backend: Backend, size: Size, n_exp: int, stored: str
) -> None:
    n_bytes = 8 * n_exp * size.side**2
    require_memory(backend, 3 * n_bytes)
    images = random_image(size.side, 1), random_image(size.side, 2)
    superpixels = stack(backend, superpixelize(*images), n_exp)
    out = backend.images_from_superpixels(superpixels, flags=STORED[stored])
    measure_on(
        "images from super-pixels",
        lambda: backend.images_from_superpixels(superpixels, flags=STORED[stored], out=out),
        detail=stored,
        at={"side": size.side, "batch": n_exp},
        n_bytes=n_bytes,
        outputs=out,
    )
    for planes, image in zip(out, images, strict=True):
        for number in {0, n_exp - 1}:
            found = backend.download(planes[number]).view(as_stored(image, stored).dtype)
            np.testing.assert_array_equal(found, as_stored(image, stored))


def test_calibrate(measure_on: Measure, backend: Backend, size: Size, n_exp: int) -> None:
    n_bytes = (4 * 4 + 8) * n_exp * size.side**2 // 2
    require_memory(backend, 4 * n_bytes)
    exposure = image_set(size.side, "e")
    factor, _ = flux_calibration(exposure.hdr)
    flags = ImageFlag.FITS_ORDER
    flags |= ImageFlag.SWAP_IMAGE | ImageFlag.SWAP_MASK | ImageFlag.SWAP_BACKGROUND
    stacks = [stack(backend, np.asarray(plane).T, n_exp) for plane in exposure[:4]]
    exposures = [
        ExposurePlanes(im, ierr, mask, bkg, factor=factor)
        for im, ierr, mask, bkg in zip(*stacks, strict=True)
    ]
    out, _ = backend.calibrate(exposures, bitmask=1, flags=flags)
    _, counts = measure_on(
        "calibrate a batch",
        lambda: backend.calibrate(exposures, bitmask=1, flags=flags, out=out),
        detail="as in FITS",
        at={"side": size.side, "batch": n_exp},
        n_bytes=n_bytes,
        outputs=[out],
    )
    expected, masked = calibrated_superpixels(*exposure[:4], bitmask=1, factor=factor)
    for number in {0, n_exp - 1}:
        np.testing.assert_array_equal(backend.download(out[number]), expected)
    assert counts == [masked] * n_exp


@pytest.mark.parametrize("source", ["staged", "resident"])
def test_unpack(measure_on: Measure, backend: Backend, size: Size, n_exp: int, source: str) -> None:
    n_grid, count = size.side // 8, size.window**2
    n_bytes = n_exp * count * 64 * (8 + 16) // 2
    require_memory(backend, 4 * n_bytes + 8 * n_exp * size.side**2)
    whole = superpixelize(random_image(size.side, 1), random_image(size.side, 2))
    first = (n_grid - size.window) // 2
    wanted = slice(first, first + size.window)
    staged = whole[wanted, wanted].reshape(count, -1)
    window = np.indices((size.window, size.window), np.int32).reshape(2, -1).T
    places = np.tile(window + np.int32(first), (n_exp, 1))
    superpixels = stack(backend, staged if source == "staged" else whole, n_exp)
    exposures = [StagedExposure(array, count, grid=(n_grid, n_grid)) for array in superpixels]
    out = PatchPixels(*(backend.empty((n_exp * count * 64,), "f4") for _ in range(4)))
    measure_on(
        "unpack a batch",
        lambda: backend.unpack(exposures, places, out),
        detail=f"{source} exposures",
        at={"window": size.window, "batch": n_exp},
        n_bytes=n_bytes,
        outputs=out,
    )
    for number in {0, n_exp - 1}:
        flux, ierr, *first_pixel = (
            backend.download(array.reshape(n_exp, count, 64)[number]) for array in out
        )
        np.testing.assert_array_equal(np.hstack([flux, ierr]), staged)
        np.testing.assert_array_equal(np.stack(first_pixel, 1)[..., 0], places[-count:] * 8)
