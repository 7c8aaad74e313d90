"""Areas of the sky that can be asked for: circle, rectangle, polygon.

Each answers two kinds of question. `contains` selects super-pixels exactly as forcepho does; all
other methods work on the sphere, where RA = 0 and the poles are places like any other.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
import numpy.typing as npt

from fpgpu.errors import RegionError
from fpgpu.sky.angles import AngleLike, PositionLike, in_degrees, is_position, sky_position
from fpgpu.sky.polygons import ROUNDING, Bools, Polygons, bounding_caps
from fpgpu.sky.sphere import Floats, positions, separation, unit_vectors
from fpgpu.sky.wcs import SkyWCS

if TYPE_CHECKING:
    from regions import SkyRegion

__all__ = [
    "CircularRegion",
    "PolygonRegion",
    "RectangularRegion",
    "Region",
    "RegionLike",
    "as_region",
]


class Region(ABC):
    """What all regions offer."""

    @property
    @abstractmethod
    def center(self) -> tuple[float, float]:
        """Right ascension and declination of the middle, degrees."""

    @property
    @abstractmethod
    def bounding_cap(self) -> tuple[Floats, float]:
        """Circle on the sphere around the region: unit vector, shape (3,), and radius, radians."""

    def contains_sky(self, ra: PositionLike, dec: AngleLike | None = None) -> Bools:
        """Tell which positions are inside.

        Parameters
        ----------
        ra, dec : array_like or Quantity
            Degrees, or with units, shapes that broadcast together; or a SkyCoord alone.

        Returns
        -------
        inside : ndarray of bool
            False on the edge and for NaN.
        """
        east, north = _arrays(*sky_position(ra, dec))
        return self._within(east, north, 0.0)

    def near_sky(
        self, ra: PositionLike, dec: AngleLike | None = None, margin: AngleLike = 0.0
    ) -> Bools:
        """Tell which positions are inside, or not far outside.

        Parameters
        ----------
        ra, dec : array_like or Quantity
            Degrees, or with units, shapes that broadcast together; or a SkyCoord alone.
        margin : float or Quantity
            Degrees that they may be outside; from each of its edges for a rectangle.

        Returns
        -------
        near : ndarray of bool
            False for NaN.
        """
        east, north = np.broadcast_arrays(*_arrays(*sky_position(ra, dec)))
        return self._within(east, north, max(0.0, in_degrees(margin, "margin")))

    def touches(self, polygons: Polygons) -> Bools:
        """Tell which polygons have any point in common with the region, edges included.

        Parameters
        ----------
        polygons : Polygons
            A stack of k.

        Returns
        -------
        touched : ndarray of bool, shape (k,)
        """
        return self._touches(polygons)

    @abstractmethod
    def _within(self, ra: Floats, dec: Floats, margin: float) -> Bools:
        """`contains_sky` for float64 arrays, or `near_sky` with a margin of 0 or more."""

    @abstractmethod
    def _touches(self, polygons: Polygons) -> Bools:
        """`touches` for this shape."""

    def contains(
        self, xcorners: npt.ArrayLike, ycorners: npt.ArrayLike, wcs: Any
    ) -> tuple[npt.NDArray[np.intp], ...]:
        """Select the super-pixels that have a corner inside, as forcepho does.

        Parameters
        ----------
        xcorners, ycorners : array_like, shape (..., 4)
            Zero-based pixels of the corners of super-pixels.
        wcs : SkyWCS, astropy.wcs.WCS or gwcs.WCS
            Of the exposure.

        Returns
        -------
        selected : tuple of ndarray of int
            Indices along the leading axes, as from `numpy.nonzero`.
        """
        sky = wcs if isinstance(wcs, SkyWCS) else SkyWCS.from_native(wcs)
        inside = self.contains_sky(*sky.pixel_to_world(xcorners, ycorners))
        return np.nonzero(inside.any(axis=-1))

    @property
    def bounding_box(self) -> Floats:
        """Corners of an upright box around the region, shape (2, 4): ra, dec in degrees.

        In forcepho's order SW, SE, NE, NW. Right ascensions may lie beyond 0 and 360; a box that
        holds a pole spans 360 degrees.
        """
        ra, dec = self.center
        radius = float(np.rad2deg(self.bounding_cap[1]))
        south, north = max(dec - radius, -90.0), min(dec + radius, 90.0)
        half = 180.0
        if abs(dec) + radius < 90.0:
            sine = np.sin(np.deg2rad(radius)) / np.cos(np.deg2rad(dec))
            half = float(np.rad2deg(np.arcsin(min(sine, 1.0))))
        return _box_corners(ra - half, ra + half, south, north)


RegionLike: TypeAlias = Union[Region, "SkyRegion"]
"""What `as_region` takes: a region of fpgpu, or of the package regions."""

_LARGE = 0.1
"""Degrees: the radius of few patches, and a radius in arcsec of many."""


@dataclass(frozen=True, init=False)
class CircularRegion(Region):
    """A circle on the sky.

    Parameters
    ----------
    ra, dec : float, Quantity or str
        Centre: degrees, or with units, or as ``"3:32:38.4"`` (hours) and ``"-27:47:24"``. Or, in
        place of both, one SkyCoord.
    radius : float, Quantity or str
        Degrees of arc, or with units; above 0 and up to 180 degrees.

    Attributes
    ----------
    ra, dec, radius : float
        Degrees, ICRS.

    Raises
    ------
    RegionError
        When a value is no angle, not finite or out of range.

    Warns
    -----
    UserWarning
        When the radius is a number of more than 0.1: it is in degrees.

    Examples
    --------
    >>> import astropy.units as u
    >>> from astropy.coordinates import SkyCoord
    >>> CircularRegion(53.16, -27.79, 3.6 * u.arcsec)
    CircularRegion(ra=53.16, dec=-27.79, radius=0.001)
    >>> CircularRegion(SkyCoord(53.16, -27.79, unit="deg"), 3.6 * u.arcsec)
    CircularRegion(ra=53.16, dec=-27.79, radius=0.001)
    """

    ra: float
    dec: float
    radius: float

    def __init__(
        self, ra: PositionLike, dec: AngleLike | None = None, radius: AngleLike | None = None
    ) -> None:
        if radius is None and is_position(ra):
            dec, radius = None, dec
        east, north = sky_position(ra, dec)
        if radius is None:
            raise RegionError("a circle needs a radius: (ra, dec, radius), or (SkyCoord, radius)")
        _keep_floats(self, ra=east, dec=north, radius=in_degrees(radius, "radius"))
        _check_declination(self, "dec")
        if not 0.0 < self.radius <= 180.0:
            raise RegionError(f"{self!r}: the radius must be above 0 and up to 180 degrees")
        if self.radius > _LARGE and _is_bare(radius):
            warnings.warn(
                f"a radius of {radius} is in degrees; for arcsec, give {radius} * u.arcsec"
                f" (astropy.units as u) or {radius} / 3600",
                stacklevel=2,
            )

    @property
    def center(self) -> tuple[float, float]:
        """Right ascension and declination of the centre, degrees."""
        return self.ra, self.dec

    @property
    def bounding_cap(self) -> tuple[Floats, float]:
        """The circle itself: unit vector, shape (3,), and radius in radians."""
        return unit_vectors(self.ra, self.dec), float(np.deg2rad(self.radius))

    def _within(self, ra: Floats, dec: Floats, margin: float) -> Bools:
        return np.asarray(separation(self.ra, self.dec, ra, dec) < self.radius + margin)

    def _touches(self, polygons: Polygons) -> Bools:
        centre, radius = self.bounding_cap
        return polygons.within(centre[None, :], radius)[:, 0]

    def contains(
        self, xcorners: npt.ArrayLike, ycorners: npt.ArrayLike, wcs: Any
    ) -> tuple[npt.NDArray[np.intp], ...]:
        """Select the super-pixels that have a corner inside, as forcepho does.

        The circle is tested in pixels: a corner is inside when its squared distance from
        pixel(ra, dec) is strictly less than that of pixel(ra, dec + radius). Where the WCS
        cannot place these two points, because the circle reaches beyond its distortion or
        projection, the corners are tested on the sky.

        Parameters
        ----------
        xcorners, ycorners : array_like, shape (..., 4)
            Zero-based pixels of the corners of super-pixels.
        wcs : SkyWCS, astropy.wcs.WCS or gwcs.WCS
            Of the exposure.

        Returns
        -------
        selected : tuple of ndarray of int
            Indices along the leading axes, as from `numpy.nonzero`.
        """
        sky = wcs if isinstance(wcs, SkyWCS) else SkyWCS.from_native(wcs)
        disc = self.in_pixels(sky)
        if disc is None:
            return super().contains(xcorners, ycorners, sky)
        x, y, r2 = disc
        d2 = (x - np.asarray(xcorners)) ** 2 + (y - np.asarray(ycorners)) ** 2
        return np.nonzero((d2 < r2).any(axis=-1))

    def in_pixels(self, sky: SkyWCS, exact: bool = False) -> tuple[float, float, float] | None:
        """Give the circle in pixels that stands for this one in forcepho.

        Parameters
        ----------
        sky : SkyWCS
            Of the exposure.
        exact : bool, optional
            Whether the WCS is inverted exactly instead of by the inverse that comes with it.

        Returns
        -------
        (float, float, float) or None
            Zero-based x and y of the centre, and the squared distance in pixels to the point one
            radius north; None where the WCS cannot place these two.
        """
        # A declination beyond 90 is a place behind the pole, to every formula used here.
        ra, dec = np.array([self.ra, self.ra]), np.array([self.dec, self.dec + self.radius])
        x, y = sky.world_to_pixel(ra, dec) if exact else sky.native_world_to_pixel(ra, dec)
        r2 = (x[0] - x[1]) ** 2 + (y[0] - y[1]) ** 2
        with np.errstate(all="ignore"):
            missed = separation(ra, dec, *sky.pixel_to_world(x, y)).max()
            missed_pixels = missed / self.radius * np.sqrt(r2)
        # Inverse polynomials miss by a few hundredths of a pixel, broken ones by far more.
        if not missed_pixels <= 0.1 + 0.01 * np.sqrt(r2):
            return None
        return float(x[0]), float(y[0]), float(r2)


@dataclass(frozen=True, init=False)
class RectangularRegion(Region):
    """An area between two meridians and two parallels.

    Parameters
    ----------
    ra_min, ra_max : float, Quantity or str
        Western and eastern edge: degrees, or with units, or as text in hours. The area runs from
        ra_min eastwards, so ``ra_min=359.9, ra_max=0.1`` is 0.2 degrees wide; ``0, 360`` is the
        whole circle.
    dec_min, dec_max : float, Quantity or str
        Southern and northern edge. The edges are parallels, not great circles.

    Attributes
    ----------
    ra_min, ra_max, dec_min, dec_max : float
        Degrees, ICRS.

    Raises
    ------
    RegionError
        When a value is no angle, not finite or out of range, or the area is empty.

    Examples
    --------
    >>> region = RectangularRegion(53.15, 53.17, "-27:48:00", "-27:47:00")
    >>> region.contains_sky([53.16, 53.18], -27.79).tolist()
    [True, False]
    """

    ra_min: float
    ra_max: float
    dec_min: float
    dec_max: float

    def __init__(
        self, ra_min: AngleLike, ra_max: AngleLike, dec_min: AngleLike, dec_max: AngleLike
    ) -> None:
        west, south = sky_position(ra_min, dec_min)
        east, north = sky_position(ra_max, dec_max)
        _keep_floats(self, ra_min=west, ra_max=east, dec_min=south, dec_max=north)
        _check_declination(self, "dec_min", "dec_max")
        if self.dec_min >= self.dec_max:
            raise RegionError(f"{self!r}: dec_min must be below dec_max")
        if self._width == 0.0 or self._width > 360.0:
            raise RegionError(
                f"{self!r}: spans {self.ra_max - self.ra_min:g} degrees of right ascension; "
                "expected more than 0 and up to 360"
            )

    @property
    def _width(self) -> float:
        """Degrees of right ascension from ra_min eastwards to ra_max."""
        width = self.ra_max - self.ra_min
        return width if width > 0.0 else width % 360.0

    @property
    def center(self) -> tuple[float, float]:
        """Right ascension and declination halfway between the edges, degrees."""
        return (self.ra_min + 0.5 * self._width) % 360.0, 0.5 * (self.dec_min + self.dec_max)

    @property
    def bounding_box(self) -> Floats:
        """The region's own corners, shape (2, 4): ra, dec in degrees, in order SW, SE, NE, NW."""
        return _box_corners(self.ra_min, self.ra_max, self.dec_min, self.dec_max)

    @property
    def bounding_cap(self) -> tuple[Floats, float]:
        """Circle on the sphere around the region: unit vector, shape (3,), and radius, radians."""
        polar = [(90.0, 90.0 - self.dec_min), (-90.0, 90.0 + self.dec_max)]
        caps = [(unit_vectors(0.0, dec), np.deg2rad(radius)) for dec, radius in polar]
        if self._width <= 180.0:
            # No wider: from the middle of such an area its corners are the furthest points.
            middle, corners = self.center, self.bounding_box
            radius = separation(*middle, *corners).max()
            caps.append((unit_vectors(*middle), np.deg2rad(radius)))
        centre, radius = min(caps, key=lambda cap: float(cap[1]))
        return centre, float(radius) + ROUNDING

    def _within(self, ra: Floats, dec: Floats, margin: float) -> Bools:
        if not margin:
            return self._between_meridians(ra, np.zeros(())) & self._between_parallels(dec, 0.0)
        # How far from a meridian: the sine of the distance is cos(dec) times that of the angle.
        sine = np.sin(np.deg2rad(min(margin, 90.0))) / np.maximum(np.cos(np.deg2rad(dec)), 1e-9)
        slack = np.where(sine < 1, np.rad2deg(np.arcsin(np.minimum(sine, 1))), 360.0)
        return self._between_meridians(ra, slack) & self._between_parallels(dec, margin)

    def _touches(self, polygons: Polygons) -> Bools:
        return _touches_across_edges(self, polygons, unit_vectors(*self.center), self._meets)

    def _meets(self, polygons: Polygons) -> Bools:
        """Whether outlines touch, or polygons lie inside the region."""
        corners = unit_vectors(*self.bounding_box)
        touched = polygons.near_outline(corners, ROUNDING).any(axis=1)
        touched |= self._holds(polygons.vertices).any(axis=1)
        if self._width < 360.0:
            touched |= polygons.meet_arcs(*self._meridians())
        parallels = [dec for dec in (self.dec_min, self.dec_max) if abs(dec) < 90.0]
        touched |= polygons.meet_parallels(np.deg2rad(parallels), self._spans)
        return np.asarray(touched)

    def _between_meridians(self, ra: Floats, slack: Floats) -> Bools:
        """Whether right ascensions are between the edges or less than `slack` beyond them."""
        if self._width == 360.0:
            return np.asarray(np.isfinite(ra))
        # Exact for values in 0..360: no rounding decides what is on an edge.
        ra = np.mod(ra, 360.0)
        west, east = self.ra_min % 360.0, self.ra_max % 360.0 or 360.0
        past_west, before_east = ra > west - slack, ra < east + slack
        inside = past_west & before_east if west < east else past_west | before_east
        # Edges at RA = 0 have their slack on the other side of the seam.
        return np.asarray(inside | (ra > west - slack + 360.0) | (ra < east + slack - 360.0))

    def _between_parallels(self, dec: Floats, slack: float) -> Bools:
        # A pole is an inner point of a cap around it, not an edge.
        above = (dec > self.dec_min - slack) | (self.dec_min == -90.0)
        below = (dec < self.dec_max + slack) | (self.dec_max == 90.0)
        return np.asarray(above & below & np.isfinite(dec))

    def _spans(self, vectors: Floats) -> Bools:
        """Whether vectors are between the meridians or on one."""
        ra, dec = positions(vectors)
        # Rounding of a vector changes its right ascension the more, the nearer it is to a pole.
        slack = np.rad2deg(4 * ROUNDING) / np.maximum(np.cos(np.deg2rad(dec)), 1e-9)
        return self._between_meridians(ra, np.asarray(slack))

    def _holds(self, vectors: Floats) -> Bools:
        """Whether vectors are inside or on an edge."""
        dec = positions(vectors)[1]
        slack = float(np.rad2deg(ROUNDING))
        return np.asarray(self._spans(vectors) & self._between_parallels(dec, slack))

    def _meridians(self) -> tuple[Floats, Floats]:
        """Both meridian edges as arcs of at most 90 degrees: starts and ends, shape (4, 3)."""
        middle = 0.5 * (self.dec_min + self.dec_max)
        ra = np.repeat([self.ra_min, self.ra_max], 2)
        starts = unit_vectors(ra, [self.dec_min, middle, self.dec_min, middle])
        ends = unit_vectors(ra, [middle, self.dec_max, middle, self.dec_max])
        return starts, ends


@dataclass(frozen=True, init=False)
class PolygonRegion(Region):
    """An area with great-circle edges, smaller than a hemisphere; it may be concave.

    Parameters
    ----------
    ra, dec : sequence of float, or Quantity
        Vertices in order, either way round, three or more: degrees, or with units. Or, in place of
        both, one SkyCoord of them.

    Attributes
    ----------
    ra, dec : tuple of float
        Degrees, ICRS.

    Raises
    ------
    RegionError
        When there are fewer than three vertices, a value is no angle, not finite or out of range,
        or the vertices do not fit in a hemisphere or are on one line.

    Examples
    --------
    >>> region = PolygonRegion([53.15, 53.17, 53.16], [-27.8, -27.8, -27.78])
    >>> bool(region.contains_sky(53.16, -27.79))
    True
    """

    ra: tuple[float, ...]
    dec: tuple[float, ...]

    def __init__(self, ra: PositionLike, dec: AngleLike | None = None) -> None:
        for name, values in zip(("ra", "dec"), sky_position(ra, dec), strict=True):
            object.__setattr__(self, name, tuple(map(float, np.ravel(values))))
        if len(self.ra) != len(self.dec) or len(self.ra) < 3:
            raise RegionError(
                f"a polygon was given {len(self.ra)} right ascensions and {len(self.dec)} "
                "declinations; expected as many of both, three or more"
            )
        _check_finite(self, *self.ra, *self.dec)
        if max(np.abs(self.dec)) > 90.0:
            raise RegionError(f"{self!r}: declinations must be between -90 and 90 degrees")
        if not self.bounding_cap[1] < 0.5 * np.pi:
            raise RegionError(f"{self!r}: does not fit in a hemisphere")
        if _is_line(self._vertices):
            raise RegionError(f"{self!r}: has no area; its vertices are on one line")

    @property
    def center(self) -> tuple[float, float]:
        """Right ascension and declination of the bounding circle's centre, degrees."""
        ra, dec = positions(self.bounding_cap[0])
        return float(ra), float(dec)

    @property
    def bounding_cap(self) -> tuple[Floats, float]:
        """Circle on the sphere around the region: unit vector, shape (3,), and radius, radians."""
        centres, radii = bounding_caps(self._vertices[None])
        return centres[0], float(radii[0])

    @property
    def _vertices(self) -> Floats:
        return unit_vectors(self.ra, self.dec)

    def _within(self, ra: Floats, dec: Floats, margin: float) -> Bools:
        points = unit_vectors(ra, dec)
        own, flat = Polygons.of(self._vertices[None]), points.reshape(-1, 3)
        inside = own.within(flat, float(np.deg2rad(margin))) if margin else own.contain(flat)
        return inside.reshape(points.shape[:-1])

    def _touches(self, polygons: Polygons) -> Bools:
        return _touches_across_edges(
            self, polygons, unit_vectors(self.ra[0], self.dec[0]), self._meets
        )

    def _meets(self, polygons: Polygons) -> Bools:
        """Whether outlines touch, or polygons lie inside the region."""
        own = self._vertices
        touched = polygons.near_outline(own, ROUNDING).any(axis=1)
        k, n, _ = polygons.vertices.shape
        inside = Polygons.of(own[None]).within(polygons.vertices.reshape(-1, 3), ROUNDING)
        touched |= inside.reshape(k, n).any(axis=1)
        return touched | polygons.meet_arcs(own, np.roll(own, -1, axis=0))


def as_region(region: Any) -> Region:
    """Take a region of fpgpu, of the package regions, or of forcepho.

    Parameters
    ----------
    region : Region; or CircleSkyRegion, RectangleSkyRegion or PolygonSkyRegion of regions
        A region of fpgpu is returned as it is. Of any other kind, also one with the attributes of a
        circle or a rectangle here, in degrees, as forcepho's.

    Returns
    -------
    Region
        Of fpgpu.

    Raises
    ------
    RegionError
        If it is none of these, or one that is excluded (``include`` of its meta is False).

    Examples
    --------
    >>> import astropy.units as u
    >>> from astropy.coordinates import SkyCoord
    >>> from regions import CircleSkyRegion
    >>> as_region(CircleSkyRegion(SkyCoord(53.16, -27.79, unit="deg"), 3.6 * u.arcsec))
    CircularRegion(ra=53.16, dec=-27.79, radius=0.001)
    """
    if isinstance(region, Region):
        return region
    for kind in type(region).__mro__:
        if kind.__name__ in _OF_REGIONS:
            _require_included(region)
            return _OF_REGIONS[kind.__name__](region)
    for shape, names in _LOOKS.items():
        if all(hasattr(region, name) for name in names):
            return shape(*(getattr(region, name) for name in names))
    hint, shown = "", repr(region)
    if is_position(region):
        hint = "; around a position: CircularRegion(position, radius)"
    elif hasattr(region, "to_sky"):
        hint = "; turn it into one of the sky: to_sky(wcs)"
    elif isinstance(region, list | tuple) or type(region).__name__ == "Regions":
        hint = (
            "; of several, give one, or all to Survey.stream; there a region with a catalogue of"
            " its own is the tuple (region, catalog)"
        )
        shown = f"a {type(region).__name__} of {len(region)}"
    raise RegionError(
        f"{shown} is no region; expected a CircularRegion, RectangularRegion or PolygonRegion, a"
        " circle, rectangle or polygon on the sky of the package regions, or a region of"
        f" forcepho{hint}"
    )


def _arrays(*values: Any) -> tuple[Floats, ...]:
    """Take numbers as arrays."""
    return tuple(np.asarray(value, np.float64) for value in values)


def _touches_across_edges(
    region: Region, polygons: Polygons, anchor: Floats, meets: Callable[[Polygons], Bools]
) -> Bools:
    """Spare most polygons the full comparison of all edges, `meets`.

    Those that hold the region's `anchor`, some point of it, touch it. The others can only be
    reached across their outline, which for most is too far away.
    """
    touched = polygons.contain(anchor[None, :])[:, 0]
    others = np.flatnonzero(~touched)
    centre, radius = region.bounding_cap
    near = polygons.take(others).near_outline(centre[None, :], radius)[:, 0]
    if near.any():
        touched[others[near]] = meets(polygons.take(others[near]))
    return touched


def _box_corners(west: float, east: float, south: float, north: float) -> Floats:
    """Corners in forcepho's order SW, SE, NE, NW, shape (2, 4)."""
    return np.array([[west, east, east, west], [south, south, north, north]])


def _keep_floats(region: Region, **values: Any) -> None:
    """Keep plain floats as fields, so that regions compare, print and pickle as values."""
    for name, value in values.items():
        if np.ndim(value):
            raise RegionError(f"{name} is {value}; expected one number")
        object.__setattr__(region, name, float(value))
    _check_finite(region, *(getattr(region, name) for name in values))


def _check_finite(region: Region, *values: float) -> None:
    """Refuse a region described by NaN or infinity."""
    if not np.isfinite(values).all():
        raise RegionError(f"{region!r}: every value must be finite")


def _check_declination(region: Region, *names: str) -> None:
    """Refuse declinations beyond the poles."""
    for name in names:
        value = getattr(region, name)
        if abs(value) > 90.0:
            raise RegionError(f"{region!r}: {name} is {value:g}, expected -90 to 90 degrees")


def _is_bare(angle: Any) -> bool:
    """Whether an angle is a number that does not say its unit."""
    if isinstance(angle, str):
        try:
            float(angle)
        except ValueError:
            return False
    return not hasattr(angle, "unit")


def _is_line(vertices: Floats) -> bool:
    """Whether unit vectors are all on one great circle, or in one point."""
    away = vertices - vertices[0]
    furthest = away[np.argmax((away**2).sum(axis=1))]
    length = np.sqrt((furthest**2).sum())
    width = abs(away @ np.cross(vertices[0], furthest)).max()
    return bool(length <= ROUNDING or width <= ROUNDING * length)


def _require_included(region: Any) -> None:
    """Refuse a region of regions that stands for what is outside of it."""
    if (getattr(region, "meta", None) or {}).get("include", True) in (False, "-"):
        raise RegionError(
            f"{region!r} is excluded (include of its meta); give the region that is wanted, without"
            " those cut out of it"
        )


def _rectangle(region: Any) -> PolygonRegion:
    """Take a rectangle of regions, which may be turned: its sides are great circles."""
    if max(region.width, region.height).to_value("deg") >= 180.0:
        raise RegionError(f"{region!r}: its sides must be below 180 degrees")
    right = 0.5 * region.width * np.array([1, -1, -1, 1])
    up = 0.5 * region.height * np.array([1, 1, -1, -1])
    cosine, sine = np.cos(region.angle), np.sin(region.angle)
    # Turned anti-clockwise as seen on the sky, where the right is west.
    east, north = up * sine - right * cosine, right * sine + up * cosine
    return PolygonRegion(region.center.spherical_offsets_by(east, north))


_OF_REGIONS: dict[str, Callable[[Any], Region]] = {
    "CircleSkyRegion": lambda circle: CircularRegion(circle.center, circle.radius),
    "PolygonSkyRegion": lambda polygon: PolygonRegion(polygon.vertices),
    "RectangleSkyRegion": _rectangle,
}
"""Classes of the package regions, by name: it need not be installed."""

_LOOKS: dict[type[Region], tuple[str, ...]] = {
    CircularRegion: ("ra", "dec", "radius"),
    RectangularRegion: ("ra_min", "ra_max", "dec_min", "dec_max"),
}
