"""What every backend must compute, bit for bit; test classes inherit it.

Truth is the plain NumPy code: `fpgpu.superpixels`, `calibrate_images`, `fpgpu.backends.reference`.
Outputs lie between guard zones in poisoned memory, aligned to 16 bytes and not.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fpgpu.backends import reference
from fpgpu.backends.arguments import ExposurePlanes, PatchPixels, StagedExposure
from fpgpu.backends.base import Backend
from fpgpu.calibration import calibrate_images
from fpgpu.errors import LayoutError, UnusableExposureError
from fpgpu.layout import ImageFlag
from fpgpu.superpixels import superpixelize
from tests.backends.conformance_memory import some_bytes

GUARD, POISON = 1024, 0xA5
NATIVE, FITS = ImageFlag(0), ImageFlag.FITS_ORDER
SWAPPED = ImageFlag.SWAP_IMAGE | ImageFlag.SWAP_ERROR

Images = npt.NDArray[np.float32]


class Guarded:
    """An output of a backend in poisoned memory."""

    def __init__(self, backend: Backend, shape: tuple[int, ...], dtype: str, offset: int) -> None:
        self.backend = backend
        n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.memory = backend.allocate(n_bytes + 2 * GUARD + offset)
        self.all = self.memory.view((self.memory.nbytes,), "u1")
        backend.upload(np.full(self.memory.nbytes, POISON, np.uint8), out=self.all)
        self.inside = slice(GUARD + offset, GUARD + offset + n_bytes)
        self.array = self.memory.view(shape, dtype, GUARD + offset)

    def values(self) -> npt.NDArray[Any]:
        """Fetch the output; fail when anything around it was written."""
        found = self.backend.download(self.all)
        outside = np.delete(found, self.inside)
        assert (outside == POISON).all(), "written outside the output"
        return found[self.inside].view(self.array.dtype).reshape(self.array.shape)

    def untouched(self) -> bool:
        """Tell whether the output is as it was."""
        return bool((self.backend.download(self.all) == POISON).all())


def same_bits(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    """Compare bit patterns, so that NaN payloads and signed zeros count."""
    assert found.shape == expected.shape
    np.testing.assert_array_equal(
        np.ascontiguousarray(found).view(np.uint8), np.ascontiguousarray(expected).view(np.uint8)
    )


def as_stored(image: npt.NDArray[Any], flags: ImageFlag, swap: ImageFlag) -> npt.NDArray[Any]:
    """Images ``[..., x, y]`` as the flags say they are stored, in a native dtype."""
    stored = image.swapaxes(-1, -2) if flags & ImageFlag.FITS_ORDER else image
    return np.ascontiguousarray(stored.byteswap() if flags & swap else stored)


def floats(kind: str, shape: tuple[int, ...], seed: int = 1) -> Images:
    """Images of one kind of value."""
    if kind == "any bits":
        return some_bytes(shape, "f4", seed)
    rng = np.random.default_rng(seed)
    return (rng.normal(0, 100, shape) * (1e-42 if kind == "denormal" else 1)).astype("f4")


@pytest.fixture(params=[0, 4], ids=["aligned", "unaligned"])
def guarded(request: pytest.FixtureRequest, backend: Backend) -> Callable[..., Guarded]:
    """Make an output between guard zones."""
    return lambda shape, dtype="f4": Guarded(backend, shape, dtype, request.param)


class OperationsConformance:
    """Subclasses give the fixture `backend`."""

    @pytest.mark.parametrize("flags", [NATIVE, FITS, SWAPPED, FITS | SWAPPED], ids=str)
    @pytest.mark.parametrize("kind", ["random", "any bits", "denormal"])
    @pytest.mark.parametrize(
        ("shape", "size"),
        [((8, 8), 8), ((3, 16, 40), 8), ((72, 8), 8), ((2, 12, 8), 4), ((15, 5), 5), ((3, 2), 1)],
        ids=str,
    )
    def test_superpixelize_and_back(
        self,
        backend: Backend,
        guarded: Callable[..., Guarded],
        shape: tuple[int, ...],
        size: int,
        kind: str,
        flags: ImageFlag,
    ) -> None:
        im, ierr = floats(kind, shape), floats(kind, shape, 2)
        pairs = zip(im.reshape(-1, *shape[-2:]), ierr.reshape(-1, *shape[-2:]), strict=True)
        expected = np.stack([superpixelize(*pair, size) for pair in pairs])
        expected = expected.reshape(*shape[:-2], *expected.shape[1:])
        stored = [
            as_stored(im, flags, ImageFlag.SWAP_IMAGE),
            as_stored(ierr, flags, ImageFlag.SWAP_ERROR),
        ]
        out = guarded(expected.shape)
        result = backend.superpixelize(
            *map(backend.upload, stored), size, flags=flags, out=out.array
        )
        assert result is out.array
        same_bits(out.values(), expected)

        planes = [guarded(stored[0].shape) for _ in range(2)]
        there = backend.upload(expected)
        pair = planes[0].array, planes[1].array
        backend.images_from_superpixels(there, size, flags=flags, out=pair)
        for plane, image in zip(planes, stored, strict=True):
            same_bits(plane.values(), image)

    def test_outputs_are_made_when_none_is_given(self, backend: Backend) -> None:
        im = floats("random", (2, 16, 8))
        superpixels = backend.superpixelize(backend.upload(im), backend.upload(im))
        assert superpixels.shape == (2, 2, 1, 128)
        for plane in backend.images_from_superpixels(superpixels):
            same_bits(backend.download(plane), im)

    def test_no_exposure_is_no_work(self, backend: Backend) -> None:
        none = backend.empty((0, 16, 8), "f4")
        assert backend.superpixelize(none, none).shape == (0, 2, 1, 128)

    @pytest.mark.parametrize("flags", [NATIVE, FITS | ImageFlag(2 + 4 + 8 + 16 + 32)], ids=str)
    @pytest.mark.parametrize("mask_dtype", [None, "?", "u1", "i2", "u4", "i4"])
    @pytest.mark.parametrize("bitmask", [None, 5])
    @pytest.mark.parametrize("extras", ["plain", "background and area"])
    def test_calibrate(
        self,
        backend: Backend,
        guarded: Callable[..., Guarded],
        flags: ImageFlag,
        mask_dtype: str | None,
        bitmask: int | None,
        extras: str,
    ) -> None:
        shape, n_exp = (16, 24), 2
        exposures, truth = [], []
        for k in range(n_exp):
            planes = self.dirty_exposure(shape, mask_dtype, extras != "plain", seed=k)
            truth.append(
                calibrate_images(
                    planes["image"],
                    planes["error"],
                    planes["mask"],
                    planes["background"],
                    bitmask=bitmask,
                    factor=3.7 + k,
                    area=planes["area"],
                )
            )
            there = {
                name: None
                if plane is None
                else backend.upload(as_stored(plane, flags, ImageFlag[f"SWAP_{name.upper()}"]))
                for name, plane in planes.items()
            }
            exposures.append(ExposurePlanes(factor=3.7 + k, **there))
        out = guarded((n_exp, 2, 3, 128))
        _, counts = backend.calibrate(exposures, bitmask=bitmask, flags=flags, out=out.array)
        same_bits(out.values(), np.stack([superpixelize(im, ierr) for im, ierr, _ in truth]))
        assert counts == [expected for *_, expected in truth]

    @staticmethod
    def dirty_exposure(
        shape: tuple[int, int], mask_dtype: str | None, extras: bool, seed: int
    ) -> dict[str, npt.NDArray[Any] | None]:
        """Planes with everything that masks a pixel."""
        rng = np.random.default_rng(seed)

        def plane(*odd: float) -> Images:
            values = rng.uniform(0.1, 10, shape).astype("f4")
            where = rng.random(shape) < 0.2
            values[where] = rng.choice(np.array(odd, "f4"), int(where.sum()))
            return values

        return {
            "image": plane(np.nan, np.inf, -0.0, 1e-41),
            "error": plane(np.nan, np.inf, 0, -0.0, -1, 1e-41),
            "mask": None if mask_dtype is None else rng.integers(0, 8, shape).astype(mask_dtype),
            "background": plane(np.nan, np.inf, 0) if extras else None,
            "area": plane(np.nan, 0, -1, np.inf) if extras else None,
        }

    def test_overflow_is_refused_with_its_place(self, backend: Backend) -> None:
        image = np.ones((16, 8), "f4")
        image[9, 5] = image[12, 0] = 3e38
        plane = backend.upload(np.ones((16, 8), "f4"))
        exposures = [
            ExposurePlanes(plane, plane),
            ExposurePlanes(backend.upload(image), plane, factor=10.0),
        ]
        with pytest.raises(UnusableExposureError, match=r"2 pixels .*\[x, y\] = \[9, 5\]"):
            backend.calibrate(exposures)

    @pytest.mark.parametrize("size", [8, 4, 3, 1])
    @pytest.mark.parametrize("max_snr", [0.0, 5.0])
    @pytest.mark.parametrize("kind", ["random", "any bits", "denormal"])
    def test_unpack(
        self,
        backend: Backend,
        guarded: Callable[..., Guarded],
        size: int,
        max_snr: float,
        kind: str,
    ) -> None:
        rng = np.random.default_rng(3)
        counts, grid = [33, 0, 1, 31], (6, 9)
        places = np.stack([rng.integers(0, side, sum(counts)) for side in grid], 1, dtype="i4")
        whole = floats(kind, (*grid, 2 * size * size))
        staged = floats(kind, (counts[0], 2 * size * size), 2)
        backgrounds = [0.5, 0.0, -2.0, 3e-42]
        last = places[-counts[3] :]
        superpixels = np.concatenate(
            [staged, whole[places[33:34, 0], places[33:34, 1]], whole[last[:, 0], last[:, 1]]]
        )
        expected = reference.unpack(superpixels, places, counts, backgrounds, size, max_snr)

        whole_there = backend.upload(whole)
        arrays = [backend.upload(staged), *[whole_there] * 3]
        exposures = [
            StagedExposure(array, count, background, grid)
            for array, count, background in zip(arrays, counts, backgrounds, strict=True)
        ]
        outputs = [guarded((len(places) * size * size,)) for _ in range(4)]
        pixels = PatchPixels(*(output.array for output in outputs))
        backend.unpack(exposures, places, pixels, size, max_snr=max_snr)
        for output, array in zip(outputs, expected, strict=True):
            same_bits(output.values(), array)

    @pytest.mark.parametrize("size", [8, 3])
    @pytest.mark.parametrize("slot", [1000, 20, 7], ids="slots of {}".format)
    @pytest.mark.parametrize("is_there", ["none", "some", "last"])
    def test_unpack_reads_what_is_not_there(
        self, backend: Backend, size: int, slot: int, is_there: str
    ) -> None:
        rng = np.random.default_rng(4)
        counts, grid = [9, 0, 12, 3, 31, 1], (6, 9)
        places = np.stack([rng.integers(0, side, sum(counts)) for side in grid], 1, dtype="i4")
        whole = floats("random", (*grid, 2 * size * size))
        superpixels = whole[tuple(places.T)]
        backgrounds = [0.5, 0.0, -2.0, -2.0, 0.0, 3.0]
        superpixels[40, 0] = np.nan
        expected = reference.unpack(superpixels, places, counts, backgrounds, size, 1.5)
        there = {"none": set(), "some": {0, 3}, "last": {5}}[is_there]
        array = backend.upload(whole)
        exposures = [
            StagedExposure(array if number in there else None, count, background, grid)
            for number, (count, background) in enumerate(zip(counts, backgrounds, strict=True))
        ]
        asked: list[tuple[int, int]] = []

        def read(start: int, stop: int, to: np.ndarray) -> None:
            asked.append((start, stop))
            to[...] = superpixels[start:stop]

        pixels = PatchPixels(*(backend.empty((len(places) * size**2,), "f4") for _ in range(4)))
        with backend.staging(slot_bytes=8 * size**2 * slot):
            slot = backend.staging_settings.slot_bytes // (8 * size**2)  # of whole pages
            first_bad = backend.unpack(exposures, places, pixels, size, max_snr=1.5, read=read)
            assert first_bad() == 40
        for found, array in zip(pixels, expected, strict=True):
            same_bits(backend.download(found), array)
        stops = np.cumsum(counts)
        wanted = [
            number for number, stop in enumerate(stops) for _ in range(counts[number])
            if number not in there
        ]  # fmt: skip
        assert sum(stop - start for start, stop in asked) == len(wanted)
        for start, stop in asked:  # only what is larger than a slot is cut
            assert stop - start <= slot
            cut = {start, stop} - {0, *stops.tolist()}
            number = int(np.searchsorted(stops, start, side="right"))
            assert not cut or counts[number] > slot

    def test_unpack_with_nothing_that_reads(self, backend: Backend) -> None:
        places = np.zeros((1, 2), "i4")
        pixels = PatchPixels(*(backend.empty((64,), "f4") for _ in range(4)))
        with pytest.raises(LayoutError, match="nothing to read them"):
            backend.unpack([StagedExposure(None, 1, grid=(1, 1))], places, pixels)

    def test_unpack_of_nothing(self, backend: Backend) -> None:
        none = backend.empty((0,), "f4")
        found = backend.unpack([], np.empty((0, 2), "i4"), PatchPixels(*[none] * 4))
        assert found() is None

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -0.0])
    @pytest.mark.parametrize("first", [0, 32, 33, 63])
    def test_unpack_tells_the_first_that_is_not_finite(
        self, backend: Backend, value: float, first: int
    ) -> None:
        superpixels = np.ones((64, 128), "f4")
        superpixels[first:, [0, 127][first % 2]] = value
        halves = [StagedExposure(backend.upload(half), 32) for half in np.split(superpixels, 2)]
        places = np.zeros((64, 2), "i4")
        out = PatchPixels(*(backend.empty((64 * 64,), "f4") for _ in range(4)))
        found = backend.unpack(halves, places, out)
        # What is launched after it changes nothing about what it found.
        backend.unpack(halves[:1] * 2, places, out)
        assert found() == (None if np.isfinite(value) else first)

    def test_a_chain_needs_no_waiting_in_between(self, backend: Backend) -> None:
        results = []
        for seed in range(5):
            im, ierr = floats("random", (8, 16), seed), floats("random", (8, 16), seed + 9)
            there = backend.superpixelize(backend.upload(im), backend.upload(ierr))
            results.append((backend.images_from_superpixels(there), im, ierr))
            del there  # its memory is lent again to what follows
        for pair, *expected in results:
            for plane, image in zip(pair, expected, strict=True):
                same_bits(backend.download(plane), image)
