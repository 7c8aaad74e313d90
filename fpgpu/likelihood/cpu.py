"""The likelihood on the host: compiled by Numba, on all cores that the process may use."""

import logging
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.jit import compiled_module
from fpgpu.layout import NPARAMS, PSF_DTYPE, SOURCE_DTYPE
from fpgpu.likelihood.evaluation import Sums
from fpgpu.likelihood.reference import evaluate as evaluate_reference
from fpgpu.threads import in_threads, n_threads, set_threads

__all__ = ["HostLikelihood", "n_threads", "set_threads"]

logger = logging.getLogger(__name__)

WORK_PIXELS = 256 * 64
"""Pixels of one exposure whose sums are taken together, of one thread."""

WORTH_A_THREAD = 2e4
"""Pixels times Gaussians, by 64, from which on several threads are quicker than one."""

MOST_PARTIAL_SUMS = 1 << 23
"""Numbers, 64 MiB, that the works of the scenes evaluated together may leave."""

_PIXELS = ("data", "ierr", "xpix", "ypix")
_METADATA = ("D", "CW", "crpix", "crval", "G", "rad2")


class HostLikelihood:
    """Evaluates scenes on the arrays of one patch in host memory.

    Parameters
    ----------
    arrays : mapping
        Host arrays under the names of the fields of `fpgpu.layout.PATCH_DTYPE`, in its dtypes and
        fitting together; ``psfgauss`` may come as words. They are read at every evaluation, and
        ``residual`` is written if it is asked for.
    """

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        n_sources, n_radii = arrays["D"].shape[1], len(arrays["rad2"])
        psf = arrays["psfgauss"].reshape(-1).view(PSF_DTYPE)
        counts = {"n_sources": n_sources, "n_radii": n_radii}
        self._arrays = {**arrays, **counts, "psfgauss": psf}
        self._works = _cut(arrays)
        n_gaussians = arrays["n_psf_per_source"].astype(np.int64) * n_sources
        self._effort = float((n_gaussians[self._works[:, 1]] * self._works[:, 3]).sum()) / 64

    def evaluate(
        self, batch: npt.NDArray[Any], *, psf_per_source: bool, residual: bool = False
    ) -> Sums:
        """Evaluate scenes.

        Parameters
        ----------
        batch : ndarray of SOURCE_DTYPE, shape (n_batch, n_sources)
            Not checked: what is NaN, or no source, gives NaN.
        psf_per_source : bool
            Whether each source has its own PSF, or all the first one's.
        residual : bool, optional
            Whether the residual is written; of one scene.

        Returns
        -------
        Sums
            The same for a scene alone or in a batch, and for any number of threads.
        """
        compiled = compiled_kernel()
        if compiled is None:
            return self._by_reference(batch, psf_per_source, residual)
        arrays, works = self._arrays, self._works
        n_batch, n_sources = batch.shape
        n_bands = len(arrays["band_N"])
        psf = arrays["psfgauss"].view(np.float32).reshape(-1, 7)
        pixels = tuple(arrays[name] for name in _PIXELS)
        patch = (
            *(arrays[name] for name in _METADATA),
            *(psf, psf.view(np.int32)[:, 6], arrays["psfgauss_start"], arrays["n_psf_per_source"]),
        )
        out = arrays["residual"] if residual else np.empty(0, np.float32)
        columns = np.ascontiguousarray(batch, SOURCE_DTYPE).view(np.float32)
        columns = columns.reshape(n_batch, n_sources, SOURCE_DTYPE.itemsize // 4)
        found = Sums(
            np.zeros((n_batch, n_bands)),
            np.zeros((n_batch, n_bands, n_sources, NPARAMS), np.float32),
        )
        at_once = max(1, MOST_PARTIAL_SUMS // max(1, len(works) * n_sources * NPARAMS))
        for start in range(0, n_batch, at_once):
            some = slice(start, min(start + at_once, n_batch))
            chi2 = np.zeros((some.stop - start, len(works)))
            slopes = np.zeros((*chi2.shape, n_sources, NPARAMS))
            threads = 1 if self._effort * len(chi2) < WORTH_A_THREAD else n_threads()

            step = min(threads, chi2.size)
            of = columns[some], psf_per_source, chi2, slopes

            def part(first: int, step: int = step, of: Any = of) -> None:
                compiled.evaluate_works(works, first, step, pixels, out, patch, *of)

            in_threads(part, step)
            compiled.add_up(works, chi2, slopes, found.chi2[some], found.derivatives[some])
        return found

    def _by_reference(self, batch: npt.NDArray[Any], psf_per_source: bool, residual: bool) -> Sums:
        """Evaluate without Numba."""
        found = [
            evaluate_reference(self._arrays, scene, psf_per_source=psf_per_source)
            for scene in batch
        ]
        if residual:
            self._arrays["residual"][...] = found[0].residual
        n_bands, n_sources = len(self._arrays["band_N"]), batch.shape[1]
        chi2 = np.array([one.chi2 for one in found]).reshape(len(batch), n_bands)
        slopes = np.array([one.derivatives for one in found], np.float32)
        return Sums(chi2, slopes.reshape(len(batch), n_bands, n_sources, NPARAMS))


def compiled_kernel() -> ModuleType | None:
    """Import the compiled likelihood, None where it cannot be."""
    return compiled_module(
        "fpgpu.likelihood.compiled", "the likelihood is evaluated by NumPy, 100 times slower"
    )


def _cut(arrays: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """Cut the pixels into works: exposure, band, first pixel, number of pixels."""
    rows = []
    for band, (first, number) in enumerate(
        zip(arrays["band_start"].tolist(), arrays["band_N"].tolist(), strict=True)
    ):
        for exposure in range(first, first + number):
            start, count = (int(arrays[f"exposure_{what}"][exposure]) for what in ("start", "N"))
            for begin in range(0, count, WORK_PIXELS):
                rows.append((exposure, band, start + begin, min(WORK_PIXELS, count - begin)))
    return np.array(rows, np.int64).reshape(-1, 4)
