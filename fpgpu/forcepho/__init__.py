"""Drop-in classes for forcepho's fit loop: its model and kernels on patches that fpgpu builds.

Nothing else in fpgpu needs forcepho, and it is imported when one of the names below is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fpgpu.forcepho.patches import CPUPatch as CPUPatch
    from fpgpu.forcepho.patches import GPUPatch as GPUPatch
    from fpgpu.forcepho.proposer import GPUProposer as GPUProposer
    from fpgpu.forcepho.proposer import Proposer as Proposer

_HOME = {
    "CPUPatch": "fpgpu.forcepho.patches",
    "GPUPatch": "fpgpu.forcepho.patches",
    "GPUProposer": "fpgpu.forcepho.proposer",
    "Proposer": "fpgpu.forcepho.proposer",
}

__all__ = ["CPUPatch", "GPUPatch", "GPUProposer", "Proposer"]


def __getattr__(name: str) -> Any:
    """Load the module that defines `name`, and forcepho with it, and return the object."""
    if name not in _HOME:
        raise AttributeError(f"module 'fpgpu.forcepho' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
