"""Launch every kernel once: ``python -m benchmarks.gpu.each_kernel SIZE``, for NVIDIA's tools."""

import sys
from pathlib import Path

import numpy as np

from benchmarks.devices import stack
from benchmarks.gpu.job import Job
from benchmarks.gpu.sameness import N_SOURCES, n_batch, scene_of, small_region
from benchmarks.inputs.images import random_image
from benchmarks.sizes import SIZES, Size
from fpgpu import get_backend
from fpgpu.backends.arguments import ExposurePlanes
from fpgpu.backends.base import Backend
from fpgpu.backends.compiler import kernel_names, read_sources
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
    """Rearrange, calibrate, build a patch, look at it, and evaluate scenes on it."""
    n_exp = 16 if size.name == "survey" else 2
    im, ierr = (stack(backend, random_image(size.side, seed), n_exp) for seed in (1, 2))
    superpixels = backend.superpixelize(im, ierr)
    backend.images_from_superpixels(superpixels, flags=ImageFlag.FITS_ORDER)
    mask = stack(backend, np.zeros((size.side, size.side), np.uint32), n_exp)
    backend.calibrate([ExposurePlanes(*planes) for planes in zip(im, ierr, mask, strict=True)])
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


def main(size: str) -> int:
    """Launch them on a device."""
    launch_each(get_backend("cuda"), SIZES[size])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
