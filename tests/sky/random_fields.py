"""Random footprints and regions at the places of the sphere where mistakes are made."""

from collections.abc import Iterable

import lsst.sphgeom as sphgeom
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

PLACES = {
    "equator": (137.0, 0.0),
    "RA 0": (0.0, -27.8),
    "RA 0 on the equator": (0.0, 0.0),
    "high declination": (311.0, 79.0),
    "north pole": (0.0, 90.0),
    "south pole": (45.0, -90.0),
}
"""Centres of the fields, degrees."""


def frame(ra: float, dec: float) -> Floats:
    """Rows: the direction (ra, dec) and two directions across it."""
    a, d = np.deg2rad([ra, dec])
    return np.array(
        [
            [np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)],
            [-np.sin(a), np.cos(a), 0.0],
            [-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)],
        ]
    )


def on_sky(centre: tuple[float, float], xi: npt.ArrayLike, eta: npt.ArrayLike) -> Floats:
    """Right ascension and declination, (..., 2), of tangent-plane offsets in degrees."""
    offsets = np.stack([np.ones(np.shape(xi)), np.deg2rad(xi), np.deg2rad(eta)], axis=-1)
    x, y, z = np.moveaxis(offsets @ frame(*centre), -1, 0)
    dec = np.arctan2(z, np.hypot(x, y))
    return np.rad2deg(np.stack([np.arctan2(y, x) % (2 * np.pi), dec], axis=-1))


def squares(
    rng: np.random.Generator, centre: tuple[float, float], n: int, side: float, spread: float
) -> Floats:
    """Outlines, (n, 8, 2), of squares at random angles within `spread` degrees of a centre."""
    along = np.linspace(-1, 1, 2, endpoint=False)
    one = np.ones(2)
    u = np.concatenate([along, one, -along, -one]) * side / 2
    v = np.concatenate([-one, along, one, -along]) * side / 2
    c, s = (f(rng.uniform(0, 2 * np.pi, (n, 1))) for f in (np.cos, np.sin))
    x, y = rng.uniform(-spread, spread, (2, n, 1))
    return on_sky(centre, x + c * u - s * v, y + s * u + c * v)


def vectors(sky: Floats) -> Floats:
    """Unit vectors, (..., 3), of right ascensions and declinations, (..., 2)."""
    ra, dec = np.moveaxis(np.deg2rad(sky), -1, 0)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def points_of_squares(outlines: Floats, n: int = 41) -> Floats:
    """Unit vectors, (k, n * n, 3), of points all over the areas of `squares`."""
    a, b, c, d = (vectors(outlines[:, None, corner]) for corner in (0, 2, 4, 6))
    s, t = (side.ravel()[:, None] for side in np.meshgrid(*2 * [np.linspace(0, 1, n)]))
    points = (1 - s) * ((1 - t) * a + t * d) + s * ((1 - t) * b + t * c)
    return points / np.linalg.norm(points, axis=-1, keepdims=True)


def points_of_box_edges(bounds: tuple[float, float, float, float], n: int = 65) -> Floats:
    """Right ascensions and declinations, (4 n, 2), along the edges of a rectangle."""
    west, east, south, north = bounds
    along = np.linspace(0, 1, n)
    ra = west + (east - west) % 360 * np.concatenate([along, along, 0 * along, 1 + 0 * along])
    dec = south + (north - south) * np.concatenate([0 * along, 1 + 0 * along, along, along])
    return np.stack([ra, dec], axis=-1)


def vector(position: Iterable[float]) -> sphgeom.UnitVector3d:
    return sphgeom.UnitVector3d(sphgeom.LonLat.fromDegrees(*(float(p) for p in position)))


def convex(outline: Floats) -> sphgeom.ConvexPolygon:
    """The independent library's polygon."""
    return sphgeom.ConvexPolygon([vector(position) for position in outline])


def circle(ra: float, dec: float, radius: float) -> sphgeom.Circle:
    """The independent library's circle."""
    return sphgeom.Circle(vector((ra, dec)), sphgeom.Angle.fromDegrees(radius))


def box(ra_min: float, ra_max: float, dec_min: float, dec_max: float) -> sphgeom.Box:
    """The independent library's rectangle, which wraps like ours."""
    lon = sphgeom.NormalizedAngleInterval.fromDegrees(ra_min, ra_max)
    return sphgeom.Box(lon, sphgeom.AngleInterval.fromDegrees(dec_min, dec_max))


def disjoint(a: sphgeom.Region, b: sphgeom.Region) -> bool:
    return bool(a.relate(b) & sphgeom.DISJOINT)
