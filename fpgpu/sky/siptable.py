"""Positions and pixels of many exposures at once, from their SIP coefficients.

One gWCS call takes milliseconds, whatever the number of positions. A table of SIP solutions
answers for all exposures and all positions in one sweep of NumPy.
"""

from collections.abc import Sequence
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from fpgpu.errors import WCSError
from fpgpu.sky.sphere import Floats, wrapped

__all__ = ["SipSolution", "SipTable"]

_MAX_STEPS = 12
# Newton's method converges quadratically: the step after this one is below rounding.
_CONVERGED = 1e-6


class SipSolution(Protocol):
    """A gnomonic projection with SIP distortion: what `SipTable` needs of one exposure."""

    @property
    def crval(self) -> Floats:
        """Right ascension and declination of the tangent point, degrees, shape (2,)."""

    @property
    def crpix(self) -> Floats:
        """Its zero-based pixel, shape (2,)."""

    @property
    def cd(self) -> Floats:
        """Degrees along east and north per pixel along x and y, shape (2, 2)."""

    @property
    def a(self) -> Floats:
        """Coefficients of u**p v**q in pixels added to u at [p, q], square."""

    @property
    def b(self) -> Floats:
        """Coefficients of u**p v**q in pixels added to v at [p, q], square."""


class SipTable:
    """SIP solutions of many exposures, evaluated together.

    Parameters
    ----------
    solutions : sequence of SipSolution
        One an exposure, in the order of the first axis of all answers; orders may differ.

    Raises
    ------
    WCSError
        When a solution holds values that are not finite or its CD matrix is singular.

    Notes
    -----
    With u = x - crpix, the pixel is shifted to U = u + A(u, v), V = v + B(u, v), and
    (xi, eta) = CD (U, V) are gnomonic coordinates about crval (Shupe et al. 2005, ADASS XIV, 491;
    Calabretta & Greisen 2002, A&A 395, 1077).
    """

    def __init__(self, solutions: Sequence[SipSolution]) -> None:
        n = len(solutions)
        self._crval = np.array([s.crval for s in solutions], np.float64).reshape(n, 2)
        self._crpix = np.array([s.crpix for s in solutions], np.float64).reshape(n, 2)
        self._cd = np.array([s.cd for s in solutions], np.float64).reshape(n, 2, 2)
        size = max((m.shape[0] for s in solutions for m in (s.a, s.b)), default=1)
        self._ab = _padded([m for s in solutions for m in (s.a, s.b)], size)
        self._ab = self._ab.reshape(n, 2, size, size)
        parts = (self._crval, self._crpix, self._cd, self._ab)
        finite = np.all([np.isfinite(p).all(axis=tuple(range(1, p.ndim))) for p in parts], axis=0)
        determinant = _determinant(self._cd)
        bad = np.flatnonzero(~finite | (determinant == 0.0))
        if bad.size:
            raise WCSError(
                f"SIP solution {bad[0]} cannot be used: crval {self._crval[bad[0]]}, crpix "
                f"{self._crpix[bad[0]]}, CD {self._cd[bad[0]].tolist()}; expected finite values "
                "and a CD matrix that can be inverted"
            )
        (c00, c01), (c10, c11) = np.moveaxis(self._cd, 0, -1)
        inverse = np.array([[c11, -c01], [-c10, c00]]) / determinant
        self._cd_inverse = np.moveaxis(inverse, -1, 0)

    def __len__(self) -> int:
        return len(self._crval)

    def __repr__(self) -> str:
        return f"<SipTable of {len(self)} exposures, order {self._ab.shape[-1] - 1}>"

    def take(self, numbers: npt.ArrayLike) -> Self:
        """Pick some exposures.

        Parameters
        ----------
        numbers : array_like of int

        Returns
        -------
        SipTable
            In the order of `numbers`.
        """
        picked = object.__new__(type(self))
        for name, column in vars(self).items():
            setattr(picked, name, column[np.asarray(numbers)])
        return picked

    def pixel_to_world(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Give the positions of pixels in every exposure.

        Parameters
        ----------
        x, y : array_like, shape (n_pos,) or (n_exp, n_pos)
            Zero-based pixels: the same in all exposures, or for each its own.

        Returns
        -------
        ra, dec : ndarray of float64, shape (n_exp, n_pos)
            Degrees, ra in [0, 360).
        """
        u, v = self._columns(np.asarray(x, np.float64), np.asarray(y, np.float64))
        u, v = u - self._crpix[:, :1], v - self._crpix[:, 1:]
        shift = _values(self._ab, u, v)
        xi, eta = _transformed(np.deg2rad(self._cd), u + shift[:, 0], v + shift[:, 1])
        ra0, dec0 = self._crval[:, :1], np.deg2rad(self._crval[:, 1:])
        # Along the meridian of crval, seen from the axis of the sphere, and parallel to the axis.
        outwards = np.cos(dec0) - eta * np.sin(dec0)
        upwards = np.sin(dec0) + eta * np.cos(dec0)
        ra = wrapped(ra0 + np.rad2deg(np.arctan2(xi, outwards)))
        return ra, np.rad2deg(np.arctan2(upwards, np.hypot(xi, outwards)))

    def world_to_pixel(self, ra: npt.ArrayLike, dec: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Give the pixels of positions in every exposure: the inverse of `pixel_to_world`.

        Parameters
        ----------
        ra, dec : array_like, shape (n_pos,) or (n_exp, n_pos)
            Degrees: the same in all exposures, or for each its own.

        Returns
        -------
        x, y : ndarray of float64, shape (n_exp, n_pos)
            Zero-based pixels; NaN where an exposure's solution does not reach a position, as far
            outside its detector.
        """
        ra, dec = self._columns(np.asarray(ra, np.float64), np.asarray(dec, np.float64))
        u, v = self._undistort(*_transformed(self._cd_inverse, *self._project(ra, dec)))
        return u + self._crpix[:, :1], v + self._crpix[:, 1:]

    def _project(self, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
        """Gnomonic coordinates about each crval in degrees, NaN on the far half of the sky.

        Written in differences from crval, so that nothing cancels close to it.
        """
        dec0 = np.deg2rad(self._crval[:, 1:])
        d_alpha = np.deg2rad(ra - self._crval[:, :1])
        d_delta = np.deg2rad(dec - self._crval[:, 1:])
        cos_dec = np.cos(np.deg2rad(dec))
        haversine = 2.0 * np.sin(0.5 * d_alpha) ** 2
        depth = np.cos(d_delta) - np.cos(dec0) * cos_dec * haversine
        depth = np.where(depth > 0.0, depth, np.nan)
        xi = cos_dec * np.sin(d_alpha) / depth
        eta = (np.sin(d_delta) + np.sin(dec0) * cos_dec * haversine) / depth
        return np.rad2deg(xi), np.rad2deg(eta)

    def _undistort(self, big_u: Floats, big_v: Floats) -> tuple[Floats, Floats]:
        """Solve u + A(u, v) = U, v + B(u, v) = V by Newton's method, from u = U, v = V."""
        u, v = big_u.copy(), big_v.copy()
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for _ in range(_MAX_STEPS):
                (a, b), (a_u, b_u), (a_v, b_v) = (
                    np.moveaxis(values, 1, 0) for values in _values_and_slopes(self._ab, u, v)
                )
                miss_u, miss_v = big_u - u - a, big_v - v - b
                determinant = (1.0 + a_u) * (1.0 + b_v) - a_v * b_u
                step_u = ((1.0 + b_v) * miss_u - a_v * miss_v) / determinant
                step_v = ((1.0 + a_u) * miss_v - b_u * miss_u) / determinant
                u, v = u + step_u, v + step_v
                step = np.maximum(np.abs(step_u), np.abs(step_v))
                if not (step >= _CONVERGED).any():
                    break
        lost = ~(step < _CONVERGED)
        return np.where(lost, np.nan, u), np.where(lost, np.nan, v)

    def _columns(self, first: Floats, second: Floats) -> tuple[Floats, Floats]:
        """Broadcast two coordinates to (n_exp, n_pos)."""
        n_pos = np.broadcast_shapes(first.shape[-1:], second.shape[-1:])
        shape = (len(self), *(n_pos or (1,)))
        return np.broadcast_to(first, shape), np.broadcast_to(second, shape)


def _padded(matrices: Sequence[Floats], size: int) -> Floats:
    """Stack square coefficient matrices of different orders: (n, size, size)."""
    stack = np.zeros((len(matrices), size, size))
    for matrix, slot in zip(matrices, stack, strict=True):
        slot[: matrix.shape[0], : matrix.shape[1]] = matrix
    return stack


def _determinant(matrices: Floats) -> Floats:
    return np.asarray(matrices[:, 0, 0] * matrices[:, 1, 1] - matrices[:, 0, 1] * matrices[:, 1, 0])


def _transformed(matrices: Floats, u: Floats, v: Floats) -> tuple[Floats, Floats]:
    """Apply each exposure's 2x2 matrix to its row of coordinates."""
    m = matrices[:, :, :, None]
    return m[:, 0, 0] * u + m[:, 0, 1] * v, m[:, 1, 0] * u + m[:, 1, 1] * v


def _values(coefficients: Floats, u: Floats, v: Floats) -> Floats:
    """Values of polynomials of total degree n - 1, by Horner's rule.

    `coefficients` has shape (n_exp, 2, n, n), for two polynomials of each exposure, `u` and `v`
    have shape (n_exp, n_pos), the answer (n_exp, 2, n_pos).
    """
    size = coefficients.shape[-1]
    u, v = u[:, None], v[:, None]
    value = np.zeros((*coefficients.shape[:2], u.shape[-1]))
    for p in reversed(range(size)):
        row = np.zeros_like(value)
        for q in reversed(range(size - p)):
            row *= v
            row += coefficients[..., p, q, None]
        value *= u
        value += row
    return value


def _values_and_slopes(coefficients: Floats, u: Floats, v: Floats) -> tuple[Floats, Floats, Floats]:
    """The same, and the derivatives along u and v."""
    size = coefficients.shape[-1]
    u, v = u[:, None], v[:, None]
    shape = (*coefficients.shape[:2], u.shape[-1])
    # The polynomials in v of all powers of u together: of few positions each call is felt.
    rows, rows_by_v = np.zeros((2, size, *shape))
    columns = coefficients.transpose(3, 2, 0, 1)[..., None]
    for q in reversed(range(size)):
        row, row_by_v = rows[: size - q], rows_by_v[: size - q]
        row_by_v *= v
        row_by_v += row
        row *= v
        row += columns[q, : size - q]
    value, by_u, by_v = np.zeros((3, *shape))
    for row, row_by_v in zip(reversed(rows), reversed(rows_by_v), strict=True):
        by_u *= u
        by_u += value
        by_v *= u
        by_v += row_by_v
        value *= u
        value += row
    return value, by_u, by_v
