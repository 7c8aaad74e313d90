"""From a plan, a catalogue and PSFs to the arrays that describe exposures and sources."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fpgpu.backends.arena import ArenaLayout
from fpgpu.catalog import (
    as_catalog,
    catalog_column,
    position_rounding,
    refuse_sources,
    sources_in,
)
from fpgpu.errors import LayoutError, MissingStoreError, UnusableExposureError
from fpgpu.layout import PATCH_ARRAYS, PSF_DTYPE
from fpgpu.likelihood.mixture import radii_in_arcsec
from fpgpu.patch.astrometry import Astrometry, WcsTable, local_astrometry, reference_position
from fpgpu.patch.plan import PatchPlan
from fpgpu.psf.profiles import RADII
from fpgpu.sky.angles import AngleLike, is_position, sky_position
from fpgpu.sky.sphere import Floats
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.psf import PSFStore

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord

__all__ = ["FORCEPHO_RADII", "PatchMetadata", "background_offsets", "pack_metadata"]

logger = logging.getLogger(__name__)

FORCEPHO_RADII = np.array([0.0, *np.geomspace(0.012, 0.7, 7), 1.5])
"""Standard deviations in arcsec of the Gaussians in forcepho's table of Sersic profiles."""


_MOST_ROUNDING = 0.01
"""Pixels that a position may be off for its precision without a word."""

_MOST_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class PatchMetadata:
    """All arrays of a patch but its pixels.

    Attributes
    ----------
    arrays : mapping of str to ndarray
        By the struct's names, of its dtypes, shaped as in `ArenaLayout`.
    layout : ArenaLayout
        Of the whole patch.
    reference : (float, float)
        Right ascension and declination, degrees, that ``crval`` is relative to.
    sources : ndarray of int, shape (n_src,)
        Rows of the catalogue that are in it.
    psf_per_source : bool
        Whether each source has the PSF of its own place.
    """

    arrays: Mapping[str, npt.NDArray[Any]]
    layout: ArenaLayout
    reference: tuple[float, float]
    sources: npt.NDArray[np.intp]
    psf_per_source: bool = True


def pack_metadata(
    meta: MetaStore,
    psf: PSFStore | None,
    plan: PatchPlan,
    catalog: Any = None,
    *,
    radii: npt.ArrayLike | None = None,
    margin: AngleLike | None = None,
    psf_per_source: bool = True,
    tweak_keyword: str | None = None,
    reference: "tuple[AngleLike, AngleLike] | SkyCoord | None" = None,
) -> PatchMetadata:
    """Pack indices, astrometry and PSFs; the catalogue is not changed.

    Parameters
    ----------
    meta : MetaStore
        Headers and WCS of the exposures.
    psf : PSFStore, optional
        Needed when there are sources.
    plan : PatchPlan
        The exposures and their super-pixels.
    catalog : astropy.table.Table, structured array or dict of lists, optional
        The sources, as `fpgpu.catalog.catalog_column` takes them: with ra and dec in degrees
        or in the unit of the columns, or a SkyCoord; none by default.
    radii : array_like or Quantity, shape (n_radii,), optional
        Standard deviations, in arcsec or with units, of the Gaussians that a profile is made of; by
        default those of `fpgpu.psf.default_profiles`, or forcepho's nine where the PSFs are for as
        many.
    margin : float or Quantity, optional
        Degrees, or with units: sources that are outside the plan's region by more are left out. By
        default all are taken, wherever the WCS of all exposures reach, beyond their edges too.
    psf_per_source : bool, optional
        Whether each source gets the PSF of its own place on each detector. If not, all sources get
        the first PSF of the band, for kernels that use one PSF per exposure, as forcepho's do.
    tweak_keyword : str, optional
        Header keyword with the factor ``G`` of each exposure; 1 by default.
    reference : SkyCoord or (float, float), optional
        Position, in degrees or with units, that coordinates are relative to; by default the median
        of the sources, or the centre of the region when there are none.

    Returns
    -------
    PatchMetadata
        The arrays.

    Raises
    ------
    CatalogError
        If the catalogue has no usable positions.
    LayoutError
        If there are more sources or radii than a patch can hold, or PSFs for other radii; if radii
        are none.
    MissingStoreError, NotInStoreError
        If there is no PSF store, or no PSF of a band.
    WCSError
        If a source has no pixel on an exposure.
    UnusableExposureError
        If a header has no number at `tweak_keyword`.
    """
    catalog = as_catalog(catalog)
    ra, dec = _positions(catalog)
    sources = np.arange(ra.size)
    if catalog is not None and margin is not None:
        sources = sources_in(plan.region, ra, dec, margin)
        ra, dec = ra[sources], dec[sources]
    radii = radii_in_arcsec(_usual_radii(psf, plan) if radii is None else radii)
    n_psf = _n_psf_per_source(psf, plan, bool(ra.size), radii.size)
    n_gaussians = int(n_psf.astype(np.int64) @ plan.band_N) * ra.size
    layout = plan.arena_layout(ra.size, radii.size, n_gaussians)
    if reference is None:
        reference = reference_position(ra, dec) if ra.size else plan.region.center
    reference = sky_position(*([reference] if is_position(reference) else reference))
    if ra.size:
        table = WcsTable.of_exposures(meta, [(e.band, e.expID) for e in plan.exposures])
        astrometry = local_astrometry(table, ra, dec, reference)
        _tell_rounding(catalog, sources, table, astrometry)
    else:
        astrometry = Astrometry.of_no_sources(plan.n_exp)
    G = [1.0] * plan.n_exp if tweak_keyword is None else _numbers(meta, plan, tweak_keyword)
    lengths = np.repeat(n_psf.astype(np.int64), plan.band_N) * ra.size
    values = {
        "exposure_start": plan.exposure_start,
        "exposure_N": plan.exposure_N,
        "band_start": plan.band_start,
        "band_N": plan.band_N,
        "rad2": radii**2,
        **astrometry._asdict(),
        "G": G,
        "n_psf_per_source": n_psf,
        "psfgauss": _psf_of_sources(psf, plan, astrometry.crpix, psf_per_source, radii.size),
        "psfgauss_start": np.cumsum(lengths) - lengths,
    }
    arrays = {
        name: np.ascontiguousarray(value, PATCH_ARRAYS[name]) for name, value in values.items()
    }
    return PatchMetadata(arrays, layout, reference, sources, psf_per_source)


def background_offsets(meta: MetaStore, plan: PatchPlan, keyword: str | None) -> list[float]:
    """Give what is to be subtracted from the fluxes of each exposure."""
    return [0.0] * plan.n_exp if keyword is None else _numbers(meta, plan, keyword, 0.0)


def _positions(catalog: Any) -> tuple[Floats, Floats]:
    """Positions of the sources in degrees."""
    if catalog is None:
        return np.empty(0), np.empty(0)
    ra, dec = catalog_column(catalog, "ra"), catalog_column(catalog, "dec")
    refuse_sources(np.abs(dec) > 90.0, "dec", dec, "beyond a pole; expected -90 to 90 deg")
    return ra, dec


def _tell_rounding(
    catalog: Any, sources: npt.NDArray[np.intp], table: WcsTable, astrometry: Astrometry
) -> None:
    """Log a warning where the precision of the catalogue moves a source on a detector."""
    steps = position_rounding(catalog)
    if steps is None:
        return
    step = np.stack(steps, axis=-1)[sources]
    off = np.hypot(*np.moveaxis((abs(astrometry.CW) * step[:, None, :]).sum(axis=-1), -1, 0))
    if off.max() > _MOST_ROUNDING:
        exposure, source = np.unravel_index(np.argmax(off), off.shape)
        logger.warning(
            "positions of the catalogue are of single precision, and may be off by %.2g px (source"
            " %d on %s): give them as float64",
            off.max(), sources[source], table.names[exposure],
        )  # fmt: skip


def _usual_radii(psf: PSFStore | None, plan: PatchPlan) -> Floats:
    """Radii of the table that the PSFs were made for: fpgpu's, or forcepho's."""
    stored = (
        [] if psf is None else [psf.n_radii(band) for band in plan.bandlist if band in psf.bands]
    )
    return FORCEPHO_RADII if len(FORCEPHO_RADII) in stored else RADII


def _n_psf_per_source(
    psf: PSFStore | None, plan: PatchPlan, has_sources: bool, n_radii: int
) -> npt.NDArray[np.int32]:
    """Gaussians in a PSF of each band; 0 where no source needs any."""
    if not has_sources:
        return np.zeros(plan.n_bands, np.int32)
    if psf is None:
        raise MissingStoreError(
            "there are sources but no PSF store; add one, or leave the catalogue out for pixels"
            " alone"
        )
    counts = []
    for band in plan.bandlist:
        made_for = psf.n_radii(band)
        if made_for not in (1, n_radii):
            raise LayoutError(
                f"the PSF of {band} has Gaussians for {made_for} radii, but there are {n_radii}"
                " radii; give the table of profiles that the PSFs were made for (--profiles FILE;"
                " radii=SersicMixture.from_file(FILE).radii), or fit the PSFs anew"
            )
        counts.append(psf.n_psf_per_source(band) * (n_radii // made_for))
    return np.array(counts, np.int32)


def _psf_of_sources(
    psf: PSFStore | None, plan: PatchPlan, crpix: Floats, psf_per_source: bool, n_radii: int
) -> npt.NDArray[Any]:
    """All PSF Gaussians, ordered by exposure, source, Gaussian."""
    n_src = crpix.shape[1]
    blocks = [np.empty(0, PSF_DTYPE)]
    for band, of_band in zip(plan.bandlist, np.split(crpix, plan.band_start[1:]), strict=True):
        if psf is None or n_src == 0:
            break
        if psf_per_source:
            block = psf.lookup_many(band, of_band.reshape(-1, 2))
        else:
            block = np.tile(psf.lookup(band), (len(of_band) * n_src, 1))
        if psf.n_radii(band) < n_radii:
            # The same for all radii: kernels want it of each.
            n_gauss = block.shape[1]
            block = np.tile(block, n_radii)
            block["sersic_bin"] = np.repeat(np.arange(n_radii), n_gauss)
        blocks.append(block.ravel())
    return np.concatenate(blocks)


def _numbers(
    meta: MetaStore, plan: PatchPlan, keyword: str, default: float | None = None
) -> list[float]:
    """A number from the header of each exposure."""
    numbers = []
    for exposure in plan.exposures:
        value = meta.headers[exposure.band][exposure.expID].get(keyword, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not abs(value) <= _MOST_FLOAT32:
            found = "is missing" if value is None else f"is {value!r}"
            raise UnusableExposureError(
                f"{exposure.band}/{exposure.expID}: {keyword} {found} in its header; expected a"
                " finite number"
            )
        numbers.append(float(value))
    return numbers
