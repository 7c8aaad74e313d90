"""Patches on a few small stamps, plain and random, in float64 so that differences can be taken."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.layout import PSF_DTYPE, SOURCE_DTYPE

Float = npt.NDArray[np.float64]
Arrays = dict[str, Any]

WIDE_SOURCE = np.dtype(
    [(name, np.float64, SOURCE_DTYPE[name].shape) for name in SOURCE_DTYPE.names or ()]
)
"""A source whose parameters can change by less than float32 resolves."""


def stamp(nx: int, ny: int) -> tuple[Float, Float]:
    """Pixel coordinates of a stamp, flat."""
    x, y = np.meshgrid(np.arange(nx, dtype=float), np.arange(ny, dtype=float), indexing="ij")
    return x.ravel(), y.ravel()


def blank_patch(
    nx: int = 12,
    ny: int = 10,
    *,
    n_exp: tuple[int, ...] = (1,),
    n_sources: int = 1,
    n_radii: int = 1,
    n_psf: int = 1,
) -> Arrays:
    """A patch of zeros: stamps of 1 pixel per arcsec and degree, point-like radii, round PSFs."""
    total, n_bands = sum(n_exp), len(n_exp)
    x, y = stamp(nx, ny)
    psf = np.zeros((total, n_sources, n_psf), PSF_DTYPE)
    psf["amp"], psf["Cxx"], psf["Cyy"] = 1 / n_psf, 4.0, 4.0
    return {
        "data": np.zeros(total * nx * ny),
        "ierr": np.ones(total * nx * ny),
        "xpix": np.tile(x, total),
        "ypix": np.tile(y, total),
        "exposure_start": np.arange(total) * nx * ny,
        "exposure_N": np.full(total, nx * ny),
        "band_start": np.cumsum((0, *n_exp[:-1])),
        "band_N": np.array(n_exp),
        "n_sources": n_sources,
        "n_radii": n_radii,
        "rad2": np.zeros(n_radii),
        "D": np.tile(np.eye(2), (total, n_sources, 1, 1)),
        "CW": np.tile(np.eye(2), (total, n_sources, 1, 1)),
        "crpix": np.zeros((total, n_sources, 2)),
        "crval": np.zeros((total, n_sources, 2)),
        "G": np.ones(total),
        "n_psf_per_source": np.full(n_bands, n_psf),
        "psfgauss": psf.reshape(-1),
        "psfgauss_start": np.arange(total) * n_sources * n_psf,
    }


def plain_sources(n_sources: int = 1, **parameters: npt.ArrayLike) -> npt.NDArray[Any]:
    """Round sources at the reference with all light in the first radius, unless told otherwise."""
    sources = np.zeros(n_sources, WIDE_SOURCE)
    sources["q"] = 1.0
    sources["fluxes"] = 1.0
    sources["mixture_amplitudes"][:, 0] = 1.0
    for name, value in parameters.items():
        sources[name] = value
    return sources


def random_scene(rng: np.random.Generator) -> tuple[Arrays, npt.NDArray[Any]]:
    """A noisy patch of one to three exposures in two bands, and sources that do not fit it."""
    n_sources, n_radii, n_psf = (int(n) for n in rng.integers((1, 1, 1), (4, 4, 6)))
    n_exp = (int(rng.integers(1, 3)), int(rng.integers(0, 2)))
    arrays = blank_patch(n_exp=n_exp, n_sources=n_sources, n_radii=n_radii, n_psf=n_psf)
    total = sum(n_exp)
    arrays["data"] = rng.normal(0, 0.3, arrays["data"].shape)
    arrays["ierr"] = rng.uniform(0, 3, arrays["ierr"].shape)
    arrays["rad2"] = rng.uniform(0, 1.0, n_radii)
    arrays["G"] = rng.uniform(0.5, 2, total)
    for name, scale in (("D", 2.0), ("CW", 5000.0)):
        arrays[name] = scale * (np.eye(2) + rng.uniform(-0.3, 0.3, (total, n_sources, 2, 2)))
    arrays["crpix"] = rng.uniform(2, 9, (total, n_sources, 2))
    arrays["crval"] = rng.normal(0, 1e-4, (total, n_sources, 2))
    psf = arrays["psfgauss"]
    psf["amp"] = rng.uniform(0.1, 1, psf.shape)
    psf["xcen"], psf["ycen"] = rng.normal(0, 0.3, (2, *psf.shape))
    psf["Cxx"], psf["Cyy"] = rng.uniform(0.6, 8, (2, *psf.shape))
    psf["Cxy"] = rng.uniform(-0.5, 0.5, psf.shape)
    psf["sersic_bin"] = rng.integers(0, n_radii, psf.shape)
    return arrays, random_sources(rng, n_sources)


def random_sources(rng: np.random.Generator, n_sources: int) -> npt.NDArray[Any]:
    """Sources within a pixel or so of where `random_scene` puts them."""
    sources = plain_sources(n_sources)
    sources["ra"], sources["dec"] = rng.normal(0, 1e-4, (2, n_sources))
    sources["q"] = rng.uniform(0.5, 1, n_sources)
    sources["pa"] = rng.uniform(-2, 2, n_sources)
    sources["fluxes"] = rng.uniform(1, 20, sources["fluxes"].shape)
    sources["mixture_amplitudes"] = rng.uniform(0.05, 1, sources["mixture_amplitudes"].shape)
    for name in ("damplitude_drh", "damplitude_dnsersic"):
        sources[name] = rng.normal(0, 1, sources[name].shape)
    return sources
