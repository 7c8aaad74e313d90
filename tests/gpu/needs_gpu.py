"""Skips a whole module where there is no usable device, and says why."""

import pytest

from fpgpu.backends.availability import cuda_status

status = cuda_status()
if status.problem is not None:
    pytest.skip(f"needs a GPU: {status.problem}", allow_module_level=True)
