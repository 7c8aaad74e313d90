"""Launch every kernel once: ``python -m benchmarks.gpu.each_kernel SIZE``, for NVIDIA's tools."""

import math
import sys
from pathlib import Path

import numpy as np

from benchmarks.devices import stack
from benchmarks.gpu.job import Job
from benchmarks.gpu.sameness import N_SOURCES, n_batch, scene_of, small_region
from benchmarks.inputs.images import random_image
from benchmarks.sizes import SIZES, Size
from fpgpu import get_backend
from fpgpu.backends.arguments import ExposurePlanes, PatchPixels, StagedExposure
from fpgpu.backends.base import Backend
from fpgpu.backends.compiler import kernel_names, read_sources
from fpgpu.backends.memory import Array
from fpgpu.layout import ImageFlag

__all__ = ["KERNELS", "launch_each", "main"]

KERNELS = sorted(
    name
    for source, text in read_sources().items()
    if source.endswith(".cu")
    for name in kernel_names(text)
)
"""Of fpgpu."""


def launch_each(backend: Backend, size: Size) -> None:
    """Rearrange and calibrate images, unpack them, and evaluate scenes on a patch."""
    n_exp = 16 if size.name == "survey" else 2
    for is_aligned in (True, False):
        _move_images(backend, size, n_exp, is_aligned)
    field = Job(Path(), Path(), size, 0).field()
    with (
        field.open(backend) as survey,
        survey.patch(small_region(field), field.sources(N_SOURCES), field.bands()) as patch,
    ):
        backend.check_layout(patch.pointer, len(patch.bandlist))
        scene = scene_of(patch, field.sources(N_SOURCES))
        patch.evaluate_unchecked(np.stack([scene] * n_batch(size)))
        patch.evaluate(scene, residual=True)
    backend.synchronize()


def _move_images(backend: Backend, size: Size, n_exp: int, is_aligned: bool) -> None:
    """Launch what moves images: other kernels where arrays do not begin at 16 bytes."""
    im, ierr = (stack(backend, random_image(size.side, seed), n_exp) for seed in (1, 2))
    mask = stack(backend, np.zeros((size.side, size.side), np.uint32), n_exp)
    n_grid = size.side // 8

    def room(*shape: int) -> Array:
        shift = 0 if is_aligned else 4
        return backend.allocate(4 * math.prod(shape) + shift).view(shape, np.float32, shift)

    superpixels, pair = room(n_exp, n_grid, n_grid, 128), (room(*im.shape), room(*im.shape))
    backend.superpixelize(im, ierr, out=superpixels)
    backend.images_from_superpixels(superpixels, flags=ImageFlag.FITS_ORDER, out=pair)
    planes = [ExposurePlanes(*one) for one in zip(im, ierr, mask, strict=True)]
    backend.calibrate(planes, out=superpixels)
    count = n_grid**2
    places = np.tile(np.indices((n_grid, n_grid), np.int32).reshape(2, -1).T, (n_exp, 1))
    staged = [StagedExposure(one, count, grid=(n_grid, n_grid)) for one in superpixels]
    pixels = PatchPixels(*(room(n_exp * count * 64) for _ in range(4)))
    backend.unpack(staged, places, pixels)


def main(size: str) -> int:
    """Launch them on a device."""
    launch_each(get_backend("cuda"), SIZES[size])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
