"""Patches of super-pixels in the dtypes of the struct, as `Survey.patch` packs them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.layout import PATCH_ARRAYS, PSF_DTYPE, SOURCE_DTYPE
from fpgpu.likelihood.reference import evaluate

Arrays = dict[str, Any]

FAINT = 1e-3
"""A band whose brightest pixel is fainter, with noise of some 0.3, sees the tails of sources alone.
There an exponent is 18 rather than 1, and single precision leaves it to 6e-6 of the light."""


def superpixel_scene(
    rng: np.random.Generator,
    *,
    n_exp: tuple[int, ...] = (2, 1),
    n_sources: int = 3,
    n_psf: tuple[int, ...] = (9, 4),
    n_superpixels: int = 12,
    n_radii: int = 4,
    width: float = 3.0,
    spread: float = 12.0,
) -> tuple[Arrays, npt.NDArray[Any]]:
    """Super-pixels near (1000, 900) on each exposure, and sources of some pixels' width there.

    ``width`` is the largest of a source's standard deviations in pixels, and ``spread`` how far
    from the middle it may lie. Some pixels have no weight, and an exposure may have no pixels.
    """
    total = sum(n_exp)
    per_exposure = rng.integers(0, n_superpixels + 1, total)
    per_exposure[0] = max(per_exposure[0], 1)
    counts = 64 * per_exposure
    places = [np.argwhere(np.ones((5, 6), bool))[rng.permutation(30)[:n]] for n in per_exposure]
    corners = 8 * (np.concatenate(places) + np.array([123, 110]))
    k = np.arange(64)
    psf_of = np.repeat(n_psf, n_exp)
    lengths = psf_of * n_sources
    psf = np.zeros(lengths.sum(), PSF_DTYPE)
    psf["amp"] = rng.uniform(0.1, 1, psf.shape) / np.repeat(psf_of, lengths)
    psf["xcen"], psf["ycen"] = rng.normal(0, 0.3, (2, *psf.shape))
    psf["Cxx"], psf["Cyy"] = rng.uniform(0.3, 6, (2, *psf.shape))
    psf["Cxy"] = rng.uniform(-0.8, 0.8, psf.shape) * np.sqrt(psf["Cxx"] * psf["Cyy"])
    psf["sersic_bin"] = rng.integers(0, n_radii, psf.shape)
    D = rng.uniform(10, 33) * (np.eye(2) + rng.uniform(-0.3, 0.3, (total, n_sources, 2, 2)))
    values = {
        "data": rng.normal(0, 0.3, counts.sum()),
        "ierr": rng.uniform(0.2, 3, counts.sum()) * (rng.uniform(size=counts.sum()) > 0.1),
        "xpix": (corners[:, :1] + k // 8).ravel(),
        "ypix": (corners[:, 1:] + k % 8).ravel(),
        "residual": np.full(counts.sum(), np.nan),
        "exposure_start": np.cumsum(counts) - counts,
        "exposure_N": counts,
        "band_start": np.cumsum((0, *n_exp[:-1])),
        "band_N": n_exp,
        "rad2": (np.linspace(0, width, n_radii) / 30) ** 2,
        "D": D,
        "crpix": np.array([1004.0, 904.0]) + rng.uniform(-spread, spread, (total, n_sources, 2)),
        "crval": rng.normal(0, 1e-6, (total, n_sources, 2)),
        "CW": 3600 * D,
        "G": rng.uniform(0.5, 2, total),
        "n_psf_per_source": n_psf,
        "psfgauss": psf,
        "psfgauss_start": np.cumsum(lengths) - lengths,
    }
    arrays: Arrays = {k: np.ascontiguousarray(v, PATCH_ARRAYS[k]) for k, v in values.items()}
    return arrays | {"n_sources": n_sources, "n_radii": n_radii}, scene_of(rng, n_sources)


def scene_of(rng: np.random.Generator, n_sources: int) -> npt.NDArray[Any]:
    """Sources within a pixel or so of where `superpixel_scene` puts them."""
    sources = np.zeros(n_sources, SOURCE_DTYPE)
    sources["ra"], sources["dec"] = rng.normal(0, 1e-5, (2, n_sources))
    sources["q"] = rng.uniform(0.4, 0.95, n_sources)
    sources["pa"] = rng.uniform(-2, 2, n_sources)
    sources["fluxes"] = rng.uniform(1, 20, sources["fluxes"].shape)
    sources["mixture_amplitudes"] = rng.uniform(0.05, 1, sources["mixture_amplitudes"].shape)
    for name in ("damplitude_drh", "damplitude_dnsersic"):
        sources[name] = rng.normal(0, 1, sources[name].shape)
    return sources


def assert_as_judged(
    arrays: Arrays,
    proposal: npt.NDArray[Any],
    chi2: npt.NDArray[Any],
    derivatives: npt.NDArray[Any],
    residual: npt.NDArray[Any] | None = None,
    *,
    psf_per_source: bool = True,
) -> None:
    """Hold what one scene gave against the judge.

    Chi2 within 1e-6 of the sum of its terms, derivatives within 1e-4 of the largest by the same
    parameter (in one band they may cancel to nothing), residuals within 1e-5 of the peak.
    """
    judged = evaluate(arrays, proposal, psf_per_source=psf_per_source)
    r, d, w = (np.asarray(v, float) for v in (judged.residual, arrays["data"], arrays["ierr"]))
    terms = abs((r - d) * (r + d) * w**2)
    limit = 1e-4 * abs(judged.derivatives).max(axis=(0, 1), initial=0)
    for band, (first, number) in enumerate(
        zip(arrays["band_start"], arrays["band_N"], strict=True)
    ):
        exposures = slice(first, first + number)
        pixels = [
            np.arange(start, start + count)
            for start, count in zip(
                arrays["exposure_start"][exposures], arrays["exposure_N"][exposures], strict=True
            )
        ]
        mine = np.concatenate([np.arange(0), *pixels])
        is_faint = abs(judged.model[mine]).max(initial=0) < FAINT
        size = (6e-6 if is_faint else 1e-6) * terms[mine].sum()
        assert abs(chi2[band] - judged.chi2[band]) <= size
        off = abs(derivatives[band] - judged.derivatives[band])
        assert (off <= limit).all(), (off / limit).max(axis=0)
        if residual is not None and len(mine):
            peak = max(abs(judged.model[mine]).max(), abs(d[mine]).max())
            assert abs(residual[mine] - r[mine]).max() <= 1e-5 * peak
