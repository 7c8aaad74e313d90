"""What forcepho's models ask for the likelihood of a proposal; importing this imports forcepho."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fpgpu.backends.base import Backend
from fpgpu.errors import BackendUnavailableError, LayoutError
from fpgpu.forcepho.kernel import OPTIONS, kernel_launch, kernel_text
from fpgpu.forcepho.upstream import forcepho_module, source_folder
from fpgpu.layout import MAXSOURCES, NPARAMS, SOURCE_DTYPE

__all__ = ["GPUProposer", "Proposer"]

if TYPE_CHECKING:

    class _ProposerBase:
        def unpack_residuals(
            self, residuals_flat: npt.NDArray[Any], patch: Any
        ) -> list[npt.NDArray[Any]]: ...
else:
    _ProposerBase = forcepho_module("proposal").ProposerBase


class _Evaluating(_ProposerBase):
    """What both proposers are to forcepho's models; `_evaluate` says how a patch is evaluated."""

    patch: Any

    def evaluate_proposal(
        self,
        proposal: npt.NDArray[Any],
        patch: Any = None,
        verbose: bool = False,
        unpack: bool = True,
    ) -> tuple[Any, ...]:
        """Evaluate the likelihood of a proposal.

        Parameters
        ----------
        proposal : ndarray of SOURCE_DTYPE, shape (n_sources,)
            Parameters of the sources; what is NaN gives NaN, so that a chain goes on.
        patch : CPUPatch or GPUPatch, optional
            Sent to the device.
        verbose : bool, optional
            Accepted for compatibility.
        unpack : bool, optional
            Whether residuals are split by exposure.

        Returns
        -------
        chi2 : ndarray of float64, shape (n_bands,)
            Chi square without its constant part: the sum of ``(r**2 - d**2) / sigma**2``.
        derivatives : ndarray of float32, shape (n_bands, n_sources, 7)
            Of chi square by flux, ra, dec, q, pa, sersic, rhalf.
        residuals : list of ndarray, or ndarray of float32, shape (n_pixels,)
            Data minus model; only when ``patch.return_residual``.

        Raises
        ------
        LayoutError
            When the patch was not sent, or the proposal is not one for its sources.
        KernelLaunchError
            When there are too many Gaussians for the shared memory that forcepho's kernel has.
        KernelCompileError
            When a kernel does not compile.
        """
        patch = self.patch if patch is None else patch
        if patch is None or patch.device_patch is None:
            raise LayoutError("no patch is on the device; call send_to_device() first")
        found = self._evaluate(proposal, patch)
        if not patch.return_residual:
            return found
        residuals = patch.retrieve_array("residual")
        return *found, self.unpack_residuals(residuals, patch) if unpack else residuals

    def _evaluate(self, proposal: npt.NDArray[Any], patch: Any) -> tuple[Any, Any]:
        raise NotImplementedError


class Proposer(_Evaluating):
    """Evaluates proposals with fpgpu's own likelihood, where the patch lives.

    Parameters
    ----------
    patch : CPUPatch or GPUPatch, optional
        What to evaluate on when a call does not say.
    """

    def __init__(self, patch: Any = None) -> None:
        self.patch = patch

    def _evaluate(self, proposal: npt.NDArray[Any], patch: Any) -> tuple[Any, Any]:
        chi2, derivatives = patch.evaluate_unchecked(proposal, residual=patch.return_residual)
        return chi2, derivatives


class GPUProposer(_Evaluating):
    """Evaluates proposals with the kernel of the installed forcepho, compiled by NVRTC.

    Parameters
    ----------
    backend : Backend
        The CUDA backend that the patches live on.
    patch : GPUPatch, optional
        What to evaluate on when a call does not say.
    thread_block : int, optional
        Threads in a block, a multiple of 32.

    Raises
    ------
    BackendUnavailableError
        When the backend is not one of CUDA.
    ForcephoMissingError
        When forcepho has no kernel sources.
    """

    def __init__(self, backend: Backend, patch: Any = None, thread_block: int = 1024) -> None:
        if backend.name != "cuda":
            raise BackendUnavailableError(
                f"forcepho's CUDA kernel cannot run on {backend.description}; use CPUPatch there"
            )
        self.backend: Any = backend
        self.patch = patch
        self.thread_block = thread_block
        self._text = kernel_text(source_folder())

    def _evaluate(self, proposal: npt.NDArray[Any], patch: Any) -> tuple[Any, Any]:
        if proposal.dtype != SOURCE_DTYPE or proposal.shape != (patch.n_sources,):
            raise LayoutError(
                f"the proposal is {proposal.dtype} of shape {proposal.shape}; expected SOURCE_DTYPE"
                f" of shape ({patch.n_sources},)"
            )
        launch = kernel_launch(patch, self.thread_block, self.backend.limits)
        on_device = self.backend.upload(proposal)
        chi2 = self.backend.empty((patch.n_bands,), np.float64)
        response = self.backend.empty((patch.n_bands, MAXSOURCES, NPARAMS), np.float32)
        arguments = (np.uint64(patch.device_patch), on_device, chi2, response)
        self.backend.run_source(self._text, launch, arguments, OPTIONS)
        # The kernel writes the derivatives of the sources there are, and no more.
        return self.backend.download(chi2), self.backend.download(response)[:, : patch.n_sources]
