"""forcepho as its users have it today, on the same stores."""

import contextlib
import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from numpy.lib.recfunctions import append_fields

from benchmarks.inputs.field import Field
from fpgpu import CircularRegion, MetaStore
from fpgpu.patch.device import Patch
from fpgpu.patch.pack import FORCEPHO_RADII as RADII

__all__ = ["catalog", "circle", "fit", "kernel", "store_patch", "write_splines"]

_ITERATIONS = 10  # of an optimisation


def store_patch(
    pixels: Path, meta: Path, psf: Path, splines: Path, *, gwcs: bool = False, models: bool = False
) -> Any:
    """Open the stores for forcepho, with every WCS made: without that it finds no exposures."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patches = importlib.import_module("forcepho.patches")
        kinds = (patches.StorePatch, patches.CPUPatchMixin) if models else (patches.StorePatch,)
        patch = type("Patch", kinds, {})(
            pixelstore=str(pixels),
            metastore=str(meta),
            psfstore=str(psf),
            splinedata=str(splines),
            spline_smoothing=0,
        )
        if gwcs:
            # The same objects as its populate_wcs reads, which leaves their file open.
            with MetaStore(meta, use_gwcs=True) as ours:
                patch.metastore.wcs = {
                    band: {expID: ours.wcs[band][expID] for expID in ours.exposures(band)}
                    for band in ours.bands
                }
        else:
            patch.metastore.populate_wcs()
    return patch


def circle(region: CircularRegion) -> Any:
    """Make forcepho's own region of ours."""
    return importlib.import_module("forcepho.region").CircularRegion(
        region.ra, region.dec, region.radius
    )


def kernel(patch: Patch) -> Callable[[npt.NDArray[Any]], tuple[Any, ...]]:
    """Give what evaluates a proposal on a patch in host memory by forcepho's own kernel."""
    proposer = importlib.import_module("forcepho.proposal").CPUProposer()
    seen = SimpleNamespace(
        n_bands=patch.plan.n_bands,
        n_sources=patch.n_sources,
        device_patch=patch.pointer,
        return_residual=False,
    )
    return lambda proposal: proposer.evaluate_proposal(proposal, patch=seen)


def fit(patch: Any, region: Any, active: Any, bands: list[str], folder: Path) -> int:
    """Build a patch, optimise its sources, and write them and the residuals, as a child does.

    Returns the number of evaluations.
    """
    fitting, io = (importlib.import_module(f"forcepho.{name}") for name in ("fitting", "utils.io"))
    patch.build_patch(region, None, allbands=bands)
    limits = _bounds(active, bands)
    active = append_fields(active, "source_index", np.arange(len(active)), usemask=False)
    model, q = patch.prepare_model(active=active, bounds=limits)
    result, _ = fitting.run_opt(model, q, maxiter=_ITERATIONS)
    result.fill(region, active, None, model, bounds=limits)
    config = SimpleNamespace(write_residuals=True)
    with contextlib.redirect_stdout(None):
        io.write_to_disk(result, str(folder / "patch"), model, config)
    return int(model.ncall)


def _bounds(active: Any, bands: list[str]) -> Any:
    """Hold sources within bounds, as forcepho's production does."""
    reach = {"ra": 3e-5, "dec": 3e-5, "q": 0.15, "pa": 0.6, "sersic": 0.7, "rhalf": 0.05}
    reach |= dict.fromkeys(bands, 400.0)
    bounds = np.zeros(len(active), [(name, np.float64, 2) for name in reach])
    for name, width in reach.items():
        bounds[name] = active[name][:, None] + [-width, width]
    return bounds


def catalog(field: Field, n_sources: int, radius: float | None = None) -> Any:
    """Give sources every column that forcepho reads."""
    sources = np.asarray(field.sources(n_sources, radius))
    columns = {"q": 0.8, "pa": 0.3, "sersic": 2.0, "rhalf": 0.1}
    columns |= dict.fromkeys(field.bands(), 100.0)
    values = [np.full(n_sources, value) for value in columns.values()]
    return append_fields(sources, list(columns), values, usemask=False)


def write_splines(path: Path) -> Path:
    """Write mixtures that grow with the half-light radius and spread with the Sersic index."""
    sersic, rhalf = (
        grid.ravel() for grid in np.meshgrid(np.linspace(0.8, 6, 14), np.geomspace(0.01, 1, 20))
    )
    order = np.lexsort((rhalf, sersic))
    sersic, rhalf = sersic[order], rhalf[order]
    distance = np.log(np.maximum(RADII, 0.005) / rhalf[:, None]) / (0.5 + 0.2 * sersic[:, None])
    weights = np.exp(-0.5 * distance**2)
    with h5py.File(path, "w") as file:
        file["nsersic"], file["rh"], file["radii"] = sersic, rhalf, RADII
        file["amplitudes"] = weights / weights.sum(axis=1, keepdims=True)
    return path
