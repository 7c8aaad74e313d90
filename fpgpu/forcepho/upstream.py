"""forcepho itself: imported here and nowhere else, and checked against the layouts of fpgpu."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np

from fpgpu.errors import ForcephoMissingError, LayoutError
from fpgpu.layout import PATCH_DTYPE, PSF_DTYPE, RESPONSE_DTYPE, SOURCE_DTYPE

__all__ = ["forcepho_module", "require_same_layout", "source_folder"]

INSTALL = "pip install git+https://github.com/bd-j/forcepho (it compiles a C++ extension)"

KERNEL = "forcepho.src.compute_gaussians_kernel"


def forcepho_module(name: str = "") -> ModuleType:
    """Import forcepho, or a module of it."""
    path = f"forcepho.{name}" if name else "forcepho"
    try:
        import_module("forcepho")
        return import_module(path)
    except ModuleNotFoundError as error:
        if error.name == "forcepho":
            problem = "forcepho is not installed; fpgpu.forcepho needs it"
        elif error.name == KERNEL:
            problem = "forcepho is installed without its compiled CPU kernel"
        else:
            raise ForcephoMissingError(
                f"{path} cannot be imported because it needs {error.name}, which is not installed:"
                f" pip install {error.name}"
            ) from error
        raise ForcephoMissingError(f"{problem}: {INSTALL}") from error


def source_folder() -> Path:
    """Find the kernel sources of the installed forcepho."""
    return Path(forcepho_module().source_dir)


def require_same_layout() -> None:
    """Make sure that the installed forcepho and fpgpu agree about every struct."""
    proposal = forcepho_module("proposal")
    theirs = {
        "Patch": (forcepho_module("patches.patch").PatchBase.patch_struct_dtype, PATCH_DTYPE),
        "PSFSourceGaussian": (forcepho_module("patches.storage").PSF_DTYPE, PSF_DTYPE),
        "Source": (proposal.source_struct_dtype, SOURCE_DTYPE),
        "Response": (proposal.response_struct_dtype, RESPONSE_DTYPE),
    }
    for name, (found, expected) in theirs.items():
        if np.dtype(found) != expected:
            raise LayoutError(
                f"the struct {name} of the installed forcepho {forcepho_module().__version__} is"
                f" {found}; fpgpu is written for {expected}, as in forcepho 0.7"
            )
