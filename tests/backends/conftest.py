"""Fixtures shared by the tests of every backend."""

from typing import Any

import pytest

from tests.backends import standin_cupy
from tests.backends.conformance_operations import guarded as guarded
from tests.kernels.host_kernels import HostKernels, has_compiler


@pytest.fixture(scope="session")
def n_patches(long_form: bool) -> int:
    """How many patches come and go in a test of leaks."""
    return 5000 if long_form else 100


@pytest.fixture(scope="session")
def cuda_class(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The CUDA backend over a stand-in for CuPy; its kernels run on the CPU."""
    if not has_compiler():
        pytest.skip("kernels cannot run on the CPU: g++ is not installed")
    return standin_cupy.install(HostKernels(tmp_path_factory.mktemp("standin_kernels")))
