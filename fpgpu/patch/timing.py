"""Measuring how long a patch takes, phase by phase."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any

from fpgpu.backends.base import Backend
from fpgpu.errors import PlanError
from fpgpu.patch.build import build_patch
from fpgpu.patch.clock import PhaseClock
from fpgpu.patch.plan import Selection, make_plan
from fpgpu.patch.stores import StoreSet
from fpgpu.sky.regions import Region
from fpgpu.stores.names import each_band

__all__ = ["PHASES", "PatchTimes", "time_patch"]

PHASES = ("plan", "metadata", "read", "upload", "unpack", "other")
"""Phases of a patch in the order in which they come; other is memory and bookkeeping."""


@dataclass(frozen=True)
class PatchTimes:
    """How long a patch took.

    Attributes
    ----------
    region : CircularRegion, RectangularRegion or PolygonRegion
        Of the patch.
    n_exp, n_pixels, n_sources : int
        What is in it.
    backend : str
        Where it was built.
    repeats : int
        How often it was built.
    seconds : dict of str to float
        Median of each of `PHASES`.
    """

    region: Region
    n_exp: int
    n_pixels: int
    n_sources: int
    backend: str
    repeats: int
    seconds: dict[str, float]


def time_patch(
    stores: StoreSet,
    region: Region,
    catalog: Any = None,
    bands: Iterable[str] | None = None,
    *,
    backend: Backend,
    select: Selection = "corners",
    repeats: int = 5,
    **options: Any,
) -> PatchTimes:
    """Build the patch of a region several times, and say where the time went.

    Parameters
    ----------
    stores : StoreSet
        A survey, or `fpgpu.patch.stores.Stores`.
    region : CircularRegion, RectangularRegion or PolygonRegion
        The region.
    catalog : astropy.table.Table or structured array, shape (n_src,), optional
        The sources; none by default.
    bands : iterable of str, optional
        The bands; all by default.
    backend : Backend
        Where it is built.
    select : {"corners", "overlap"}, optional
        As in `fpgpu.patch.plan.make_plan`.
    repeats : int, optional
        How often it is built, at least once; before that it is built once that does not count,
        with which modules are imported, files indexed and memory made.
    **options
        Of `fpgpu.patch.build.build_patch`.

    Returns
    -------
    PatchTimes
        Phases are waited for one by one, so their sum is no less than what a patch takes.

    Raises
    ------
    PlanError
        If there is no exposure in the region, or `repeats` is below 1.
    FpgpuError
        As `fpgpu.patch.build.build_patch`.
    """
    if repeats < 1:
        raise PlanError(f"repeats is {repeats}; expected 1 or more")
    bandlist = None if bands is None else each_band(bands, stores.meta.bands)
    runs = []
    for _ in range(1 + repeats):
        clock = PhaseClock(backend)
        start = time.perf_counter()
        with clock("plan"):
            plan = make_plan(
                stores.pixels, stores.meta, region, bandlist, select=select, backend=backend
            )
        with build_patch(stores, plan, catalog, backend=backend, clock=clock, **options) as patch:
            backend.synchronize()
            whole = time.perf_counter() - start
            n_sources = patch.n_sources
        known = sum(clock.seconds.values())
        runs.append({**clock.seconds, "other": max(whole - known, 0.0)})
    seconds = {phase: median(run.get(phase, 0.0) for run in runs[1:]) for phase in PHASES}
    return PatchTimes(
        region, plan.n_exp, plan.n_pixels, n_sources, backend.description, repeats, seconds
    )
