"""An arena: one allocation that holds all arrays of a patch and the struct that points at them.

The order is that of use. First the struct and everything that is small (tables, sources,
astrometry, PSFs), then the pixels, last the residual, which only kernels write. What the host sends
is therefore a prefix of the arena, and goes in one transfer: with or without the pixels.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fpgpu.backends.arguments import PatchPixels
from fpgpu.backends.base import Backend
from fpgpu.backends.memory import ALIGNMENT, Array
from fpgpu.backends.staging import Slot
from fpgpu.errors import LayoutError, ReleasedMemoryError
from fpgpu.layout import MAXBANDS, MAXRADII, PATCH_ARRAYS, PATCH_DTYPE

__all__ = ["Arena", "ArenaLayout", "Section"]

_PIXELS = ("data", "ierr", "xpix", "ypix")
_MOST_INT16, _MOST_INT32 = 2**15 - 1, 2**31 - 1


class Section(NamedTuple):
    """Where one array of a patch lies in its arena.

    Attributes
    ----------
    name : str
        The pointer of the struct.
    dtype : numpy.dtype
        Of its elements.
    shape : tuple of int
        As forcepho's kernels index it.
    offset : int
        Bytes from the start of the arena, a multiple of 256.
    nbytes : int
        Its size.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True)
class ArenaLayout:
    """Where everything lies, worked out from counts before anything is allocated.

    Parameters
    ----------
    n_pixels : int
        Pixels of all exposures.
    n_exp, n_bands : int
        Exposures, and bands.
    n_src : int
        Sources.
    n_radii : int
        Gaussians in the mixture of a Sersic profile.
    n_psf : int
        PSF Gaussians of all exposures and sources.
    residual : bool, optional
        Whether there is room for residuals; without, the struct's pointer is null.

    Raises
    ------
    LayoutError
        When a count is negative or over its limit, with both figures.
    """

    n_pixels: int
    n_exp: int
    n_bands: int
    n_src: int
    n_radii: int
    n_psf: int
    residual: bool = True

    def __post_init__(self) -> None:
        for name, most, limit in (
            ("n_pixels", _MOST_INT32, "the int32 of exposure_start"),
            ("n_exp", _MOST_INT16, "the int16 of band_start"),
            ("n_bands", MAXBANDS, "MAXBANDS"),
            ("n_src", _MOST_INT32, "the int32 of n_sources"),
            ("n_radii", MAXRADII, "MAXRADII"),
            ("n_psf", _MOST_INT32, "the int32 of psfgauss_start"),
        ):
            count = getattr(self, name)
            if not 0 <= count <= most:
                raise LayoutError(
                    f"a patch with {name} = {count} cannot be laid out: {limit} allows 0 to {most};"
                    " split the region or the sources into several patches"
                )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every array, in the order in which they lie in the arena."""
        pairs = (self.n_exp, self.n_src)
        return {
            "exposure_start": (self.n_exp,),
            "exposure_N": (self.n_exp,),
            "band_start": (self.n_bands,),
            "band_N": (self.n_bands,),
            "rad2": (self.n_radii,),
            "D": (*pairs, 2, 2),
            "crpix": (*pairs, 2),
            "crval": (*pairs, 2),
            "CW": (*pairs, 2, 2),
            "G": (self.n_exp,),
            "n_psf_per_source": (self.n_bands,),
            "psfgauss": (self.n_psf,),
            "psfgauss_start": (self.n_exp,),
            **dict.fromkeys(_PIXELS, (self.n_pixels,)),
            "residual": (self.n_pixels if self.residual else 0,),
        }

    @cached_property
    def sections(self) -> Mapping[str, Section]:
        """Every array's place, by name, in order."""
        sections, offset = {}, _aligned(PATCH_DTYPE.itemsize)
        for name, shape in self.shapes.items():
            dtype = PATCH_ARRAYS[name]
            nbytes = math.prod(shape) * dtype.itemsize
            sections[name] = Section(name, dtype, shape, offset, nbytes)
            offset += _aligned(nbytes)
        return MappingProxyType(sections)

    @property
    def meta_bytes(self) -> int:
        """Bytes from the start to the pixels: the struct, tables, sources, astrometry, PSFs."""
        return self.sections["data"].offset

    @property
    def upload_bytes(self) -> int:
        """Bytes from the start to the residual: all that a host can send."""
        return self.sections["residual"].offset

    @property
    def total_bytes(self) -> int:
        """Bytes of the arena."""
        last = self.sections["residual"]
        return last.offset + _aligned(last.nbytes)

    def views(self, staging: Slot | npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        """See the arrays in a staging buffer that will be uploaded."""
        buffer = staging.array if isinstance(staging, Slot) else staging
        if buffer.dtype != np.uint8 or buffer.ndim != 1 or buffer.nbytes < self.meta_bytes:
            raise LayoutError(
                f"a staging buffer of {buffer.nbytes} bytes ({buffer.dtype}) cannot hold the"
                f" metadata of this patch; expected at least {self.meta_bytes} bytes of uint8"
            )
        return {
            name: np.ndarray(section.shape, section.dtype, buffer, section.offset)
            for name, section in self.sections.items()
            if section.offset + section.nbytes <= min(buffer.nbytes, self.upload_bytes)
            and name != "residual"
        }


class Arena:
    """The arrays of one patch in a backend's memory.

    Parameters
    ----------
    backend : Backend
        Where it lives.
    layout : ArenaLayout
        What it holds.

    Raises
    ------
    DeviceMemoryError
        When there is not enough memory.
    """

    def __init__(self, backend: Backend, layout: ArenaLayout) -> None:
        self.backend = backend
        self.layout = layout
        self._memory = backend.allocate(layout.total_bytes)
        self._fresh = True  # until a kernel could have been told where it is

    @property
    def freed(self) -> bool:
        """Whether the arena was freed."""
        return self._memory.freed

    @property
    def pointer(self) -> int:
        """Address of the ``Patch`` struct: what a kernel is given."""
        self._check_alive()
        self._fresh = False
        return self._memory.pointer

    @property
    def struct(self) -> npt.NDArray[Any]:
        """The ``Patch`` struct, PATCH_DTYPE of shape (), with the addresses of this arena's arrays.

        The pointer of an array without elements is null.
        """
        self._check_alive()
        struct, base = np.zeros((), PATCH_DTYPE), self._memory.pointer
        for name, section in self.layout.sections.items():
            struct[name] = base + section.offset if section.nbytes else 0
        struct["n_sources"], struct["n_radii"] = self.layout.n_src, self.layout.n_radii
        return struct

    def section(self, name: str) -> Array:
        """See one array in the backend's memory.

        Parameters
        ----------
        name : str
            A pointer of the struct, as ``"data"``.

        Returns
        -------
        array
            Of its shape and dtype; ``psfgauss`` as uint32 of shape (n_psf, 7).

        Raises
        ------
        LayoutError
            When there is no such array.
        ReleasedMemoryError
            When the arena was freed.
        """
        self._check_alive()
        self._fresh = False
        section = self._place(name)
        return self._memory.view(section.shape, section.dtype, section.offset)

    @property
    def pixels(self) -> PatchPixels:
        """The arrays that `unpack` writes."""
        return PatchPixels(*map(self.section, _PIXELS))

    def upload(
        self, staging: Slot | npt.NDArray[np.uint8], struct: npt.NDArray[Any] | None = None
    ) -> None:
        """Send what `ArenaLayout.views` showed, and the struct, in one transfer.

        Parameters
        ----------
        staging : Slot or ndarray of uint8
            `meta_bytes` long to leave the pixels as they are, else up to `upload_bytes`. Its first
            bytes are overwritten with the struct. A slot is given back.
        struct : ndarray of PATCH_DTYPE, shape (), optional
            What to send instead of the arena's own struct, to point at arrays elsewhere.

        Raises
        ------
        LayoutError
            When the length is neither.
        ReleasedMemoryError
            When the arena was freed.
        """
        buffer = staging.array if isinstance(staging, Slot) else staging
        allowed = self.layout.meta_bytes, self.layout.upload_bytes
        if buffer.dtype != np.uint8 or buffer.nbytes not in allowed:
            raise LayoutError(
                f"{buffer.nbytes} bytes of {buffer.dtype} were given to upload; expected"
                f" {allowed[0]} (metadata) or {allowed[1]} (with pixels) bytes of uint8"
            )
        own = self.struct
        buffer[: PATCH_DTYPE.itemsize] = _bytes_of(own if struct is None else struct)
        target = self._memory.view((buffer.nbytes,), np.uint8)
        self.backend.upload(staging, out=target, fresh=self._fresh)
        self._fresh = False

    def upload_struct(self, struct: npt.NDArray[Any] | None = None) -> None:
        """Send the struct alone, for an arena whose arrays are filled on the device.

        Parameters
        ----------
        struct : ndarray of PATCH_DTYPE, shape (), optional
            What to send instead of the arena's own struct, to point at arrays elsewhere.

        Raises
        ------
        ReleasedMemoryError
            When the arena was freed.
        """
        own = self.struct
        bytes_ = _bytes_of(own if struct is None else struct)
        target = self._memory.view(bytes_.shape, np.uint8)
        self.backend.upload(bytes_, out=target, fresh=self._fresh)
        self._fresh = False

    def download(self, name: str) -> npt.NDArray[Any]:
        """Fetch one array.

        Parameters
        ----------
        name : str
            A pointer of the struct.

        Returns
        -------
        ndarray
            Of its shape and dtype.

        Raises
        ------
        LayoutError
            When there is no such array.
        ReleasedMemoryError
            When the arena was freed.
        """
        section = self._place(name)
        out = np.empty(section.shape, section.dtype)
        self.backend.download(self.section(name), out=out)
        return out

    def free(self) -> None:
        """Give the memory back; a second call does nothing."""
        self._memory.free()

    def __enter__(self) -> "Arena":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.free()

    def __repr__(self) -> str:
        state = "freed" if self.freed else f"at {self.pointer:#x}"
        return f"<Arena of {self.layout.total_bytes} bytes {state} on {self.backend.description}>"

    def _place(self, name: str) -> Section:
        """Look a section up."""
        try:
            return self.layout.sections[name]
        except KeyError:
            known = ", ".join(self.layout.sections)
            raise LayoutError(f"a patch has no array {name!r}; it has {known}") from None

    def _check_alive(self) -> None:
        if self.freed:
            raise ReleasedMemoryError(
                f"the arena of {self.layout.total_bytes} bytes was freed; its arrays are gone"
            )


def _bytes_of(struct: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """See a struct as bytes."""
    return np.frombuffer(struct.tobytes(), np.uint8)


def _aligned(n_bytes: int) -> int:
    """Round up to the alignment of sections."""
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT
