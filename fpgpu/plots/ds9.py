"""Region files for DS9: footprints, regions and sources, to lay over any image of the sky.

The format is that of DS9's reference manual, "Region file format: DS9 version 4.1". The package
regions could write it, too, with some ten lines less here: but it needs a second or two for its
import and again for a thousand footprints, writes a position just below RA 0 as 360, and leaves
braces in names as they are. The tests read files with it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

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
Key = tuple[str, str]

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
    shapes = [*_footprints(meta, exposures), *map(_shape_of, regions), *_sources(catalog)]
    lines = [_HEADER, "global dashlist=8 3 width=1", frame]
    for shape, (ra, dec) in zip(shapes, _in_frame(shapes, frame), strict=True):
        corners = ",".join(f"{x:.{DIGITS}f},{y:+.{DIGITS}f}" for x, y in zip(ra, dec, strict=True))
        lines.append(f"{shape.kind}({corners}{shape.size}) # {shape.looks}")
    return "\n".join(lines) + "\n"


class _Shape(NamedTuple):
    """A line of the file; positions are ICRS."""

    kind: str
    ra: Floats
    dec: Floats
    looks: str
    size: str = ""


def _footprints(meta: "MetaStore | None", exposures: Iterable[Key] | None) -> Iterator[_Shape]:
    """A polygon for each exposure, with its name and its band as a tag."""
    if meta is None:
        return
    keys = list(meta if exposures is None else exposures)
    looks = band_looks(dict.fromkeys(band for band, _ in keys))
    for band, expID in keys:
        color = _ON_BLACK.get(looks[band]["color"], looks[band]["color"])
        dash = int(looks[band]["linestyle"] != "-")
        name, tag = _quoted(f"{band}/{expID}"), _quoted(band)
        told = f"color={color} dash={dash} text={name} tag={tag} tag={{footprint}}"
        ra, dec = meta.footprint(band, expID).T
        yield _Shape("polygon", ra, dec, told)


def _shape_of(region: Region) -> _Shape:
    """A circle for a circle, a polygon for any other region."""
    looks = "color=green width=2 tag={region}"
    if isinstance(region, CircularRegion):
        ra, dec = np.array([region.ra]), np.array([region.dec])
        return _Shape("circle", ra, dec, looks, f',{3600 * region.radius:.6f}"')
    ra, dec = region_outline(region)
    return _Shape("polygon", ra[:-1], dec[:-1], looks)


def _sources(catalog: Any) -> Iterator[_Shape]:
    """A point for each source, with its number."""
    if catalog is None:
        return
    places = np.stack([catalog_column(catalog, "ra"), catalog_column(catalog, "dec")], axis=-1)
    for number, (ra, dec) in enumerate(places):
        looks = f"point=x color=yellow text={{{number}}} tag={{source}}"
        yield _Shape("point", np.array([ra]), np.array([dec]), looks)


def _in_frame(shapes: Sequence[_Shape], frame: Frame) -> Iterator[tuple[Floats, Floats]]:
    """Convert positions from ICRS, which is up to 0.02 arcsec from FK5: all in one call."""
    ra, dec = (np.concatenate([np.zeros(0), *(shape[axis] for shape in shapes)]) for axis in (1, 2))
    if frame == "fk5":
        from astropy.coordinates import SkyCoord

        converted = SkyCoord(ra, dec, unit="deg", frame="icrs").fk5
        ra, dec = np.asarray(converted.ra.deg), np.asarray(converted.dec.deg)
    ends = np.cumsum([len(shape.ra) for shape in shapes], dtype=int)
    # Rounded first, so that nothing is written as 360. Nothing is left after the last end.
    parts = (np.split(values, ends)[:-1] for values in (wrapped(np.round(ra, DIGITS)), dec))
    return zip(*parts, strict=True)


def _quoted(text: str) -> str:
    """Put text between delimiters that do not end inside it."""
    for opening, closing in _QUOTES:
        if not set(opening + closing) & set(text):
            return f"{opening}{text}{closing}"
    return "{" + text.replace("{", "(").replace("}", ")") + "}"
