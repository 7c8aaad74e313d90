"""``fpgpu doctor``: what works on this machine and what to install."""

import argparse
from typing import TYPE_CHECKING

from fpgpu.cli.arguments import JSON, add_options
from fpgpu.cli.console import format_bytes, format_table, print_json

if TYPE_CHECKING:
    from fpgpu.doctor import BackendReport, KernelReport

__all__ = ["DESCRIPTION", "EXAMPLES", "HELP", "add_arguments", "run"]


HELP = "what works on this machine and what to install"
DESCRIPTION = (
    "Say which backend is taken and why, try it out, compile every kernel, and "
    "measure the speed of copies. Nothing is changed."
)
EXAMPLES = """examples:
  fpgpu doctor
  fpgpu doctor --arch 90 --json
  fpgpu doctor --require cuda
"""
OPTIONS = """
--device N  the CUDA device
--arch SM   compile for this compute capability, as 90, instead of that of the device (without a
            device: of every supported one); may be repeated
--require {cpu,cuda}
            also exit with 1 when this is not the backend that is taken
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    device, arch = {"type": int, "default": 0}, {"type": int, "action": "append"}
    add_options(parser, OPTIONS, JSON, device=device, arch=arch)


def run(args: argparse.Namespace) -> int:
    """Print the diagnosis.

    Gives 0 when the backend that would be taken works, is the required one if one is required, and
    every kernel compiles; else 1.
    """
    from fpgpu.doctor import diagnose

    diagnosis = diagnose(args.device, args.arch)
    healthy = diagnosis.works and not any(kernel.error for kernel in diagnosis.kernels)
    as_required = args.require in (None, diagnosis.choice)
    if args.json:
        print_json(diagnosis.as_dict())
        return 0 if healthy and as_required else 1
    print(f"backend auto takes: {diagnosis.choice}, because {diagnosis.reason}\n")
    versions = [[name, version or "not found"] for name, version in diagnosis.versions.items()]
    print(format_table(["what", "version"], versions))
    for backend in diagnosis.backends:
        print()
        _print_backend(backend)
    if diagnosis.kernels:
        print()
        _print_kernels(diagnosis.kernels)
    for missing in diagnosis.missing:
        print(f"\nmissing: {missing.what}\n    to change it: {missing.fix}")
    verdict = "works" if diagnosis.works else "does NOT work"
    print(f"\nthe {diagnosis.choice} backend {verdict}")
    if not as_required:
        print(f"the {args.require} backend is required, but {diagnosis.choice} is taken")
    return 0 if healthy and as_required else 1


def _print_backend(backend: "BackendReport") -> None:
    """Print what one backend is and does."""
    free, total = format_bytes(backend.memory_free), format_bytes(backend.memory_total)
    print(f"{backend.name}: {backend.description}, {free} of {total} free")
    if backend.error:
        print(f"  trial failed: {backend.error}")
    else:
        print("  trial passed: images there and back, a kernel read a patch")
    limits = ", ".join(f"{name} {value}" for name, value in backend.limits.items())
    print(f"  limits of a launch: {limits}")
    for copy in backend.copies:
        print(f"  {copy.what}: {copy.bytes_per_second / 1e9:.1f} GB/s")


def _print_kernels(kernels: "tuple[KernelReport, ...]") -> None:
    """Print what the kernels take, the most over all architectures, and what did not compile."""
    archs = sorted({kernel.arch for kernel in kernels})
    compiled: dict[str, list[KernelReport]] = {}
    for kernel in kernels:
        if kernel.error is None:
            compiled.setdefault(kernel.kernel, []).append(kernel)
    rows = [
        [name, len(found), *(max(getattr(k, what) for k in found) for what in _USAGE)]
        for name, found in compiled.items()
    ]
    print(f"kernels compiled for {', '.join(f'sm_{arch}' for arch in archs)}; the most of any:")
    print(format_table(["kernel", "compiled", "registers", "shared B", "spilled B"], rows))
    for kernel in kernels:
        if kernel.error is not None:
            print(f"\n{kernel.source} for sm_{kernel.arch} FAILED: {kernel.error}")


_USAGE = ("registers", "shared_bytes", "spill_bytes")
