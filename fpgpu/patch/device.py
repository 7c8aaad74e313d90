"""A patch in a backend's memory: sent there, used by kernels, read back."""

import os
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fpgpu.backends.arena import Arena
from fpgpu.backends.base import Backend
from fpgpu.backends.memory import Array
from fpgpu.errors import LayoutError, ReleasedMemoryError
from fpgpu.patch.images import ExposureImage, exposure_images, write_images
from fpgpu.patch.pack import PatchMetadata
from fpgpu.patch.plan import PatchPlan
from fpgpu.stores.meta import MetaStore

__all__ = ["Patch"]

_PIXEL_ARRAYS = ("data", "ierr", "xpix", "ypix", "residual")
_EXCHANGED = {"data": "residual", "residual": "data"}


class Patch:
    """Pixels, astrometry and PSFs of a region of sky, laid out as kernels read them.

    Made by `fpgpu.patch.build.build_patch`. Leaving its ``with`` block frees it.

    Parameters
    ----------
    plan : PatchPlan
        What is in it.
    backend : Backend
        Where it lives.
    meta : MetaStore
        Headers and WCS of the exposures, for images.
    metadata : PatchMetadata
        All but the pixels.
    pack : callable
        ``pack(catalog, reference=...)`` gives the metadata of other sources.
    fill : callable
        ``fill(out=PatchPixels)`` reads the pixels into arrays of the backend, and gives a callable
        that raises what is wrong with them.

    Attributes
    ----------
    plan : PatchPlan
        What is in it.
    backend : Backend
        Where it lives.
    """

    def __init__(
        self,
        plan: PatchPlan,
        backend: Backend,
        meta: MetaStore,
        metadata: PatchMetadata,
        pack: Callable[..., PatchMetadata],
        fill: Callable[..., Callable[[], None]],
    ) -> None:
        self.plan = plan
        self.backend = backend
        self._meta = meta
        self._metadata = metadata
        self._pack = pack
        self._fill = fill
        # The second one differs from the first when sources were replaced by another number.
        self._pixels: Arena | None = None
        self._sources: Arena | None = None
        self._exchanged = False
        self._check: Callable[[], None] | None = None

    # --- what it is --------------------------------------------------------------------------

    @property
    def reference(self) -> tuple[float, float]:
        """Right ascension and declination, degrees, that positions are relative to."""
        return self._metadata.reference

    @property
    def bandlist(self) -> tuple[str, ...]:
        """The bands, in order."""
        return self.plan.bandlist

    @property
    def n_sources(self) -> int:
        """Number of sources."""
        return self._metadata.layout.n_src

    @property
    def sources(self) -> npt.NDArray[np.intp]:
        """Rows of the catalogue that are in it, shape (n_src,): ``catalog[patch.sources]``."""
        return self._metadata.sources.copy()

    @property
    def n_radii(self) -> int:
        """Number of Gaussians in the mixture of a profile."""
        return self._metadata.layout.n_radii

    @property
    def nbytes(self) -> int:
        """Bytes of the patch in the backend's memory."""
        return self._metadata.layout.total_bytes

    @property
    def freed(self) -> bool:
        """Whether it holds no memory."""
        return self._pixels is None

    @property
    def pointer(self) -> int:
        """Address of the ``Patch`` struct: what a kernel is given. It changes with `send`, and with
        sources of another number.

        Raises
        ------
        ReleasedMemoryError
            When the patch was freed.
        """
        return self._arenas()[1].pointer

    @property
    def struct(self) -> npt.NDArray[Any]:
        """The ``Patch`` struct at `pointer`, PATCH_DTYPE of shape ()."""
        return self._struct_of(*self._arenas())

    def __repr__(self) -> str:
        state = "freed" if self.freed else f"{self.nbytes:,} bytes on {self.backend.description}"
        return f"<Patch of {self.n_sources} sources and {self.plan!r}: {state}>"

    # --- to the device -----------------------------------------------------------------------

    def send(self) -> None:
        """Read the pixels and send everything; again to undo `swap`, or after `free`.

        Raises
        ------
        FpgpuError
            As `build_patch`; the patch is then freed.
        """
        try:
            if self._pixels is None or self._sources is not self._pixels:
                self.free()
                self._pixels = self._sources = Arena(self.backend, self._metadata.layout)
            self._exchanged = False
            self._send_metadata(self._pixels, self._pixels, self._metadata)
            self._check = self._fill(out=self._pixels.pixels)
        except BaseException as error:
            self.free()
            # Whoever keeps the error must not keep, by the frames it passed, arrays of the arena.
            traceback.clear_frames(error.__traceback__)
            raise

    def check(self) -> None:
        """Wait until the pixels are there, and raise what is wrong with them.

        Whatever asks for the patch's arrays or address does so first; the patch is then freed.

        Raises
        ------
        IntegrityError
            When a value of an exposure is not finite: its file is damaged.
        """
        check, self._check = self._check, None
        if check is None:
            return
        try:
            check()
        except BaseException as error:
            del check
            self.free()
            traceback.clear_frames(error.__traceback__)  # as in `send`
            raise

    def replace_metadata(
        self, catalog: Any = None, *, reference: tuple[float, float] | None = None
    ) -> None:
        """Put other sources in the place of those there are; pixels are not touched.

        Parameters
        ----------
        catalog : astropy.table.Table, structured array, dict or PatchMetadata, optional
            The sources, of which those in or near the region are taken as when the patch was built;
            or what `fpgpu.patch.pack.pack_metadata` made of them for this plan.
        reference : (float, float), optional
            Position in degrees that coordinates are relative to; by default the median of the new
            sources.

        Raises
        ------
        ReleasedMemoryError
            When the patch was freed.
        FpgpuError
            As `build_patch`; the patch is then as it was.
        """
        pixels, sources = self._arenas()
        is_packed = isinstance(catalog, PatchMetadata)
        metadata = catalog if is_packed else self._pack(catalog, reference=reference)
        if metadata.layout == pixels.layout:
            target = pixels
        else:
            layout = replace(metadata.layout, n_pixels=0, residual=False)
            target = Arena(self.backend, layout)
        self._send_metadata(pixels, target, metadata)
        self._metadata, self._sources = metadata, target
        if sources is not pixels:
            sources.free()

    def swap(self) -> None:
        """Exchange data and residual: what kernels left as residual is the data from now on."""
        _, sources = self._arenas()
        self._exchanged = not self._exchanged
        sources.upload_struct(self.struct)

    def put(self, name: str, values: npt.ArrayLike) -> None:
        """Send the values of one array.

        Parameters
        ----------
        name : str
            A pointer of the struct, as ``"residual"``.
        values : array_like
            Of its shape.

        Raises
        ------
        LayoutError
            When there is no such array, or the values have another shape.
        ReleasedMemoryError
            When the patch was freed.
        """
        arena, section = self._place(name)
        there = arena.layout.sections[section]
        host = np.ascontiguousarray(values, there.dtype)
        if host.shape != there.shape:
            raise LayoutError(f"{name} has shape {there.shape}; values of {host.shape} were given")
        self.backend.upload(host, out=arena.section(section))

    # --- from the device ---------------------------------------------------------------------

    def array(self, name: str) -> Array:
        """See one array in the backend's memory.

        Parameters
        ----------
        name : str
            A pointer of the struct, as ``"data"``.

        Returns
        -------
        array
            Of the backend; ``psfgauss`` as uint32 of shape (n_psf, 7).

        Raises
        ------
        LayoutError
            When there is no such array.
        ReleasedMemoryError
            When the patch was freed.
        """
        arena, section = self._place(name)
        return arena.section(section)

    def retrieve(self, name: str = "residual") -> npt.NDArray[Any]:
        """Fetch one array, when all operations started before have ended.

        Parameters
        ----------
        name : str, optional
            A pointer of the struct. Residuals are undefined until a kernel has written them.

        Returns
        -------
        ndarray
            A copy in host memory, of its dtype and shape.

        Raises
        ------
        LayoutError
            When there is no such array.
        ReleasedMemoryError
            When the patch was freed.
        """
        arena, section = self._place(name)
        return arena.download(section)

    def arrays(self) -> dict[str, Any]:
        """Fetch all arrays but the residual.

        Returns
        -------
        dict of str to ndarray or int
            By the names of the struct, with ``n_sources`` and ``n_radii``: what
            `fpgpu.likelihood.reference` takes.
        """
        names = [name for name in self._metadata.layout.sections if name != "residual"]
        counts = {"n_sources": self.n_sources, "n_radii": self.n_radii}
        return {name: self.retrieve(name) for name in names} | counts

    def images(
        self, name: str = "residual", *, crop: bool = True, fill: float = np.nan
    ) -> list[ExposureImage]:
        """Fetch a pixel array as images.

        Parameters
        ----------
        name : str, optional
            ``"data"``, ``"ierr"``, ``"xpix"``, ``"ypix"`` or ``"residual"``.
        crop : bool, optional
            Whether to give the smallest rectangle of super-pixels that holds the pixels of the
            patch, instead of the whole exposure.
        fill : float, optional
            Value of the pixels that are not in the patch.

        Returns
        -------
        list of ExposureImage
            One an exposure, in the order of the plan.

        Raises
        ------
        LayoutError
            When there is no such pixel array.
        ReleasedMemoryError
            When the patch was freed.
        """
        if name not in _PIXEL_ARRAYS:
            arrays = ", ".join(_PIXEL_ARRAYS)
            raise LayoutError(f"{name!r} is no array of pixels; those are {arrays}")
        return exposure_images(self.plan, self.retrieve(name), crop=crop, fill=fill)

    def write_fits(
        self,
        folder: str | os.PathLike[str],
        name: str = "residual",
        *,
        crop: bool = True,
        fill: float = np.nan,
        overwrite: bool = False,
    ) -> list[Path]:
        """Write a pixel array as FITS images with their WCS.

        Parameters
        ----------
        folder : path
            Where to put them, as ``BAND/expID_name.fits``; made if need be.
        name, crop, fill : optional
            As for `images`.
        overwrite : bool, optional
            Whether existing files may be replaced.

        Returns
        -------
        list of Path
            One an exposure, in the order of the plan.

        Raises
        ------
        StoreWriteError
            When a file exists or cannot be written.
        WCSError
            When a WCS cannot be expressed as SIP.
        """
        images = self.images(name, crop=crop, fill=fill)
        return write_images(Path(folder), name, images, self._meta, overwrite=overwrite)

    # --- its memory --------------------------------------------------------------------------

    def free(self) -> None:
        """Give the memory back; a second call does nothing."""
        for arena in (self._pixels, self._sources):
            if arena is not None:
                arena.free()
        self._pixels = self._sources = self._check = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.free()

    def _arenas(self) -> tuple[Arena, Arena]:
        """The arena of the pixels and that of the sources, which may be the same."""
        self.check()
        if self._pixels is None or self._sources is None:
            raise ReleasedMemoryError(
                f"the patch of {self.plan.region!r} was freed; send() builds it again"
            )
        return self._pixels, self._sources

    def _section(self, name: str) -> str:
        """Name of the arena's section that holds an array now."""
        return _EXCHANGED.get(name, name) if self._exchanged else name

    def _place(self, name: str) -> tuple[Arena, str]:
        """The arena and the section of an array."""
        pixels, sources = self._arenas()
        return (pixels if name in _PIXEL_ARRAYS else sources), self._section(name)

    def _struct_of(self, pixels: Arena, sources: Arena) -> npt.NDArray[Any]:
        """The struct of sources in one arena and pixels in another."""
        struct, elsewhere = sources.struct, pixels.struct
        for name in _PIXEL_ARRAYS:
            struct[name] = elsewhere[self._section(name)]
        return struct

    def _send_metadata(self, pixels: Arena, sources: Arena, metadata: PatchMetadata) -> None:
        """Fill the first part of an arena, and point its struct at the pixels."""
        staging = np.zeros(sources.layout.meta_bytes, np.uint8)
        views = sources.layout.views(staging)
        for name, values in metadata.arrays.items():
            # As bytes: NumPy copies the structs of PSFs one by one.
            views[name].reshape(-1).view(np.uint8)[...] = values.reshape(-1).view(np.uint8)
        sources.upload(staging, self._struct_of(pixels, sources))
