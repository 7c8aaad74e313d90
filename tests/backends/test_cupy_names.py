"""What is used of CuPy, and what its stand-in offers, is there in the real one; needs no GPU."""

import ast
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fpgpu.backends
from fpgpu.backends import availability
from tests.backends import standin_cupy

OWNERS = ("availability", "cuda", "devicememory")
DEVICE_ATTRIBUTES = (
    "MaxThreadsPerBlock",
    "MaxSharedMemoryPerBlock",
    "MaxSharedMemoryPerBlockOptin",
)


@pytest.fixture(scope="module")
def cupy() -> Any:
    try:
        return availability.import_cupy()
    except ImportError as error:
        pytest.skip(f'CuPy cannot be imported: {error}; pip install -e ".[cuda12]"')


def names_used(module: str) -> Iterator[str]:
    """Every ``cupy.x.y`` in a module of the package, as ``x.y``."""
    text = (Path(fpgpu.backends.__file__).parent / f"{module}.py").read_text()
    for node in ast.walk(ast.parse(text)):
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.insert(0, node.attr)
            node = node.value
        if parts and isinstance(node, ast.Name) and node.id in ("cp", "cupy"):
            yield ".".join(parts)


def names_offered(offered: Any, prefix: str = "") -> Iterator[str]:
    """Everything public in the stand-in, members of classes included."""
    for name, value in vars(offered).items():
        if not name.startswith("_"):
            yield prefix + name
            is_class = isinstance(value, type) and not issubclass(value, Exception)
            if is_class or isinstance(value, types.SimpleNamespace | types.ModuleType):
                yield from names_offered(value, f"{prefix}{name}.")


def missing(cupy: Any, names: Iterator[str]) -> set[str]:
    found = set()
    for name in names:
        there = cupy
        for part in name.split("."):
            there = getattr(there, part, None)
        if there is None:
            found.add(name)
    return found


@pytest.mark.parametrize("module", OWNERS)
def test_every_name_used_is_there(cupy: Any, module: str) -> None:
    assert len(set(names_used(module))) >= 5
    assert missing(cupy, names_used(module)) == set()


def test_every_name_of_the_stand_in_is_there(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standin_cupy._state, "kernels", None)
    offered = list(names_offered(standin_cupy.make_module(None)))
    assert {"ndarray.reshape", "cuda.Stream.wait_event", "cuda.runtime.memcpyAsync"} < set(offered)
    assert missing(cupy, iter(offered)) == set()
    for part in ("Module", "Function"):
        offered = names_offered(getattr(standin_cupy, part), f"cuda.function.{part}.")
        assert missing(cupy, offered) == set()
    assert hasattr(cupy.cuda.function.Function, "ptr")


def test_limits_of_a_device_are_known_by_these_names(cupy: Any) -> None:
    for name in (*DEVICE_ATTRIBUTES, *(f"MaxGridDim{axis}" for axis in "XYZ")):
        assert hasattr(cupy.cuda.runtime, f"cudaDevAttr{name}")


def test_the_number_of_the_error_of_memory_that_runs_out(cupy: Any) -> None:
    from fpgpu.backends.devicememory import _OUT_OF_MEMORY

    error = cupy.cuda.runtime.CUDARuntimeError(_OUT_OF_MEMORY)
    assert error.status == _OUT_OF_MEMORY
    assert "cudaErrorMemoryAllocation" in str(error)
    assert issubclass(cupy.cuda.memory.OutOfMemoryError, MemoryError)


def test_views_of_memory_are_what_the_stand_ins_are(cupy: Any) -> None:
    host = np.zeros(4096, np.uint8)
    made = []
    for module in (cupy, standin_cupy):
        cuda = getattr(module, "cuda", module)
        memory = cuda.UnownedMemory(host.ctypes.data, host.nbytes, host, 0)
        array = module.ndarray((4, 8), np.dtype("f4"), cuda.MemoryPointer(memory, 128))
        for view in (array, array[1:3], array[2], array[4:], array.reshape(-1)):
            assert view.flags.c_contiguous
            at = view.data.ptr - host.ctypes.data
            made.append((view.shape, view.dtype, view.nbytes, view.strides, view.device.id, at))
    half = len(made) // 2
    assert made[:half] == made[half:]
