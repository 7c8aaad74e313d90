"""A kernel source as one text is the same program."""

import pytest

from fpgpu.backends.compiler import OPTIONS, read_sources, single_file
from fpgpu.backends.launches import STATIC_SHARED_BYTES
from fpgpu.backends.nvrtc import load_nvrtc
from fpgpu.errors import KernelCompileError
from tests.kernels.compiled import compile_once

SOURCES = [name for name in read_sources() if name.endswith(".cu")]


@pytest.mark.parametrize("name", SOURCES)
def test_it_compiles_to_the_same_machine_code(name: str) -> None:
    text = single_file(name)
    assert "#include" not in text
    separate = compile_once(name, 80)
    options = ("--gpu-architecture=sm_80", *OPTIONS)
    assert load_nvrtc().compile(name, text, {}, options).ptx == separate.ptx


def test_compilers_name_the_file_and_line_of_an_error() -> None:
    sources = {"a.cu": '#include "b.cuh"\nint x = ;\n', "b.cuh": "\n\nint y;\n"}
    with pytest.raises(KernelCompileError, match=r"a\.cu\(2\): error"):
        load_nvrtc().compile("a.cu", single_file("a.cu", sources), {}, ())
    sources["b.cuh"] = "\n\nint y = ;\n"
    with pytest.raises(KernelCompileError, match=r"b\.cuh\(3\): error"):
        load_nvrtc().compile("a.cu", single_file("a.cu", sources), {}, ())


def test_every_file_is_included_once() -> None:
    sources = {"a.cu": '#include "b.cuh"\n#include "c.cuh"\n', "b.cuh": "int b;\n"}
    sources["c.cuh"] = '#include "b.cuh"\nint c;\n'
    assert single_file("a.cu", sources).count("int b;") == 1


def test_a_missing_file_is_named_with_who_needs_it() -> None:
    with pytest.raises(KernelCompileError, match=r"a\.cu needs 'b\.cuh', which is not among a\.cu"):
        single_file("a.cu", {"a.cu": '#include "b.cuh"\n'})


@pytest.mark.parametrize("name", SOURCES)
def test_launches_know_the_shared_memory_of_kernels(name: str) -> None:
    for kernel, usage in compile_once(name, 80).usage.items():
        assert STATIC_SHARED_BYTES.get(kernel, 0) == usage.shared_bytes
