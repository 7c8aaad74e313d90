"""Kernel sources: where they are, what identifies them, and their machine code.

A source (`*.cu`) holds one operation under one or two kernel names. It is compiled as one text with
the headers (`*.cuh`) it includes, among them one that is generated: the static assertions that tie
the structs to `fpgpu.layout`. GPU, tests and doctor compile in one way, with NVRTC alone: neither a
toolkit nor a header of CUDA is needed.
"""

import hashlib
import logging
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import NamedTuple

import fpgpu
from fpgpu.backends.nvrtc import Nvrtc, load_nvrtc
from fpgpu.errors import BackendUnavailableError, KernelCompileError
from fpgpu.layout import layout_checks

__all__ = [
    "ARCHITECTURES",
    "OPTIONS",
    "CompiledSource",
    "KernelUsage",
    "cache_folder",
    "compile_source",
    "kernel_folder",
    "kernel_names",
    "machine_code",
    "read_sources",
    "single_file",
]

logger = logging.getLogger(__name__)

_DIGEST_BYTES = 32

ARCHITECTURES = (70, 75, 80, 86, 89, 90, 100, 120)
"""Compute capabilities every kernel is compiled for in the tests: Volta, which CUDA 13 has dropped,
to Blackwell."""

OPTIONS = ("--std=c++17", "--fmad=false", "--ptxas-options=-v")
"""How sources are compiled: nothing fused to multiply-adds; the usage of each kernel told."""

CHECKS_HEADER = "fpgpu_layout_checks.cuh"

_KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\('
)
_INCLUDE = re.compile(r'^\s*#include\s+"([^"]+)"[^\n]*$', re.MULTILINE)
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
    """Find the kernel sources: in an installed package, else beside the checkout's project file."""
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
    """Read every kernel source and header."""
    files = {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in kernel_folder().iterdir()
        if entry.name.endswith((".cu", ".cuh"))
    }
    files[CHECKS_HEADER] = layout_checks()
    return dict(sorted(files.items()))


def single_file(name: str, sources: Mapping[str, str] | None = None) -> str:
    """Put the text of every included file in the place of its include.

    The text is all that a cache of machine code has to look at; and no folder of headers has to
    exist, as in a zipped package.
    """
    files = read_sources() if sources is None else sources
    seen: set[str] = set()

    def expand(file: str, asked_by: str) -> str:
        if file not in files:
            known = ", ".join(sorted(files))
            raise KernelCompileError(f"{asked_by} needs {file!r}, which is not among {known}")
        if file in seen:
            return ""
        seen.add(file)
        lines = [f'#line 1 "{file}"']
        for number, line in enumerate(files[file].splitlines(), 1):
            include = _INCLUDE.match(line)
            if include:
                lines += [expand(include[1], file), f'#line {number + 1} "{file}"']
            else:
                lines.append(line)
        return "\n".join(lines)

    return expand(name, "the backend") + "\n"


def kernel_names(source: str) -> tuple[str, ...]:
    """List the kernels that a source defines."""
    return tuple(_KERNEL.findall(source))


def compile_source(
    name: str,
    arch: int,
    *,
    cuda_major: int | None = None,
    extra_options: tuple[str, ...] = (),
    sources: Mapping[str, str] | None = None,
) -> CompiledSource:
    """Compile one kernel source to machine code; needs no GPU and no driver."""
    sources = read_sources() if sources is None else sources
    if name not in sources:
        known = ", ".join(file for file in sources if file.endswith(".cu"))
        raise KernelCompileError(f"there is no kernel source {name!r}; there are {known}")
    text, options = single_file(name, sources), (*OPTIONS, *extra_options)
    program = _compiled(name, text, f"sm_{arch}", options, load_nvrtc(cuda_major))
    usage = _usage(program.log)
    return CompiledSource(
        name, arch, program.options, program.cubin, program.ptx, program.log, usage
    )


def machine_code(
    name: str,
    text: str,
    capability: int,
    options: tuple[str, ...] = OPTIONS,
    *,
    cuda_major: int | None = None,
    cache: Path | None = None,
) -> bytes:
    """Compile a text for a device, or take what was made of the same text before."""
    nvrtc = load_nvrtc(cuda_major)
    target = _target(capability, nvrtc.architectures())
    asked = "\0".join((text, *options, target, str(nvrtc.version)))
    kept = cache and cache / f"{hashlib.sha256(asked.encode()).hexdigest()}.bin"
    if kept is not None and (code := _kept_code(kept)) is not None:
        return code
    program = _compiled(name, text, target, options, nvrtc)
    code = program.cubin or program.ptx.encode() + b"\0"
    if kept is not None:
        _keep_code(kept, code)
    return code


def cache_folder() -> Path | None:
    """Say where machine code is kept: in a folder of its own within CuPy's cache."""
    if os.environ.get("CUPY_CACHE_IN_MEMORY", "0") not in ("", "0"):
        return None
    folder = os.environ.get("CUPY_CACHE_DIR") or "~/.cupy/kernel_cache"
    try:
        return Path(folder).expanduser() / "fpgpu"
    except RuntimeError:  # a user without a home
        return None


class _Program(NamedTuple):
    """What came of one compilation, and what was asked."""

    cubin: bytes
    ptx: str
    log: str
    options: tuple[str, ...]


def _compiled(
    name: str, text: str, target: str, options: tuple[str, ...], nvrtc: Nvrtc
) -> _Program:
    """Compile one text."""
    options = (f"--gpu-architecture={target}", *options)
    return _Program(*nvrtc.compile(name, text, {}, options), options)


def _target(capability: int, known: Sequence[int]) -> str:
    """Choose what to compile for: machine code runs on later devices of the same major number."""
    older = [arch for arch in known if arch <= capability]
    if not older:
        return f"sm_{capability}"  # which the compiler refuses in its own words
    best = max(older)
    return f"sm_{best}" if best // 10 == capability // 10 else f"compute_{best}"


def _kept_code(path: Path) -> bytes | None:
    """Take machine code from the cache, if it is all there."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, code = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return code if code and hashlib.sha256(code).digest() == digest else None


def _keep_code(path: Path, code: bytes) -> None:
    """Put machine code into the cache, as a whole or not at all."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(hashlib.sha256(code).digest() + code)
        part.replace(path)
    except OSError as error:  # a home that is full or read-only: it is compiled again next time
        logger.info("%s: machine code is not kept: %s", path.parent, error)
        with suppress(OSError):
            part.unlink()


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
