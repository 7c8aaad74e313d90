"""Polygons on the sphere whose edges are great circles, many at a time.

A polygon may be concave and its vertices may run either way round; it must be smaller than a
hemisphere (all vertices less than 90 degrees from its centre), which settles which side is the
inside. Polygons and regions count as closed sets: what only touches, touches, to within 1e-15 rad.
"""

from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from fpgpu.sky.sphere import (
    Floats,
    angle_between,
    chord,
    cross,
    dot,
    tangent_basis,
    tangent_coordinates,
)

__all__ = ["ROUNDING", "Bools", "Polygons", "bounding_caps"]

Bools = npt.NDArray[np.bool_]

ROUNDING = 1e-15
"""Radians within which float64 unit vectors cannot tell a point from an edge."""


def bounding_caps(vertices: Floats) -> tuple[Floats, Floats]:
    """Circles on the sphere around polygons.

    Parameters
    ----------
    vertices : ndarray of float64, shape (k, n, 3)
        Unit vectors; a vertex may be repeated.

    Returns
    -------
    centres : ndarray of float64, shape (k, 3)
        Unit vectors: the mean of each outline, its edges weighted by length.
    radii : ndarray of float64, shape (k,)
        Radians.
    """
    following = _following(vertices)
    edges = following - vertices
    lengths = np.sqrt(dot(edges, edges))[..., None]
    # The plain mean keeps polygons of no extent from having no centre.
    mean = ((vertices + following) * lengths).sum(axis=1) + 1e-12 * vertices.sum(axis=1)
    centres = mean / np.linalg.norm(mean, axis=-1, keepdims=True)
    radii = angle_between(vertices, centres[:, None, :]).max(axis=1)
    return centres, radii + ROUNDING


class Polygons(NamedTuple):
    """A stack of polygons.

    Attributes
    ----------
    vertices : ndarray of float64, shape (k, n, 3)
        Unit vectors. Polygons with fewer than n vertices repeat their last one.
    centres : ndarray of float64, shape (k, 3)
        Unit vectors, less than 90 degrees from every vertex.
    """

    vertices: Floats
    centres: Floats

    @classmethod
    def of(cls, vertices: Floats) -> Self:
        """Make a stack from vertices alone, shape (k, n, 3)."""
        return cls(vertices, bounding_caps(vertices)[0])

    def take(self, numbers: npt.NDArray[np.intp]) -> Self:
        """Pick some polygons of the stack."""
        return type(self)(self.vertices[numbers], self.centres[numbers])

    def contain(self, points: Floats) -> Bools:
        """Tell which points are inside, by the even-odd rule in each polygon's tangent plane.

        Parameters
        ----------
        points : ndarray of float64, shape (m, 3)
            Unit vectors.

        Returns
        -------
        inside : ndarray of bool, shape (k, m)
            Either way for points on an edge.
        """
        k, n, _ = self.vertices.shape
        everywhere = np.broadcast_to(points, (k, *points.shape))
        places = np.concatenate([self.vertices, everywhere], axis=1)
        east, north = (axis[:, None, :] for axis in tangent_basis(self.centres))
        along = tangent_coordinates(places, self.centres[:, None, :], (east, north))
        (u, x), (v, y) = ((values[:, :n], values[:, n:]) for values in along)
        # Axes: polygon, edge, point. Beyond the horizon x and y are NaN: no edge passes them.
        x, y, u, v = x[:, None, :], y[:, None, :], u[:, :, None], v[:, :, None]
        v_following = _following(v)
        du, dv = _following(u) - u, v_following - v
        passes = (v <= y) != (v_following <= y)
        left = ((x - u) * dv < (y - v) * du) == (dv > 0)
        return np.asarray(np.logical_xor.reduce(passes & left, axis=1))

    def within(self, points: Floats, radius: float) -> Bools:
        """Tell which points are inside or no further than `radius` from the outline.

        Parameters
        ----------
        points : ndarray of float64, shape (m, 3)
            Unit vectors.
        radius : float
            Radians.

        Returns
        -------
        near : ndarray of bool, shape (k, m)
        """
        near = self.contain(points)
        rest = np.flatnonzero(~near.all(axis=1))  # only these need the slower test
        if rest.size:
            near[rest] |= self.take(rest).near_outline(points, radius)
        return near

    def near_outline(self, points: Floats, radius: float) -> Bools:
        """Tell which points are no further than `radius` from the outline, on either side.

        Parameters
        ----------
        points : ndarray of float64, shape (m, 3)
            Unit vectors.
        radius : float
            Radians.

        Returns
        -------
        near : ndarray of bool, shape (k, m)
        """
        a, b = self.vertices, _following(self.vertices)
        apart = points - a[:, :, None, :]
        near = dot(apart, apart) <= chord(radius) ** 2
        edge = b - a
        normal = cross(a, edge)
        length = np.sqrt(dot(normal, normal))[..., None]
        # Point beside an edge: ahead of its start and not ahead of its end.
        ahead = (edge - a * dot(a, edge)[..., None]) @ points.T >= 0
        beyond = (edge - b * dot(b, edge)[..., None]) @ points.T > 0
        close = np.abs(normal @ points.T) <= length * np.sin(min(radius, 0.5 * np.pi))
        near |= close & ahead & ~beyond & (length > 0)
        return np.asarray(near.any(axis=1))

    def meet_arcs(self, starts: Floats, ends: Floats) -> Bools:
        """Tell which outlines properly cross any of some great-circle arcs.

        Parameters
        ----------
        starts, ends : ndarray of float64, shape (m, 3)
            Unit vectors, less than 180 degrees apart.

        Returns
        -------
        crossed : ndarray of bool, shape (k,)
            Touching without crossing does not count; `near_outline` of the ends sees that.
        """
        a, b = self.vertices, _following(self.vertices)
        edges = cross(a, b - a)
        arcs = cross(starts, ends - starts).T
        side_start, side_end = edges @ starts.T, edges @ ends.T
        side_a, side_b = a @ arcs, b @ arcs
        # The last condition tells the crossing from its antipode.
        crossed = (side_start * side_end < 0) & (side_a * side_b < 0) & (side_end * side_a > 0)
        return np.asarray(crossed.any(axis=(1, 2)))

    def meet_parallels(self, decs: npt.ArrayLike, accept: Callable[[Floats], Bools]) -> Bools:
        """Tell which outlines reach any of some parallels of declination, at accepted places.

        Parameters
        ----------
        decs : array_like, shape (m,)
            Radians, no poles.
        accept : callable
            From vectors of shape (..., 3) to bool of shape (...): which crossings count.

        Returns
        -------
        crossed : ndarray of bool, shape (k,)
        """
        a, b = self.vertices, _following(self.vertices)
        edge = b - a
        ahead = edge - a * dot(a, edge)[..., None]
        size = np.sqrt(dot(ahead, ahead))[..., None]
        ahead = np.divide(ahead, size, out=np.zeros_like(ahead), where=size > 0)
        # Along an edge z = a_z cos(phi) + ahead_z sin(phi) = top cos(phi - phi_top).
        top = np.hypot(a[..., 2], ahead[..., 2])[..., None]
        phi_top = np.arctan2(ahead[..., 2], a[..., 2])[..., None]
        height = np.sin(decs)
        swing = np.arccos(np.where(np.abs(height) <= top, height / np.maximum(top, 1e-300), np.nan))
        phi = np.concatenate([phi_top - swing, phi_top + swing], axis=-1)
        # To -ROUNDING ... 2 pi, so that a crossing at the very start is not a whole turn away.
        phi = np.mod(phi + ROUNDING, 2 * np.pi) - ROUNDING
        hit = phi <= angle_between(a, b)[..., None] + ROUNDING
        polygon, which, _ = np.nonzero(hit)
        phi = phi[hit][:, None]
        places = a[polygon, which] * np.cos(phi) + ahead[polygon, which] * np.sin(phi)
        crossed = np.zeros(len(a), bool)
        crossed[polygon[accept(places)]] = True
        return crossed


def _following(along_outline: Floats) -> Floats:
    """What belongs to the next vertex of each; axis 1 is along the outline.

    `numpy.roll` does the same and takes longer than the tests of a dozen polygons.
    """
    return np.concatenate([along_outline[:, 1:], along_outline[:, :1]], axis=1)
