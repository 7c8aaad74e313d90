"""A patch in a backend's memory: sent there, used by kernels, read back."""

import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from fpgpu.backends.arena import Arena
from fpgpu.backends.base import Backend
from fpgpu.backends.memory import Array
from fpgpu.errors import CatalogError, LayoutError, ReleasedMemoryError
from fpgpu.html import html_table
from fpgpu.likelihood.cpu import HostLikelihood
from fpgpu.likelihood.cuda import DeviceLikelihood
from fpgpu.likelihood.evaluation import (
    Evaluation,
    Evaluator,
    LogLikelihood,
    Sums,
    as_batch,
    log_likelihood,
)
from fpgpu.likelihood.mixture import SersicMixture
from fpgpu.likelihood.scene import proposal_from_catalog
from fpgpu.patch.images import ExposureImage, ccd_images, exposure_images, write_images
from fpgpu.patch.pack import PatchMetadata
from fpgpu.patch.plan import PatchPlan
from fpgpu.paths import as_path
from fpgpu.psf.profiles import default_profiles
from fpgpu.stores.meta import MetaStore

if TYPE_CHECKING:
    from astropy.nddata import CCDData

__all__ = ["Patch"]

_PIXEL_ARRAYS = ("data", "ierr", "xpix", "ypix", "residual")
_NEVER_WRITTEN = "nothing has written them since the pixels were sent"
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
    units : mapping of (str, str) to str
        Units of the fluxes, by band and expID.

    Attributes
    ----------
    plan : PatchPlan
        What is in it.
    backend : Backend
        Where it lives.

    Examples
    --------
    >>> with survey.patch(region, catalog) as patch:
    ...     flux = patch.retrieve("data")
    ...     patch.n_sources == len(patch.sources), flux.size == patch.plan.n_pixels
    (True, True)
    """

    def __init__(
        self,
        plan: PatchPlan,
        backend: Backend,
        meta: MetaStore,
        metadata: PatchMetadata,
        pack: Callable[..., PatchMetadata],
        fill: Callable[..., Callable[[], None]],
        units: Mapping[tuple[str, str], str],
    ) -> None:
        self.plan = plan
        self.backend = backend
        self._meta = meta
        self._metadata = metadata
        self._pack = pack
        self._fill = fill
        self._units = units
        # The second one differs from the first when sources were replaced by another number.
        self._pixels: Arena | None = None
        self._sources: Arena | None = None
        self._exchanged = False
        self._check: Callable[[], None] | None = None
        self._evaluator: Evaluator | None = None
        self._stale: str | None = _NEVER_WRITTEN  # why the residual is not that of the data

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            "a patch lives in the memory of its backend and cannot be copied or pickled; pickle"
            " patch.plan, and build it again: survey.patch(plan, catalog)"
        )

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
        pointer = self._arenas()[1].pointer
        self._stale = None  # a kernel that is told the address may write residuals
        return pointer

    @property
    def struct(self) -> npt.NDArray[Any]:
        """The ``Patch`` struct at `pointer`, PATCH_DTYPE of shape ()."""
        return self._struct_of(*self._arenas())

    def __repr__(self) -> str:
        state = "freed" if self.freed else f"{self.nbytes:,} bytes on {self.backend.description}"
        return f"<Patch of {self.n_sources} sources and {self.plan!r}: {state}>"

    def _repr_html_(self) -> str:
        state = "freed" if self.freed else f"{self.nbytes:,} bytes on {self.backend.description}"
        title = f"Patch of {self.n_sources} sources, {self.plan.n_pixels:,} pixels: {state}"
        return html_table(title, *self.plan.as_rows())

    # --- what it says of a scene -------------------------------------------------------------

    def evaluate(
        self,
        proposal: npt.NDArray[Any],
        *,
        psf_per_source: bool | None = None,
        residual: bool = False,
    ) -> Evaluation:
        """Compare one scene, or several in one call, with the pixels.

        Parameters
        ----------
        proposal : ndarray of SOURCE_DTYPE, shape (n_sources,) or (n_batch, n_sources)
            The sources, as `fpgpu.likelihood.scene.proposal_from_catalog` makes them.
        psf_per_source : bool, optional
            Whether each source has the PSF of its own place, or all that of the first source of the
            exposure; by default as the patch was packed.
        residual : bool, optional
            Whether to keep data minus model, in the patch's own buffer. Of one scene only.

        Returns
        -------
        Evaluation
            chi square, its derivatives, and the residual. A scene gives the same bits alone or in a
            batch, and on the host with any number of threads.

        Raises
        ------
        LayoutError
            When the proposal has another dtype or number of sources, or a source is one that cannot
            be; nothing was computed then.
        ReleasedMemoryError
            When the patch was freed.

        Examples
        --------
        >>> from fpgpu.likelihood.scene import proposal_from_catalog
        >>> from fpgpu.psf import default_profiles
        >>> sources = catalog[patch.sources]
        >>> args = patch.bandlist, default_profiles(), patch.reference
        >>> found = patch.evaluate(proposal_from_catalog(sources, *args))
        >>> found.chi2.shape == (2,), found.derivatives.shape == (2, len(sources), 7)
        (True, True)
        """
        self._arenas()
        batch = as_batch(proposal, self.n_sources, self.plan.n_bands, self.n_radii)
        if residual and len(batch) != 1:
            raise LayoutError(
                f"residuals of {len(batch)} scenes were asked for; a patch has room for those of"
                " one: evaluate the scenes one by one"
            )
        sums = self.evaluate_unchecked(batch, psf_per_source=psf_per_source, residual=residual)
        where = self.array("residual") if residual else None
        if np.ndim(proposal) == 1:
            return Evaluation(sums.chi2[0], sums.derivatives[0], where)
        return Evaluation(*sums, where)

    def evaluate_unchecked(
        self,
        batch: npt.NDArray[Any],
        *,
        psf_per_source: bool | None = None,
        residual: bool = False,
    ) -> Sums:
        """Do as `evaluate`, with nothing checked but memory: for loops that may propose NaN.

        Parameters
        ----------
        batch : ndarray of SOURCE_DTYPE, shape (n_batch, n_sources)
            The scenes. One with NaN gives NaN.
        psf_per_source, residual : optional
            As in `evaluate`.

        Returns
        -------
        Sums
            chi square and its derivatives.

        Raises
        ------
        ReleasedMemoryError
            When the patch was freed.
        """
        _, sources = self._arenas()
        if self._evaluator is None:
            if self.backend.name == "cpu":
                self._evaluator = HostLikelihood(self.arrays())
            else:
                self._evaluator = DeviceLikelihood(
                    self.backend, sources.pointer, self._metadata.arrays
                )
        self._stale = None if residual else "the last scene was evaluated without them"
        one_each = self._metadata.psf_per_source if psf_per_source is None else psf_per_source
        return self._evaluator.evaluate(batch, psf_per_source=one_each, residual=residual)

    def likelihood(self, catalog: Any, mixture: SersicMixture | None = None) -> LogLikelihood:
        """Tell the logarithm of the likelihood of sources, ln L, and its gradient.

        ln L is that of independent Gaussian noise in each pixel, as ``ierr`` says, less its value
        without any source: minus half of what `evaluate` gives as chi2, of all bands together.

        Parameters
        ----------
        catalog : astropy.table.Table, structured array, dict of lists or DataFrame
            A row for each source of the patch, in its order, with ra, dec, q, pa, sersic, rhalf and
            a flux in each band, as `fpgpu.likelihood.scene.proposal_from_catalog` takes them.
        mixture : SersicMixture, optional
            Gaussians of the profiles, of the radii that the patch was packed with; by default
            `fpgpu.psf.default_profiles`.

        Returns
        -------
        LogLikelihood
            ``value``, and ``gradient`` with a column for each column of the catalogue.

        Raises
        ------
        CatalogError
            When a column is missing, or a source is one that cannot be.
        LayoutError
            When the catalogue has not the number of sources of the patch, or the mixture has other
            radii.
        ReleasedMemoryError
            When the patch was freed.

        Examples
        --------
        >>> sources = catalog[patch.sources]
        >>> ln_l = patch.likelihood(sources)
        >>> ln_l.value > 0  # more likely than no sources
        True
        >>> ln_l.gradient.dtype.names
        ('ra', 'dec', 'q', 'pa', 'sersic', 'rhalf', 'F200W', 'F444W')
        """
        if catalog is None:
            raise CatalogError(
                "no catalogue was given; the sources here are catalog[patch.sources]"
            )
        mixture = default_profiles() if mixture is None else mixture
        if not np.array_equal(mixture.rad2, self._metadata.arrays["rad2"]):
            raise LayoutError(
                f"the mixture has {mixture.n_radii} radii {mixture.radii} arcsec, which are not the"
                f" {self.n_radii} that the patch was packed for; give the mixture of those here, or"
                " these radii to Survey.patch(radii=)"
            )
        proposal = proposal_from_catalog(catalog, self.bandlist, mixture, self.reference)
        if len(proposal) != self.n_sources:
            raise LayoutError(
                f"{len(proposal)} sources were given; the patch has {self.n_sources}:"
                " catalog[patch.sources] are those"
            )
        found = self.evaluate(proposal)
        return log_likelihood(found.chi2, found.derivatives, self.bandlist)

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
            self._evaluator, self._stale = None, _NEVER_WRITTEN
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
        self._evaluator = None
        if sources is not pixels:
            sources.free()

    def swap(self) -> None:
        """Exchange data and residual: what was left as residual is the data from now on.

        Raises
        ------
        LayoutError
            When the residual is stale: nothing has written it, or not for the last scene evaluated.
        ReleasedMemoryError
            When the patch was freed.
        """
        _, sources = self._arenas()
        if self._stale is not None:
            raise LayoutError(
                f"the residuals are stale and cannot become the data: {self._stale}; call"
                " evaluate(proposal, residual=True) first"
            )
        self._evaluator = None
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
        if name == "residual":
            self._stale = None

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

        Examples
        --------
        >>> patch.array("xpix").shape == (patch.plan.n_pixels,)
        True
        """
        arena, section = self._place(name)
        return arena.section(section)

    def arrays(self) -> dict[str, Array]:
        """See all arrays in the backend's memory, without a copy.

        NumPy, CuPy, PyTorch and JAX take each of them by DLPack. They stay valid when the patch is
        freed, but what is written to them then is nobody's.

        Returns
        -------
        dict of str to array
            By the names of the struct: what `array` gives for each. `fpgpu.patch.file.DESCRIPTIONS`
            says what they hold.

        Raises
        ------
        ReleasedMemoryError
            When the patch was freed.

        Examples
        --------
        >>> sorted(patch.arrays())[:3]
        ['CW', 'D', 'G']
        """
        return {name: self.array(name) for name in self._metadata.layout.sections}

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

        Examples
        --------
        >>> ierr = patch.retrieve("ierr")  # of all exposures, one after the other
        >>> ierr.dtype, bool((ierr >= 0).all())
        (dtype('float32'), True)
        """
        arena, section = self._place(name)
        return arena.download(section)

    def host_arrays(self) -> dict[str, Any]:
        """Fetch all arrays but the residual.

        Returns
        -------
        dict of str to ndarray or int
            Copies in host memory by the names of the struct, with ``n_sources`` and ``n_radii``:
            what `fpgpu.likelihood.reference` takes.

        Raises
        ------
        ReleasedMemoryError
            When the patch was freed.

        Examples
        --------
        >>> patch.host_arrays()["n_sources"] == patch.n_sources
        True
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

        Examples
        --------
        >>> image = patch.images("data")[0]
        >>> image.band, image.image.ndim
        ('F200W', 2)
        """
        if name not in _PIXEL_ARRAYS:
            arrays = ", ".join(_PIXEL_ARRAYS)
            raise LayoutError(f"{name!r} is no array of pixels; those are {arrays}")
        return exposure_images(self.plan, self.retrieve(name), crop=crop, fill=fill)

    def ccddata(self, name: str = "residual", *, crop: bool = True) -> "list[CCDData]":
        """Fetch a pixel array as images known to astropy, with their WCS and unit.

        Parameters
        ----------
        name : str, optional
            ``"data"``, ``"ierr"``, ``"xpix"``, ``"ypix"`` or ``"residual"``.
        crop : bool, optional
            As for `images`.

        Returns
        -------
        list of CCDData
            One an exposure, in the order of the plan: values ``[y, x]``, of which those outside the
            patch are masked; data and residual with their uncertainty, and a mask where it is
            infinite. The WCS is the one that the patch was packed with, as SIP.

        Raises
        ------
        LayoutError
            When there is no such pixel array.
        ReleasedMemoryError
            When the patch was freed.
        WCSError
            When a WCS cannot be expressed as SIP.

        Examples
        --------
        >>> ccd = patch.ccddata("data")[0]
        >>> print(ccd.unit, ccd.wcs.pixel_n_dim, ccd.meta["FILTER"])
        nJy 2 F200W
        """
        images = self.images(name, crop=crop)
        ierr = self.images("ierr", crop=crop) if name in ("data", "residual") else None
        return ccd_images(images, name, self._meta, self._units, ierr)

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

        Examples
        --------
        >>> paths = patch.write_fits(tmp_path, "data")
        >>> len(paths), paths[0].parent.name
        (4, 'F200W')
        """
        images = self.images(name, crop=crop, fill=fill)
        return write_images(
            as_path(folder), name, images, self._meta, units=self._units, overwrite=overwrite
        )

    # --- its memory --------------------------------------------------------------------------

    def free(self) -> None:
        """Give the memory back; a second call does nothing."""
        for arena in (self._pixels, self._sources):
            if arena is not None:
                arena.free()
        self._pixels = self._sources = self._check = self._evaluator = None

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
