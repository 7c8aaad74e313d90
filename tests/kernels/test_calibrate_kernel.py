"""calibrate gives the bits and the counts of the NumPy chain, whatever lies in the file."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fpgpu.calibration import calibrate_images
from fpgpu.layout import CALIBRATE_COUNTS_DTYPE, CALIBRATE_DTYPE, NO_PIXEL, ImageFlag
from fpgpu.superpixels import superpixelize
from tests.kernels import calls
from tests.kernels.host_kernels import Guarded, HostKernels, aligned, assert_same_bits

FACTOR = 38.0189396320562
SWAP_ALL = ImageFlag(2 + 4 + 8 + 16 + 32)
IN_FITS = ImageFlag.FITS_ORDER | SWAP_ALL
LAYOUTS = [
    pytest.param(ImageFlag(0), id="x-y"),
    pytest.param(ImageFlag.FITS_ORDER, id="FITS native"),
    pytest.param(IN_FITS, id="FITS"),
]
PLANES = {
    "image": ImageFlag.SWAP_IMAGE,
    "error": ImageFlag.SWAP_ERROR,
    "mask": ImageFlag.SWAP_MASK,
    "background": ImageFlag.SWAP_BACKGROUND,
    "area": ImageFlag.SWAP_AREA,
}
COUNTS = {
    "masked": "n_masked",
    "nonfinite_flux": "n_nonfinite_flux",
    "bad_error": "n_bad_err",
    "flagged": "n_flagged",
    "bad_area": "n_bad_area",
}

SPOILT_AREA = [0, -0.0, -1, np.nan, np.inf, -np.inf]

Exposure = dict[str, npt.NDArray[Any]]


def make_exposure(rng, values, shape, planes=tuple(PLANES), mask_dtype=np.uint32) -> Exposure:
    """Random planes ``[x, y]``, finite values small enough not to overflow."""

    def bounded(plane):
        plane[np.isfinite(plane) & (np.abs(plane) > 1e30)] = 1
        return plane

    info = np.iinfo(mask_dtype)
    area = rng.uniform(0.8, 1.2, shape).astype(np.float32)
    spoilt = rng.random(shape) < 0.1
    area[spoilt] = rng.choice(np.array(SPOILT_AREA, np.float32), int(spoilt.sum()))
    mask = rng.integers(info.min, info.max, shape, mask_dtype, endpoint=True)
    mask[rng.random(shape) < 0.7] = 0
    positive = rng.random(shape) < 0.8
    error = bounded(values(rng, shape))
    every = {
        "image": bounded(values(rng, shape)),
        "error": np.where(positive, np.abs(error), error),
        "mask": mask,
        "background": bounded(values(rng, shape)),
        "area": area,
    }
    return {name: every[name] for name in planes}


def stored(name: str, plane: npt.NDArray[Any], flags: ImageFlag) -> npt.NDArray[Any]:
    """Lay a plane ``[x, y]`` out as the flags say."""
    dtype = plane.dtype.newbyteorder(">" if flags & PLANES[name] else "<")
    return np.ascontiguousarray(plane.T if flags & ImageFlag.FITS_ORDER else plane, dtype)


def run(host, exposures: list[Exposure], size=8, flags=IN_FITS, offset=0, factor=FACTOR, **kw):
    """Calibrate a batch; returns super-pixels and counts of each exposure, and the launch."""
    nx, ny = exposures[0]["image"].shape
    table = np.zeros(len(exposures), CALIBRATE_DTYPE)
    table["factor"], table["inverse_factor"] = factor, 1 / factor
    planes, outs = [], []
    for row, exposure in zip(table, exposures, strict=True):
        for name, plane in exposure.items():
            planes.append(aligned(stored(name, plane, flags), offset))
            row[name] = planes[-1].ctypes.data
        outs.append(Guarded((nx // size, ny // size, 2 * size**2), np.float32, offset))
        row["superpixels"] = outs[-1].address
    counts = Guarded(table.shape, CALIBRATE_COUNTS_DTYPE)
    counts.array[...] = 0
    counts.array["first_overflow"] = NO_PIXEL
    launch, args = calls.calibrate(table, counts.address, (nx, ny), size, flags, **kw)
    host.run(launch, args)
    for guarded in (*outs, counts):
        guarded.check()
    return [out.array for out in outs], counts.array, launch


def check(found, counts, exposure: Exposure, *, size=8, bitmask=None, factor=FACTOR):
    im, ierr, expected = calibrate_images(
        exposure["image"], exposure["error"], exposure.get("mask"), exposure.get("background"),
        bitmask=bitmask, factor=factor, area=exposure.get("area"),
    )  # fmt: skip
    assert_same_bits(found, superpixelize(im, ierr, size))
    for ours, theirs in COUNTS.items():
        assert counts[ours] == getattr(expected, theirs), ours
    assert (counts["overflowed"], counts["first_overflow"]) == (0, NO_PIXEL)


@pytest.mark.parametrize("flags", LAYOUTS)
@pytest.mark.parametrize("size", [4, 8, 16])
def test_has_the_bits_and_counts_of_numpy(host: HostKernels, values, size, flags):
    rng = np.random.default_rng(size)
    for grid in [(1, 1), (3, 9), (5, 4)]:
        exposure = make_exposure(rng, values, (grid[0] * size, grid[1] * size))
        (found,), (counts,), launch = run(host, [exposure], size, flags, bitmask=5)
        assert launch.kernel == "calibrate"
        check(found, counts, exposure, size=size, bitmask=5)


@pytest.mark.parametrize(
    "planes",
    [
        ("image", "error"),
        ("image", "error", "mask"),
        ("image", "error", "background"),
        ("image", "error", "area"),
    ],
    ids=lambda planes: planes[-1],
)
def test_optional_planes_can_be_absent(host: HostKernels, values, planes):
    exposure = make_exposure(np.random.default_rng(1), values, (24, 40), planes)
    (found,), (counts,), _ = run(host, [exposure])
    check(found, counts, exposure)


def test_exposures_of_a_batch_have_planes_of_their_own(host: HostKernels, values):
    rng = np.random.default_rng(2)
    choices = [("image", "error"), tuple(PLANES), ("image", "error", "background")]
    exposures = [make_exposure(rng, values, (72, 40), planes) for planes in choices]
    found, counts, launch = run(host, exposures)
    assert launch.grid[2] == 3
    for number, exposure in enumerate(exposures):
        check(found[number], counts[number], exposure)


@pytest.mark.parametrize("swapped", PLANES)
def test_each_plane_has_its_own_byte_order(host: HostKernels, values, swapped):
    exposure = make_exposure(np.random.default_rng(3), values, (16, 24))
    (found,), (counts,), _ = run(host, [exposure], flags=PLANES[swapped])
    check(found, counts, exposure)


@pytest.mark.parametrize("bitmask", [None, 0, 1, 0x80])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4"])
@pytest.mark.parametrize("flags", [ImageFlag(0), IN_FITS])
def test_masks_of_every_integer(host: HostKernels, values, dtype, bitmask, flags):
    planes = ("image", "error", "mask")
    exposure = make_exposure(np.random.default_rng(4), values, (16, 40), planes, np.dtype(dtype))
    mask_bytes = np.dtype(dtype).itemsize
    (found,), (counts,), _ = run(
        host, [exposure], flags=flags, mask_bytes=mask_bytes, bitmask=bitmask or 2**32 - 1
    )
    check(found, counts, exposure, bitmask=bitmask)


@pytest.mark.parametrize(("size", "offset"), [(3, 0), (8, 4), (6, 0)])
@pytest.mark.parametrize("flags", LAYOUTS)
def test_any_size_and_any_alignment_of_words(host: HostKernels, values, size, offset, flags):
    exposure = make_exposure(np.random.default_rng(6), values, (7 * size, 11 * size))
    (found,), (counts,), launch = run(host, [exposure], size, flags, offset)
    assert launch.kernel == "calibrate_words"
    check(found, counts, exposure, size=size)


@pytest.mark.parametrize("flags", [ImageFlag(0), ImageFlag.FITS_ORDER])
def test_values_that_overflow_are_counted_and_placed(host: HostKernels, flags):
    image, error = np.ones((2, 32, 48), np.float32)
    image[9, 13] = image[10, 12] = image[30, 2] = 3e38  # the first two in one tile
    error[21, 7] = 3e38
    exposure = {"image": image, "error": error}
    _, (counts,), _ = run(host, [exposure], flags=flags, factor=0.5)
    assert (counts["overflowed"], counts["first_overflow"]) == (1, 21 * 48 + 7)
    _, (counts,), _ = run(host, [exposure], flags=flags, factor=2.0)
    assert (counts["overflowed"], counts["first_overflow"]) == (3, 9 * 48 + 13)


def test_a_denormal_area_divides_exactly(host: HostKernels):
    exposure = {name: np.full((8, 8), 1e-40, np.float32) for name in ("image", "error", "area")}
    exposure["image"][3, 4] = exposure["area"][5, 6] = 2e38
    (found,), (counts,), _ = run(host, [exposure], factor=1.0)
    check(found, counts, exposure, factor=1.0)
    assert found[0, 0, 64] == 1


def test_every_masking_case_of_forcepho(host: HostKernels, golden):
    """FITS bytes of a synthetic exposure give the store that forcepho made of it."""
    import h5py
    from astropy.io import fits

    name = "exp_f090w_00"
    with fits.open(golden / "tiny" / f"{name}.fits.gz") as hdus:
        planes = {"image": "SCI", "error": "ERR", "mask": "DQ", "background": "BKG"}
        raw = {ours: hdus[theirs].data.T for ours, theirs in planes.items()}
    with h5py.File(golden / "tiny" / "pixels.h5") as store:
        dataset = store[f"F090W/{name}/data"]
        expected, factor = dataset[...], dataset.attrs["counts_to_flux"]
    exposure = {k: v.astype(v.dtype.newbyteorder("=")) for k, v in raw.items()}
    with np.errstate(divide="ignore"):
        exposure["error"] = 1 / exposure["error"]
    (found,), (counts,), _ = run(
        host,
        [exposure],
        factor=factor,
        bitmask=1,
        mask_bytes=exposure["mask"].dtype.itemsize,
    )
    assert_same_bits(found, expected)
    infinite_error = 1  # of the pixels without weight, this one is not masked
    assert counts["masked"] == np.count_nonzero(expected[..., 64:] == 0) - infinite_error
