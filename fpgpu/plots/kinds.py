"""Pictures of a patch by the names of their kinds, as commands and the demo's page ask for them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fpgpu.likelihood.reference import evaluate
from fpgpu.patch.plan import PatchPlan
from fpgpu.plots.canvas import pages
from fpgpu.plots.exposures import plot_superpixels
from fpgpu.plots.pixels import plot_pixels, plot_residuals
from fpgpu.plots.regions import plot_coverage, plot_footprints
from fpgpu.stores.meta import MetaStore

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_residuals", "pictures_of_patch"]

Values = npt.NDArray[np.float32]


def pictures_of_patch(
    meta: MetaStore, plan: PatchPlan, data: Values, ierr: Values, flux_units: str = "nJy"
) -> "dict[str, Callable[[], Iterable[Figure]]]":
    """Say how each kind of picture of a patch is drawn; none is drawn yet."""
    draw_pixels = partial(plot_pixels, plan, data, ierr, flux_units=flux_units)
    return {
        "footprints": lambda: [plot_footprints(meta, plan)],
        "coverage": lambda: [plot_coverage(meta, plan, ierr)],
        "superpixels": partial(pages, plan, partial(plot_superpixels, meta, plan)),
        "pixels": partial(pages, plan, draw_pixels),
    }


def draw_residuals(
    plan: PatchPlan, arrays: Mapping[str, Any], proposal: npt.NDArray[Any], flux_units: str = "nJy"
) -> "Iterator[Figure]":
    """Draw data, model and residual; the model is the plain NumPy likelihood's of a proposal."""
    model = evaluate(arrays, proposal).model
    draw = partial(plot_residuals, plan, arrays["data"], arrays["ierr"], model)
    return pages(plan, partial(draw, flux_units=flux_units))
