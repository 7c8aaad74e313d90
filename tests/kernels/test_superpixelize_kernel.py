"""superpixelize and its inverse move every bit where the NumPy code puts it."""

from pathlib import Path

import numpy as np
import pytest

from fpgpu.layout import ImageFlag
from fpgpu.superpixels import superpixelize
from tests.kernels import calls
from tests.kernels.host_kernels import Guarded, HostKernels, aligned, assert_same_bits

# In super-pixels: one, around the size of a block of threads, ragged, long and thin.
GRIDS = [(1, 1), (1, 7), (8, 8), (9, 3), (31, 2), (2, 32), (33, 1)]
NATIVE = ImageFlag(0)
BIG_ENDIAN = ImageFlag.SWAP_IMAGE | ImageFlag.SWAP_ERROR
LAYOUTS = [
    pytest.param(NATIVE, id="x-y"),
    pytest.param(BIG_ENDIAN, id="x-y big-endian"),
    pytest.param(ImageFlag.SWAP_IMAGE, id="big-endian image"),
    pytest.param(ImageFlag.SWAP_ERROR, id="big-endian error"),
    pytest.param(ImageFlag.FITS_ORDER, id="FITS native"),
    pytest.param(ImageFlag.FITS_ORDER | BIG_ENDIAN, id="FITS"),
]


def stored(images: np.ndarray, flags: ImageFlag, swap: ImageFlag) -> np.ndarray:
    """Lay out a stack of images ``[exposure, x, y]`` as the flags say."""
    if flags & ImageFlag.FITS_ORDER:
        images = images.transpose(0, 2, 1)
    return images.astype(">f4" if flags & swap else "<f4", order="C")


def stored_pair(im, ierr, flags):
    pair = ((im, ImageFlag.SWAP_IMAGE), (ierr, ImageFlag.SWAP_ERROR))
    return [stored(images, flags, swap) for images, swap in pair]


def run_superpixelize(host, im, ierr, size, flags, offset=0):
    n, nx, ny = im.shape
    out = Guarded((n, nx // size, ny // size, 2 * size**2), np.float32, offset)
    planes = [aligned(plane, offset) for plane in stored_pair(im, ierr, flags)]
    addresses = [plane.ctypes.data for plane in planes]
    launch, args = calls.tiled("superpixelize", [*addresses, out.address], im.shape, size, flags)
    host.run(launch, args)
    out.check()
    return out.array, launch


@pytest.mark.parametrize("flags", LAYOUTS)
@pytest.mark.parametrize("size", [4, 8, 16])
def test_superpixelize_has_the_bits_of_numpy(host: HostKernels, values, size, flags):
    rng = np.random.default_rng(size)
    for grid in GRIDS:
        shape = (1, grid[0] * size, grid[1] * size)
        im, ierr = values(rng, shape), values(rng, shape)
        found, launch = run_superpixelize(host, im, ierr, size, flags)
        assert launch.kernel == "superpixelize"
        assert_same_bits(found[0], superpixelize(im[0], ierr[0], size))


@pytest.mark.parametrize("flags", LAYOUTS)
def test_a_batch_is_one_launch(host: HostKernels, values, flags):
    rng = np.random.default_rng(1)
    im, ierr = values(rng, (3, 40, 72)), values(rng, (3, 40, 72))
    found, launch = run_superpixelize(host, im, ierr, 8, flags)
    assert launch.grid[2] == 3
    for exposure in range(3):
        assert_same_bits(found[exposure], superpixelize(im[exposure], ierr[exposure], 8))


@pytest.mark.parametrize("flags", LAYOUTS)
@pytest.mark.parametrize(("size", "offset"), [(1, 0), (3, 0), (5, 0), (6, 0), (8, 4), (4, 8)])
def test_any_size_and_any_alignment_of_words(host: HostKernels, values, size, offset, flags):
    rng = np.random.default_rng(2)
    shape = (2, 7 * size, 5 * size)
    im, ierr = values(rng, shape), values(rng, shape)
    found, launch = run_superpixelize(host, im, ierr, size, flags, offset)
    assert launch.kernel == "superpixelize_words"
    for exposure in range(2):
        assert_same_bits(found[exposure], superpixelize(im[exposure], ierr[exposure], size))


@pytest.mark.parametrize("flags", LAYOUTS)
@pytest.mark.parametrize(("size", "offset"), [(4, 0), (8, 0), (16, 0), (3, 0), (8, 4)])
def test_the_inverse_gives_the_images_back(host: HostKernels, values, size, offset, flags):
    rng = np.random.default_rng(3)
    for grid in GRIDS:
        shape = (2, grid[0] * size, grid[1] * size)
        im, ierr = values(rng, shape), values(rng, shape)
        pairs = zip(im, ierr, strict=True)
        superpixels = aligned([superpixelize(a, b, size) for a, b in pairs], offset)
        expected = stored_pair(im, ierr, flags)
        planes = [Guarded(image.shape, image.dtype, offset) for image in expected]
        addresses = [superpixels.ctypes.data, *(plane.address for plane in planes)]
        host.run(*calls.tiled("images_from_superpixels", addresses, shape, size, flags))
        for plane, image in zip(planes, expected, strict=True):
            plane.check()
            assert_same_bits(plane.array, image)


@pytest.mark.parametrize("case", ["sq", "rect"])
def test_forcephos_superpixels_come_out(host: HostKernels, golden: Path, case):
    with np.load(golden / "superpixels.npz") as answers:
        im, ierr = answers[f"{case}_im"][None], answers[f"{case}_ierr"][None]
        expected = answers[f"{case}_superpixels"]
    found, _ = run_superpixelize(host, im, ierr, 8, ImageFlag.FITS_ORDER | BIG_ENDIAN)
    assert_same_bits(found[0], expected)
