"""The CUDA backend is a backend, on a real device: the matrix of every backend, bit for bit."""

import pytest

from tests.backends.conformance_memory import MemoryConformance
from tests.backends.conformance_operations import OperationsConformance
from tests.backends.conformance_patches import PatchConformance
from tests.backends.conformance_refusals import RefusalConformance
from tests.gpu import needs_gpu as needs_gpu

pytestmark = pytest.mark.gpu


class TestCudaMemory(MemoryConformance): ...


class TestCudaOperations(OperationsConformance): ...


class TestCudaRefusals(RefusalConformance): ...


class TestCudaPatches(PatchConformance): ...
