"""Launches of each kernel with its arguments, for addresses in host memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.backends.launches import (
    Launch,
    evaluate_launches,
    one_launch,
    table_launch,
    tile_launch,
)
from fpgpu.layout import PATCH_DTYPE, ImageFlag

Call = tuple[Launch, list[np.generic]]


def tiled(
    operation: str, pointers: Sequence[int], shape: Sequence[int], size: int, flags: ImageFlag
) -> Call:
    """superpixelize, or its inverse, of `shape` = (n_exp, nx, ny)."""
    n_exp, nx, ny = shape
    along, across = (nx, ny) if flags & ImageFlag.FITS_ORDER else (ny, nx)
    wide = size % 4 == 0 and all(pointer % 16 == 0 for pointer in pointers)
    args = [np.uint64(pointer) for pointer in pointers]
    args += [np.int32(number) for number in (nx, ny, size, flags)]
    return tile_launch(operation, n_exp, along, across, wide), args


def calibrate(
    table: npt.NDArray[Any],
    counts: int,
    shape: Sequence[int],
    size: int,
    flags: ImageFlag,
    *,
    mask_bytes: int = 4,
    bitmask: int = 2**32 - 1,
) -> Call:
    """calibrate, of `shape` = (nx, ny)."""
    planes = [table[name] for name in table.dtype.names if table[name].dtype == np.uint64]
    wide = size % 4 == 0 and not (np.stack(planes) % 16).any()
    nx, ny = shape
    along, across = (nx, ny) if flags & ImageFlag.FITS_ORDER else (ny, nx)
    args = [np.uint64(table.ctypes.data), np.uint64(counts)]
    args += [np.int32(number) for number in (nx, ny, size, mask_bytes)]
    args += [np.uint32(bitmask), np.int32(flags)]
    return tile_launch("calibrate", len(table), along, across, wide), args


def unpack(
    table: npt.NDArray[Any],
    places: npt.NDArray[np.int32],
    outputs: Sequence[int],
    size: int,
    max_snr: float,
    first_bad: int,
) -> Call:
    """unpack into data, ierr, xpix, ypix, and the first super-pixel that is not finite."""
    pointers = [*table["source"].tolist(), *outputs]
    wide = size % 2 == 0 and all(pointer % 16 == 0 for pointer in pointers)
    longest = int(table["count"].max()) * size**2 // (4 if wide else 1)
    args = [np.uint64(at) for at in (table.ctypes.data, places.ctypes.data, *outputs)]
    args += [np.int32(size), np.float32(max_snr), np.uint64(first_bad)]
    return table_launch("unpack", len(table), longest, wide), args


def check_layout(patch: npt.NDArray[Any], n_bands: int, seen: int) -> Call:
    """check_layout, one block a field."""
    args = [np.uint64(patch.ctypes.data), np.int32(n_bands), np.uint64(seen)]
    return one_launch("check_layout", len(PATCH_DTYPE.names)), args


def evaluate(
    patch: npt.NDArray[Any],
    tables: Sequence[npt.NDArray[Any]],
    buffers: Sequence[int],
    counts: Sequence[int],
    flags: Sequence[bool],
) -> list[Call]:
    """The kernels of an evaluation.

    `tables`: sources (n_batch, n_sources), gauss_start, exposure_band, work, work_start; `buffers`:
    gaussians, moments, work_chi2, chi2, derivatives; `counts`: widest, n_bands, n_sources wanted;
    `flags`: psf_per_source, residual.
    """
    (sources, gauss_start, band, work, _), (widest, n_bands, wanted) = tables, counts
    at = [np.uint64(table.ctypes.data) for table in (patch, *tables)]
    gaussians, moments, work_chi2, chi2, derivatives = map(np.uint64, buffers)
    n_exp, n_work, widest, n_bands, per_source, residual = (
        np.int32(n) for n in (len(band), len(work), widest, n_bands, *flags)
    )
    launches = evaluate_launches(int(gauss_start[-1]), len(work), wanted, n_bands, len(sources))
    arguments = (
        [at[0], at[1], at[2], at[3], n_exp, per_source, gaussians],
        [at[0], gaussians, at[2], n_exp, at[4], n_work, widest, residual, moments, work_chi2],
        [at[0], at[1], at[2], at[5], n_exp, n_work, widest, n_bands, per_source,
         moments, work_chi2, chi2, derivatives],
    )  # fmt: skip
    return [call for call in zip(launches, arguments, strict=True) if 0 not in call[0].grid]
