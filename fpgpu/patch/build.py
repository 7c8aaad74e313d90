"""From stores and a plan to a patch in a backend's memory."""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from fpgpu.backends.base import Backend
from fpgpu.catalog import MARGIN
from fpgpu.errors import PlanError
from fpgpu.patch.clock import Clock, untimed
from fpgpu.patch.device import Patch
from fpgpu.patch.pack import background_offsets, pack_metadata
from fpgpu.patch.pixels import send_pixels
from fpgpu.patch.plan import PatchPlan
from fpgpu.patch.resident import ResidentExposures
from fpgpu.patch.stores import StoreSet
from fpgpu.sky.angles import AngleLike
from fpgpu.stores.units import units_of

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord

__all__ = ["build_patch"]


def build_patch(
    stores: StoreSet,
    plan: PatchPlan,
    catalog: Any = None,
    *,
    backend: Backend,
    radii: npt.ArrayLike | None = None,
    margin: AngleLike | None = MARGIN,
    psf_per_source: bool = True,
    background_keyword: str | None = None,
    max_snr: float | None = None,
    tweak_keyword: str | None = None,
    reference: "tuple[AngleLike, AngleLike] | SkyCoord | None" = None,
    resident: ResidentExposures | None = None,
    clock: Clock = untimed,
) -> Patch:
    """Build the patch of a plan in a backend's memory.

    Parameters
    ----------
    stores : StoreSet
        A survey, or `Stores`.
    plan : PatchPlan
        What to read; with at least one exposure.
    catalog : astropy.table.Table, structured array or dict of lists, optional
        The sources, with ra and dec in degrees or in the unit of the columns, or a SkyCoord; none
        by default. `fpgpu.patch.device.Patch.sources` tells which are in the patch.
    backend : Backend
        Where the patch shall live.
    margin : float, Quantity or None, optional
        Degrees, or with units: sources that are outside the region by more than this, half an
        arcsec by default, are left out; None takes all. A warning is logged where none is left.
    radii, psf_per_source, tweak_keyword, reference : optional
        As in `fpgpu.patch.pack.pack_metadata`; all but the last hold for later catalogues, too, as
        does the margin.
    background_keyword : str, optional
        Header keyword of an offset to subtract from the fluxes of each exposure, in the unit of
        the store; an exposure without it has none.
    max_snr : float, optional
        Where ``ierr > 0`` and ``flux * ierr`` is larger, ierr becomes ``max_snr / flux``.
    resident : ResidentExposures, optional
        Whole exposures of the same backend to take the pixels from; they are loaded if need be.
    clock : callable, optional
        Told of each phase, as a `fpgpu.patch.clock.PhaseClock`.

    Returns
    -------
    Patch
        Complete; to be freed by its ``with`` block or its `free`.

    Raises
    ------
    PlanError
        When the plan has no exposures, or with the sources is over a limit.
    CatalogError, LayoutError, WCSError, UnusableExposureError
        When sources or headers cannot be packed.
    MissingStoreError, NotInStoreError, StoreFormatError, StoreBusyError
        When what was planned is no longer in the stores, or cannot be read.
    IntegrityError
        When a pixel is not finite, for the file is damaged. On a device it is raised when the patch
        is first used, as by `fpgpu.patch.device.Patch.check`: nothing waits for it here.
    DeviceMemoryError, StagingError
        When there is not enough memory. Whatever is raised, no memory is kept.
    """
    if not plan.exposures:
        raise PlanError(f"{plan.region!r}: no exposure is in it, so there is no patch to build")
    pack = partial(
        pack_metadata,
        stores.meta,
        stores.psf,
        plan,
        radii=radii,
        margin=margin,
        psf_per_source=psf_per_source,
        tweak_keyword=tweak_keyword,
    )
    fill = partial(
        send_pixels,
        stores.pixels,
        plan,
        backend,
        backgrounds=background_offsets(stores.meta, plan, background_keyword),
        max_snr=max_snr or 0.0,
        resident=resident,
        clock=clock,
    )
    with clock("metadata"):
        metadata = pack(catalog, reference=reference)
    units = units_of(stores.pixels, [(e.band, e.expID) for e in plan.exposures])
    patch = Patch(plan, backend, stores.meta, metadata, pack, fill, units)
    patch.send()
    return patch
