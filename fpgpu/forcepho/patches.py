"""The patches that take the place of forcepho's, with its models; importing this imports forcepho.

The classes of fpgpu come first among the bases: forcepho's give what is built on them, such as
``prepare_model``, ``subtract_fixed``, ``design_matrix``, ``set_scene`` and ``split_pix``.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from fpgpu.backends.choose import BackendName
from fpgpu.forcepho.packing import StorePatch
from fpgpu.forcepho.proposer import GPUProposer, Proposer
from fpgpu.forcepho.upstream import forcepho_module, require_same_layout

__all__ = ["CPUPatch", "GPUPatch"]

require_same_layout()

if TYPE_CHECKING:

    class _Models: ...

    class _Scenes: ...
else:
    _Models = forcepho_module("patches.device_patch").DevicePatchMixin
    _Scenes = forcepho_module("patches.patch").Patch


class CPUPatch(StorePatch, _Models, _Scenes):
    """A patch in host memory for forcepho's models.

    In place of ``class CPUStorePatch(StorePatch, CPUPatchMixin)`` of forcepho. The parameters are
    those of `fpgpu.forcepho.packing.StorePatch`.
    """

    backend_name: ClassVar[BackendName] = "cpu"

    buffer_sizes: ClassVar[Mapping[str, int]] = MappingProxyType({})
    """forcepho's, which has no entries there either."""

    def get_proposer(self) -> Any:
        """Make a proposer, as the parameter ``kernel`` says.

        Returns
        -------
        Proposer or forcepho.proposal.CPUProposer
            To be called as ``evaluate_proposal(proposal, patch=...)``.

        Raises
        ------
        ForcephoMissingError
            When forcepho's kernel is wanted and was not compiled.
        """
        if self.kernel == "fpgpu":
            return Proposer()
        forcepho_module("src.compute_gaussians_kernel")
        return forcepho_module("proposal").CPUProposer()


class GPUPatch(StorePatch, _Models, _Scenes):
    """A patch in device memory for forcepho's models, without PyCUDA.

    In place of ``JadesPatch`` of forcepho. The parameters are those of
    `fpgpu.forcepho.packing.StorePatch`.
    """

    backend_name: ClassVar[BackendName] = "cuda"

    def get_proposer(self) -> GPUProposer | Proposer:
        """Make a proposer, as the parameter ``kernel`` says.

        Returns
        -------
        Proposer or GPUProposer
            To be called as ``evaluate_proposal(proposal, patch=...)``.

        Raises
        ------
        KernelCompileError
            When the kernel does not compile.
        """
        return Proposer() if self.kernel == "fpgpu" else GPUProposer(self.backend)
