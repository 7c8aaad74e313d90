"""forcepho's `StorePatch`, with the stores and the packing of fpgpu."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from fpgpu.backends.base import Backend
from fpgpu.backends.choose import BackendName, get_backend
from fpgpu.errors import LayoutError, PlanError
from fpgpu.forcepho.device import PIXELS, DevicePatch
from fpgpu.layout import MAXSOURCES, PATCH_ARRAYS
from fpgpu.likelihood.scene import relative_longitude
from fpgpu.patch.astrometry import reference_position
from fpgpu.patch.build import build_patch
from fpgpu.patch.device import Patch
from fpgpu.patch.pack import background_offsets, pack_metadata
from fpgpu.patch.plan import PatchPlan, Selection, make_plan
from fpgpu.patch.stores import Stores
from fpgpu.sky.regions import as_region
from fpgpu.sky.sphere import wrapped
from fpgpu.stores.disk import StrPath
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.names import each_band
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.psf import PSFStore

__all__ = ["StorePatch"]

Kernel = Literal["fpgpu", "forcepho"]

# What forcepho packs one after the other, with what each is given.
_HOOKS = {
    "_pack_source_metadata": ("scene",),
    "_pack_astrometry": ("wcses", "scene"),
    "_pack_fluxcal": ("hdrs",),
    "_pack_psf": ("bands", "wcses", "scene"),
}

# What is made anew for a patch that was pickled.
_OF_THE_DEVICE = {"_patch", "device_patch", "device_ptrs", "patch_struct", "patchstruct_ptr"}

# Where the methods that a subclass may override are defined.
_OWN = {__name__, "forcepho.patches.patch"}


class StorePatch(DevicePatch):
    """A patch made from stores, with forcepho's names for what it holds.

    The pixels go straight to the backend's memory when the patch is built; `DevicePatch` says how
    they get to the host. Methods that forcepho calls while it builds and packs, and that a subclass
    overrides, are called here, too, and what they make of the patch is sent, or refused: the
    defaults behind ``super()`` are `find_exposures`, `find_pixels` and `pack_pix` of this class,
    and forcepho's own ``_pack_source_metadata``, ``_pack_astrometry``, ``_pack_fluxcal`` and
    ``_pack_psf``.

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
    kernel : {"fpgpu", "forcepho"}, optional
        What evaluates proposals: fpgpu's likelihood, or the kernel of the installed forcepho, with
        its limits. The first is quicker by far, takes any number of sources, and uses the PSF of
        each source.

    Attributes
    ----------
    background_offsets : list of float or None
        What was subtracted from the fluxes of each exposure, when that was asked for.
    max_snr : float or None
        Where ``flux * ierr`` is larger, the next patch to be built has ``max_snr / flux`` there.

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
        kernel: Kernel = "fpgpu",
    ) -> None:
        if kernel not in get_args(Kernel):
            kernels = " or ".join(map(repr, get_args(Kernel)))
            raise LayoutError(f"kernel is {kernel!r}; expected {kernels}")
        for name, dtype in (("meta_dtype", meta_dtype), ("pix_dtype", pix_dtype)):
            if np.dtype(dtype) != np.float32:
                raise LayoutError(f"{name} is {np.dtype(dtype)}; kernels take float32 only")
        self.meta_dtype = self.pix_dtype = np.float32
        self.backend = get_backend(self.backend_name) if backend is None else backend
        self.metastore = MetaStore(Path(metastore), use_gwcs=use_gwcs)
        self.pixelstore = PixelStore(pixelstore, mode="r")
        self.metastore.image_shape = self.pixelstore.shape
        self.psfstore = PSFStore(psfstore) if psfstore else None
        self.splinedata = splinedata
        self.spline_smoothing = spline_smoothing
        self.return_residual = return_residual
        self.debug = debug
        self.select: Selection = select
        self.psf_per_source = psf_per_source
        self.kernel: Kernel = kernel
        self.patch_reference_coordinates = np.zeros(2)
        self.background_offsets: list[float] | None = None
        self.max_snr: float | None = None
        self._dirty_data = True

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
        for name in vars(self).keys() & {*PIXELS, "plan", "_patch"}:
            delattr(self, name)
        self._is_packed = False
        bands = each_band(self.metastore.bands if allbands is None else allbands)
        self.plan = self._plan(region, bands)
        if self._overrides("find_exposures"):
            self.plan = self._chosen(bands, self.find_exposures(region, bands))
        self._describe(self.plan, bands)
        keyword = str(tweak_background) if tweak_background else None
        offsets = background_offsets(self.metastore, self.plan, keyword)
        self.background_offsets = offsets if keyword else None
        self._background_keyword = keyword
        self.pack_pix(region)
        if self._patch is None:
            raise PlanError("pack_pix was overridden and does not call super().pack_pix(region)")
        if sourcecat is not None:
            # set_scene is forcepho's, and comes with the class that this is mixed into.
            self.pack_meta(self.set_scene(sourcecat))
        self._dirty_data = False

    def find_exposures(
        self, region: Any, bandlist: Iterable[str]
    ) -> tuple[list[Any], list[Any], list[str], list[str]]:
        """Find the exposures with super-pixels in a region.

        Parameters
        ----------
        region : CircularRegion or RectangularRegion
            Of fpgpu or of forcepho; or any other region of fpgpu.
        bandlist : iterable of str
            The bands.

        Returns
        -------
        hdrs, wcses : list
            Headers and WCS of the meta store.
        epaths, bands : list of str
            ``"band/expID"`` and band of each, in the order of the bands. What an override leaves
            out or puts in another order is so in the patch.

        Raises
        ------
        FpgpuError
            As `fpgpu.patch.plan.make_plan`.
        """
        exposures = self._plan(region, each_band(bandlist)).exposures
        keys = [(exposure.band, exposure.expID) for exposure in exposures]
        return (
            [self.metastore.headers[band][expID] for band, expID in keys],
            [self.metastore.wcs[band][expID] for band, expID in keys],
            [f"{band}/{expID}" for band, expID in keys],
            [band for band, _ in keys],
        )

    def find_pixels(self, epath: str, wcs: Any, region: Any) -> tuple[npt.NDArray[Any], ...]:
        """Read the super-pixels of an exposure that are in a region.

        Parameters
        ----------
        epath : str
            The exposure, ``"band/expID"``.
        wcs : WCS
            Accepted for compatibility; that of the meta store counts.
        region : CircularRegion or RectangularRegion
            Of fpgpu or of forcepho; or any other region of fpgpu.

        Returns
        -------
        data, ierr, xpix, ypix : ndarray, shape (n_superpixels, super_pixel_size**2)
            As stored, without background offset or cap; and zero-based coordinates.

        Raises
        ------
        PlanError
            When the exposure has none.
        FpgpuError
            As `fpgpu.patch.plan.make_plan` and `PixelStore.read_superpixels`.
        """
        band, expID = epath.split("/", 1)
        for exposure in self._plan(region, [band]).exposures:
            if exposure.expID == expID:
                break
        else:
            raise PlanError(f"{epath} has no super-pixel in {region!r}")
        values = self.pixelstore.read_superpixels(band, expID, exposure.superpixels)
        half = self.pixelstore.super_pixel_size**2
        ix, iy = exposure.superpixels.T
        xpix, ypix = self.pixelstore.xpix[ix, iy], self.pixelstore.ypix[ix, iy]
        return values[:, :half], values[:, half:], xpix, ypix

    def pack_pix(self, region: Any, dtype: npt.DTypeLike | None = None) -> None:
        """Read the pixels of the exposures that were found into the backend's memory.

        Parameters
        ----------
        region : CircularRegion or RectangularRegion
            What `build_patch` was called with.
        dtype : dtype, optional
            Accepted for compatibility; there is only float32.

        Raises
        ------
        PlanError
            When an overridden `find_pixels` gives another number of pixels than the plan has.
        FpgpuError
            As `fpgpu.patch.build.build_patch`.
        """
        self._patch = self._read()
        if self._overrides("find_pixels"):
            self._take_pixels(region)
        if self.max_snr and (self._overrides("find_pixels") or self._overrides("_cap_snr")):
            self._cap_snr(max_snr=self.max_snr)

    def _read(self) -> Patch:
        """Read the pixels of the plan into the backend's memory."""
        return build_patch(
            Stores(self.pixelstore, self.metastore, self.psfstore),
            self.plan,
            backend=self.backend,
            background_keyword=self._background_keyword,
            max_snr=None if self._overrides("_cap_snr") else self.max_snr,
        )

    def _require_patch(self) -> Patch:
        # What was pickled comes back without memory of the backend.
        if self._patch is None and "plan" in vars(self):
            self._patch = self._read()
        return super()._require_patch()

    def __getstate__(self) -> dict[str, Any]:
        """Give all that is on the host, the pixels too, and nothing of the backend's memory."""
        if "plan" in vars(self):
            for name in PIXELS:
                getattr(self, name)
        return {name: value for name, value in vars(self).items() if name not in _OF_THE_DEVICE}

    def _take_pixels(self, region: Any) -> None:
        """Put what an overridden `find_pixels` gives in the place of what was read."""
        found: dict[str, list[Any]] = {name: [] for name in PIXELS}
        offsets = self.background_offsets or [0.0] * self.n_exp
        rows = zip(self.epaths, self.wcses, self.plan.exposure_N, offsets, strict=True)
        for epath, wcs, n_pixels, offset in rows:
            pixels = [np.asarray(values) for values in self.find_pixels(epath, wcs, region)]
            if [values.size for values in pixels] != [n_pixels] * len(PIXELS):
                raise PlanError(
                    f"find_pixels gave arrays of {[values.size for values in pixels]} pixels of"
                    f" {epath}; the patch has {n_pixels}, whole super-pixels: give pixels that"
                    " shall not count an ierr of 0"
                )
            pixels[0] = pixels[0] - offset
            for name, values in zip(PIXELS, pixels, strict=True):
                found[name].append(values.ravel())
        for name in PIXELS:
            setattr(self, name, np.concatenate(found[name]).astype(PATCH_ARRAYS[name]))

    def _cap_snr(self, max_snr: float | None = None) -> None:
        """Limit signal to noise on the host."""
        if max_snr:
            high = (self.ierr > 0) & (self.data * self.ierr > max_snr)
            self.ierr[high] = max_snr / self.data[high]

    def _plan(self, region: Any, bands: list[str]) -> PatchPlan:
        return make_plan(
            self.pixelstore,
            self.metastore,
            as_region(region),
            [band for band in bands if band in self.metastore.headers],
            select=self.select,
            backend=self.backend,
        )

    def _chosen(
        self, bands: list[str], found: tuple[list[Any], list[Any], list[str], list[str]]
    ) -> PatchPlan:
        """Plan what an overridden `find_exposures` has found."""
        planned = {f"{e.band}/{e.expID}": e for e in self.plan.exposures}
        hdrs, wcses, epaths, _ = found
        for hdr, wcs, epath in zip(hdrs, wcses, epaths, strict=True):
            if epath not in planned:
                raise PlanError(
                    f"find_exposures gave {epath}, which has no super-pixel in the region; those"
                    f" that have are {', '.join(planned) or 'none'}"
                )
            band, expID = epath.split("/", 1)
            stored = self.metastore.headers[band][expID], self.metastore.wcs[band][expID]
            if hdr is not stored[0] or wcs is not stored[1]:
                raise PlanError(
                    f"find_exposures gave another header or WCS of {epath} than the meta store;"
                    f" put it there: patch.metastore.wcs[{band!r}][{expID!r}] = wcs"
                )
        exposures = tuple(planned[epath] for epath in epaths)
        order = [bands.index(exposure.band) for exposure in exposures]
        if order != sorted(order):
            raise PlanError(
                f"find_exposures gave {', '.join(epaths)}; expected the bands in the order"
                f" {', '.join(bands)}"
            )
        bandlist = tuple(dict.fromkeys(exposure.band for exposure in exposures))
        return replace(self.plan, exposures=exposures, bandlist=bandlist)

    def _overrides(self, name: str) -> bool:
        """Tell whether a method is neither the one of this class nor forcepho's own."""
        method = getattr(self, name, None)
        return method is not None and getattr(method, "__module__", None) not in _OWN

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
        _make_absolute(scene)
        active = _positions(scene.active_sources)
        if self.kernel == "forcepho" and len(active) > MAXSOURCES:
            raise LayoutError(
                f"{len(active)} active sources; forcepho's kernel takes {MAXSOURCES}: fit fewer at"
                ' a time (maxactive), or use kernel="fpgpu"'
            )
        before = self.patch_reference_coordinates
        ra, dec = self.zerocoords(scene)
        for source in scene.sources:
            # An override may have done it in forcepho's way, which leaves no trace.
            source.sky_zero = float(ra), float(dec)
        try:
            metadata = pack_metadata(
                self.metastore,
                self.psfstore,
                plan,
                active,
                radii=scene.sources[0].radii,
                psf_per_source=self.psf_per_source,
                reference=(float(ra), float(dec)),
            )
        except BaseException:
            _make_absolute(scene)
            self.patch_reference_coordinates = before
            raise
        self.patch_reference_coordinates = np.array(metadata.reference)
        self.n_sources, self.n_radii = metadata.layout.n_src, metadata.layout.n_radii
        for name in self.meta_names:
            if name in metadata.arrays:
                setattr(self, name, metadata.arrays[name])
        for hook, names in _HOOKS.items():
            if self._overrides(hook):
                own = (scene if name == "scene" else getattr(self, name) for name in names)
                getattr(self, hook)(*own)
        self._is_packed = True
        self.scene = scene

    def zerocoords(
        self, scene: Any, sky_zero: tuple[float, float] | None = None
    ) -> npt.NDArray[np.float64]:
        """Make the positions of a scene relative, in place; once more changes the reference only.

        Parameters
        ----------
        scene : forcepho.sources.Scene
            The sources. Each keeps the reference as its ``sky_zero``, and so does a copy of it.
        sky_zero : (float, float), optional
            Right ascension and declination in degrees of the reference; by default the median.

        Returns
        -------
        ndarray of float64, shape (2,)
            The reference.
        """
        _make_absolute(scene)
        positions = _positions(scene.sources)
        if sky_zero is None:
            sky_zero = reference_position(positions["ra"], positions["dec"])
        ra, dec = float(sky_zero[0]), float(sky_zero[1])
        eastward = relative_longitude(positions["ra"], ra)
        northward = positions["dec"] - dec
        for source, east, north in zip(scene.sources, eastward, northward, strict=True):
            source.ra, source.dec, source.sky_zero = east, north, (ra, dec)
        self.patch_reference_coordinates = np.array([ra, dec])
        return self.patch_reference_coordinates

    def unzerocoords(self, scene: Any) -> Any:
        """Make the positions of a scene absolute again, in place; once more changes nothing.

        Parameters
        ----------
        scene : forcepho.sources.Scene
            The sources. Those that no patch made relative, nor the sources they are copies of, are
            taken to be relative to the reference of this patch, as forcepho takes them.

        Returns
        -------
        forcepho.sources.Scene
            The same object.
        """
        ra, dec = self.patch_reference_coordinates
        for source in scene.sources:
            if not hasattr(source, "sky_zero"):
                source.sky_zero = float(ra), float(dec)
        _make_absolute(scene)
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
        return self.plan.n_pixels if "plan" in vars(self) else 0

    @property
    def size(self) -> int:
        """Bytes in the backend's memory; 0 before a patch is built."""
        return self._patch.nbytes if self._patch is not None else 0


def _make_absolute(scene: Any) -> None:
    """Undo what made positions relative, where they are."""
    for source in scene.sources:
        zero = getattr(source, "sky_zero", None)
        if zero is not None:
            source.ra, source.dec = float(wrapped(source.ra + zero[0])), source.dec + zero[1]
        source.sky_zero = None


def _positions(sources: Iterable[Any]) -> npt.NDArray[Any]:
    """Positions of sources in degrees, as a catalogue."""
    dtype = np.dtype([("ra", np.float64), ("dec", np.float64)])
    return np.array([(source.ra, source.dec) for source in sources], dtype)
