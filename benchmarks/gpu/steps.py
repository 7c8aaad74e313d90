"""The steps, in the order in which they are tried: what proves most for its time comes first."""

from dataclasses import dataclass

__all__ = ["STEPS", "Step"]


@dataclass(frozen=True)
class Step:
    """One step, a process of its own."""

    name: str
    home: str
    """Module that has a function of its name, which takes a `benchmarks.gpu.job.Job`."""
    seconds: float
    """The most that it may take."""
    shows: str


STEPS = tuple(
    Step(name, f"benchmarks.gpu.{home}", seconds, shows)
    for name, home, seconds, shows in (
        ("doctor", "basics", 60, "the device is usable, and takes every kernel"),
        ("patches", "sameness", 120, "whole patches have the same bits as on the CPU"),
        ("likelihood", "sameness", 60, "scenes have the likelihood that the CPU finds"),
        ("phases", "speed", 40, "region to patch, phase by phase"),
        ("overlap", "sharing", 30, "uploads run while kernels do"),
        ("async_allocator", "sharing", 40, "CUDA's own allocator, and several threads"),
        ("pytorch", "sharing", 60, "PyTorch in the same process"),
        ("calibrate", "large", 40, "exposures of full size are calibrated as on the CPU"),
        ("round_trip", "large", 60, "more than 2^31 elements, to super-pixels and back"),
        ("speed", "speed", 180, "every operation beside the device's own copies"),
        ("conformance", "basics", 150, "the tests of every backend, and those of a device"),
        ("memcheck", "tools", 60, "compute-sanitizer: no access outside memory"),
        ("racecheck", "tools", 60, "compute-sanitizer: no race in shared memory"),
        ("counters", "tools", 60, "Nsight Compute: a line a kernel"),
    )
)
