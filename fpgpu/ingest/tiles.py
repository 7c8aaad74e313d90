"""How an image that is larger than a store's exposures is cut into tiles.

Tiles lie on a regular grid from the first pixel on. Neighbours share `overlap` pixels, so that a
source at a seam is whole in one of them. Tiles at the far edges reach beyond the image; what is
beyond has no weight.
"""

from collections.abc import Iterator
from typing import NamedTuple

from fpgpu.errors import LayoutError

__all__ = ["Box", "check_tile", "split"]


class Box(NamedTuple):
    """A rectangle of pixels: half-open bounds along x and y."""

    x0: int
    x1: int
    y0: int
    y1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Number of pixels (nx, ny)."""
        return self.x1 - self.x0, self.y1 - self.y0

    @classmethod
    def whole(cls, shape: tuple[int, int]) -> "Box":
        """All of an image of (nx, ny) pixels."""
        return cls(0, shape[0], 0, shape[1])


def check_tile(sides: tuple[int, ...], overlap: int, multiple: int) -> None:
    """Refuse a tile, (nx, ny), of broken super-pixels or with nothing its own."""
    if len(sides) != 2 or any(side < multiple or side % multiple for side in sides):
        raise LayoutError(
            f"a tile has {' x '.join(map(str, sides))} pixels; expected two multiples of the "
            f"super-pixel ({multiple})"
        )
    if not 0 <= overlap < min(sides):
        raise LayoutError(
            f"tiles of {sides[0]} x {sides[1]} pixels cannot overlap by {overlap}; expected 0 to "
            f"{min(sides) - 1}"
        )


def split(
    shape: tuple[int, int], tile: tuple[int, int], overlap: int
) -> Iterator[tuple[tuple[int, int], Box]]:
    """Cut an image of (nx, ny) pixels into tiles whose neighbours share `overlap` pixels."""
    columns, rows = (_starts(n, side, side - overlap) for n, side in zip(shape, tile, strict=True))
    for j, y in enumerate(rows):
        for i, x in enumerate(columns):
            yield (i, j), Box(x, min(x + tile[0], shape[0]), y, min(y + tile[1], shape[1]))


def _starts(n: int, side: int, step: int) -> range:
    """First pixels of the tiles along one axis: as many as it takes to reach the end."""
    count = 1 + max(0, -(-(n - side) // step))
    return range(0, count * step, step)
