"""Mosaics that went into a store as tiles, put together again.

Every tile says in its header which mosaic it is of and where in it, so that the stores alone are
enough. Where tiles overlap they hold the same pixels; what was padding is left out; a tile that had
no data was not stored, and is zero with zero weight.
"""

from dataclasses import astuple, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fpgpu.errors import NotInStoreError, StoreFormatError
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.pixel import PixelStore

__all__ = ["TilePlace", "list_mosaics", "read_mosaic"]

_KEYWORDS = (
    ("MOSAIC", "mosaic that this is a tile of"),
    ("MOSX0", "zero-based column of the tile in the mosaic"),
    ("MOSY0", "zero-based row of the tile in the mosaic"),
    ("MOSNX", "columns of the mosaic"),
    ("MOSNY", "rows of the mosaic"),
)


@dataclass(frozen=True)
class TilePlace:
    """Where a tile belongs.

    Attributes
    ----------
    mosaic : str
        Name of the mosaic: the expID that it would have in one piece.
    x0, y0 : int
        Zero-based pixel of the mosaic that is the first of the tile.
    nx, ny : int
        Size of the mosaic.
    """

    mosaic: str
    x0: int
    y0: int
    nx: int
    ny: int

    def write(self, header: Any) -> None:
        """Put it into the header of the tile."""
        for (keyword, comment), value in zip(_KEYWORDS, astuple(self), strict=True):
            header[keyword] = (value, comment)

    @classmethod
    def read(cls, header: Any) -> Self | None:
        """Find it in a header."""
        if "MOSAIC" not in header:
            return None
        values = [header.get(keyword) for keyword, _ in _KEYWORDS]
        numbers = values[1:]
        if not all(type(n) is int and n >= 0 for n in numbers):
            raise StoreFormatError(
                f"tile of {values[0]!r}: MOSX0, MOSY0, MOSNX, MOSNY are {numbers}; expected "
                "integers"
            )
        return cls(str(values[0]), *numbers)


def list_mosaics(meta: MetaStore, band: str) -> dict[str, dict[str, TilePlace]]:
    """Find the mosaics of a band."""
    found: dict[str, dict[str, TilePlace]] = {}
    for expID, header in meta.headers.get(band, {}).items():
        place = TilePlace.read(header)
        if place is not None:
            found.setdefault(place.mosaic, {})[expID] = place
    return found


def read_mosaic(
    pixels: PixelStore, meta: MetaStore, band: str, mosaic: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Put a mosaic together from its tiles.

    Parameters
    ----------
    pixels : PixelStore
        The pixels.
    meta : MetaStore
        The headers.
    band : str
        The band.
    mosaic : str
        Name of the mosaic: its file's name, or what the pattern of expIDs makes of it.

    Returns
    -------
    flux, ierr : ndarray of float32, shape (nx, ny)
        ``[x, y]``, in the unit of the store: the same bits as a store would hold of the mosaic in
        one piece; zero where no tile was stored.

    Raises
    ------
    NotInStoreError
        When there is no tile of such a mosaic.
    StoreFormatError
        When the tiles do not fit together.
    """
    known = list_mosaics(meta, band)
    if mosaic not in known:
        raise NotInStoreError(
            f"no tile of the mosaic {mosaic} in band {band}; mosaics there: "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    tiles = known[mosaic]
    sizes = {(place.nx, place.ny) for place in tiles.values()}
    if len(sizes) > 1:
        raise StoreFormatError(f"tiles of {band}/{mosaic} are of mosaics of the sizes {sizes}")
    ((nx, ny),) = sizes
    flux, ierr = np.zeros((2, nx, ny), np.float32)
    for expID, place in tiles.items():
        whole = slice(place.x0, None), slice(place.y0, None)
        for target, tile in zip(
            (flux[whole], ierr[whole]), pixels.read_exposure(band, expID), strict=True
        ):
            width, height = (min(a, b) for a, b in zip(target.shape, tile.shape, strict=True))
            target[:width, :height] = tile[:width, :height]
    return flux, ierr
