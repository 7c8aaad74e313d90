"""The likelihood of a scene given a patch: plain NumPy in float64, the judge of every kernel.

A source is a mixture of Gaussians that share their centre, their axis ratio and their position
angle; a PSF is one mixture for each radius of the source's. On the detector they are Gaussians
again, whose covariances are the sums of both. Numbers and signs are those of forcepho's kernel:

- positions are relative to a reference: pixel = crpix + CW ((ra, dec) - crval), CW in pixel/degree;
- the covariance of a source's Gaussian is rad2 * T T^t with T = D R(pa) S, S = diag(1/q, q), where
  q is the *square root* of the axis ratio, pa is in radians and D in pixel/arcsec;
- chi2 is the sum of (residual^2 - data^2) / sigma^2, which has the derivatives of the usual chi2
  but loses no digits to pixels that no source reaches.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fpgpu.layout import NPARAMS
from fpgpu.likelihood.checks import check_patch, check_proposal
from fpgpu.likelihood.gaussians import Gaussians, Rendering, reaching

__all__ = ["DERIVATIVES", "Evaluation", "evaluate"]

Arrays = Mapping[str, Any]
Float = npt.NDArray[np.float64]

DERIVATIVES = ("flux", "ra", "dec", "q", "pa", "sersic", "rhalf")
"""Parameters of a source in the order of the derivatives: nJy, degrees, radians, arcsec."""

PIXELS_AT_ONCE = 128
"""Pixels of one step, two super-pixels: so close together that few Gaussians reach them."""


class Evaluation(NamedTuple):
    """What `evaluate` finds.

    Attributes
    ----------
    chi2 : ndarray of float64, shape (n_bands,)
        Sum of (residual^2 - data^2) * ierr^2.
    derivatives : ndarray of float64, shape (n_bands, n_sources, 7)
        Of `chi2`, with respect to the parameters in `DERIVATIVES`.
    residual : ndarray of float64, shape (n_pixels,)
        Data minus model, in the unit and order of the patch's data.
    model : ndarray of float64, shape (n_pixels,)
        All sources together.
    """

    chi2: Float
    derivatives: Float
    residual: Float
    model: Float


@dataclass(frozen=True)
class _Scene:
    """All sources on one exposure; Gaussian p of source s is number s * n_psf + p."""

    gaussians: Gaussians
    d_counts: Float  # (n_sources, n_psf, 3) with respect to flux, sersic, rhalf
    d_covariance: Float  # (n_sources, n_psf, 2, 2, 2) with respect to q, pa (third axis)
    CW: Float  # (n_sources, 2, 2)

    def source_derivatives(self, slopes: Gaussians) -> Float:
        """Apply the chain rule: from derivatives per Gaussian to (n_sources, 7) of sources."""
        n_sources, n_psf = self.d_counts.shape[:2]
        counts = slopes.counts.reshape(n_sources, n_psf)
        centre = slopes.centre.reshape(n_sources, n_psf, 2).sum(axis=1)
        covariance = slopes.covariance.reshape(n_sources, n_psf, 2, 2)
        flux, sersic, rhalf = np.einsum("sp,spk->ks", counts, self.d_counts)
        ra, dec = np.einsum("si,sik->ks", centre, self.CW)
        q, pa = np.einsum("spij,spkij->ks", covariance, self.d_covariance)
        return np.stack([flux, ra, dec, q, pa, sersic, rhalf], axis=1)


def evaluate(
    arrays: Arrays, proposal: npt.NDArray[Any], *, psf_per_source: bool = True
) -> Evaluation:
    """Compare a scene with the pixels of a patch.

    Parameters
    ----------
    arrays : mapping
        The patch: host arrays under the names of the fields of `fpgpu.layout.PATCH_DTYPE`, of any
        float or integer type, and ``n_sources`` and ``n_radii``; ``residual`` is not used.
    proposal : structured array, shape (n_sources,)
        Sources, with the fields of `fpgpu.layout.SOURCE_DTYPE`, in its precision or a higher one.
    psf_per_source : bool
        True: each source has the PSF at its own place, ``psfgauss[exposure][source][psf]``. False:
        the first PSF of an exposure serves all its sources, as forcepho's kernel does it.

    Returns
    -------
    Evaluation
        chi2 and derivatives per band, residual and model per pixel.

    Raises
    ------
    LayoutError
        If an array is missing, has another shape, points outside another one or is not finite, or
        a value of the proposal is one that no source can have.
    """
    check_patch(arrays, psf_per_source=psf_per_source)
    n_bands, n_sources = len(arrays["band_N"]), int(arrays["n_sources"])
    check_proposal(proposal, n_sources, n_bands, int(arrays["n_radii"]))
    chi2 = np.zeros(n_bands)
    derivatives = np.zeros((n_bands, n_sources, NPARAMS))
    model = np.zeros(len(arrays["data"]))
    for band in range(n_bands):
        first = int(arrays["band_start"][band])
        for exposure in range(first, first + int(arrays["band_N"][band])):
            scene = _project(arrays, proposal, band, exposure, psf_per_source)
            slopes = Gaussians(*map(np.zeros_like, scene.gaussians))
            for pixels in _steps(arrays, exposure):
                chi2[band] += _compare(arrays, pixels, scene.gaussians, model, slopes)
            derivatives[band] += scene.source_derivatives(slopes)
    return Evaluation(chi2, derivatives, np.asarray(arrays["data"], np.float64) - model, model)


def _steps(arrays: Arrays, exposure: int) -> Iterator[slice]:
    """Cut the pixels of an exposure into steps of bounded memory."""
    start = int(arrays["exposure_start"][exposure])
    stop = start + int(arrays["exposure_N"][exposure])
    for begin in range(start, stop, PIXELS_AT_ONCE):
        yield slice(begin, min(begin + PIXELS_AT_ONCE, stop))


def _compare(
    arrays: Arrays, pixels: slice, gaussians: Gaussians, model: Float, slopes: Gaussians
) -> float:
    """Compare some pixels with Gaussians: set the model, add to the slopes, return their chi2."""
    x, y, data, ierr = (
        np.asarray(arrays[name][pixels], np.float64) for name in ("xpix", "ypix", "data", "ierr")
    )
    near = reaching(gaussians, x, y)
    rendering = Rendering(Gaussians(*(part[near] for part in gaussians)), x, y)
    model[pixels] = rendering.counts()
    residual = data - model[pixels]
    for total, part in zip(slopes, rendering.pull_back(-2 * residual * ierr**2), strict=True):
        total[near] += part
    # (r^2 - d^2) as a product: r and d are nearly equal in most pixels.
    return float(((residual - data) * ierr) @ ((residual + data) * ierr))


def _project(
    arrays: Arrays, proposal: npt.NDArray[Any], band: int, exposure: int, psf_per_source: bool
) -> _Scene:
    """Put the sources on an exposure: the Gaussians there, and how they follow the parameters."""
    psf = _psf(arrays, band, exposure, psf_per_source)  # (n_sources, n_psf)
    D, CW, crpix, crval = (
        np.asarray(arrays[name][exposure], np.float64) for name in ("D", "CW", "crpix", "crval")
    )
    sky = np.stack([_column(proposal, "ra"), _column(proposal, "dec")], axis=-1)
    position = crpix + np.einsum("sij,sj->si", CW, sky - crval)
    centre = position[:, None] + _stack(psf, "xcen", "ycen")

    shape, d_shape = _shapes(D, _column(proposal, "q"), _column(proposal, "pa"))
    radius = psf["sersic_bin"]
    rad2 = np.asarray(arrays["rad2"], np.float64)[radius][..., None, None]
    psf_covariance = _stack(psf, "Cxx", "Cxy", "Cxy", "Cyy").reshape(*psf.shape, 2, 2)
    covariance = psf_covariance + rad2 * shape[:, None]
    d_covariance = rad2[..., None] * d_shape[:, None]

    flux = _column(proposal, "fluxes")[:, band, None]
    scale = float(arrays["G"][exposure]) * psf["amp"].astype(np.float64)
    share, d_sersic, d_rhalf = (
        np.take_along_axis(_column(proposal, name), radius, axis=1)
        for name in ("mixture_amplitudes", "damplitude_dnsersic", "damplitude_drh")
    )
    d_counts = scale[..., None] * np.stack([share, flux * d_sersic, flux * d_rhalf], axis=-1)
    gaussians = Gaussians(
        (scale * flux * share).reshape(-1), centre.reshape(-1, 2), covariance.reshape(-1, 2, 2)
    )
    return _Scene(gaussians, d_counts, d_covariance, CW)


def _psf(arrays: Arrays, band: int, exposure: int, psf_per_source: bool) -> npt.NDArray[Any]:
    """Find the PSF of each source on an exposure, structured (n_sources, n_psf)."""
    start = int(arrays["psfgauss_start"][exposure])
    n_psf, n_sources = int(arrays["n_psf_per_source"][band]), int(arrays["n_sources"])
    n_stored = n_sources if psf_per_source else min(n_sources, 1)
    psf: npt.NDArray[Any] = arrays["psfgauss"][start : start + n_stored * n_psf]
    return np.broadcast_to(psf.reshape(n_stored, n_psf), (n_sources, n_psf))


def _shapes(D: Float, q: Float, pa: Float) -> tuple[Float, Float]:
    """Covariance on the detector of sources of unit radius: T T^t, and its q and pa derivatives.

    Parameters
    ----------
    D : ndarray, shape (n_sources, 2, 2)
        Pixels per arcsec.
    q, pa : ndarray, shape (n_sources,)
        Square root of the axis ratio, position angle in radians.

    Returns
    -------
    shape : ndarray, shape (n_sources, 2, 2)
        Pixels squared per arcsec squared.
    d_shape : ndarray, shape (n_sources, 2, 2, 2)
        Derivatives of `shape`; the second axis is q, pa.
    """
    one, zero, c, s = np.ones_like(q), np.zeros_like(q), np.cos(pa), np.sin(pa)
    rotation, d_rotation = _matrices(c, -s, s, c), _matrices(-s, -c, c, -s)
    stretch, d_stretch = _matrices(1 / q, zero, zero, q), _matrices(-1 / q**2, zero, zero, one)
    T = D @ rotation @ stretch
    dT = np.stack([D @ rotation @ d_stretch, D @ d_rotation @ stretch], axis=1)
    half = dT @ T[:, None].swapaxes(-1, -2)
    return T @ T.swapaxes(-1, -2), half + half.swapaxes(-1, -2)


def _matrices(xx: Float, xy: Float, yx: Float, yy: Float) -> Float:
    """Make 2x2 matrices of arrays of their elements."""
    return np.stack([xx, xy, yx, yy], axis=-1).reshape(*xx.shape, 2, 2)


def _column(proposal: npt.NDArray[Any], name: str) -> Float:
    """Take one field of the sources in float64."""
    return np.asarray(proposal[name], np.float64)


def _stack(psf: npt.NDArray[Any], *names: str) -> Float:
    """Take some fields of PSF Gaussians as the last axis, in float64."""
    return np.stack([psf[name].astype(np.float64) for name in names], axis=-1)
