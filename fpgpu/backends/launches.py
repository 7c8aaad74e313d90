"""How each kernel is launched: under which name, on which grid, within which limits.

Pure arithmetic, used by every backend: one without a device refuses the same launches.
"""

from dataclasses import dataclass

import numpy as np

from fpgpu.errors import KernelLaunchError

__all__ = [
    "EVALUATE_WORKS",
    "STATIC_SHARED_BYTES",
    "TILE_PIXELS",
    "DeviceLimits",
    "Launch",
    "c_ints",
    "evaluate_launches",
    "one_launch",
    "table_launch",
    "tile_launch",
]

_TILE_BLOCK = 16  # TILE_BLOCK of tiles.cuh
_LINE_BLOCK = 256  # UNPACK_BLOCK, CHECK_BLOCK, SUM_BLOCK

_WORKS_OF_BLOCK = 4  # EVALUATE_BLOCK / WARP of evaluate.cu
_PROJECT_BLOCK = 128  # PROJECT_BLOCK, EVALUATE_BLOCK

TILE_PIXELS = 64
"""Pixels that `evaluate_patch` compares at a time; a work is a whole number of these."""

EVALUATE_WORKS = 4096
"""Works that a patch is cut into, about: enough for every device, few enough to be summed."""

STATIC_SHARED_BYTES = {
    "calibrate": 24,
    "calibrate_words": 24,
    "check_layout": 2048,
    "evaluate_patch": 16384,
    "sum_evaluation": 2048,
}
"""Shared memory that a kernel declares, in bytes a block; kernels not named declare none."""


@dataclass(frozen=True)
class DeviceLimits:
    """What one launch may ask of a device; the defaults hold on every supported GPU.

    Parameters
    ----------
    threads_per_block : int
        Most threads in a block.
    grid : (int, int, int)
        Most blocks along each axis.
    shared_bytes_per_block : int
        Most shared memory that a kernel may declare.
    dynamic_shared_bytes : int
        Most shared memory of a block, what the launch gives included.
    """

    threads_per_block: int = 1024
    grid: tuple[int, int, int] = (2**31 - 1, 65535, 65535)
    shared_bytes_per_block: int = 48 << 10
    dynamic_shared_bytes: int = 64 << 10


@dataclass(frozen=True)
class Launch:
    """One kernel launch.

    Parameters
    ----------
    source : str
        File of the kernel, as ``"unpack.cu"``.
    kernel : str
        Its name in the file.
    grid, block : (int, int, int)
        Blocks, and threads in a block.
    shared_bytes : int
        Shared memory that the kernel declares, a block.
    dynamic_bytes : int
        Shared memory that the launch gives it beside that.
    """

    source: str
    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int = 0
    dynamic_bytes: int = 0

    def checked(self, limits: DeviceLimits) -> "Launch":
        """Return the launch when a device can do it."""
        threads = self.block[0] * self.block[1] * self.block[2]
        if threads > limits.threads_per_block:
            raise KernelLaunchError(
                f"{self.kernel} wants {threads} threads a block; the device allows"
                f" {limits.threads_per_block}"
            )
        if self.shared_bytes > limits.shared_bytes_per_block:
            raise KernelLaunchError(
                f"{self.kernel} wants {self.shared_bytes} bytes of shared memory a block; the"
                f" device allows {limits.shared_bytes_per_block}"
            )
        if self.shared_bytes + self.dynamic_bytes > limits.dynamic_shared_bytes:
            raise KernelLaunchError(
                f"{self.kernel} wants {self.shared_bytes + self.dynamic_bytes} bytes of shared"
                f" memory a block; the device allows {limits.dynamic_shared_bytes}"
            )
        for axis, blocks, most in zip("xyz", self.grid, limits.grid, strict=True):
            if blocks > most:
                raise KernelLaunchError(
                    f"{self.kernel} wants {blocks} blocks along {axis} of its grid; the device"
                    f" allows {most}: give it fewer exposures at a time"
                )
        return self


def tile_launch(operation: str, n_exp: int, along: int, across: int, wide: bool) -> Launch:
    """Launch of an operation on image planes, one thread a tile."""
    pixels = _TILE_BLOCK * (4 if wide else 1)
    kernel = operation if wide else f"{operation}_words"
    return Launch(
        f"{operation}.cu",
        kernel,
        (-(-along // pixels), -(-across // pixels), n_exp),
        (_TILE_BLOCK, _TILE_BLOCK, 1),
        STATIC_SHARED_BYTES.get(kernel, 0),
    )


def table_launch(operation: str, n_exp: int, longest: int, wide: bool = True) -> Launch:
    """Launch of an operation on each row of a table of exposures, one thread a step."""
    chunks = max(1, -(-longest // _LINE_BLOCK))
    kernel = operation if wide else f"{operation}_words"
    return Launch(f"{operation}.cu", kernel, (chunks, n_exp, 1), (_LINE_BLOCK, 1, 1))


def evaluate_launches(
    n_gaussians: int, n_work: int, n_sources: int, n_bands: int, n_batch: int
) -> tuple[Launch, Launch, Launch]:
    """Launches that evaluate a batch of proposals."""

    def launch(kernel: str, grid: tuple[int, int, int], threads: int) -> Launch:
        shared = STATIC_SHARED_BYTES.get(kernel, 0)
        return Launch("evaluate.cu", kernel, grid, (threads, 1, 1), shared)

    chunks = -(-n_gaussians // _PROJECT_BLOCK), -(-n_work // _WORKS_OF_BLOCK)
    return (
        launch("project_gaussians", (chunks[0], n_batch, 1), _PROJECT_BLOCK),
        launch("evaluate_patch", (chunks[1], n_batch, 1), _PROJECT_BLOCK),
        launch("sum_evaluation", (n_sources + 1, n_bands, n_batch), _LINE_BLOCK),
    )


def one_launch(operation: str, n_blocks: int) -> Launch:
    """Launch of a given number of blocks of 256 threads."""
    return Launch(
        f"{operation}.cu",
        operation,
        (n_blocks, 1, 1),
        (_LINE_BLOCK, 1, 1),
        STATIC_SHARED_BYTES.get(operation, 0),
    )


def c_ints(*numbers: int) -> tuple[np.int32, ...]:
    """Hold numbers as a kernel's ``int`` arguments; CuPy would pass Python's as 64 bits."""
    return tuple(np.int32(number) for number in numbers)
