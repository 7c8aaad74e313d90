"""An image cut into tiles, or padded, so that it has the size of a store's exposures."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.errors import UnusableExposureError
from fpgpu.ingest.exposure import Exposure, pad_exposure, pad_to
from fpgpu.ingest.tiles import Box, split
from fpgpu.ingest.wcscards import move_header, move_wcs
from fpgpu.sky.sip import fit_sip
from fpgpu.sky.wcs import SkyWCS
from fpgpu.stores.mosaics import TilePlace

__all__ = [
    "become_tile",
    "boxes",
    "cut_exposure",
    "has_data",
    "pad_as_asked",
    "size_misfit",
    "tile_part",
]


def boxes(shape: tuple[int, int], options: Any) -> Iterator[tuple[tuple[int, int] | None, Box]]:
    """Give the parts of an image that become exposures.

    Parameters
    ----------
    shape : tuple of int
        (nx, ny) of the image.
    options : ReadOptions
        With `tile` and `tile_overlap`.

    Yields
    ------
    index : tuple of int or None
        Column and row of a tile; None for an image that is not cut.
    box : Box
        The part.
    """
    tile = options.tile
    if tile is None or (shape[0] <= tile[0] and shape[1] <= tile[1]):
        yield None, Box.whole(shape)
    else:
        yield from split(shape, tile, options.tile_overlap)


def tile_part(index: tuple[int, int], part: str = "") -> str:
    """Name a tile.

    Parameters
    ----------
    index : tuple of int
        Column and row.
    part : str, optional
        Name of the part of the file that is cut.

    Returns
    -------
    str
        Such as ``"x00y03"``.
    """
    return f"{part}_x{index[0]:02d}y{index[1]:02d}".lstrip("_")


def has_data(tile: Exposure) -> bool:
    """Tell whether any pixel of a tile has a value and an uncertainty.

    Parameters
    ----------
    tile : Exposure
        Before it is calibrated.

    Returns
    -------
    bool
    """
    usable = np.isfinite(tile.ierr) & (tile.ierr > 0) & np.isfinite(tile.im)
    return bool(usable.any())


def size_misfit(shape: tuple[int, int], options: Any) -> str | None:
    """Say why the size of an image does not fit the super-pixels.

    Parameters
    ----------
    shape : tuple of int
        (nx, ny).
    options : ReadOptions
        With `pad`, `tile` and `super_pixel_size`.

    Returns
    -------
    str or None
        None where it does, or will be padded or cut.
    """
    size, tile = options.super_pixel_size, options.tile
    is_cut = tile is not None and (shape[0] > tile[0] or shape[1] > tile[1])
    if options.pad or is_cut or not (shape[0] % size or shape[1] % size):
        return None
    return (
        f"{shape[0]} x {shape[1]} pixels are no multiple of the super-pixel ({size}); "
        "use --pad to add pixels of zero weight"
    )


def pad_as_asked(exposure: Exposure, options: Any) -> None:
    """Pad an image that is not cut, in place.

    Parameters
    ----------
    exposure : Exposure
        The image.
    options : ReadOptions
        With `pad`: to the size of a tile where that is given, else to whole super-pixels.
    """
    if options.pad and options.tile is not None:
        pad_to(exposure, options.tile)
    elif options.pad:
        pad_exposure(exposure, options.super_pixel_size)


def become_tile(
    exposure: Exposure, box: Box, shape: tuple[int, int], mosaic: str, options: Any
) -> None:
    """Give a part of an image its own WCS, the size of a tile, and a record of its place.

    Parameters
    ----------
    exposure : Exposure
        The part, with header and gWCS of the whole; changed in place.
    box : Box
        Where in the whole it is.
    shape : tuple of int
        (nx, ny) of the whole.
    mosaic : str
        Name of the whole.
    options : ReadOptions
        With `tile`.

    Raises
    ------
    WCSError
        When the gWCS of the tile cannot be refitted.
    """
    tile = options.tile or box.shape
    move_header(exposure.hdr, box.x0, box.y0)
    notes = list(exposure.notes)
    pad_to(exposure, tile)
    exposure.notes = notes  # that tiles at the edge are padded is no news
    if exposure.gwcs is not None:
        exposure.gwcs = move_wcs(exposure.gwcs, box.x0, box.y0, tile)
        limit = 1e-3 if options.sip_tolerance is None else options.sip_tolerance
        exposure.sip = fit_sip(SkyWCS.from_gwcs(exposure.gwcs, tile), tile, tolerance=limit)
        exposure.provenance["sip_residual_px"] = exposure.sip.residual
    TilePlace(mosaic, box.x0, box.y0, *shape).write(exposure.hdr)


def cut_exposure(whole: Exposure, options: Any) -> Iterator[Exposure]:
    """Cut or pad an exposure in memory, and apply the options that do not concern files.

    Parameters
    ----------
    whole : Exposure
        Not changed.
    options : ReadOptions
        Of which `tile`, `tile_overlap`, `pad`, `band_names`, `abmag` and `err_scale` count.

    Yields
    ------
    Exposure
        With views of the arrays, unless they are padded.

    Raises
    ------
    UnusableExposureError
        When no tile has a usable pixel, or the size is no multiple of the super-pixel.
    """
    if misfit := size_misfit(whole.shape, options):
        raise UnusableExposureError(f"exposure {whole.expID}: {misfit}")
    n_made = 0
    for index, box in boxes(whole.shape, options):
        exposure = whole.copy()
        exposure.im, exposure.ierr, exposure.mask, exposure.bkg, exposure.area = (
            _part(image, box) for image in (whole.im, whole.ierr, whole.mask, whole.bkg, whole.area)
        )
        if index is not None and not has_data(exposure):
            continue
        exposure.band = options.band_names.get(whole.band, whole.band)
        if options.abmag is not None:
            exposure.hdr["ABMAG"] = options.abmag
        if options.err_scale != 1:
            exposure.ierr = exposure.ierr / options.err_scale
        if index is None:
            pad_as_asked(exposure, options)
        else:
            exposure.expID = f"{whole.expID}_{tile_part(index)}"
            become_tile(exposure, box, whole.shape, whole.expID, options)
        n_made += 1
        yield exposure
    if n_made == 0:
        raise UnusableExposureError(f"exposure {whole.expID}: no pixel of any tile could be used")


def _part(image: npt.NDArray[Any] | None, box: Box) -> Any:
    """The part of an image; None of none."""
    return None if image is None else image[box.x0 : box.x1, box.y0 : box.y1]
