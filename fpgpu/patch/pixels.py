"""Pixels of a plan, from the store through staging memory into the arrays of a patch."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache, partial

import numpy as np
import numpy.typing as npt

from fpgpu.backends.arguments import PatchPixels, Read, StagedExposure
from fpgpu.backends.base import Backend
from fpgpu.backends.operations import FirstBad
from fpgpu.errors import IntegrityError, LayoutError
from fpgpu.patch.clock import Clock, untimed
from fpgpu.patch.plan import PatchPlan
from fpgpu.patch.resident import ResidentExposures
from fpgpu.stores.pixel import PixelStore
from fpgpu.superpixels import grid_shape

__all__ = ["send_pixels"]


def send_pixels(
    store: PixelStore,
    plan: PatchPlan,
    backend: Backend,
    out: PatchPixels,
    backgrounds: Sequence[float],
    max_snr: float = 0.0,
    resident: ResidentExposures | None = None,
    clock: Clock = untimed,
) -> Callable[[], None]:
    """Read the super-pixels of a plan, and nothing else, and unpack them.

    They are read straight into staging memory, in the order of the file, and cross to the device as
    they are in one transfer, or in as few as slots allow. Where the backend can use staging memory
    itself, nothing is copied.
    """
    _require_fit(store, plan)
    if resident is not None and resident.backend is not backend:
        raise LayoutError(
            f"the resident exposures are of another backend, on {resident.backend.description};"
            f" make those of the patch's, on {backend.description}"
        )
    keys = [(exposure.band, exposure.expID) for exposure in plan.exposures]
    places, counts = plan.places, (plan.exposure_N // plan.super_pixel_size**2).tolist()
    stops = np.cumsum(counts)
    grid = grid_shape(plan.exposures[0].shape, plan.super_pixel_size)

    @cache
    def reader() -> Read:
        return store.reader.list_reader(keys, counts, places)

    def read(start: int, stop: int, to: npt.NDArray[np.float32]) -> None:
        with clock("read"):
            reader()(start, stop, to)

    with (
        resident.lent(store, keys) if resident is not None else nullcontext([None] * len(keys))
    ) as whole:
        exposures = [
            StagedExposure(array, count, background, grid)
            for array, count, background in zip(whole, counts, backgrounds, strict=True)
        ]
        first_bad = backend.unpack(
            exposures,
            places,
            out,
            plan.super_pixel_size,
            max_snr=max_snr,
            read=read,
            clock=clock,
        )
    check = partial(_refuse_not_finite, store, plan, stops, first_bad)
    if not backend.in_host_memory:
        return check
    check()
    return lambda: None


def _refuse_not_finite(
    store: PixelStore, plan: PatchPlan, stops: npt.NDArray[np.int64], first_bad: FirstBad
) -> None:
    """Raise for the first super-pixel with a value that is not finite."""
    bad = first_bad()
    if bad is not None:
        number = int(np.searchsorted(stops, bad, side="right"))
        exposure = plan.exposures[number]
        row = bad - int(stops[number]) + len(exposure.superpixels)
        x, y = (exposure.superpixels[row] * plan.super_pixel_size).tolist()
        raise IntegrityError(
            f"{store.h5file}: {exposure.band}/{exposure.expID} holds values that are not finite, "
            f"the first in the super-pixel at [x, y] = [{x}, {y}]: the file was damaged, or "
            "written by another program; 'fpgpu verify' looks at all exposures; add this one again"
        )


def _require_fit(store: PixelStore, plan: PatchPlan) -> None:
    """Refuse a store that is not the one the plan was made for."""
    found = {exposure.shape for exposure in plan.exposures} - {store.shape}
    if found or plan.super_pixel_size != store.super_pixel_size:
        shape = found.pop() if found else store.shape
        raise LayoutError(
            f"the plan is for images of {shape} in super-pixels of {plan.super_pixel_size}, but"
            f" {store.h5file} holds {store.shape} in {store.super_pixel_size}; plan again"
        )
    if store.pix_dtype != np.float32:
        raise LayoutError(
            f"{store.h5file} was opened with pix_dtype {store.pix_dtype}; open it with float32,"
            " which patches are of"
        )
