"""The likelihood on the host: compiled by Numba, on all cores that the process may use."""

import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.jit import compiled_module
from fpgpu.layout import NPARAMS, PSF_DTYPE, SOURCE_DTYPE
from fpgpu.likelihood.evaluation import Sums
from fpgpu.likelihood.reference import evaluate as evaluate_reference

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

            def part(first: int, step: int, of: Any = (columns[some], chi2, slopes)) -> None:
                columns, chi2, slopes = of
                compiled.evaluate_works(
                    works, first, step, pixels, out, patch, columns, psf_per_source, chi2, slopes
                )

            _run(part, min(threads, chi2.size))
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


def n_threads() -> int:
    """Tell how many threads an evaluation takes.

    Returns
    -------
    int
        What `set_threads` or the environment variable ``FPGPU_THREADS`` says; by default the cores
        that the process may use, as its affinity is now.
    """
    asked = _asked or int(os.environ.get("FPGPU_THREADS") or 0)
    if asked > 0:
        return asked
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(number: int | None) -> None:
    """Say how many threads an evaluation takes, in this process.

    Parameters
    ----------
    number : int or None
        At least 1; None for as many as there are cores for the process.

    Raises
    ------
    ValueError
        When it is less than 1.
    """
    global _asked
    if number is not None and number < 1:
        raise ValueError(f"{number} threads; give at least 1, or None for one a core")
    _asked = number


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


_asked: int | None = None
_pool: ThreadPoolExecutor | None = None


def _run(part: Callable[[int, int], None], n_parts: int) -> None:
    """Call ``part(k, n_parts)`` for each k at the same time."""
    global _pool
    if n_parts <= 1:
        if n_parts:
            part(0, 1)
        return
    if _pool is None:
        # It starts threads as they are needed; more than any evaluation takes does no harm.
        _pool = ThreadPoolExecutor(256, thread_name_prefix="fpgpu-likelihood")
    waiting = [_pool.submit(part, k, n_parts) for k in range(1, n_parts)]
    part(0, n_parts)
    for future in waiting:
        future.result()


def _forget_threads() -> None:
    """Threads do not live on in a forked process."""
    global _pool
    _pool = None


os.register_at_fork(after_in_child=_forget_threads)
