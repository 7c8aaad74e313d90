"""Which exposures touch a region of sky: a spherical index over their outlines.

The bounding circles of all footprints are in k-d trees of unit vectors; what these find is then
tested exactly, edge by edge. Circles of very different sizes go into different trees, so that one
mosaic does not slow down the search among ten thousand exposures.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from fpgpu.errors import RegionError
from fpgpu.sky.angles import AngleLike, PositionLike, sky_position
from fpgpu.sky.polygons import ROUNDING, Polygons, bounding_caps
from fpgpu.sky.regions import RegionLike, as_region
from fpgpu.sky.sphere import Floats, angle_between, chord, positions, unit_vectors

__all__ = ["FootprintIndex"]

Indices = npt.NDArray[np.intp]

# Footprints from which on one vertex of each is tried first, which settles most in a large region.
_MANY = 64


class _SizeClass(NamedTuple):
    """Footprints whose bounding circles differ by less than a factor of four."""

    members: Indices
    tree: cKDTree
    max_radius: float


class FootprintIndex:
    """Find the footprints that touch a region or contain a position.

    Parameters
    ----------
    footprints : sequence of ndarray, shape (n_vertices, 2)
        Outlines: right ascension and declination in degrees, edges along great circles, either
        way round, concave or not, each smaller than a hemisphere. Numbers of vertices may differ.

    Raises
    ------
    RegionError
        When an outline has a wrong shape, fewer than three vertices, a value that is not finite
        or out of range, or does not fit in a hemisphere.

    Examples
    --------
    >>> square = [(53.1, -27.8), (53.2, -27.8), (53.2, -27.7), (53.1, -27.7)]
    >>> index = FootprintIndex([square])
    >>> index.containing(53.16, -27.79).tolist()
    [0]
    >>> index.touching(fpgpu.CircularRegion(54, -27.79, "10 arcsec")).tolist()
    []
    """

    def __init__(self, footprints: Sequence[npt.ArrayLike]) -> None:
        outlines = [np.asarray(outline, np.float64) for outline in footprints]
        for number, outline in enumerate(outlines):
            if outline.ndim != 2 or outline.shape[1] != 2 or len(outline) < 3:
                raise RegionError(
                    f"footprint {number} has shape {outline.shape}; expected (n_vertices, 2) with "
                    "three vertices or more"
                )
        counts = np.array([len(outline) for outline in outlines], np.intp)
        self._fill(np.concatenate([np.empty((0, 2)), *outlines]), counts)

    @classmethod
    def from_arrays(cls, outlines: npt.ArrayLike) -> Self:
        """Build an index from outlines that all have the same number of vertices.

        Parameters
        ----------
        outlines : array_like of float64, shape (n, n_vertices, 2)
            Right ascension and declination in degrees.

        Returns
        -------
        FootprintIndex

        Raises
        ------
        RegionError
            As for the class itself.
        """
        stacked = np.asarray(outlines, np.float64)
        if stacked.ndim != 3 or stacked.shape[2] != 2 or stacked.shape[1] < 3:
            raise RegionError(
                f"the outlines have shape {stacked.shape}; expected (n, n_vertices, 2) with three "
                "vertices or more"
            )
        index = cls.__new__(cls)
        index._fill(stacked.reshape(-1, 2), np.full(len(stacked), stacked.shape[1], np.intp))
        return index

    def __len__(self) -> int:
        return len(self._counts)

    def __repr__(self) -> str:
        return f"<FootprintIndex of {len(self)} footprints>"

    def touching(self, region: RegionLike) -> Indices:
        """Find the footprints that have any point in common with a region.

        Parameters
        ----------
        region : CircularRegion, RectangularRegion, PolygonRegion or SkyRegion of regions
            Of any size.

        Returns
        -------
        indices : ndarray of int
            In ascending order.
        """
        region = as_region(region)
        near = self._near(*region.bounding_cap)
        if not near.size:
            return near
        touched = np.zeros(len(near), bool)
        if len(near) >= _MANY:
            touched = region.contains_sky(*positions(self._vertices[self._starts[near]]))
        rest = np.flatnonzero(~touched)
        touched[rest] = region.touches(self._polygons(near[rest]))
        return near[touched]

    def containing(self, ra: PositionLike, dec: AngleLike | None = None) -> Indices:
        """Find the footprints that contain a position.

        Parameters
        ----------
        ra, dec : float or Quantity
            Degrees, or with units; or a SkyCoord alone.

        Returns
        -------
        indices : ndarray of int
            In ascending order.
        """
        east, north = sky_position(ra, dec)
        if not (np.isfinite(east) and abs(north) <= 90.0):
            raise RegionError(f"ra={ra}, dec={dec} is no position on the sky; expected degrees")
        return self.within(unit_vectors(east, north), 0.0)

    def within(self, centre: Floats, radius: float) -> Indices:
        """Find the footprints that reach into a circle.

        Parameters
        ----------
        centre : ndarray of float64, shape (3,)
            Unit vector.
        radius : float
            Radians.

        Returns
        -------
        indices : ndarray of int
            In ascending order.
        """
        near = self._near(centre, radius)
        if not near.size:
            return near
        inside = self._polygons(near).within(centre[None, :], max(radius, ROUNDING))
        return near[inside[:, 0]]

    def _fill(self, outline: Floats, counts: Indices) -> None:
        """Keep all vertices in one array, footprint after footprint, and plant the trees."""
        self._counts = counts
        self._starts = np.concatenate([[0], np.cumsum(counts)])[:-1].astype(np.intp)
        bad = ~np.isfinite(outline).all(axis=1) | ~(np.abs(outline[:, 1]) <= 90.0)
        if bad.any():
            row = int(np.argmax(bad))
            number = int(np.searchsorted(self._starts, row, side="right")) - 1
            raise RegionError(
                f"footprint {number} has a vertex at RA, Dec {outline[row, 0]}, {outline[row, 1]}; "
                "expected finite degrees with declinations from -90 to 90"
            )
        self._vertices = unit_vectors(outline[:, 0], outline[:, 1])
        self._centres, self._radii = np.empty((len(counts), 3)), np.empty(len(counts))
        for count in np.unique(counts):
            members = np.flatnonzero(counts == count)
            stack = self._vertices[self._starts[members, None] + np.arange(count)]
            self._centres[members], self._radii[members] = bounding_caps(stack)
        wide = np.flatnonzero(~(self._radii < 0.5 * np.pi))
        if wide.size:
            raise RegionError(f"footprint {wide[0]} does not fit in a hemisphere")
        self._classes = self._size_classes()

    def _size_classes(self) -> list[_SizeClass]:
        classes = np.floor(0.5 * np.log2(self._radii)).astype(int)
        groups = (np.flatnonzero(classes == size) for size in np.unique(classes))
        return [
            _SizeClass(group, cKDTree(self._centres[group]), float(self._radii[group].max()))
            for group in groups
        ]

    def _near(self, centre: Floats, radius: float) -> Indices:
        """Footprints whose bounding circle reaches a given circle, ascending."""
        found = [np.empty(0, np.intp)]
        for members, tree, max_radius in self._classes:
            reach = float(chord(radius + max_radius)) + ROUNDING
            found.append(members[tree.query_ball_point(centre, reach)])
        near = np.sort(np.concatenate(found))
        apart = angle_between(self._centres[near], centre)
        return near[apart <= radius + self._radii[near] + ROUNDING]

    def _polygons(self, numbers: Indices) -> Polygons:
        """Some footprints as a stack; the last vertex is repeated where others have more."""
        counts = self._counts[numbers]
        columns = np.minimum(np.arange(counts.max(initial=0)), counts[:, None] - 1)
        vertices = self._vertices[self._starts[numbers, None] + columns]
        return Polygons(vertices, self._centres[numbers])
