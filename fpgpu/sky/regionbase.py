"""What circle, rectangle and polygon have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.errors import RegionError
from fpgpu.sky.angles import AngleLike, PositionLike, in_degrees, sky_position
from fpgpu.sky.polygons import Bools, Polygons
from fpgpu.sky.sphere import Floats
from fpgpu.sky.wcs import SkyWCS

__all__ = [
    "Region",
    "box_corners",
    "check_declination",
    "check_finite",
    "keep_floats",
    "touches_across_edges",
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
        return self._inside(*_arrays(*sky_position(ra, dec)))

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
        away = in_degrees(margin, "margin")
        near = self._inside(east, north)
        return near | self._near(east, north, away) if away > 0 else near

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
    def _inside(self, ra: Floats, dec: Floats) -> Bools:
        """`contains_sky` for float64 arrays."""

    @abstractmethod
    def _near(self, ra: Floats, dec: Floats, margin: float) -> Bools:
        """`near_sky` for positions that may be outside."""

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
        return box_corners(ra - half, ra + half, south, north)


def _arrays(*values: Any) -> tuple[Floats, ...]:
    """Take numbers as arrays."""
    return tuple(np.asarray(value, np.float64) for value in values)


def touches_across_edges(
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


def box_corners(west: float, east: float, south: float, north: float) -> Floats:
    """Corners in forcepho's order SW, SE, NE, NW, shape (2, 4)."""
    return np.array([[west, east, east, west], [south, south, north, north]])


def keep_floats(region: Region, **values: Any) -> None:
    """Keep plain floats as fields, so that regions compare, print and pickle as values."""
    for name, value in values.items():
        if np.ndim(value):
            raise RegionError(f"{name} is {value}; expected one number")
        object.__setattr__(region, name, float(value))
    check_finite(region, *(getattr(region, name) for name in values))


def check_finite(region: Region, *values: float) -> None:
    """Refuse a region described by NaN or infinity."""
    if not np.isfinite(values).all():
        raise RegionError(f"{region!r}: every value must be finite")


def check_declination(region: Region, *names: str) -> None:
    """Refuse declinations beyond the poles."""
    for name in names:
        value = getattr(region, name)
        if abs(value) > 90.0:
            raise RegionError(f"{region!r}: {name} is {value:g}, expected -90 to 90 degrees")
