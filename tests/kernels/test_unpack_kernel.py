"""unpack puts pixels where the NumPy reference, and forcepho, put them."""

import numpy as np
import pytest

from fpgpu.backends import reference
from fpgpu.layout import NO_PIXEL, UNPACK_DTYPE
from tests.kernels import calls
from tests.kernels.host_kernels import Guarded, HostKernels, aligned, assert_same_bits

GRID = (200, 50)
COUNTS = [[1], [31], [32], [33], [1, 0, 5], [7, 300, 2], [2] * 40]


def run_unpack(
    host, sources, places, counts, size, *, backgrounds=0, resident=False, max_snr=0, told=None
):
    """Unpack; `sources` are addresses of each exposure's super-pixels."""
    table = np.zeros(len(counts), UNPACK_DTYPE)
    table["source"], table["count"] = sources, counts
    table["start"] = np.cumsum([0, *counts[:-1]])
    table["row_length"] = GRID[1] if resident else 0
    table["background"] = backgrounds
    outputs = [Guarded((len(places) * size**2,), np.float32) for _ in range(4)]
    places = np.ascontiguousarray(places, np.int32)
    first_bad = np.full(1, NO_PIXEL, np.uint32)
    launch, args = calls.unpack(
        table, places, [out.address for out in outputs], size, max_snr, first_bad.ctypes.data
    )
    host.run(launch, args)
    for out in outputs:
        out.check()
    if told is not None:
        told.append(int(first_bad[0]))
    return [out.array for out in outputs], launch


def staged_addresses(staged, counts):
    starts = np.cumsum([0, *counts[:-1]])
    return [staged.ctypes.data + int(start) * staged.strides[0] for start in starts]


def random_places(rng, n):
    return rng.integers((0, 0), GRID, (n, 2), np.int32)


@pytest.mark.parametrize("max_snr", [0, 1.5], ids=["free", "capped"])
@pytest.mark.parametrize("size", [4, 8, 16])
@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_unpack_has_the_bits_of_numpy(host: HostKernels, values, counts, size, max_snr):
    rng = np.random.default_rng(len(counts))
    n = sum(counts)
    places = random_places(rng, n)
    staged = aligned(values(rng, (n, 2 * size**2)))
    backgrounds = rng.normal(size=len(counts)).astype(np.float32)
    found, launch = run_unpack(
        host, staged_addresses(staged, counts), places, counts, size,
        backgrounds=backgrounds, max_snr=max_snr,
    )  # fmt: skip
    assert launch.kernel == "unpack"
    expected = reference.unpack(staged, places, counts, backgrounds, size, max_snr)
    for ours, theirs in zip(found, expected, strict=True):
        assert_same_bits(ours, theirs)


@pytest.mark.parametrize(("size", "kernel"), [(1, "_words"), (2, ""), (3, "_words"), (6, "")])
def test_unpack_takes_any_size(host: HostKernels, values, size, kernel):
    rng = np.random.default_rng(size)
    places = random_places(rng, 40)
    staged = aligned(values(rng, (40, 2 * size**2)))
    found, launch = run_unpack(host, staged_addresses(staged, [40]), places, [40], size)
    assert launch.kernel == f"unpack{kernel}"
    expected = reference.unpack(staged, places, [40], [0], size)
    for ours, theirs in zip(found, expected, strict=True):
        assert_same_bits(ours, theirs)


@pytest.mark.parametrize("misaligned", [False, True])
def test_unpack_gathers_from_resident_exposures(host: HostKernels, values, misaligned):
    rng = np.random.default_rng(7)
    counts = [5, 33]
    exposures = [aligned(values(rng, (*GRID, 32)), 4 * misaligned) for _ in counts]
    places = random_places(rng, sum(counts))
    addresses = [exposure.ctypes.data for exposure in exposures]
    found, launch = run_unpack(host, addresses, places, counts, 4, resident=True)
    assert launch.kernel == ("unpack_words" if misaligned else "unpack")
    of_exposure = np.split(places, [counts[0]])
    picked = [e[p[:, 0], p[:, 1]] for e, p in zip(exposures, of_exposure, strict=True)]
    expected = reference.unpack(np.concatenate(picked), places, counts, [0, 0], 4)
    for ours, theirs in zip(found, expected, strict=True):
        assert_same_bits(ours, theirs)


def test_without_background_or_limit_every_bit_goes_through(host: HostKernels):
    rng = np.random.default_rng(8)
    staged = aligned(rng.integers(0, 2**32, (64, 128), np.uint32).view(np.float32))
    found, _ = run_unpack(host, [staged.ctypes.data], random_places(rng, 64), [64], 8)
    assert_same_bits(found[0], staged[:, :64].ravel())
    assert_same_bits(found[1], staged[:, 64:].ravel())


def test_forcephos_patch_comes_out(host: HostKernels, golden):
    """Its own store, at the super-pixels its patch holds, gives its pixel arrays."""
    import h5py

    with np.load(golden / "tiny" / "patch_1p2arcsec_3src.npz") as patch:
        paths, n = patch["epaths"], patch["exposure_N"]
        expected = [patch[name] for name in ("data", "ierr", "xpix", "ypix")]
    counts = (n // 64).tolist()
    places = np.stack(expected[2:], axis=1)[::64].astype(np.int32) // 8
    with h5py.File(golden / "tiny" / "pixels.h5") as store:
        of_exposure = np.split(places, np.cumsum(counts)[:-1])
        picked = [
            store[f"{path}/data"][...][p[:, 0], p[:, 1]]
            for path, p in zip(paths, of_exposure, strict=True)
        ]
    staged = aligned(np.concatenate(picked))
    found, _ = run_unpack(host, staged_addresses(staged, counts), places, counts, 8)
    for ours, theirs in zip(found, expected, strict=True):
        assert_same_bits(ours, theirs)


@pytest.mark.parametrize("size", [8, 3])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_super_pixel_that_is_not_finite_is_told(host: HostKernels, value, size):
    rng = np.random.default_rng(10)
    counts, places = [100, 3, 40], random_places(rng, 143)
    staged = aligned(rng.normal(size=(143, 2 * size**2)).astype(np.float32) * 1e30)
    addresses = staged_addresses(staged, counts)
    told = []
    run_unpack(host, addresses, places, counts, size, told=told)
    for number, column in ((142, 0), (101, 2 * size**2 - 1), (17, size**2), (17, size**2 - 1)):
        staged[number, column] = value
        run_unpack(host, addresses, places, counts, size, told=told, max_snr=1)
    assert told == [NO_PIXEL, 142, 101, 17, 17]
