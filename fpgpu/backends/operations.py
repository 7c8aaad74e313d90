"""The operations every backend offers, with the same bits; checked here, done by the backend.

Arrays are those of the backend (NumPy's or CuPy's), C-contiguous. Image planes are ``[x, y]``, or
``[y, x]`` as in a FITS file when `flags` has ``FITS_ORDER``; planes of the other byte order are
held as float32 whose words are swapped, and `flags` says so.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fpgpu.backends.arguments import (
    Clock,
    ExposurePlanes,
    PatchPixels,
    PlaneGeometry,
    Read,
    StagedExposure,
    check_pixels,
    check_planes,
    check_staged,
    mask_bits,
    refuse_overflow,
    untimed,
)
from fpgpu.backends.checks import require_apart, require_array, require_count
from fpgpu.backends.launches import DeviceLimits, Launch, one_launch, table_launch, tile_launch
from fpgpu.backends.memory import Array
from fpgpu.calibration import MaskCounts
from fpgpu.errors import KernelLaunchError, LayoutError
from fpgpu.layout import MAXBANDS, PATCH_DTYPE, ImageFlag
from fpgpu.superpixels import SUPER_PIXEL_SIZE

__all__ = ["FirstBad", "Operations"]

_WORD = np.dtype(np.float32)
_AS_STORED = ImageFlag(0)


FirstBad: TypeAlias = Callable[[], int | None]
"""Gives, when it is called, the number of the first super-pixel that is not finite."""


class Operations(ABC):
    """Checks arguments, works out the launch, and leaves the work to a backend."""

    name: str
    limits: DeviceLimits
    in_host_memory: bool
    """Whether arrays are NumPy's: what is in staging memory need not be copied to be used."""

    @abstractmethod
    def why_foreign(self, array: Any) -> str | None:
        """Say why an object is no array of this backend, None if it is one."""

    @abstractmethod
    def address(self, array: Array) -> int:
        """Address of an array's first element."""

    @abstractmethod
    def empty(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Array:
        """Make an array of the backend, not initialised."""

    def superpixelize(
        self,
        im: Array,
        ierr: Array,
        size: int = SUPER_PIXEL_SIZE,
        *,
        flags: ImageFlag = _AS_STORED,
        out: Array | None = None,
    ) -> Array:
        """Put images and their inverse uncertainties in super-pixel order.

        Parameters
        ----------
        im, ierr : array of float32, shape (nx, ny) or (n_exp, nx, ny)
            Planes; the last two axes are swapped with ``FITS_ORDER``.
        size : int, optional
            Pixels along each side of a super-pixel.
        flags : ImageFlag, optional
            ``FITS_ORDER``, ``SWAP_IMAGE``, ``SWAP_ERROR``.
        out : array of float32, optional
            Where to put the result.

        Returns
        -------
        array of float32, shape ([n_exp,] nx // size, ny // size, 2 * size**2)
            Fluxes, then inverse uncertainties, of each super-pixel; the bits of the input.

        Raises
        ------
        LayoutError, KernelLaunchError
            When an argument does not fit, before anything is launched.
        """
        require_array(self, "im", im, _WORD, _any_or_batch(im))
        require_array(self, "ierr", ierr, _WORD, im.shape)
        n_exp, along, across, grid = PlaneGeometry.of(im.shape, size, flags)
        shape = (*im.shape[:-2], *grid, 2 * size * size)
        out = self._output("out", out, shape)
        require_apart(self, {"out": out}, {"im": im, "ierr": ierr})
        launch = tile_launch("superpixelize", n_exp, along, across, self._wide(size, im, ierr, out))
        if n_exp:
            self._superpixelize(launch.checked(self.limits), im, ierr, size, flags, out)
        return out

    def images_from_superpixels(
        self,
        superpixels: Array,
        size: int = SUPER_PIXEL_SIZE,
        *,
        flags: ImageFlag = _AS_STORED,
        out: tuple[Array, Array] | None = None,
    ) -> tuple[Array, Array]:
        """Undo `superpixelize`.

        Parameters
        ----------
        superpixels : array of float32, shape ([n_exp,] nsx, nsy, 2 * size**2)
            Fluxes, then inverse uncertainties, of each super-pixel.
        size : int, optional
            Pixels along each side of a super-pixel.
        flags : ImageFlag, optional
            How the planes are to be stored.
        out : (array, array), optional
            Where to put them.

        Returns
        -------
        im, ierr : array of float32, shape ([n_exp,] nx, ny)
            Planes; the last two axes are swapped with ``FITS_ORDER``.

        Raises
        ------
        LayoutError, KernelLaunchError
            When an argument does not fit, before anything is launched.
        """
        batch: tuple[None, ...] = (None,) if len(getattr(superpixels, "shape", ())) == 4 else ()
        expected = (*batch, None, None, 2 * size * size)
        require_array(self, "superpixels", superpixels, _WORD, expected)
        nsx, nsy = superpixels.shape[-3:-1]
        plane = (
            (nsy * size, nsx * size) if flags & ImageFlag.FITS_ORDER else (nsx * size, nsy * size)
        )
        shape = (*superpixels.shape[:-3], *plane)
        n_exp, along, across, _ = PlaneGeometry.of(shape, size, flags)
        pair = (None, None) if out is None else out
        im, ierr = (self._output(f"out[{k}]", array, shape) for k, array in enumerate(pair))
        require_apart(self, {"out[0]": im, "out[1]": ierr}, {"superpixels": superpixels})
        wide = self._wide(size, superpixels, im, ierr)
        launch = tile_launch("images_from_superpixels", n_exp, along, across, wide)
        if n_exp:
            launch.checked(self.limits)
            self._images_from_superpixels(launch, superpixels, size, flags, im, ierr)
        return im, ierr

    def calibrate(
        self,
        exposures: Sequence[ExposurePlanes],
        size: int = SUPER_PIXEL_SIZE,
        *,
        bitmask: int | None = None,
        flags: ImageFlag = _AS_STORED,
        out: Array | None = None,
    ) -> tuple[Array, list[MaskCounts]]:
        """Subtract background, mask, convert to flux, and put in super-pixel order, in one pass.

        The arithmetic is that of `fpgpu.calibration.calibrate_images` in float32.

        Parameters
        ----------
        exposures : sequence of ExposurePlanes
            All of one shape, their masks of one dtype.
        size : int, optional
            Pixels along each side of a super-pixel.
        bitmask : int, optional
            The bits that make a pixel bad; any bit without it, or with 0.
        flags : ImageFlag, optional
            How the planes are stored.
        out : array of float32, optional
            Where to put the result.

        Returns
        -------
        superpixels : array of float32, shape (n_exp, nx // size, ny // size, 2 * size**2)
            Fluxes, then inverse uncertainties, of each super-pixel; all finite.
        counts : list of MaskCounts
            How many pixels of each exposure were masked, and why.

        Raises
        ------
        LayoutError, KernelLaunchError
            When an argument does not fit, before anything is launched.
        UnusableExposureError
            When a value leaves the range of float32, or a factor does.
        """
        planes = check_planes(self, exposures)
        mask_bytes, bits = mask_bits(exposures, bitmask)
        _, along, across, grid = PlaneGeometry.of(exposures[0].image.shape, size, flags)
        out = self._output("out", out, (len(exposures), *grid, 2 * size * size))
        require_apart(self, {"out": out}, planes)
        wide = self._wide(size, out, *planes.values())
        launch = tile_launch("calibrate", len(exposures), along, across, wide).checked(self.limits)
        rows = self._calibrate(launch, exposures, size, mask_bytes, bits, flags, out)
        refuse_overflow(rows, grid[1] * size)
        return out, [MaskCounts(along * across, *map(int, row.tolist()[:5])) for row in rows]

    def unpack(
        self,
        exposures: Sequence[StagedExposure],
        places: npt.NDArray[np.int32],
        out: PatchPixels,
        size: int = SUPER_PIXEL_SIZE,
        *,
        max_snr: float = 0.0,
        read: Read | None = None,
        clock: Clock = untimed,
    ) -> FirstBad:
        """Turn super-pixels in disk order into the pixel arrays of a patch.

        What is yet to be read is read into staging memory, several exposures at a time; only one
        that is larger than a slot is cut.

        Parameters
        ----------
        exposures : sequence of StagedExposure
            In the order of the patch.
        places : ndarray of int32, shape (n, 2)
            Index along x and y of each super-pixel in its exposure; in host memory, to be checked.
        out : PatchPixels
            Arrays of n * size**2 float32.
        size : int, optional
            Pixels along each side of a super-pixel.
        max_snr : float, optional
            Where ``ierr > 0`` and ``flux * ierr`` is larger, ierr becomes ``max_snr / flux``; 0 for
            no such limit.
        read : callable, optional
            ``read(start, stop, to)`` reads super-pixels of exposures that have none, numbered as
            `places`, into float32 of shape (stop - start, 2 * size**2) in host memory.
        clock : callable, optional
            Told of the phases upload and unpack.

        Returns
        -------
        callable
            Called without arguments it waits for the end and gives the number of the first
            super-pixel with a value that is not finite, None where there is none.

        Raises
        ------
        LayoutError, KernelLaunchError
            When an argument does not fit, before anything is launched.
        StagingError, StagingBusyError
            When staging memory cannot serve.
        """
        inputs = check_staged(self, exposures, places, size)
        n = len(places)
        check_pixels(self, out, n, size, max_snr)
        require_apart(self, out._asdict(), inputs)
        if n == 0:
            return lambda: None
        wide = self._wide(size * size, *out, *inputs.values())
        pieces = size * size // (4 if wide else 1)
        longest = max(exposure.count for exposure in exposures) * pieces
        table_launch("unpack", len(exposures), longest, wide).checked(self.limits)
        if read is None and len(inputs) < len(exposures):
            raise LayoutError("exposures without super-pixels were given, and nothing to read them")
        return self._unpack(exposures, places, out, size, max_snr, read or _nothing_to_read, clock)

    def check_layout(self, patch: int, n_bands: int) -> npt.NDArray[Any]:
        """Read every field and array of a patch and say what was seen.

        Parameters
        ----------
        patch : int
            Address of a complete ``Patch`` struct in the backend's memory.
        n_bands : int
            Its number of bands, which the struct does not hold.

        Returns
        -------
        ndarray of SEEN_DTYPE, shape (20,)
            For each field in the order of the struct: its value, and number of elements, checksum,
            first and last word of its array.

        Raises
        ------
        KernelLaunchError
            When the address cannot be that of a struct, or there are too many bands.
        """
        require_count("bands", n_bands, MAXBANDS, "MAXBANDS", least=1)
        if patch <= 0 or patch % PATCH_DTYPE.alignment:
            raise KernelLaunchError(
                f"a Patch cannot be at address {patch:#x}: it must be a positive multiple of"
                f" {PATCH_DTYPE.alignment}"
            )
        launch = one_launch("check_layout", len(PATCH_DTYPE.names or ()))
        return self._check_layout(launch.checked(self.limits), patch, n_bands)

    def _output(self, name: str, out: Array | None, shape: tuple[int, ...]) -> Array:
        """Make an output array, or check the one given."""
        if out is None:
            return self.empty(shape, _WORD)
        require_array(self, name, out, _WORD, shape, output=True)
        return out

    def _wide(self, length: int, *arrays: Array) -> bool:
        """Tell whether runs of `length` words can be moved 16 bytes at a time."""
        return length % 4 == 0 and all(self.address(a) % 16 == 0 for a in arrays if a.size)

    @abstractmethod
    def _superpixelize(
        self, launch: Launch, im: Array, ierr: Array, size: int, flags: ImageFlag, out: Array
    ) -> None: ...

    @abstractmethod
    def _images_from_superpixels(
        self,
        launch: Launch,
        superpixels: Array,
        size: int,
        flags: ImageFlag,
        im: Array,
        ierr: Array,
    ) -> None: ...

    @abstractmethod
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
        """Return an array of CALIBRATE_COUNTS_DTYPE."""

    @abstractmethod
    def _unpack(
        self,
        exposures: Sequence[StagedExposure],
        places: npt.NDArray[np.int32],
        out: PatchPixels,
        size: int,
        max_snr: float,
        read: Read,
        clock: Clock,
    ) -> FirstBad: ...

    @abstractmethod
    def _check_layout(self, launch: Launch, patch: int, n_bands: int) -> npt.NDArray[Any]: ...


def _nothing_to_read(start: int, stop: int, to: npt.NDArray[np.float32]) -> None:
    """Stand for `read` where everything is there."""


def _any_or_batch(array: Any) -> tuple[None, ...]:
    """Expect an image or a stack of images."""
    return (None,) * (3 if len(getattr(array, "shape", ())) == 3 else 2)
