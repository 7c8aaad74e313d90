"""An image cut into tiles, or padded, so that it has the size of a store's exposures."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fpgpu.errors import UnusableExposureError
from fpgpu.ingest.cards import move_header, move_wcs
from fpgpu.ingest.exposure import Exposure, pad_to
from fpgpu.ingest.inputs import ReadOptions
from fpgpu.ingest.refit import refit_gwcs
from fpgpu.ingest.tiles import Box, split
from fpgpu.sky.wcs import SkyWCS
from fpgpu.stores.mosaics import TilePlace

__all__ = ["cut", "cut_exposure", "size_misfit"]


def cut(
    where: str,
    shape: tuple[int, int],
    options: ReadOptions,
    read: Callable[[Box], Exposure],
    tile_name: Callable[[str], str],
) -> Iterator[Exposure]:
    """Give an image as one exposure, padded as asked, or as tiles.

    Parameters
    ----------
    where : str
        The image, for messages.
    shape : tuple of int
        Its (nx, ny).
    options : ReadOptions
        With `tile`, `tile_overlap`, `pad` and `super_pixel_size`.
    read : callable
        Gives a part of the image as an exposure, with the name, header and gWCS of the whole.
    tile_name : callable
        Gives the expID of a tile such as ``"x00y03"``.

    Yields
    ------
    Exposure
        No tile of which no pixel has a value and an uncertainty.

    Raises
    ------
    UnusableExposureError
        When there is no other tile.
    WCSError
        When the gWCS of a tile cannot be refitted.
    """
    tile = _tile(shape, options)
    if tile is None:
        exposure = read(Box.whole(shape))
        if options.pad:
            nx, ny = (side + -side % options.super_pixel_size for side in shape)
            pad_to(exposure, options.tile or (nx, ny))
        yield exposure
        return
    n_made = 0
    for (column, row), box in split(shape, tile, options.tile_overlap):
        exposure = read(box)
        if not (np.isfinite(exposure.ierr) & (exposure.ierr > 0) & np.isfinite(exposure.im)).any():
            continue
        mosaic, exposure.expID = exposure.expID, tile_name(f"x{column:02d}y{row:02d}")
        _become_tile(exposure, box, tile, options.sip_tolerance)
        TilePlace(mosaic, box.x0, box.y0, *shape).write(exposure.hdr)
        n_made += 1
        yield exposure
    if n_made == 0:
        raise UnusableExposureError(f"{where}: no pixel of any tile has a value and an uncertainty")


def cut_exposure(whole: Exposure, options: ReadOptions) -> Iterator[Exposure]:
    """Cut or pad an exposure in memory, and apply the options that do not concern files.

    The whole is not changed; its parts have views of the arrays, unless they are padded.
    """
    where = f"exposure {whole.expID}"
    if misfit := size_misfit(whole.shape, options):
        raise UnusableExposureError(f"{where}: {misfit}")

    def read(box: Box) -> Exposure:
        def part(image: Any) -> Any:
            return None if image is None else image[box.x0 : box.x1, box.y0 : box.y1]

        exposure = whole.copy()
        exposure.im, exposure.ierr = part(whole.im), part(whole.ierr)
        exposure.mask, exposure.bkg, exposure.area = map(part, (whole.mask, whole.bkg, whole.area))
        exposure.band = options.band_names.get(whole.band, whole.band)
        if options.abmag is not None:
            exposure.hdr["ABMAG"] = options.abmag
        if options.err_scale != 1:
            exposure.ierr = exposure.ierr / options.err_scale
        return exposure

    yield from cut(where, whole.shape, options, read, lambda tile: f"{whole.expID}_{tile}")


def size_misfit(shape: tuple[int, int], options: ReadOptions) -> str | None:
    """Say why the size of an image, (nx, ny), does not fit the super-pixels; None where it does."""
    size = options.super_pixel_size
    is_cut = _tile(shape, options) is not None
    if options.pad or is_cut or not (shape[0] % size or shape[1] % size):
        return None
    return (
        f"{shape[0]} x {shape[1]} pixels are no multiple of the super-pixel ({size}); "
        "use --pad to add pixels of zero weight"
    )


def _tile(shape: tuple[int, int], options: ReadOptions) -> tuple[int, int] | None:
    """The (nx, ny) of the tiles that an image becomes; None where it stays whole."""
    tile = options.tile
    is_larger = tile is not None and (shape[0] > tile[0] or shape[1] > tile[1])
    return tile if is_larger else None


def _become_tile(
    exposure: Exposure, box: Box, tile: tuple[int, int], sip_tolerance: float | None
) -> None:
    """Give a part of an image its own WCS and the size of a tile."""
    move_header(exposure.hdr, box.x0, box.y0)
    notes = list(exposure.notes)
    pad_to(exposure, tile)
    exposure.notes = notes  # that tiles at the edge are padded is no news
    if exposure.gwcs is not None:
        exposure.gwcs = move_wcs(exposure.gwcs, box.x0, box.y0, tile)
        sky = SkyWCS.from_gwcs(exposure.gwcs, tile)
        exposure.sip = refit_gwcs(sky, tile, sip_tolerance)
        exposure.provenance["sip_residual_px"] = exposure.sip.residual
