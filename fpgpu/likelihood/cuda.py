"""The likelihood on a CUDA device: one upload, three kernels and one download a call."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.backends.launches import EVALUATE_WORKS, TILE_PIXELS, evaluate_launches
from fpgpu.layout import EVALUATE_WORK_DTYPE, IMAGE_GAUSSIAN_DTYPE, NPARAMS, SOURCE_DTYPE
from fpgpu.likelihood.evaluation import Sums

__all__ = ["DeviceLikelihood"]

SCRATCH_BYTES = 256 << 20
"""Device memory that the partial sums of the scenes evaluated together may take."""

_MOMENTS = 6 * 4  # bytes a Gaussian and work, as evaluate.cu leaves them


class DeviceLikelihood:
    """Evaluates scenes on a patch in the memory of a CUDA device.

    Parameters
    ----------
    backend : CudaBackend
        Where the patch lives.
    pointer : int
        Address of its ``Patch`` struct.
    metadata : mapping of str to ndarray
        Its arrays on the host, but the pixels.
    """

    def __init__(self, backend: Any, pointer: int, metadata: Mapping[str, Any]) -> None:
        self._backend = backend
        self._pointer = np.uint64(pointer)
        n_exp, self._n_sources = metadata["D"].shape[:2]
        self._n_bands = len(metadata["band_N"])
        bands = np.repeat(np.arange(self._n_bands), metadata["band_N"])
        widths = metadata["n_psf_per_source"][bands].astype(np.int64) * self._n_sources
        works, starts = _cut(metadata, bands)
        # One transfer: works first, whose rows are of 16 bytes and must lie at multiples of that.
        tables = (works.view(np.int32), np.cumsum([0, *widths]), bands, starts)
        self._tables = backend.upload(np.concatenate(tables).astype(np.int32))
        places = backend.address(self._tables) + 4 * np.cumsum([0, *map(len, tables)])
        self._works, self._gauss_start, self._bands, self._starts = places[:4].astype(np.uint64)
        self._n_exp, self._n_works = n_exp, len(works)
        self._n_gaussians, self._widest = int(widths.sum()), int(widths.max(initial=0))
        # Bytes a scene of Gaussians, of chi2 of works, and of their moments, at multiples of 16.
        parts = (
            self._n_gaussians * IMAGE_GAUSSIAN_DTYPE.itemsize,
            self._n_works * 8,
            self._n_works * self._widest * _MOMENTS,
        )
        self._parts = tuple(-(-part // 16) * 16 for part in parts)
        self._scratch_of_scene = sum(self._parts)
        self._room = 0

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
            The same for a scene alone or in a batch, and from run to run.
        """
        found = Sums(
            np.empty((len(batch), self._n_bands)),
            np.empty((len(batch), self._n_bands, self._n_sources, NPARAMS), np.float32),
        )
        most = max(1, SCRATCH_BYTES // max(1, self._scratch_of_scene))
        self._make_room(min(len(batch), most))
        for start in range(0, len(batch), self._room):
            some = slice(start, start + self._room)
            self._evaluate(batch[some], psf_per_source, residual, *(part[some] for part in found))
        return found

    def _make_room(self, n_batch: int) -> None:
        """Have buffers for some scenes, here and there; they are kept."""
        if n_batch <= self._room:
            return
        backend = self._backend
        self._n_in = self._n_sources * SOURCE_DTYPE.itemsize
        self._n_out = self._n_bands * (8 + 4 * self._n_sources * NPARAMS)
        # chi2 first, which needs the stricter alignment.
        self._found = backend.empty((max(n_batch * self._n_out, 1),), np.uint8)
        self._scenes = backend.empty((max(n_batch * self._n_in, 1),), np.uint8)
        self._scratch = backend.empty((max(n_batch * self._scratch_of_scene, 1),), np.uint8)
        self._sent = backend.page_locked(max(n_batch * self._n_in, 1))
        self._received = backend.page_locked(max(n_batch * self._n_out, 1))
        self._room = n_batch

    def _evaluate(
        self,
        batch: npt.NDArray[Any],
        psf_per_source: bool,
        residual: bool,
        chi2: npt.NDArray[Any],
        derivatives: npt.NDArray[Any],
    ) -> None:
        """Evaluate as many scenes as there is room for."""
        backend, n_batch = self._backend, len(batch)
        sent = self._sent[: n_batch * self._n_in]
        sent[...] = np.ascontiguousarray(batch).reshape(-1).view(np.uint8)
        received = self._received[: n_batch * self._n_out]
        address = backend.address
        scenes, to = np.uint64(address(self._scenes)), address(self._found)
        gaussians = address(self._scratch)
        work_chi2 = gaussians + n_batch * self._parts[0]
        moments = work_chi2 + n_batch * self._parts[1]
        slots = [np.uint64(k) for k in (gaussians, moments, work_chi2, to, to + chi2.nbytes)]
        n_exp, n_works, widest, n_bands, per_source, wanted = (
            np.int32(n)
            for n in (
                self._n_exp,
                self._n_works,
                self._widest,
                self._n_bands,
                psf_per_source,
                residual,
            )
        )
        patch = self._pointer
        arguments = (
            (patch, scenes, self._gauss_start, self._bands, n_exp, per_source, slots[0]),
            (patch, slots[0], self._gauss_start, n_exp, self._works, n_works, widest, wanted,
             slots[1], slots[2]),
            (patch, scenes, self._gauss_start, self._starts, n_exp, n_works, widest, n_bands,
             per_source, *slots[1:]),
        )  # fmt: skip
        launches = evaluate_launches(
            self._n_gaussians, self._n_works, self._n_sources, self._n_bands, n_batch
        )
        calls = [
            (launch.checked(backend.limits), values)
            for launch, values in zip(launches, arguments, strict=True)
            if 0 not in launch.grid
        ]
        backend.exchange(sent, int(scenes), calls, to, received)
        chi2[...] = received[: chi2.nbytes].view(np.float64).reshape(chi2.shape)
        derivatives[...] = received[chi2.nbytes :].view(np.float32).reshape(derivatives.shape)


def _cut(
    metadata: Mapping[str, Any], bands: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Cut the pixels into works, and tell the first work of each exposure."""
    starts = metadata["exposure_start"].astype(np.int64)
    counts = metadata["exposure_N"].astype(np.int64)
    tiles = -(-counts // TILE_PIXELS)
    step = TILE_PIXELS * max(1, -(-int(tiles.sum()) // EVALUATE_WORKS))
    per_exposure = -(-counts // step)
    first = np.cumsum([0, *per_exposure])
    exposure = np.repeat(np.arange(len(counts)), per_exposure)
    within = step * (np.arange(first[-1]) - first[exposure])
    works = np.zeros(first[-1], EVALUATE_WORK_DTYPE)
    works["exposure"], works["band"] = exposure, bands[exposure]
    works["first_pixel"] = starts[exposure] + within
    works["n_pixels"] = np.minimum(step, counts[exposure] - within)
    return works, first
