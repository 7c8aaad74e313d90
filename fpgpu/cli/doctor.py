"""What works on this machine and what to install.

Say which backend is taken and why, try it out, compile every kernel, and measure the speed of
copies. Nothing is changed.

options:
  --device DEVICE
              number of the CUDA device [default: 0]
  --arch SM...
              compile for this compute capability, as 90, instead of that of the device (without a
              device: of every supported one); may be repeated
  --require {cpu,cuda}
              also exit with 1 when this is not the backend that is taken
  --json

examples:
  fpgpu doctor
  fpgpu doctor --arch 90 --json
  fpgpu doctor --require cuda
"""

from argparse import Namespace
from typing import Any

from fpgpu.cli.console import Result, format_bytes, format_table
from fpgpu.doctor import diagnose


def run(args: Namespace) -> Result:
    """Diagnose; the code is 0 when the backend that is taken works and every kernel compiles."""
    found = diagnose(args.device, args.arch)
    choice, as_required = found["choice"], args.require in (None, found["choice"])
    versions = [[name, version or "not found"] for name, version in found["versions"].items()]
    parts = [
        f"backend auto takes: {choice}, because {found['reason']}",
        format_table(["what", "version"], versions),
        *map(_backend, found["backends"]),
        *_kernels(found["kernels"]),
        *(f"missing: {lack['what']}\n    to change it: {lack['fix']}" for lack in found["missing"]),
        f"the {choice} backend {'works' if found['works'] else 'does NOT work'}",
    ]
    if not as_required:
        parts[-1] += f"\nthe {args.require} backend is required, but {choice} is taken"
    healthy = found["works"] and not any(kernel["error"] for kernel in found["kernels"])
    return Result("\n\n".join(parts), found, code=not (healthy and as_required))


def _backend(found: dict[str, Any]) -> str:
    """Say what one backend is and does."""
    free, total = format_bytes(found["memory_free"]), format_bytes(found["memory_total"])
    error = found["error"]
    lines = [
        f"{found['name']}: {found['description']}, {free} of {total} free",
        f"trial failed: {error}"
        if error
        else "trial passed: images there and back, a kernel read a patch",
        f"limits of a launch: {', '.join(f'{name} {n}' for name, n in found['limits'].items())}",
        *(f"{c['what']}: {c['bytes_per_second'] / 1e9:.1f} GB/s" for c in found["copies"]),
    ]
    return "\n  ".join(lines)


def _kernels(found: list[dict[str, Any]]) -> list[str]:
    """Say what the kernels take, the most over all architectures, and what did not compile."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for kernel in found:
        if kernel["error"] is None:
            by_name.setdefault(kernel["kernel"], []).append(kernel)
    usage = {"registers": "registers", "shared_bytes": "shared B", "spill_bytes": "spilled B"}
    rows = [
        [name, len(some), *(max(kernel[what] for kernel in some) for what in usage)]
        for name, some in by_name.items()
    ]
    archs = ", ".join(f"sm_{arch}" for arch in sorted({kernel["arch"] for kernel in found}))
    table = format_table(["kernel", "compiled", *usage.values()], rows)
    failed = [
        f"{kernel['source']} for sm_{kernel['arch']} FAILED: {kernel['error']}"
        for kernel in found
        if kernel["error"] is not None
    ]
    return [f"kernels compiled for {archs}; the most of any:\n{table}", *failed] if found else []
