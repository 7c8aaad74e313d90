"""forcepho as its users have it today, on the same stores."""

import importlib
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.lib.recfunctions import append_fields

from benchmarks.inputs.field import Field
from fpgpu import CircularRegion, MetaStore
from fpgpu.patch.pack import RADII

__all__ = ["catalog", "circle", "store_patch", "write_splines"]


def store_patch(pixels: Path, meta: Path, psf: Path, splines: Path, *, gwcs: bool = False) -> Any:
    """Open the stores for forcepho, with every WCS made: without that it finds no exposures."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patches = importlib.import_module("forcepho.patches.pixel_patch")
        patch = patches.StorePatch(
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


def catalog(field: Field, n_sources: int) -> Any:
    """Give sources every column that forcepho reads."""
    sources = np.asarray(field.sources(n_sources))
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
