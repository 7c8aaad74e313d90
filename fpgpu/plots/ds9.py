"""Region files for DS9: footprints, regions and sources, to lay over any image of the sky."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fpgpu.catalog import catalog_column
from fpgpu.plots.canvas import band_looks
from fpgpu.plots.skyplane import region_outline
from fpgpu.sky.regions import CircularRegion, Region
from fpgpu.sky.sphere import Floats, wrapped
from fpgpu.stores.metadata.skyrecords import Key

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord

    from fpgpu.stores.meta import MetaStore

__all__ = ["Frame", "ds9_regions"]

Frame = Literal["fk5", "icrs"]
Shape = tuple[Floats, Floats, Callable[["SkyCoord"], Any]]
"""Positions, ICRS, and what makes a shape of them where they are in the frame asked for."""

DIGITS = 9
"""Of degrees: 0.004 milliarcsec."""

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
    from regions import Regions

    regions = [regions] if isinstance(regions, Region) else regions
    shapes = [*_footprints(meta, exposures), *map(_outline, regions), *_sources(catalog)]
    # All positions in one call, which takes long; 0.02 arcsec lie between ICRS and FK5.
    places = _in_frame([ra for ra, *_ in shapes], [dec for _, dec, _ in shapes], frame)
    ends = np.cumsum([0, *(len(ra) for ra, *_ in shapes)])
    drawn = [
        make(places[first:last])
        for (*_, make), (first, last) in zip(shapes, itertools.pairwise(ends), strict=True)
    ]
    return str(Regions(drawn).serialize(format="ds9", precision=DIGITS))


def _footprints(meta: "MetaStore | None", exposures: Iterable[Key] | None) -> Iterator[Shape]:
    """A polygon for each exposure, with its name and its band as a tag."""
    from regions import PolygonSkyRegion

    keys = list(meta if exposures is None else exposures) if meta is not None else []
    looks = band_looks(dict.fromkeys(band for band, _ in keys))
    for band, expID in keys:
        ra, dec = meta.footprint(band, expID).T  # type: ignore[union-attr]
        color, style = looks[band].values()
        # On black, in which DS9 shows images; any other style is written as dashed.
        drawn = {"color": "white" if color == "#000000" else color}
        drawn |= {} if style == "-" else {"linestyle": "dashed"}
        told = _told([band, "footprint"], f"{band}/{expID}")
        yield ra, dec, partial(PolygonSkyRegion, meta=told, visual=drawn)


def _outline(region: Region) -> Shape:
    """A circle for a circle, a polygon for any other region."""
    from astropy.units import Quantity
    from regions import CircleSkyRegion, PolygonSkyRegion

    looks = {"meta": _told(["region"]), "visual": {"color": "green", "linewidth": 2}}
    if isinstance(region, CircularRegion):
        ra, dec, radius = np.array([region.ra]), np.array([region.dec]), region.radius
        return ra, dec, lambda at: CircleSkyRegion(at[0], Quantity(radius, "deg"), **looks)
    ra, dec = region_outline(region)
    return ra[:-1], dec[:-1], partial(PolygonSkyRegion, **looks)


def _sources(catalog: Any) -> Iterator[Shape]:
    """A point for each source, with its number."""
    from regions import PointSkyRegion

    if catalog is None:
        return
    looks = {"color": "yellow", "marker": "x"}
    ra, dec = catalog_column(catalog, "ra"), catalog_column(catalog, "dec")
    for k in range(len(ra)):
        point = partial(PointSkyRegion, meta=_told(["source"], str(k)), visual=looks)
        yield ra[k : k + 1], dec[k : k + 1], lambda at, make=point: make(at[0])  # type: ignore[misc]


def _told(tags: Sequence[str], text: str = "") -> dict[str, Any]:
    """Give a shape its tags and name, without the braces that would end them."""
    told = {"tag": [tag.translate(_NOT_BRACES) for tag in tags]}
    return told | ({"text": text.translate(_NOT_BRACES)} if text else {})


def _in_frame(ra: Sequence[Floats], dec: Sequence[Floats], frame: Frame) -> "SkyCoord":
    """Convert positions from ICRS."""
    from astropy.coordinates import SkyCoord

    none = np.zeros(0)
    places = SkyCoord(np.concatenate([none, *ra]), np.concatenate([none, *dec]), unit="deg")
    there = places.transform_to(frame).spherical
    # Rounded first, so that nothing is written as 360.
    return SkyCoord(
        wrapped(np.round(there.lon.deg, DIGITS)), there.lat.deg, unit="deg", frame=frame
    )
