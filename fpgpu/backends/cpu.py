"""The CPU backend: NumPy arrays in host memory, and the NumPy code that defines every operation."""

import ctypes
import os
import platform
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.backends import reference
from fpgpu.backends.arguments import (
    Clock,
    ExposurePlanes,
    PatchPixels,
    Read,
    StagedExposure,
)
from fpgpu.backends.base import Backend, MemoryState
from fpgpu.backends.hostpool import HostPool, aligned_bytes
from fpgpu.backends.launches import DeviceLimits, Launch
from fpgpu.backends.memory import ALIGNMENT, Array, HostMemory, Memory
from fpgpu.backends.operations import FirstBad
from fpgpu.backends.staging import PAGE, Slot, StagingSettings
from fpgpu.backends.unpacking import (
    batches,
    count,
    runs,
    unpack_piece,
)
from fpgpu.calibration import calibrated_superpixels
from fpgpu.layout import (
    CALIBRATE_COUNTS_DTYPE,
    NO_PIXEL,
    PATCH_ARRAYS,
    PATCH_DTYPE,
    ImageFlag,
)
from fpgpu.superpixels import images_from_superpixels, superpixelize

__all__ = ["CpuBackend"]

_AS_STORED = ImageFlag(0)

AT_ONCE = 1 << 20
"""Bytes staged at a time: what was read is still in the caches when it is unpacked."""


class CpuBackend(Backend):
    """Host memory and NumPy.

    Arrays are ordinary NumPy arrays. Launches are checked against the limits that hold on every
    supported GPU, so that what runs here is not refused there.

    Parameters
    ----------
    device : None
        The host.
    staging : StagingSettings, optional
        Size and depth of the staging ring.
    """

    name = "cpu"
    in_host_memory = True

    def __init__(self, device: None = None, staging: StagingSettings | None = None) -> None:
        super().__init__(device, DeviceLimits(), staging)
        self._pool = HostPool(ALIGNMENT)

    @property
    def description(self) -> str:
        """The processor and its number of cores."""
        return f"the host ({platform.machine()}, {os.cpu_count()} cores)"

    def why_foreign(self, array: Any) -> str | None:
        """Say why an object is no NumPy array, None if it is one."""
        if isinstance(array, np.ndarray):
            return None
        kind = f"{type(array).__module__}.{type(array).__qualname__}"
        return f"it is a {kind}, not a NumPy array in host memory"

    def address(self, array: Array) -> int:
        """Address of an array's first element."""
        return int(array.ctypes.data)

    def has_free(self, n_bytes: int) -> bool:
        """Tell whether that many bytes are free."""
        # What nothing uses is told at once, what only caches files takes a file of text.
        return n_bytes <= _bytes_of("SC_AVPHYS_PAGES") or super().has_free(n_bytes)

    def memory_state(self) -> MemoryState:
        """Tell how much memory the host has and how much is free."""
        free, total = _bytes_of("SC_AVPHYS_PAGES"), _bytes_of("SC_PHYS_PAGES")
        free = max(free, _available_bytes()) + self._pool.kept_bytes
        return MemoryState(free, total, self._ledger.nbytes)

    def synchronize(self) -> None:
        """Do nothing: every operation has ended when its call returns."""

    def make_current_stream_wait(self) -> None:
        """Do nothing, likewise."""

    def time(
        self,
        call: Callable[[], object],
        repeat: int = 5,
        spoil: Callable[[], object] | None = None,
    ) -> list[float]:
        """Time a call."""
        call()
        if spoil is not None:
            spoil()
        seconds = []
        for _ in range(repeat):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        return seconds

    def copies_to_time(self, n_bytes: int) -> dict[str, Callable[[], object]]:
        """Make the copies whose speed is a measure of the machine."""
        # Zeros never written to are all one page, which is read from the cache.
        source, to = np.ones((2, n_bytes), np.uint8)
        return {"memcpy in the host": lambda: np.copyto(to, source)}

    def _allocate(self, n_bytes: int) -> Memory:
        return HostMemory(n_bytes, self._ledger, self._pool)

    def _host_buffer(self, n_bytes: int) -> npt.NDArray[np.uint8]:
        return aligned_bytes(n_bytes, PAGE)

    def _copy_in(
        self, source: npt.NDArray[np.uint8], to: Array, slot: Slot | None, fresh: bool
    ) -> None:
        np.copyto(to.reshape(-1).view(np.uint8), source)

    def _copy_out(self, array: Array, to: npt.NDArray[Any]) -> None:
        np.copyto(to.reshape(-1).view(np.uint8), array.reshape(-1).view(np.uint8))

    def _superpixelize(
        self, launch: Launch, im: Array, ierr: Array, size: int, flags: ImageFlag, out: Array
    ) -> None:
        images = _stack(im, flags, ImageFlag.SWAP_IMAGE), _stack(ierr, flags, ImageFlag.SWAP_ERROR)
        for image, weight, to in zip(*images, _stack(out, spare_axes=3), strict=True):
            superpixelize(image, weight, size, out=to)

    def _images_from_superpixels(
        self,
        launch: Launch,
        superpixels: Array,
        size: int,
        flags: ImageFlag,
        im: Array,
        ierr: Array,
    ) -> None:
        planes = _stack(im, flags, ImageFlag.SWAP_IMAGE), _stack(ierr, flags, ImageFlag.SWAP_ERROR)
        for block, *pair in zip(_stack(superpixels, spare_axes=3), *planes, strict=True):
            for to, image in zip(pair, images_from_superpixels(block, size), strict=True):
                to[...] = image

    def _calibrate(
        self,
        launch: Launch,
        exposures: Sequence[ExposurePlanes],
        size: int,
        mask_bytes: int,
        bitmask: int,
        flags: ImageFlag,
        out: Array,
    ) -> npt.NDArray[Any]:
        rows = np.zeros(len(exposures), CALIBRATE_COUNTS_DTYPE)
        rows["first_overflow"] = NO_PIXEL
        for exposure, row, to in zip(exposures, rows, out, strict=True):
            error = _plane(exposure.error, flags, ImageFlag.SWAP_ERROR)
            mask = exposure.mask
            if mask is not None:
                mask = _plane(mask.view(f"u{mask_bytes}"), flags, ImageFlag.SWAP_MASK)
            _, counts = calibrated_superpixels(
                _plane(exposure.image, flags, ImageFlag.SWAP_IMAGE),
                error,
                mask,
                _plane(exposure.background, flags, ImageFlag.SWAP_BACKGROUND),
                bitmask=bitmask,
                factor=exposure.factor,
                area=_plane(exposure.area, flags, ImageFlag.SWAP_AREA),
                size=size,
                out=to,
            )
            row["masked"], row["flagged"] = counts.n_masked, counts.n_flagged
            row["nonfinite_flux"], row["bad_error"] = counts.n_nonfinite_flux, counts.n_bad_err
            row["bad_area"] = counts.n_bad_area
        return rows

    def _unpack(
        self,
        exposures: Sequence[StagedExposure],
        places: npt.NDArray[np.int32],
        out: PatchPixels,
        size: int,
        max_snr: float,
        read: Read,
        clock: Clock,
    ) -> FirstBad:
        """Unpack so few at a time that what was just read is still in the processor's caches."""
        pixels, first = size * size, None

        def add(start: int, superpixels: npt.NDArray[np.float32], background: float) -> None:
            nonlocal first
            stop = start + len(superpixels)
            some = PatchPixels(*(array[start * pixels : stop * pixels] for array in out))
            bad = unpack_piece(superpixels, places[start:stop], background, size, max_snr, some)
            if first is None and bad >= 0:
                first = start + bad

        bytes_each = 8 * pixels
        at_most = self.staging_settings.slot_bytes // bytes_each or 1
        for is_read, pieces in runs(exposures):
            if not is_read:
                with clock("unpack"):
                    for number, start, stop in pieces:
                        superpixels: Any = exposures[number].superpixels
                        if superpixels.ndim == 3:
                            superpixels = superpixels[tuple(places[start:stop].T)]
                        add(start, superpixels, exposures[number].background)
                continue
            cuts = list(batches(pieces, at_most, AT_ONCE // bytes_each))
            largest = max(map(count, cuts))
            with self.stage(largest * bytes_each) as slot:
                memory = slot.view((largest, 2 * pixels), np.float32)
                for batch in cuts:
                    begin, end = batch[0].start, batch[-1].stop
                    read(begin, end, memory[: end - begin])
                    with clock("unpack"):
                        # Neighbours of the same background are as one exposure.
                        for background, group in groupby(
                            batch, lambda piece: exposures[piece.exposure].background
                        ):
                            same = list(group)
                            start, stop = same[0].start, same[-1].stop
                            add(start, memory[start - begin : stop - begin], background)
        return lambda: first

    def _check_layout(self, launch: Launch, patch: int, n_bands: int) -> npt.NDArray[Any]:
        struct = _at(patch, (), PATCH_DTYPE)
        n_src, n_radii = int(struct["n_sources"]), int(struct["n_radii"])

        def last(name: str, n: int) -> int:
            return int(_at(int(struct[name]), (n,), PATCH_ARRAYS[name])[-1])

        n_exp = last("band_start", n_bands) + last("band_N", n_bands)
        n_pix = last("exposure_start", n_exp) + last("exposure_N", n_exp)
        n_psf = last("psfgauss_start", n_exp) + last("n_psf_per_source", n_bands) * n_src
        lengths = dict.fromkeys(("data", "ierr", "xpix", "ypix", "residual"), n_pix)
        lengths |= dict.fromkeys(("exposure_start", "exposure_N", "G", "psfgauss_start"), n_exp)
        lengths |= dict.fromkeys(("band_start", "band_N", "n_psf_per_source"), n_bands)
        lengths |= dict.fromkeys(("D", "CW"), 4 * n_exp * n_src)
        lengths |= dict.fromkeys(("crpix", "crval"), 2 * n_exp * n_src)
        lengths |= {"rad2": n_radii, "psfgauss": n_psf}
        arrays = {
            name: _at(int(struct[name]), (lengths[name],), dtype) if struct[name] else None
            for name, dtype in PATCH_ARRAYS.items()
        }
        return reference.check_layout(struct, arrays)


def _at(address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """See host memory as an array."""
    n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = memoryview((ctypes.c_uint8 * n_bytes).from_address(address))
    return np.ndarray(shape, dtype, memory)


def _plane(plane: Array | None, flags: ImageFlag, swap: ImageFlag) -> Any:
    """See planes as images ``[x, y]`` of the byte order they truly have."""
    if plane is None:
        return None
    if flags & swap:
        plane = plane.view(plane.dtype.newbyteorder())
    return plane.swapaxes(-1, -2) if flags & ImageFlag.FITS_ORDER else plane


def _stack(
    array: Array,
    flags: ImageFlag = _AS_STORED,
    swap: ImageFlag = _AS_STORED,
    spare_axes: int = 2,
) -> Any:
    """See planes, or super-pixels with three spare axes, as a stack of exposures."""
    images = _plane(array, flags, swap)
    return images if images.ndim > spare_axes else images[None]


def _bytes_of(pages: str) -> int:
    """Bytes of a number of pages that the system tells."""
    return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")


def _available_bytes() -> int:
    """Bytes that Linux can give: those in no use, and those that only cache files; else 0."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvail")), 0)
