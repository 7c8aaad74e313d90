"""Kernel sources: where they are, what identifies them, and their machine code.

A source (`*.cu`) holds one operation under one or two kernel names. Headers (`*.cuh`) are handed
to the compiler by name, among them one that is generated: the static assertions that tie the
structs to `fpgpu.layout`. Nothing is written anywhere.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import NamedTuple

import fpgpu
from fpgpu.backends.nvrtc import load_nvrtc
from fpgpu.errors import BackendUnavailableError, KernelCompileError
from fpgpu.layout import layout_checks

__all__ = [
    "ARCHITECTURES",
    "OPTIONS",
    "CompiledSource",
    "KernelUsage",
    "compile_source",
    "kernel_folder",
    "kernel_names",
    "read_sources",
    "source_digest",
]

ARCHITECTURES = (70, 75, 80, 86, 89, 90, 100, 120)
"""Compute capabilities every kernel is compiled for in the tests: Volta, which CUDA 13 has dropped,
to Blackwell."""

OPTIONS = ("--std=c++17", "--fmad=false", "--ptxas-options=-v")
"""How sources are compiled: nothing fused to multiply-adds; the usage of each kernel told."""

CHECKS_HEADER = "fpgpu_layout_checks.cuh"

_KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\('
)
_ENTRY = re.compile(
    r"Compiling entry function '(\w+)' for 'sm_\w+'(.*?)(?=Compiling entry|\Z)", re.S
)


class KernelUsage(NamedTuple):
    """What one kernel takes of a multiprocessor, as the assembler reports it.

    ``registers`` are per thread, ``shared_bytes`` per block, ``stack_bytes`` and both kinds of
    ``spill_*_bytes`` per thread, in slow local memory.
    """

    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int


@dataclass(frozen=True)
class CompiledSource:
    """Machine code of one source for one architecture."""

    name: str
    arch: int
    options: tuple[str, ...]
    cubin: bytes
    ptx: str
    log: str
    usage: dict[str, KernelUsage]
    """By kernel name."""


def kernel_folder() -> Traversable:
    """Find the kernel sources: in an installed package, else beside the checkout's project file.

    Raises
    ------
    BackendUnavailableError
        When they are in neither place.
    """
    installed = resources.files(fpgpu) / "kernels"
    if installed.is_dir():
        return installed
    checkout = Path(fpgpu.__file__).parent.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "kernels").is_dir():
        return checkout / "kernels"
    raise BackendUnavailableError(
        f"the kernel sources are neither in {installed} nor in {checkout / 'kernels'}; the"
        " installation is incomplete: pip install --force-reinstall fpgpu"
    )


@cache
def read_sources() -> Mapping[str, str]:
    """Read every kernel source and header.

    Returns
    -------
    mapping of str to str
        Text by file name, sorted by name, the generated header included.
    """
    files = {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in kernel_folder().iterdir()
        if entry.name.endswith((".cu", ".cuh"))
    }
    files[CHECKS_HEADER] = layout_checks()
    return dict(sorted(files.items()))


def source_digest() -> str:
    """Return a hexadecimal SHA-256 of all sources, headers and options.

    A cache of machine code must have it in its key: a compiler's own cache does not see that an
    included file changed.
    """
    digest = hashlib.sha256("\0".join(OPTIONS).encode())
    for name, text in read_sources().items():
        digest.update(f"\0{name}\0{text}".encode())
    return digest.hexdigest()


def kernel_names(source: str) -> tuple[str, ...]:
    """List the kernels that a source defines.

    Parameters
    ----------
    source : str
        Text of the source.

    Returns
    -------
    tuple of str
        Names in the order of the text.
    """
    return tuple(_KERNEL.findall(source))


def compile_source(
    name: str,
    arch: int,
    *,
    cuda_major: int | None = None,
    extra_options: tuple[str, ...] = (),
    sources: Mapping[str, str] | None = None,
) -> CompiledSource:
    """Compile one kernel source to machine code; needs no GPU and no driver.

    Parameters
    ----------
    name : str
        File name, as ``"unpack.cu"``.
    arch : int
        Compute capability times ten: 70, 75, ... 120.
    cuda_major : int, optional
        Compile with this version of CUDA, 12 or 13; any, when not given.
    extra_options : tuple of str
        Given to NVRTC after `OPTIONS`.
    sources : mapping of str to str, optional
        Text by file name instead of what `read_sources` returns.

    Returns
    -------
    CompiledSource
        Cubin, PTX, log and the usage of every kernel.

    Raises
    ------
    KernelCompileError
        With log, architecture, options and source name.
    BackendUnavailableError
        When there is no NVRTC.
    """
    sources = read_sources() if sources is None else sources
    if name not in sources:
        known = ", ".join(file for file in sources if file.endswith(".cu"))
        raise KernelCompileError(f"there is no kernel source {name!r}; there are {known}")
    options = (f"--gpu-architecture=sm_{arch}", *OPTIONS, *extra_options)
    headers = {file: text for file, text in sources.items() if file.endswith(".cuh")}
    program = load_nvrtc(cuda_major).compile(name, sources[name], headers, options)
    return CompiledSource(
        name, arch, options, program.cubin, program.ptx, program.log, _usage(program.log)
    )


def _usage(log: str) -> dict[str, KernelUsage]:
    """Read each kernel's usage off the assembler's report."""

    def number(pattern: str, text: str) -> int:
        found = re.search(pattern, text)
        return int(found[1]) if found else 0

    return {
        kernel: KernelUsage(
            number(r"Used (\d+) registers", report),
            number(r"(\d+) bytes smem", report),
            number(r"(\d+) bytes stack frame", report),
            number(r"(\d+) bytes spill stores", report),
            number(r"(\d+) bytes spill loads", report),
        )
        for kernel, report in _ENTRY.findall(log)
    }
