"""The CPU backend is a backend."""

import os
import sys

import pytest

from fpgpu.backends.cpu import CpuBackend
from tests.backends.conformance_memory import MemoryConformance
from tests.backends.conformance_operations import OperationsConformance
from tests.backends.conformance_patches import PatchConformance
from tests.backends.conformance_refusals import RefusalConformance


@pytest.fixture
def backend() -> CpuBackend:
    return CpuBackend()


class TestCpuMemory(MemoryConformance): ...


class TestCpuOperations(OperationsConformance): ...


class TestCpuRefusals(RefusalConformance): ...


class TestCpuPatches(PatchConformance): ...


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
def test_memory_that_only_caches_files_counts_as_free(
    backend: CpuBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.sysconf
    # As if every page that is not used by programs held a part of some file that was read.
    monkeypatch.setattr(os, "sysconf", lambda name: 0 if name == "SC_AVPHYS_PAGES" else real(name))
    state = backend.memory_state()
    assert 0 < state.free <= state.total
