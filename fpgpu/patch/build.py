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
    """Build the patch of a plan in a backend's memory."""
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
