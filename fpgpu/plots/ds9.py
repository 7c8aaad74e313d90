"""Region files for DS9: footprints, regions and sources, to lay over any image of the sky.

The format is that of DS9's reference manual, "Region file format: DS9 version 4.1".
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fpgpu.catalog import catalog_column
from fpgpu.plots.canvas import band_looks
from fpgpu.plots.skyplane import region_outline
from fpgpu.sky.regions import CircularRegion, Region
from fpgpu.sky.sphere import Floats, wrapped

if TYPE_CHECKING:
    from fpgpu.stores.meta import MetaStore

__all__ = ["Frame", "ds9_regions"]

Frame = Literal["fk5", "icrs"]

_HEADER = "# Region file format: DS9 version 4.1"
DIGITS = 8
"""Of degrees: 0.04 milliarcsec."""

_QUOTES = (("{", "}"), ('"', '"'), ("'", "'"))
_ON_BLACK = {"#000000": "white"}


def ds9_regions(
    meta: "MetaStore | None" = None,
    *,
    exposures: Iterable[tuple[str, str]] | None = None,
    regions: Sequence[Region] | Region = (),
    catalog: Any = None,
    frame: Frame = "fk5",
) -> str:
    """Write footprints, regions and sources as the text of a DS9 region file.

    Parameters
    ----------
    meta : MetaStore, optional
        Footprints of exposures; none when not given.
    exposures : iterable of (str, str), optional
        Which ones, as (band, expID); all by default.
    regions : sequence of Region, or Region, optional
        Circles become circles, other regions polygons.
    catalog : astropy.table.Table or structured array, shape (n_src,), optional
        Sources with columns ra and dec, degrees; each becomes a point with its number.
    frame : {"fk5", "icrs"}, optional
        Coordinates to write; positions, which are ICRS, are converted.

    Returns
    -------
    str
        The text, a line a shape; right ascensions are in [0, 360), also across the meridian 0.
        Shapes carry their band as a tag, by which DS9 shows or hides them together.

    Raises
    ------
    NotInStoreError
        If there is no such exposure.
    WCSError
        If an exposure has no usable WCS.
    CatalogError
        If the catalogue has no usable positions.
    """
    regions = [regions] if isinstance(regions, Region) else regions
    lines = [_HEADER, "global dashlist=8 3 width=1", frame]
    if meta is not None:
        keys = list(meta if exposures is None else exposures)
        looks = band_looks(dict.fromkeys(band for band, _ in keys))
        for band, expID in keys:
            ra, dec = meta.footprint(band, expID).T
            shape = _polygon(ra, dec, frame)
            tags = f"tag={_quoted(band)} tag={{footprint}}"
            color = _ON_BLACK.get(looks[band]["color"], looks[band]["color"])
            dash = int(looks[band]["linestyle"] != "-")
            name = _quoted(f"{band}/{expID}")
            lines.append(f"{shape} # color={color} dash={dash} text={name} {tags}")
    lines += (
        f"{_region(region, frame)} # color=green width=2 tag={{region}}" for region in regions
    )
    lines += _sources(catalog, frame)
    return "\n".join(lines) + "\n"


def _sources(catalog: Any, frame: Frame) -> Iterator[str]:
    """A point for each source."""
    if catalog is None:
        return
    places = _in_frame(catalog_column(catalog, "ra"), catalog_column(catalog, "dec"), frame)
    for number, (ra, dec) in enumerate(zip(*places, strict=True)):
        yield f"point({_pair(ra, dec)}) # point=x color=yellow text={{{number}}} tag={{source}}"


def _region(region: Region, frame: Frame) -> str:
    """Write a region."""
    if not isinstance(region, CircularRegion):
        ra, dec = region_outline(region)
        return _polygon(ra[:-1], dec[:-1], frame)
    ra, dec = _in_frame(np.array([region.ra]), np.array([region.dec]), frame)
    return f'circle({_pair(ra[0], dec[0])},{3600 * region.radius:.6f}")'


def _polygon(ra: Floats, dec: Floats, frame: Frame) -> str:
    """Write an outline."""
    ra, dec = _in_frame(ra, dec, frame)
    return f"polygon({','.join(map(_pair, ra, dec))})"


def _pair(ra: float, dec: float) -> str:
    """Write a position in degrees."""
    return f"{ra:.{DIGITS}f},{dec:+.{DIGITS}f}"


def _in_frame(ra: Floats, dec: Floats, frame: Frame) -> tuple[Floats, Floats]:
    """Convert positions from ICRS, which is up to 0.02 arcsec from FK5."""
    if frame == "fk5":
        from astropy.coordinates import SkyCoord

        converted = SkyCoord(ra, dec, unit="deg", frame="icrs").fk5
        ra, dec = np.asarray(converted.ra.deg), np.asarray(converted.dec.deg)
    # Rounded first, so that nothing is written as 360.
    return wrapped(np.round(ra, DIGITS)), dec


def _quoted(text: str) -> str:
    """Put text between delimiters that do not end inside it."""
    for opening, closing in _QUOTES:
        if not set(opening + closing) & set(text):
            return f"{opening}{text}{closing}"
    return "{" + text.replace("{", "(").replace("}", ")") + "}"
