"""Work through an image tile by tile: in cache, in memory order, on all cores.

Super-pixel order and FITS order disagree about which pixels are neighbours, so a whole-image
rearrangement misses the cache at nearly every pixel. Tiles of whole super-pixels, long in the
direction in which memory runs, are rearranged in a small buffer and leave it in long runs. NumPy
releases the GIL while it copies and computes, so plain threads share the tiles.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = [
    "Tile",
    "TileWriter",
    "blocks_of",
    "limit_threads",
    "split_into_tiles",
    "work_through",
    "x_runs_fastest",
]

# Pixels along a tile and across it. A tile's buffer (1 MiB of float32 pairs) stays in the L2 cache
# of one core, and its NumPy calls are long: many short ones make threads wait for the GIL.
_LONG, _SHORT = 2048, 64
_SMALLEST_SHARE = 1 << 18  # pixels; for fewer, starting a thread costs more than it saves
_MOST_THREADS = 8  # more do not help: memory is the limit

Result = TypeVar("Result")

_threads_allowed = _MOST_THREADS


class Tile(NamedTuple):
    """A rectangle of super-pixels: half-open index bounds along x and y."""

    x0: int
    x1: int
    y0: int
    y1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Number of super-pixels along x and y."""
        return self.x1 - self.x0, self.y1 - self.y0

    def of_superpixels(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """View of the tile in an array whose first two axes are super-pixel indices."""
        return array[self.x0 : self.x1, self.y0 : self.y1]

    def of_pixels(self, image: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
        """View of the tile in an image ``[x, y]``, for super-pixels of `size` pixels a side."""
        return image[self.x0 * size : self.x1 * size, self.y0 * size : self.y1 * size]


def x_runs_fastest(image: npt.NDArray[Any]) -> bool:
    """Tell whether neighbours along x, as in a transposed FITS image, are closest in memory."""
    return abs(image.strides[0]) < abs(image.strides[1])


def split_into_tiles(grid: tuple[int, int], size: int, x_fastest: bool) -> list[Tile]:
    """Cover a grid of super-pixels with tiles that are long in the direction memory runs."""
    long, short = max(1, _LONG // size), max(1, _SHORT // size)
    step_x, step_y = (long, short) if x_fastest else (short, long)
    return [
        Tile(x, min(x + step_x, grid[0]), y, min(y + step_y, grid[1]))
        for x in range(0, grid[0], step_x)
        for y in range(0, grid[1], step_y)
    ]


def work_through(
    work: Callable[[Iterable[Tile]], Result], tiles: Sequence[Tile], n_pixels: int
) -> list[Result]:
    """Share tiles among threads."""
    n_threads = min(_n_cores(), _threads_allowed, len(tiles), max(1, n_pixels // _SMALLEST_SHARE))
    if n_threads == 1:
        return [work(tiles)]
    shared = _SharedIterator(tiles)
    # The threads live no longer than this call: a pool kept for later would be without its
    # threads in a forked process, and hang there.
    with ThreadPoolExecutor(n_threads - 1) as pool:
        others = [pool.submit(work, shared) for _ in range(n_threads - 1)]
        mine = work(shared)
        return [mine, *(other.result() for other in others)]


def limit_threads(n: int) -> None:
    """Let this process share tiles among fewer threads, as one of several processes should."""
    global _threads_allowed
    _threads_allowed = max(1, min(n, _MOST_THREADS))


class _SharedIterator:
    """Gives each tile to exactly one of the threads that ask."""

    def __init__(self, tiles: Sequence[Tile]) -> None:
        self._tiles = iter(tiles)
        self._lock = Lock()

    def __iter__(self) -> Iterator[Tile]:
        return self

    def __next__(self) -> Tile:
        with self._lock:
            return next(self._tiles)


def _n_cores() -> int:
    """Cores this process may use, which a batch system often limits."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class TileWriter:
    """Writes tiles of a pair of images in super-pixel order.

    Parameters
    ----------
    largest : Tile
        The largest tile that will be written.
    size : int
        Pixels along each side of a super-pixel.
    dtype : dtype
        Of the super-pixels.
    x_fastest : bool
        Whether the images run along x in memory.
    """

    def __init__(self, largest: Tile, size: int, dtype: npt.DTypeLike, x_fastest: bool) -> None:
        self._size = size
        n_superpixels = largest.shape[0] * largest.shape[1]
        self._staged = np.empty((n_superpixels, 2 * size**2), dtype) if x_fastest else None

    def write(
        self, im: npt.NDArray[Any], ierr: npt.NDArray[Any], superpixels: npt.NDArray[Any]
    ) -> None:
        """Write a tile of two images ``[x, y]`` to its super-pixels ``[i, j, 2 * size**2]``."""
        if self._staged is None:
            self._write_rows(im, ierr, superpixels)
            return
        nx, ny, depth = superpixels.shape
        staged = self._staged[: nx * ny].reshape(ny, nx, depth).swapaxes(0, 1)
        planes = staged.reshape(nx, ny, 2, self._size, self._size)
        planes[:, :, 0] = blocks_of(im, self._size)
        planes[:, :, 1] = blocks_of(ierr, self._size)
        # As one opaque item, a super-pixel leaves the buffer in a single run.
        item = np.dtype((np.void, depth * staged.itemsize))
        superpixels.view(item)[...] = staged.view(item)

    def _write_rows(
        self, im: npt.NDArray[Any], ierr: npt.NDArray[Any], superpixels: npt.NDArray[Any]
    ) -> None:
        """Write images that run along y, where a super-pixel's rows are runs already."""
        nx, ny, _ = superpixels.shape
        planes = superpixels.reshape(nx, ny, 2, self._size, self._size)
        row = np.dtype((np.void, self._size * superpixels.itemsize))
        for plane, image in enumerate((im, ierr)):
            if image.dtype == superpixels.dtype and image.strides[1] == image.itemsize:
                rows = image.view(row).reshape(nx, self._size, ny, 1).swapaxes(1, 2)
                planes[:, :, plane].view(row)[...] = rows
            else:
                planes[:, :, plane] = blocks_of(image, self._size)


def blocks_of(image: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """View an image ``[x, y]`` as its super-pixels ``[i, j, x within, y within]``."""
    nx, ny = image.shape
    return image.reshape(nx // size, size, ny // size, size).swapaxes(1, 2)
