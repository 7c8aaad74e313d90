"""forcepho's `StorePatch`, with the stores and the packing of fpgpu."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from fpgpu.backends.base import Backend
from fpgpu.backends.choose import BackendName, get_backend
from fpgpu.errors import LayoutError, RegionError
from fpgpu.forcepho.device import DevicePatch
from fpgpu.layout import PATCH_ARRAYS
from fpgpu.likelihood.scene import relative_longitude
from fpgpu.patch.astrometry import reference_position
from fpgpu.patch.build import build_patch
from fpgpu.patch.pack import pack_metadata
from fpgpu.patch.plan import PatchPlan, Selection, make_plan
from fpgpu.patch.stores import Stores
from fpgpu.sky.regions import CircularRegion, RectangularRegion, Region
from fpgpu.sky.sphere import wrapped
from fpgpu.stores.files.sync import StrPath
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.names import each_band
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.psf import PSFStore

__all__ = ["StorePatch", "as_region"]

_REGIONS: dict[type[Region], tuple[str, ...]] = {
    CircularRegion: ("ra", "dec", "radius"),
    RectangularRegion: ("ra_min", "ra_max", "dec_min", "dec_max"),
}


class StorePatch(DevicePatch):
    """A patch made from stores, with forcepho's names for what it holds.

    The pixels go to the backend's memory when the patch is built, and live there only: ``data``,
    ``ierr``, ``xpix``, ``ypix`` and ``residual`` fetch copies.

    Parameters
    ----------
    pixelstore, metastore : path
        Files of a pixel store and a meta store.
    psfstore : path, optional
        File of a PSF store; needed once there are sources.
    splinedata : path, optional
        Table of Sersic profiles, for scenes.
    spline_smoothing : float, optional
        Passed to forcepho's sources.
    return_residual : bool, optional
        Whether proposers return residuals.
    meta_dtype, pix_dtype : dtype, optional
        There is only float32, as in the struct.
    debug : int, optional
        Accepted for compatibility; stored values are always finite.
    use_gwcs : bool, optional
        Whether positions come from the gWCS instead of the FITS WCS of the headers.
    select : {"corners", "overlap"}, optional
        Which super-pixels are taken, as in `fpgpu.patch.plan.make_plan`.
    psf_per_source : bool, optional
        Whether to pack the PSFs at each source's own place on each detector. forcepho's kernels
        use those of the first source for all, and forcepho packs the first of the band, as is
        done here by default.
    backend : Backend, optional
        Where the patch lives, instead of a new one.

    Raises
    ------
    LayoutError
        When other dtypes are asked for.
    MissingStoreError, StoreFormatError
        When a store is not there or cannot be read.
    BackendUnavailableError
        When the backend cannot run here.
    """

    backend_name: ClassVar[BackendName] = "cpu"

    max_snr: float | None = None

    def __init__(
        self,
        pixelstore: StrPath = "",
        metastore: StrPath = "",
        psfstore: StrPath = "",
        splinedata: StrPath = "",
        spline_smoothing: float | None = None,
        return_residual: bool = False,
        meta_dtype: npt.DTypeLike = np.float32,
        pix_dtype: npt.DTypeLike = np.float32,
        debug: int = 0,
        *,
        use_gwcs: bool = False,
        select: Selection = "corners",
        psf_per_source: bool = False,
        backend: Backend | None = None,
    ) -> None:
        for name, dtype in (("meta_dtype", meta_dtype), ("pix_dtype", pix_dtype)):
            if np.dtype(dtype) != np.float32:
                raise LayoutError(f"{name} is {np.dtype(dtype)}; kernels take float32 only")
        self.meta_dtype = self.pix_dtype = np.float32
        self.backend = get_backend(self.backend_name) if backend is None else backend
        self.metastore = MetaStore(Path(metastore), use_gwcs=use_gwcs)
        self.pixelstore = PixelStore(pixelstore, mode="r")
        self.psfstore = PSFStore(psfstore) if psfstore else None
        self.splinedata = splinedata
        self.spline_smoothing = spline_smoothing
        self.return_residual = return_residual
        self.debug = debug
        self.select: Selection = select
        self.psf_per_source = psf_per_source
        self.patch_reference_coordinates = np.zeros(2)
        self._dirty_data = True
        self._references: WeakKeyDictionary[Any, tuple[float, float]] = WeakKeyDictionary()

    def build_patch(
        self,
        region: Any = None,
        sourcecat: Any = None,
        allbands: Iterable[str] | None = None,
        tweak_background: str | bool | None = None,
    ) -> None:
        """Read the pixels of a region into the backend's memory, and pack sources if there are any.

        Parameters
        ----------
        region : CircularRegion or RectangularRegion
            Of fpgpu or of forcepho; or any other region of fpgpu.
        sourcecat : structured array, shape (n_src,), optional
            The sources, as `set_scene` takes them; they are packed but not sent.
        allbands : iterable of str, optional
            The bands, in the order that the patch shall have; all of the store by default. As in
            forcepho, whose default is all bands of JWST, those that the store lacks are passed
            over.
        tweak_background : str, optional
            Header keyword of an offset to subtract from the fluxes of each exposure.

        Raises
        ------
        PlanError
            When no exposure is in the region, or the patch is over a limit.
        FpgpuError
            As `fpgpu.patch.build.build_patch`.
        """
        self.free()
        self._patch = self._metadata = None
        bands = each_band(self.metastore.bands if allbands is None else allbands)
        plan = make_plan(
            self.pixelstore,
            self.metastore,
            as_region(region),
            [band for band in bands if band in self.metastore.headers],
            select=self.select,
            backend=self.backend,
        )
        self._patch = build_patch(
            Stores(self.pixelstore, self.metastore, self.psfstore),
            plan,
            backend=self.backend,
            background_keyword=str(tweak_background) if tweak_background else None,
            max_snr=self.max_snr,
        )
        self._holds_data = True
        self._describe(plan, bands)
        if sourcecat is not None:
            # set_scene is forcepho's, and comes with the class that this is mixed into.
            self.pack_meta(self.set_scene(sourcecat))  # type: ignore[attr-defined]
        self._dirty_data = False

    def _describe(self, plan: PatchPlan, bands: list[str]) -> None:
        """Set what forcepho tells about the exposures of a patch."""
        self.plan = plan
        self.bandlist = list(plan.bandlist)
        self.bands = [exposure.band for exposure in plan.exposures]
        self.epaths = [f"{exposure.band}/{exposure.expID}" for exposure in plan.exposures]
        self.n_bands, self.n_exp = plan.n_bands, plan.n_exp
        self.uniq_bands = np.array([bands.index(band) for band in plan.bandlist])
        for name in ("band_start", "band_N", "exposure_start", "exposure_N"):
            setattr(self, name, getattr(plan, name).astype(PATCH_ARRAYS[name]))
        self.n_exp_per_band = plan.band_N.astype(np.int64)
        self.band_N_pix = np.add.reduceat(plan.exposure_N, plan.band_start, dtype=np.int32)

    # --- sources -----------------------------------------------------------------------------

    def pack_meta(self, scene: Any) -> None:
        """Pack the arrays that depend on the sources; `send_to_device` or a replacement sends them.

        The positions in the scene become relative to the median of the scene. Packing a scene
        again gives the same arrays again.

        Parameters
        ----------
        scene : forcepho.sources.Scene
            The sources.

        Raises
        ------
        PlanError
            When no patch was built.
        FpgpuError
            As `fpgpu.patch.pack.pack_metadata`; the packed arrays are then those of before.
        """
        plan = self._require_patch().plan
        self.unzerocoords(scene)
        positions = _positions(scene.sources)
        active = _positions(scene.active_sources)
        metadata = pack_metadata(
            self.metastore,
            self.psfstore,
            plan,
            active,
            radii=scene.sources[0].radii,
            psf_per_source=self.psf_per_source,
            reference=reference_position(positions["ra"], positions["dec"]),
        )
        self.zerocoords(scene, metadata.reference)
        self._metadata = metadata
        self.n_sources, self.n_radii = metadata.layout.n_src, metadata.layout.n_radii
        for name in self.meta_names:
            if name in metadata.arrays:
                setattr(self, name, metadata.arrays[name])
        self.scene = scene

    def zerocoords(
        self, scene: Any, sky_zero: tuple[float, float] | None = None
    ) -> npt.NDArray[np.float64]:
        """Make the positions of a scene relative, in place; once more changes the reference only.

        Parameters
        ----------
        scene : forcepho.sources.Scene
            The sources.
        sky_zero : (float, float), optional
            Right ascension and declination in degrees of the reference; by default the median.

        Returns
        -------
        ndarray of float64, shape (2,)
            The reference.
        """
        self.unzerocoords(scene)
        positions = _positions(scene.sources)
        if sky_zero is None:
            sky_zero = reference_position(positions["ra"], positions["dec"])
        ra, dec = float(sky_zero[0]), float(sky_zero[1])
        eastward = relative_longitude(positions["ra"], ra)
        northward = positions["dec"] - dec
        for source, east, north in zip(scene.sources, eastward, northward, strict=True):
            source.ra, source.dec = east, north
        self._references[scene] = ra, dec
        self.patch_reference_coordinates = np.array([ra, dec])
        return self.patch_reference_coordinates

    def unzerocoords(self, scene: Any) -> Any:
        """Make the positions of a scene absolute again, in place, if they are relative.

        Parameters
        ----------
        scene : forcepho.sources.Scene
            The sources.

        Returns
        -------
        forcepho.sources.Scene
            The same object.
        """
        ra, dec = self._references.pop(scene, (None, None))
        if ra is not None and dec is not None:
            for source in scene.sources:
                source.ra = wrapped(source.ra + ra)
                source.dec += dec
        return scene

    # --- what is in it -----------------------------------------------------------------------

    @property
    def hdrs(self) -> list[Any]:
        """Headers of the exposures."""
        return [self.metastore.headers[e.band][e.expID] for e in self.plan.exposures]

    @property
    def wcses(self) -> list[Any]:
        """WCS objects of the exposures."""
        return [self.metastore.wcs[e.band][e.expID] for e in self.plan.exposures]

    @property
    def npix(self) -> int:
        """Number of pixels; 0 before a patch is built."""
        return self._patch.plan.n_pixels if self._patch is not None else 0

    @property
    def size(self) -> int:
        """Bytes in the backend's memory; 0 before a patch is built."""
        return self._patch.nbytes if self._patch is not None else 0

    @property
    def data(self) -> npt.NDArray[Any]:
        """Fluxes, float32 of shape (n_pixels,), in nJy; residuals after a swap."""
        return self._pixels("data")

    @property
    def ierr(self) -> npt.NDArray[Any]:
        """Inverse uncertainties, float32 of shape (n_pixels,), in 1/nJy."""
        return self._pixels("ierr")

    @property
    def xpix(self) -> npt.NDArray[Any]:
        """Zero-based pixel coordinates along x, float32 of shape (n_pixels,)."""
        return self._pixels("xpix")

    @property
    def ypix(self) -> npt.NDArray[Any]:
        """Zero-based pixel coordinates along y, float32 of shape (n_pixels,)."""
        return self._pixels("ypix")

    @property
    def residual(self) -> npt.NDArray[Any]:
        """Residuals that a kernel has written, float32 of shape (n_pixels,)."""
        return self._pixels("residual")

    def _pixels(self, name: str) -> npt.NDArray[Any]:
        """Fetch a pixel array; read-only, so that nobody changes the copy for the patch."""
        values = self.retrieve_array(name)
        values.flags.writeable = False
        return values


def as_region(region: Any) -> Region:
    """Take a region of fpgpu, or one of forcepho's.

    Parameters
    ----------
    region : object
        A region of fpgpu as it is; of any other kind, one with the attributes of a circle or a
        rectangle, in degrees.

    Returns
    -------
    Region
        Of fpgpu.

    Raises
    ------
    RegionError
        When it is neither.
    """
    if isinstance(region, Region):
        return region
    for kind, names in _REGIONS.items():
        if all(hasattr(region, name) for name in names):
            return kind(*(getattr(region, name) for name in names))
    raise RegionError(
        f"{region!r} is no region; expected a CircularRegion or RectangularRegion of fpgpu or of"
        " forcepho"
    )


def _positions(sources: Iterable[Any]) -> npt.NDArray[Any]:
    """Positions of sources in degrees, as a catalogue."""
    dtype = np.dtype([("ra", np.float64), ("dec", np.float64)])
    return np.array([(source.ra, source.dec) for source in sources], dtype)
