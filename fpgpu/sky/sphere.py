"""Directions on the sphere: unit vectors, angles and tangent planes.

Positions are right ascension and declination in degrees at every public edge; inside, float64
unit vectors, which know neither the wrap at RA = 0 nor the poles. A float64 unit vector places a
direction to about 1e-16 rad (2e-11 arcsec).
"""

import numpy as np
import numpy.typing as npt

__all__ = [
    "Floats",
    "angle_between",
    "chord",
    "cross",
    "dot",
    "positions",
    "separation",
    "tangent_basis",
    "tangent_coordinates",
    "unit_vectors",
    "wrapped",
]

Floats = npt.NDArray[np.float64]


def unit_vectors(ra: npt.ArrayLike, dec: npt.ArrayLike) -> Floats:
    """Turn right ascension and declination into unit vectors.

    Parameters
    ----------
    ra, dec : array_like
        Degrees, shapes that broadcast together.

    Returns
    -------
    vectors : ndarray of float64, shape (..., 3)
    """
    alpha, delta = np.broadcast_arrays(np.deg2rad(ra), np.deg2rad(dec))
    vectors = np.empty((*alpha.shape, 3))
    cos_delta = np.cos(delta)
    vectors[..., 0] = cos_delta * np.cos(alpha)
    vectors[..., 1] = cos_delta * np.sin(alpha)
    vectors[..., 2] = np.sin(delta)
    return vectors


def positions(vectors: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Turn vectors of any length into right ascension and declination.

    Parameters
    ----------
    vectors : array_like, shape (..., 3)

    Returns
    -------
    ra, dec : ndarray of float64
        Degrees; ra in [0, 360). At a pole ra is 0.
    """
    x, y, z = np.moveaxis(np.asarray(vectors, dtype=np.float64), -1, 0)
    return wrapped(np.rad2deg(np.arctan2(y, x))), np.rad2deg(np.arctan2(z, np.hypot(x, y)))


def wrapped(ra: Floats) -> Floats:
    """Bring right ascensions in degrees into [0, 360); those there already stay as they are."""
    ra = np.mod(ra, 360.0)
    # A tiny negative angle rounds up to 360 itself.
    return np.where(ra >= 360.0, 0.0, ra)


def separation(
    ra1: npt.ArrayLike, dec1: npt.ArrayLike, ra2: npt.ArrayLike, dec2: npt.ArrayLike
) -> Floats:
    """Angle between two directions, accurate from 1e-14 degrees to antipodes.

    Vincenty's formula, with the difference of declinations taken before any sine so that
    nothing cancels at tiny angles.

    Parameters
    ----------
    ra1, dec1, ra2, dec2 : array_like
        Degrees, shapes that broadcast together.

    Returns
    -------
    angle : ndarray of float64
        Degrees, 0 to 180.
    """
    delta1, delta2 = np.deg2rad(dec1), np.deg2rad(dec2)
    d_alpha = np.deg2rad(np.subtract(ra2, ra1))
    d_delta = np.deg2rad(np.subtract(dec2, dec1))
    haversine = 2.0 * np.sin(0.5 * d_alpha) ** 2
    across = np.cos(delta2) * np.sin(d_alpha)
    along = np.sin(d_delta) + np.sin(delta1) * np.cos(delta2) * haversine
    towards = np.cos(d_delta) - np.cos(delta1) * np.cos(delta2) * haversine
    return np.asarray(np.rad2deg(np.arctan2(np.hypot(across, along), towards)))


def dot(a: Floats, b: Floats) -> Floats:
    """Scalar products along the last axis; many times faster there than sum or norm."""
    return np.asarray(np.einsum("...i,...i->...", a, b))


def cross(a: Floats, b: Floats) -> Floats:
    """Vector products along the last axis; on short arrays twice as quick as NumPy's.

    Parameters
    ----------
    a, b : ndarray, shape (..., 3)
        Shapes that broadcast together.

    Returns
    -------
    product : ndarray of float64, shape (..., 3)
    """
    (a0, a1, a2), (b0, b1, b2) = ((v[..., 0], v[..., 1], v[..., 2]) for v in (a, b))
    product = np.empty(np.broadcast_shapes(a.shape, b.shape))
    product[..., 0] = a1 * b2 - a2 * b1
    product[..., 1] = a2 * b0 - a0 * b2
    product[..., 2] = a0 * b1 - a1 * b0
    return product


def angle_between(a: Floats, b: Floats) -> Floats:
    """Angle between unit vectors in radians, accurate at every size (Kahan's formula).

    Parameters
    ----------
    a, b : ndarray, shape (..., 3)
        Unit vectors, shapes that broadcast together.

    Returns
    -------
    angle : ndarray of float64
        Radians, 0 to pi.
    """
    apart, together = a - b, a + b
    return np.asarray(
        2.0 * np.arctan2(np.sqrt(dot(apart, apart)), np.sqrt(dot(together, together)))
    )


def chord(angle: npt.ArrayLike) -> Floats:
    """Straight-line distance between unit vectors that are `angle` radians apart."""
    return np.asarray(2.0 * np.sin(0.5 * np.minimum(angle, np.pi)))


def tangent_basis(centre: Floats) -> tuple[Floats, Floats]:
    """Unit vectors east and north at a direction; at a pole, those of the meridian RA = 0.

    Parameters
    ----------
    centre : ndarray, shape (..., 3)
        Unit vectors.

    Returns
    -------
    east, north : ndarray, shape (..., 3)
    """
    x, y, z = centre[..., 0], centre[..., 1], centre[..., 2]
    rho = np.hypot(x, y)
    at_pole = rho == 0.0
    safe = np.where(at_pole, 1.0, rho)
    cos_alpha, sin_alpha = np.where(at_pole, 1.0, x / safe), y / safe
    east, north = np.zeros_like(centre), np.empty_like(centre)
    east[..., 0], east[..., 1] = -sin_alpha, cos_alpha
    north[..., 0], north[..., 1], north[..., 2] = -z * cos_alpha, -z * sin_alpha, rho
    return east, north


def tangent_coordinates(
    vectors: Floats, centre: Floats, basis: tuple[Floats, Floats] | None = None
) -> tuple[Floats, Floats]:
    """Gnomonic projection: great circles become straight lines.

    Parameters
    ----------
    vectors : ndarray, shape (..., 3)
    centre : ndarray, shape (..., 3)
        The tangent point, a unit vector; broadcasts against `vectors`.
    basis : pair of ndarray, optional
        East and north at `centre` when they are at hand.

    Returns
    -------
    xi, eta : ndarray of float64
        Radians along east and north; NaN for directions 90 degrees or more from `centre`.
    """
    east, north = tangent_basis(centre) if basis is None else basis
    depth = dot(vectors, centre)
    depth = np.where(depth > 0.0, depth, np.nan)
    return dot(vectors, east) / depth, dot(vectors, north) / depth
