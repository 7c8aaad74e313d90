"""Geometry of maps of the sky: offsets from a centre on the tangent plane, and outlines on it."""

from collections.abc import Sequence

import numpy as np

from fpgpu.sky.regions import PolygonRegion, RectangularRegion, RegionLike, as_region
from fpgpu.sky.sphere import Floats, positions, tangent_basis, tangent_coordinates, unit_vectors

__all__ = [
    "ARCMIN",
    "ARCSEC",
    "closed",
    "mean_position",
    "offsets",
    "region_outline",
    "sky_of_offsets",
]

Position = tuple[float, float]

ARCSEC = 3600.0 * 180.0 / np.pi
"""Arcseconds in a radian."""

ARCMIN = ARCSEC / 60.0
"""Arcminutes in a radian."""


def offsets(center: Position, ra: Floats, dec: Floats, unit: float = ARCSEC) -> tuple[Floats, ...]:
    """East and north offsets of positions in degrees from a centre, on the tangent plane."""
    xi, eta = tangent_coordinates(unit_vectors(ra, dec), unit_vectors(*center))
    return xi * unit, eta * unit


def sky_of_offsets(
    center: Position, east: Floats, north: Floats, unit: float = ARCSEC
) -> tuple[Floats, Floats]:
    """Positions in degrees at offsets from a centre on the tangent plane."""
    middle = unit_vectors(*center)
    basis = tangent_basis(middle)
    xi, eta = np.broadcast_arrays(east / unit, north / unit)
    return positions(middle + xi[..., None] * basis[0] + eta[..., None] * basis[1])


def mean_position(outlines: Sequence[Floats]) -> Position:
    """Right ascension and declination of the middle of outlines, degrees."""
    vectors = np.concatenate([unit_vectors(*np.transpose(outline)) for outline in outlines])
    ra, dec = positions(vectors.mean(axis=0))
    return float(ra), float(dec)


def closed(ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
    """Append the first point of an outline."""
    return np.append(ra, ra[0]), np.append(dec, dec[0])


def region_outline(region: RegionLike) -> tuple[Floats, Floats]:
    """Positions ra, dec in degrees along the edge of a region, closed."""
    region = as_region(region)
    if isinstance(region, PolygonRegion):
        return closed(np.array(region.ra), np.array(region.dec))
    along = np.linspace(0.0, 1.0, 65)
    if isinstance(region, RectangularRegion):
        (west, east, *_), (south, _, north, _) = region.bounding_box
        east += 360.0 * (east <= west)  # the region runs eastwards, also across RA = 0
        ra = np.concatenate([west + (east - west) * along, east + (west - east) * along, [west]])
        return ra, np.repeat([south, north, south], [len(along), len(along), 1])
    centre, radius = region.bounding_cap
    east, north = tangent_basis(centre)
    angle = 2 * np.pi * along[:, None]
    direction = np.cos(angle) * east + np.sin(angle) * north
    ra, dec = positions(np.cos(radius) * centre + np.sin(radius) * direction)
    return ra, dec
