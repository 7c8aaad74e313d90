"""Region files for DS9: footprints, regions and sources, to lay over any image of the sky."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from fpgpu.catalog import catalog_column
from fpgpu.plots.canvas import band_looks
from fpgpu.plots.skyplane import region_outline
from fpgpu.sky.regions import CircularRegion, Region
from fpgpu.sky.sphere import Floats, wrapped

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord

    from fpgpu.stores.meta import MetaStore

__all__ = ["Frame", "ds9_regions"]

Frame = Literal["fk5", "icrs"]
Key = tuple[str, str]

DIGITS = 9
"""Of degrees: 0.004 milliarcsec."""

_ON_BLACK = {"#000000": "white"}
_NOT_BRACES = str.maketrans("{}", "()")  # which would end a text of DS9


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
    from regions import CircleSkyRegion, PointSkyRegion, PolygonSkyRegion, Regions

    regions = [regions] if isinstance(regions, Region) else regions
    shapes = [*_footprints(meta, exposures), *map(_shape_of, regions), *_sources(catalog)]
    kinds = {"polygon": PolygonSkyRegion, "circle": CircleSkyRegion, "point": PointSkyRegion}
    drawn = [
        kinds[shape.kind](
            places if shape.kind == "polygon" else places[0],
            *shape.size,
            meta=_told(shape),
            visual=shape.looks,
        )
        for shape, places in zip(shapes, _in_frame(shapes, frame), strict=True)
    ]
    return str(Regions(drawn).serialize(format="ds9", precision=DIGITS))


def _told(shape: "_Shape") -> dict[str, Any]:
    """Name a shape and its tags, without the braces that would end them."""
    told = {"tag": [tag.translate(_NOT_BRACES) for tag in shape.tags]}
    return told | ({"text": shape.text.translate(_NOT_BRACES)} if shape.text else {})


class _Shape(NamedTuple):
    """A line of the file; positions are ICRS."""

    kind: str
    ra: Floats
    dec: Floats
    looks: dict[str, Any]
    tags: list[str]
    text: str = ""
    size: tuple[Any, ...] = ()


def _footprints(meta: "MetaStore | None", exposures: Iterable[Key] | None) -> Iterator[_Shape]:
    """A polygon for each exposure, with its name and its band as a tag."""
    if meta is None:
        return
    keys = list(meta if exposures is None else exposures)
    looks = band_looks(dict.fromkeys(band for band, _ in keys))
    for band, expID in keys:
        color = _ON_BLACK.get(looks[band]["color"], looks[band]["color"])
        ra, dec = meta.footprint(band, expID).T
        drawn = {"color": color}
        if looks[band]["linestyle"] != "-":  # any style is written as dashed
            drawn["linestyle"] = "dashed"
        yield _Shape("polygon", ra, dec, drawn, [band, "footprint"], f"{band}/{expID}")


def _shape_of(region: Region) -> _Shape:
    """A circle for a circle, a polygon for any other region."""
    from astropy import units as u

    looks = {"color": "green", "linewidth": 2}
    if isinstance(region, CircularRegion):
        ra, dec = np.array([region.ra]), np.array([region.dec])
        return _Shape("circle", ra, dec, looks, ["region"], size=(region.radius * u.deg,))
    ra, dec = region_outline(region)
    return _Shape("polygon", ra[:-1], dec[:-1], looks, ["region"])


def _sources(catalog: Any) -> Iterator[_Shape]:
    """A point for each source, with its number."""
    if catalog is None:
        return
    places = np.stack([catalog_column(catalog, "ra"), catalog_column(catalog, "dec")], axis=-1)
    looks = {"color": "yellow", "marker": "x"}
    for number, (ra, dec) in enumerate(places):
        yield _Shape("point", np.array([ra]), np.array([dec]), looks, ["source"], str(number))


def _in_frame(shapes: Sequence[_Shape], frame: Frame) -> "Iterator[SkyCoord]":
    """Convert positions from ICRS, which is up to 0.02 arcsec from FK5: all in one call."""
    from astropy.coordinates import SkyCoord

    ra, dec = (np.concatenate([np.zeros(0), *(shape[axis] for shape in shapes)]) for axis in (1, 2))
    there = SkyCoord(ra, dec, unit="deg", frame="icrs").transform_to(frame)
    # Rounded first, so that nothing is written as 360.
    ra = wrapped(np.round(there.spherical.lon.deg, DIGITS))
    written = SkyCoord(ra, there.spherical.lat.deg, unit="deg", frame=frame)
    ends = np.cumsum([0, *(len(shape.ra) for shape in shapes)])
    return (written[first:last] for first, last in itertools.pairwise(ends))
