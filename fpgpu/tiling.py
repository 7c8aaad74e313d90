"""Work through an image tile by tile: in cache, in memory order, on all cores.

Super-pixel order and FITS order disagree about which pixels are neighbours, so a whole-image
rearrangement misses the cache at nearly every pixel. Tiles of whole super-pixels, long in the
direction in which memory runs, are rearranged in a small buffer and leave it in long runs. NumPy
releases the GIL while it copies and computes, so plain threads share the tiles.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fpgpu.threads import in_threads, n_threads

__all__ = [
    "Tile",
    "blocks_of",
    "pixels_of",
    "split_into_tiles",
    "work_through",
    "write_superpixels",
    "x_runs_fastest",
]

# Pixels along a tile and across it. A tile's buffer (1 MiB of float32 pairs) stays in the L2 cache
# of one core, and its NumPy calls are long: many short ones make threads wait for the GIL.
_LONG, _SHORT = 2048, 64
_SMALLEST_SHARE = 1 << 18  # pixels; for fewer, starting a thread costs more than it saves
_MOST_THREADS = 8  # more do not help: memory is the limit

Result = TypeVar("Result")


Tile = tuple[slice, slice]
"""What selects a rectangle of super-pixels from an array whose first axes are their indices."""


def pixels_of(tile: Tile, size: int) -> Tile:
    """What selects a tile from an image ``[x, y]``, for super-pixels of `size` pixels a side."""
    x, y = (slice(side.start * size, side.stop * size) for side in tile)
    return x, y


def x_runs_fastest(image: npt.NDArray[Any]) -> bool:
    """Tell whether neighbours along x, as in a transposed FITS image, are closest in memory."""
    return abs(image.strides[0]) < abs(image.strides[1])


def split_into_tiles(grid: tuple[int, int], size: int, x_fastest: bool) -> list[Tile]:
    """Cover a grid of super-pixels with tiles that are long in the direction memory runs."""
    long, short = max(1, _LONG // size), max(1, _SHORT // size)
    step_x, step_y = (long, short) if x_fastest else (short, long)
    return [
        (slice(x, min(x + step_x, grid[0])), slice(y, min(y + step_y, grid[1])))
        for x in range(0, grid[0], step_x)
        for y in range(0, grid[1], step_y)
    ]


def work_through(
    work: Callable[[Sequence[Tile]], Result], tiles: Sequence[Tile], n_pixels: int
) -> list[Result]:
    """Share tiles among threads."""
    n = min(n_threads(), _MOST_THREADS, len(tiles), max(1, n_pixels // _SMALLEST_SHARE))
    return in_threads(lambda k: work(tiles[k::n]), n)


def write_superpixels(
    im: npt.NDArray[Any], ierr: npt.NDArray[Any], size: int, superpixels: npt.NDArray[Any]
) -> None:
    """Write a tile of two images ``[x, y]`` to its super-pixels ``[i, j, 2 * size**2]``."""
    nx, ny, depth = superpixels.shape
    staged = superpixels
    if x_runs_fastest(im):
        # In the order of memory, from which each super-pixel leaves in a single run.
        staged = np.empty((ny, nx, depth), superpixels.dtype).swapaxes(0, 1)
    planes = staged.reshape(nx, ny, 2, size, size)
    row = np.dtype((np.void, size * superpixels.itemsize))
    for plane, image in enumerate((im, ierr)):
        if image.dtype == superpixels.dtype and image.strides[1] == image.itemsize:
            # A row of a super-pixel is one run in both: an opaque item is moved at once.
            rows = image.view(row).reshape(nx, size, ny, 1).swapaxes(1, 2)
            planes[:, :, plane].view(row)[...] = rows
        else:
            planes[:, :, plane] = blocks_of(image, size)
    if staged is not superpixels:
        item = np.dtype((np.void, depth * staged.itemsize))
        superpixels.view(item)[...] = staged.view(item)


def blocks_of(image: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """View an image ``[x, y]`` as its super-pixels ``[i, j, x within, y within]``."""
    nx, ny = image.shape
    return image.reshape(nx // size, size, ny // size, size).swapaxes(1, 2)
