"""Skips a whole module where forcepho or its compiled kernel is not installed, and says why."""

import warnings

import pytest

from fpgpu.errors import ForcephoMissingError
from fpgpu.forcepho.upstream import forcepho_module

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # forcepho's own sources warn where they are compiled
        for module in ("src.compute_gaussians_kernel", "patches", "model", "fitting"):
            forcepho_module(module)
except ForcephoMissingError as error:
    pytest.skip(f"needs forcepho: {error}", allow_module_level=True)
