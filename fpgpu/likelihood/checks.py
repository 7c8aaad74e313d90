"""What the arrays of a patch and a proposal must satisfy before anybody computes with them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.errors import LayoutError
from fpgpu.layout import PATCH_ARRAYS, PSF_COLS, PSF_DTYPE, SOURCE_DTYPE

__all__ = ["check_patch", "check_proposal"]

Arrays = Mapping[str, Any]


def check_patch(arrays: Arrays, *, psf_per_source: bool = True) -> None:
    """Refuse a patch whose arrays do not fit together.

    Parameters
    ----------
    arrays : mapping
        Arrays under the names of the patch struct's fields, ``n_sources`` and ``n_radii``.
    psf_per_source : bool
        Whether ``psfgauss`` must hold a PSF for each source or one for each exposure.

    Raises
    ------
    LayoutError
        If an array is missing, has another shape, points outside another one, or holds values
        that are not finite, or a PSF covariance is not positive definite.
    """
    needed = (set(PATCH_ARRAYS) - {"residual"}) | {"n_sources", "n_radii"}
    if missing := sorted(needed - set(arrays)):
        raise LayoutError(f"the patch lacks {', '.join(missing)}")
    n_sources, n_radii = int(arrays["n_sources"]), int(arrays["n_radii"])
    n_pixels, n_bands, n_exp = (len(arrays[name]) for name in ("data", "band_N", "exposure_N"))
    shapes: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(("data", "ierr", "xpix", "ypix"), (n_pixels,)),
        **dict.fromkeys(("band_start", "band_N", "n_psf_per_source"), (n_bands,)),
        **dict.fromkeys(("exposure_start", "exposure_N", "G", "psfgauss_start"), (n_exp,)),
        **dict.fromkeys(("crpix", "crval"), (n_exp, n_sources, 2)),
        **dict.fromkeys(("D", "CW"), (n_exp, n_sources, 2, 2)),
        "rad2": (n_radii,),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise LayoutError(
                f"{name} has shape {arrays[name].shape}; expected {shape} for {n_pixels} pixels, "
                f"{n_bands} bands, {n_exp} exposures, {n_sources} sources, {n_radii} radii"
            )
    for name in ("data", "ierr", "xpix", "ypix", "G", "crpix", "crval", "D", "CW", "rad2"):
        if n_bad := int(np.count_nonzero(~np.isfinite(arrays[name]))):
            raise LayoutError(f"{name} holds {n_bad} values that are not finite")
    _check_ranges("exposures of band", arrays["band_start"], arrays["band_N"], n_exp)
    _check_ranges("pixels of exposure", arrays["exposure_start"], arrays["exposure_N"], n_pixels)
    _check_psf(arrays, n_sources if psf_per_source else min(n_sources, 1), n_radii)


def check_proposal(proposal: npt.NDArray[Any], n_sources: int, n_bands: int, n_radii: int) -> None:
    """Refuse a proposal that does not fit a patch, or that no source can have."""
    names = proposal.dtype.names or ()
    if missing := [name for name in SOURCE_DTYPE.names or () if name not in names]:
        raise LayoutError(f"the proposal lacks the fields {', '.join(missing)}")
    if proposal.shape != (n_sources,):
        raise LayoutError(
            f"a proposal of shape {proposal.shape}; the patch has {n_sources} sources"
        )
    used = {"ra": 0, "dec": 0, "q": 0, "pa": 0, "fluxes": n_bands}
    used |= dict.fromkeys(("mixture_amplitudes", "damplitude_drh", "damplitude_dnsersic"), n_radii)
    for name, slots in used.items():
        values = proposal[name][:, :slots] if slots else proposal[name]
        if slots and values.shape[1] < slots:
            raise LayoutError(f"{name} has room for {values.shape[1]}, the patch has {slots}")
        _refuse(~np.isfinite(values), name, values, "not finite")
    _refuse(proposal["q"] <= 0, "q", proposal["q"], "not positive")


def _check_psf(arrays: Arrays, n_stored: int, n_radii: int) -> None:
    """Refuse PSFs outside ``psfgauss``, or for a radius that is not there."""
    psf = arrays["psfgauss"]
    if psf.dtype != PSF_DTYPE or psf.ndim != 1:
        raise LayoutError(f"psfgauss is {psf.dtype} of shape {psf.shape}; expected 1-d {PSF_DTYPE}")
    n_gaussians = np.zeros(len(arrays["exposure_N"]), np.int64)
    for start, count, n_psf in zip(
        arrays["band_start"], arrays["band_N"], arrays["n_psf_per_source"], strict=True
    ):
        n_gaussians[int(start) : int(start) + int(count)] = int(n_psf) * n_stored
    _check_ranges("PSF Gaussians of exposure", arrays["psfgauss_start"], n_gaussians, len(psf))
    bins = psf["sersic_bin"]
    if ((bins < 0) | (bins >= n_radii)).any():
        raise LayoutError(
            f"psfgauss names sersic_bin {bins.min()} to {bins.max()}; the patch has {n_radii} radii"
        )
    values = np.stack([psf[name].astype(np.float64) for name in PSF_COLS])
    cxx, cyy, cxy = values[3:]
    good = np.isfinite(values).all(axis=0) & (cxx > 0) & (cyy > 0) & (cxx * cyy > cxy * cxy)
    if not good.all():
        number = int(np.flatnonzero(~good)[0])
        raise LayoutError(
            f"Gaussian {number} of psfgauss, {psf[number]}, is not finite or has a covariance that "
            f"is not positive definite; {int((~good).sum())} of {len(psf)} are like that"
        )


def _check_ranges(what: str, start: Any, count: Any, size: int) -> None:
    """Refuse ranges that leave the array that they index."""
    start, count = np.asarray(start, np.int64), np.asarray(count, np.int64)
    bad = (start < 0) | (count < 0) | (start + count > size)
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        raise LayoutError(
            f"{what} {i} are {count[i]} from number {start[i]} on, but the patch has {size}"
        )


def _refuse(bad: npt.NDArray[np.bool_], name: str, values: npt.NDArray[Any], why: str) -> None:
    """Raise for the first source with a bad value."""
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise LayoutError(f"source {where[0]}: {name} {values[where]} is {why}")
