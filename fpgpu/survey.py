"""One way in: the stores of a survey and a backend, from which plans and patches are made."""

import logging
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fpgpu.backends.base import Backend
from fpgpu.backends.choose import BackendName, get_backend
from fpgpu.catalog import MARGIN, select_sources
from fpgpu.errors import MissingStoreError, PlanError, StoreError, StoreFormatError
from fpgpu.html import html_table
from fpgpu.patch.build import build_patch
from fpgpu.patch.device import Patch
from fpgpu.patch.plan import PatchPlan, Selection, make_plan
from fpgpu.patch.resident import ResidentExposures
from fpgpu.patch.stream import PatchStream, StreamEntry
from fpgpu.paths import as_path
from fpgpu.sky.angles import AngleLike
from fpgpu.sky.regions import RegionLike, as_region
from fpgpu.stores.disk import StrPath, signature
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.names import each_band
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.psf import PSFStore

__all__ = ["Survey", "open"]

logger = logging.getLogger(__name__)


class Survey:
    """The stores that belong together, opened for reading, and the backend that patches live on.

    Usually made by `fpgpu.open`. Closing it, or leaving its ``with`` block, closes the stores and
    frees resident exposures; patches that were built stay as they are.

    Parameters
    ----------
    pixels : PixelStore
        Fluxes and inverse uncertainties.
    meta : MetaStore
        Headers and WCS of the same exposures.
    psf : PSFStore, optional
        PSFs of their bands; patches without sources need none.
    backend : Backend
        Where patches are built.
    resident : ResidentExposures, optional
        Exposures kept in the backend's memory, which patches are made from.
    verify : bool, optional
        Whether exposures are compared with their checksums before patches are made from them.

    Attributes
    ----------
    closed : bool
        Whether it was closed.

    Examples
    --------
    >>> with fpgpu.open("stores", backend="cpu") as survey:
    ...     survey.bands
    ['F200W', 'F444W']
    """

    def __init__(
        self,
        pixels: PixelStore,
        meta: MetaStore,
        psf: PSFStore | None = None,
        *,
        backend: Backend,
        resident: ResidentExposures | None = None,
        verify: bool = False,
    ) -> None:
        self.pixels = pixels
        self.meta = meta
        meta.image_shape = pixels.shape
        self.psf = psf
        self.backend = backend
        self.resident = resident
        self.verify = verify
        self.closed = False
        self._verified: dict[tuple[str, str], object] = {}

    @property
    def bands(self) -> list[str]:
        """Bands in the meta store's order."""
        return self.meta.bands

    def find_exposures(
        self, region: RegionLike, bands: Iterable[str] | None = None
    ) -> list[tuple[str, str]]:
        """Find the exposures that have any point in common with a region.

        Parameters
        ----------
        region : CircularRegion, RectangularRegion, PolygonRegion or SkyRegion of regions
            The region.
        bands : iterable of str, optional
            The bands, or one; all by default.

        Returns
        -------
        list of (str, str)
            Band and expID of each, by band, then in the meta store's order.

        Raises
        ------
        RegionError
            When it is no region.
        NotInStoreError
            When the store does not have a band; the message names what is near.
        StoreError
            When the survey was closed.

        Examples
        --------
        >>> [band for band, expID in survey.find_exposures(region)]
        ['F200W', 'F200W', 'F444W', 'F444W']
        >>> len(survey.find_exposures(region, "F444W"))
        2
        """
        self._require_open()
        bandlist = None if bands is None else each_band(bands, self.bands)
        return self.meta.exposures_touching(as_region(region), bandlist)

    def sources(self, region: RegionLike, catalog: Any, *, margin: AngleLike = MARGIN) -> Any:
        """Take the sources of a catalogue that are in a region or near it, as a patch does.

        Parameters
        ----------
        region : CircularRegion, RectangularRegion, PolygonRegion or SkyRegion of regions
            The region.
        catalog : astropy.table.Table, structured array, dict of lists or path
            The sources, as in `patch`.
        margin : float or Quantity, optional
            Degrees, or with units, by which they may be outside; half an arcsec by default.

        Returns
        -------
        astropy.table.Table or structured array
            Their rows, in the order of the catalogue.

        Raises
        ------
        CatalogError
            When it has no usable positions, or is a file that cannot be read.
        RegionError
            When it is no region, or the margin no angle.

        Examples
        --------
        >>> near = survey.sources(region, "sources.fits", margin=0.2 * u.arcsec)
        >>> 0 < len(near) < len(catalog)
        True
        """
        return select_sources(catalog, region, margin)

    def plan(
        self,
        region: RegionLike,
        bands: Iterable[str] | None = None,
        *,
        select: Selection = "corners",
        units: str | None = None,
    ) -> PatchPlan:
        """Plan the patch of a region: what would be read, and how large it would be.

        Parameters
        ----------
        region : CircularRegion, RectangularRegion, PolygonRegion or SkyRegion of regions
            The region.
        bands : iterable of str, optional
            The bands, or one, in the order that the patch shall have; all by default.
        select : {"corners", "overlap"}, optional
            Which super-pixels are taken, as in `fpgpu.patch.plan.make_plan`.
        units : str, optional
            The unit of the exposures to take, or ``"any"``; by default a band that mixes several
            is refused.

        Returns
        -------
        PatchPlan
            Without exposures when the region touches none.

        Raises
        ------
        StoreError
            When the survey was closed.
        PlanError
            When the patch is over a limit, or over the free memory of the backend; when a band
            mixes units here; when `bands` is empty.
        NotInStoreError
            When the store does not have a band; the message names what is near.
        NotInStoreError, StoreConflictError
            When pixel and meta store do not agree.
        WCSError
            When the WCS of an exposure cannot be used.

        Examples
        --------
        >>> plan = survey.plan(region, "F200W")
        >>> plan.n_exp, plan.pixel_bytes == 8 * plan.n_pixels
        (2, True)
        """
        self._require_open()
        return make_plan(
            self.pixels,
            self.meta,
            region,
            self._bandlist(bands),
            select=select,
            units=units,
            backend=self.backend,
        )

    def patch(
        self,
        region: RegionLike | PatchPlan,
        catalog: Any = None,
        bands: Iterable[str] | None = None,
        *,
        select: Selection = "corners",
        units: str | None = None,
        **options: Any,
    ) -> Patch:
        """Build the patch of a region, or of a plan, on the backend.

        Parameters
        ----------
        region : CircularRegion, RectangularRegion, PolygonRegion, SkyRegion of regions or PatchPlan
            What to build; a plan is taken as it is.
        catalog : astropy.table.Table, structured array, dict of lists or path, optional
            The sources, with ra and dec in degrees or in the unit of the columns, or a SkyCoord;
            none by default. Those in the region are taken, and those outside by no more than the
            option ``margin`` (degrees, or a Quantity; half an arcsec by default, None for all): the
            patch's ``sources`` are their rows.
        bands : iterable of str, optional
            As in `plan`; not with a plan, which has its own.
        select : {"corners", "overlap"}, optional
            As in `plan`; a plan has its own.
        units : str, optional
            As in `plan`; a plan has its own.
        **options
            Of `fpgpu.patch.build.build_patch`, such as ``max_snr`` and ``margin``.

        Returns
        -------
        Patch
            To be freed by its ``with`` block or its `free`.

        Raises
        ------
        PlanError
            When no exposure is in the region, or the patch is over a limit; when a plan comes with
            bands.
        CatalogError, LayoutError, WCSError, UnusableExposureError
            When sources or headers cannot be packed.
        MissingStoreError, NotInStoreError, StoreFormatError, StoreBusyError
            When what was planned cannot be read.
        IntegrityError
            When a pixel is not finite (on a device: when the patch is first used), or, of a survey
            that verifies, when an exposure does not have its checksum.
        DeviceMemoryError, StagingError
            When there is not enough memory.

        Examples
        --------
        >>> with survey.patch(region, catalog) as patch:
        ...     patch.bandlist
        ('F200W', 'F444W')
        """
        if not isinstance(region, PatchPlan):
            plan = self.plan(region, bands, select=select, units=units)
        elif bands is None:
            plan = region
        else:
            raise PlanError(f"{region!r} is planned with its own bands; leave bands out")
        return self._build(plan, catalog, **options)

    def _build(self, plan: PatchPlan, catalog: Any = None, **options: Any) -> Patch:
        """Build a patch, of exposures that are what their checksums say if that is asked for."""
        self._require_open()
        for exposure in plan.exposures if self.verify else ():
            key = exposure.band, exposure.expID
            extent = self.pixels.reader.identity(*key)
            files = extent and (extent, signature(extent.filename))
            if not files or self._verified.get(key) != files:
                if self.pixels.verify(*key).unchecked:
                    logger.warning("%s/%s has no checksum: it cannot be verified", *key)
                self._verified[key] = files
        return build_patch(
            self, plan, catalog, backend=self.backend, resident=self.resident, **options
        )

    def stream(
        self,
        regions: Iterable[StreamEntry] | Mapping[Any, Any] | RegionLike | PatchPlan,
        catalog: Any = None,
        bands: Iterable[str] | None = None,
        *,
        select: Selection = "corners",
        units: str | None = None,
        depth: int = 2,
        **options: Any,
    ) -> PatchStream:
        """Build the patches of many regions in turn, the next ones while one is in use.

        Parameters
        ----------
        regions : iterable
            Regions or plans, or pairs (tuples) of one of them and the catalogue of its sources; a
            mapping of regions to catalogues; or a single region or plan.
        catalog : astropy.table.Table, structured array or dict of lists, optional
            Sources of the regions that come without their own; none by default. Each patch takes
            those in and near its region.
        bands : iterable of str, optional
            As in `plan`, for the regions; plans have their own.
        select : {"corners", "overlap"}, optional
            As in `plan`, for the regions.
        units : str, optional
            As in `plan`, for the regions.
        depth : int, optional
            How many patches are built ahead of the one in use: the stream holds one more than
            these.
        **options
            Of `fpgpu.patch.build.build_patch`, such as ``max_snr`` and ``margin``.

        Returns
        -------
        PatchStream
            An iterator of `fpgpu.patch.stream.StreamedPatch`, in the order of the regions: each has
            a ``patch``, freed when the next one is asked for, or an ``error``, which asking for the
            patch raises. To be closed by its ``with`` block or its `close`.

        Raises
        ------
        PlanError
            When the depth is not positive, or `bands` is empty.
        NotInStoreError
            When the store does not have a band.

        Examples
        --------
        >>> regions = [fpgpu.CircularRegion(53.16, -27.79, k * u.arcsec) for k in (0.5, 1)]
        >>> with survey.stream(regions) as stream:
        ...     [item.patch.plan.n_exp for item in stream]
        [4, 4]
        """
        self._require_open()
        plan = partial(
            make_plan,
            self.pixels,
            self.meta,
            bandlist=self._bandlist(bands),
            select=select,
            units=units,
        )
        build = partial(self._build, **options)
        entries = _entries(regions)
        return PatchStream(entries, plan, build, self.backend, catalog=catalog, depth=depth)

    def _bandlist(self, bands: Iterable[str] | None) -> tuple[str, ...] | None:
        """Name the bands that are asked for; None for all."""
        if bands is None:
            return None
        bandlist = tuple(each_band(bands, self.bands))
        if not bandlist:
            raise PlanError("no band was named: bands is empty; leave it out for all bands")
        return bandlist

    def _require_open(self) -> None:
        """Refuse to work on stores that were closed."""
        if self.closed:
            raise StoreError(
                f"{self.pixels.h5file}: the survey was closed, as the end of its with block"
                " does; open it again with fpgpu.open"
            )

    def close(self) -> None:
        """Close the stores, and free resident exposures; nothing more can be asked of it then."""
        self.closed = True
        if self.resident is not None:
            self.resident.free()
        self.pixels.close()
        self.meta.close()
        if self.psf is not None:
            self.psf.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _repr_html_(self) -> str:
        psf = () if self.psf is None else self.psf.bands
        rows = [
            [band, len(self.meta.exposures(band)), "yes" if band in psf else "no"]
            for band in self.bands
        ]
        return html_table(repr(self).strip("<>"), ["band", "exposures", "PSF"], rows)

    def __repr__(self) -> str:
        if self.closed:
            return f"<Survey of {self.pixels.h5file}, closed>"
        bands = ", ".join(f"{band} {len(self.meta.exposures(band))}" for band in self.bands)
        nx, ny = self.pixels.shape
        psf = "PSFs" if self.psf is not None else "no PSFs"
        return (
            f"<Survey of {self.meta.nexp} exposures of {nx} x {ny} pixels ({bands or 'no bands'}),"
            f" {self.meta.wcs_kinds}, {psf}, on {self.backend.description}>"
        )


def open(  # noqa: A001 - read as fpgpu.open
    folder: StrPath | None = None,
    *,
    pixels: StrPath | None = None,
    meta: StrPath | None = None,
    psf: StrPath | None = None,
    backend: BackendName | Backend = "auto",
    use_gwcs: bool | None = None,
    resident_bytes: int = 0,
    verify: bool = False,
) -> Survey:
    """Open the stores of a survey.

    Parameters
    ----------
    folder : path, optional
        A store folder, as ``fpgpu ingest`` makes it: ``pixels.h5``, ``meta.json``, and ``psf.h5``
        if there are PSFs.
    pixels, meta, psf : path, optional
        The files one by one, instead of those of the folder, or without one.
    backend : {"auto", "cpu", "cuda"} or Backend
        Where patches are built; "auto" takes CUDA where it works.
    use_gwcs : bool, optional
        Whether positions come from the gWCS instead of the FITS WCS of the headers; by default
        they do where an exposure has one.
    resident_bytes : int, optional
        Most memory of the backend to keep whole exposures in, for many patches in the same ones:
        see `fpgpu.patch.resident.ResidentExposures`. None are kept by default.
    verify : bool, optional
        Whether exposures are compared with the checksums stored with them before a patch is made
        from them: once, by reading the whole of each, until its file changes. Without it a patch
        still refuses values that are not finite.

    Returns
    -------
    Survey
        To be closed by its ``with`` block or its `close`.

    Raises
    ------
    MissingStoreError
        When a store is not there, or `use_gwcs` and there are none.
    StoreFormatError
        When a file is no store of its kind.
    BackendUnavailableError
        When the backend cannot be used.
    LayoutError
        When `resident_bytes` is negative.

    Examples
    --------
    >>> with fpgpu.open("stores", backend="cpu") as survey:
    ...     survey.meta.nexp, survey.psf.bands
    (4, ['F200W', 'F444W'])
    """
    files = _files(folder, pixels, meta, psf)
    chosen = backend if isinstance(backend, Backend) else get_backend(backend)
    resident = ResidentExposures(chosen, resident_bytes) if resident_bytes else None
    store = PixelStore(files[0], mode="r")
    headers = MetaStore(files[1], use_gwcs=use_gwcs)
    if headers.state is not None and headers.state.store == store.state.store:
        # Of the very state of the pixels.
        headers = MetaStore.of_state(store.state, use_gwcs=use_gwcs)
    psfs = None if files[2] is None else PSFStore(files[2])
    return Survey(store, headers, psfs, backend=chosen, resident=resident, verify=verify)


def _files(
    folder: StrPath | None, pixels: StrPath | None, meta: StrPath | None, psf: StrPath | None
) -> tuple[Path, Path, Path | None]:
    """Say which file each store is: pixels, metadata and PSFs."""
    if folder is None and (pixels is None or meta is None):
        raise MissingStoreError(
            "no survey was named to open: give the folder that 'fpgpu ingest' made, or pixels= and"
            " meta= (and psf= for PSFs)"
        )
    usual = StoreFolder(Path() if folder is None else as_path(folder))
    if pixels is None and meta is None:
        usual.require()
    pixel_file = usual.pixels if pixels is None else as_path(pixels)
    psf_file = usual.psf if folder is not None and usual.psf.is_file() else None
    if psf is not None:
        psf_file = as_path(psf)
        _require_psf_store(psf_file, pixel_file)
    return pixel_file, usual.meta if meta is None else as_path(meta), psf_file


def _require_psf_store(path: Path, pixels: Path) -> None:
    """Refuse, without opening it as a store, a file that cannot hold PSFs."""
    if not path.is_file():
        raise MissingStoreError(f"{path}: no such PSF store; leave psf= out to go without")
    if pixels.is_file() and path.samefile(pixels):
        raise StoreFormatError(f"{path}: holds the pixels, no PSFs; give psf.h5, or leave psf= out")
    with path.open("rb") as file:
        if file.read(9).startswith(b"SIMPLE  ="):
            raise StoreFormatError(
                f"{path}: is a FITS file, no PSF store; 'fpgpu psf' makes one of images"
            )


def _entries(regions: Any) -> Iterable[Any]:
    """Take one region or many, also of collections that only count their items."""
    if isinstance(regions, Mapping):
        return regions.items()
    try:
        entries: Iterable[Any] = iter(regions)
    except TypeError:
        return [regions]
    return entries
