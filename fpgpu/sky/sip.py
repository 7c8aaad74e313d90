"""SIP solutions: fitted to a gWCS, read from FITS headers, written to them.

A gWCS is exact and slow, and FITS software does not read it. A gnomonic projection with SIP
polynomials of degree 5 about the middle of the detector reproduces those of JWST's imagers to
2e-7 px. The fit is linear least squares in the tangent plane. One gWCS call takes milliseconds,
whatever the number of positions; a table of SIP solutions answers for all exposures and all
positions in one sweep of NumPy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fpgpu.errors import WCSError
from fpgpu.sky.disagreement import disagreement
from fpgpu.sky.sphere import Floats, tangent_coordinates, unit_vectors, wrapped
from fpgpu.sky.wcs import SkyWCS

__all__ = ["SipFit", "SipTable", "fit_sip", "sip_residual"]

# Chebyshev nodes a side for the fit, and equidistant points a side, edges included, to check it.
_FIT_NODES = 24
_CHECK_POINTS = 65
_SOLUTION_STEPS = 3

# Points a side, edges included, at which coefficients must be their WCS, and how well, in pixels.
_SAME_POINTS = 7
_SAME = 1e-5
_UNKNOWN = 1024, 1024

# Radians from the reference point at which its tangent plane is asked for: far, for rounding.
_LEVER = 0.1

_MAX_STEPS = 12
# Newton's method converges quadratically: the step after this one is below rounding.
_CONVERGED = 1e-6

_AXES = (("RA---", "right ascension"), ("DEC--", "declination"))


@dataclass(frozen=True, eq=False)
class SipFit:
    """A gnomonic projection with SIP distortion.

    Attributes
    ----------
    crval : ndarray of float64, shape (2,)
        Right ascension and declination of the tangent point, degrees.
    crpix : ndarray of float64, shape (2,)
        Its pixel, zero-based (FITS keyword minus one).
    cd : ndarray of float64, shape (2, 2)
        Degrees along east and north per pixel along x and y.
    a, b : ndarray of float64, shape (n, n)
        Pixels added to x and y: coefficient of u**p v**q at [p, q], with u, v the pixel relative
        to crpix.
    ap, bp : ndarray of float64, shape (n, n)
        The approximate inverse polynomials that some FITS software uses; fpgpu does not.
    residual : float
        Largest distance in pixels from the WCS it was fitted to; 0 when read from a header.
    """

    crval: Floats
    crpix: Floats
    cd: Floats
    a: Floats
    b: Floats
    ap: Floats
    bp: Floats
    residual: float

    @classmethod
    def from_wcs(cls, wcs: SkyWCS) -> Self:
        """Take the coefficients of a FITS WCS, with or without SIP, and turn them to ICRS."""
        if wcs.kind != "fits":
            raise WCSError("a gWCS has no SIP coefficients to take; fit them with fit_sip")
        native, none = wcs.native, np.zeros((1, 1))
        terms = {name: getattr(native.sip, name, None) for name in ("a", "b", "ap", "bp")}
        found = {name: none if term is None else np.array(term) for name, term in terms.items()}
        fit = cls(*_tangent_plane(wcs), **found, residual=0.0)
        tables = (native.cpdis1, native.cpdis2, native.det2im1, native.det2im2)
        # Asked of the positions: once it is set up, a WCS of astropy does not tell the distortions
        # that WCSLIB works out (TPV, TNX, TPD) from none.
        away = disagreement(fit, wcs, wcs.shape or _UNKNOWN, _SAME_POINTS).max_pixels
        if any(table is not None for table in tables) or not away <= _SAME:
            raise WCSError(
                f"the FITS WCS with CTYPE {', '.join(native.wcs.ctype)} is no gnomonic projection "
                "with SIP distortion alone; expected 'RA---TAN-SIP', 'DEC--TAN-SIP' and no look-up "
                "tables"
            )
        return fit

    def to_header(self) -> Any:
        """Write the solution as FITS keywords."""
        from astropy.io.fits import Header

        header = Header()
        header["WCSAXES"] = (2, "number of coordinate axes")
        for axis, (kind, name) in enumerate(_AXES):
            n = axis + 1
            header[f"CTYPE{n}"] = (f"{kind}TAN-SIP", f"{name}, gnomonic with SIP distortion")
            header[f"CUNIT{n}"] = ("deg", "")
            header[f"CRPIX{n}"] = (float(self.crpix[axis]) + 1.0, "reference pixel")
            header[f"CRVAL{n}"] = (float(self.crval[axis]), f"[deg] {name} at it")
        for i, j in np.ndindex(2, 2):
            header[f"CD{i + 1}_{j + 1}"] = float(self.cd[i, j])
        # Stated because its default at the north pole is another one.
        header["LONPOLE"] = (180.0, "[deg] native longitude of the celestial pole")
        header["RADESYS"] = "ICRS"
        for name, matrix in (("A", self.a), ("B", self.b), ("AP", self.ap), ("BP", self.bp)):
            header[f"{name}_ORDER"] = (max(len(matrix) - 1, 2), "degree of the SIP polynomial")
            for p, q in zip(*np.nonzero(matrix), strict=True):
                header[f"{name}_{p}_{q}"] = float(matrix[p, q])
        return header

    def pixel_to_world(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Give the positions of pixels.

        Parameters
        ----------
        x, y : array_like
            Zero-based pixels, shapes that broadcast together.

        Returns
        -------
        ra, dec : ndarray of float64
            Degrees, ra in [0, 360).
        """
        x, y = np.broadcast_arrays(x, y)
        ra, dec = SipTable([self]).pixel_to_world(x.ravel(), y.ravel())
        return ra.reshape(x.shape), dec.reshape(x.shape)

    def world_to_pixel(self, ra: npt.ArrayLike, dec: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Give the pixels of positions: the exact inverse of `pixel_to_world`.

        Parameters
        ----------
        ra, dec : array_like
            Degrees, shapes that broadcast together.

        Returns
        -------
        x, y : ndarray of float64
            Zero-based pixels; NaN where the solution does not reach.
        """
        ra, dec = np.broadcast_arrays(ra, dec)
        x, y = SipTable([self]).world_to_pixel(ra.ravel(), dec.ravel())
        return x.reshape(ra.shape), y.reshape(ra.shape)


def fit_sip(
    wcs: SkyWCS, shape: tuple[int, int], degree: int = 5, tolerance: float = 1e-3
) -> SipFit:
    """Fit a SIP solution to any WCS over its detector.

    Parameters
    ----------
    wcs : SkyWCS
        Evaluated without regard to a bounding box.
    shape : tuple of int
        Number of pixels (nx, ny).
    degree : int, optional
        Of the polynomials, 2 to 9.
    tolerance : float, optional
        Largest distance between fit and WCS that is accepted, in pixels.

    Returns
    -------
    SipFit
        Its `residual` is the largest distance at 65 x 65 points from edge to edge, none of
        which was fitted.

    Raises
    ------
    WCSError
        When the WCS gives no position somewhere on the detector, or the residual exceeds the
        tolerance.
    """
    if not 2 <= degree <= 9:
        raise WCSError(f"the degree of a SIP fit is {degree!r}; expected 2 to 9")
    half = 0.5 * np.array(shape, np.float64)
    crpix = half - 0.5
    crval = np.array([float(value) for value in wcs.pixel_to_world(*crpix)])
    nodes = np.cos(np.pi * (np.arange(_FIT_NODES) + 0.5) / _FIT_NODES)
    u, v = _grid(nodes * half[0], nodes * half[1])
    plane = _plane(wcs, crval, crpix, u, v)
    forward = _least_squares(u, v, plane, half, degree)
    cd = np.stack([forward[:, 1, 0], forward[:, 0, 1]], axis=-1)
    forward[:, 1, 0] = forward[:, 0, 1] = 0.0
    a, b = np.einsum("ij,jpq->ipq", np.linalg.inv(cd), forward)
    big_u, big_v = np.linalg.inv(cd) @ plane
    extent = np.array([np.abs(big_u).max(), np.abs(big_v).max()])
    ap, bp = _least_squares(big_u, big_v, np.stack([u - big_u, v - big_v]), extent, degree)
    fit = SipFit(crval, crpix, cd, a, b, ap, bp, np.nan)
    found = disagreement(fit, wcs, shape, _CHECK_POINTS)
    if np.isinf(found.max_pixels) or found.max_pixels > tolerance:
        raise WCSError(
            f"a SIP fit of degree {degree} misses the WCS by {found.max_pixels:.2g} px at pixel "
            f"({found.pixel[0]:.1f}, {found.pixel[1]:.1f}); the tolerance is {tolerance:g} px"
        )
    return replace(fit, residual=found.max_pixels)


def sip_residual(wcs: SkyWCS, fit: SipFit, shape: tuple[int, int]) -> float:
    """Measure how far a SIP solution is from the WCS it was fitted to.

    Parameters
    ----------
    wcs : SkyWCS
        The WCS.
    fit : SipFit
        The solution.
    shape : tuple of int
        Number of pixels (nx, ny).

    Returns
    -------
    float
        Largest distance in pixels at the points where `fit_sip` measures its residual; infinite
        where the WCS gives no position.
    """
    return disagreement(fit, wcs, shape, _CHECK_POINTS).max_pixels


def _tangent_plane(wcs: SkyWCS) -> tuple[Floats, Floats, Floats]:
    """Give crval, crpix and CD of a FITS WCS without its distortion, in ICRS.

    Evaluated, so that LONPOLE and the frame are in it.
    """
    prm = wcs.native.wcs
    crpix = np.array(prm.crpix) - 1.0
    step = np.rad2deg(_LEVER) / np.sqrt(abs(np.linalg.det(wcs.native.pixel_scale_matrix)))
    world = wcs.native.wcs_pix2world(*(crpix[:, None] + step * np.eye(2)), 0)
    crval, beside = (np.array([v[prm.lng], v[prm.lat]]) for v in (prm.crval, world))
    if wcs.frame is not None:
        crval, beside = (np.array(wcs.frame.to_icrs(*place)) for place in (crval, beside))
    plane = tangent_coordinates(unit_vectors(*beside), unit_vectors(*crval))
    return crval, crpix, np.rad2deg(plane) / step


def _grid(x: Floats, y: Floats) -> Floats:
    """All pairs of two coordinates, shape (2, n)."""
    return np.stack([side.ravel() for side in np.meshgrid(x, y)])


def _plane(wcs: SkyWCS, crval: Floats, crpix: Floats, u: Floats, v: Floats) -> Floats:
    """Gnomonic coordinates about crval in degrees of pixels relative to crpix, shape (2, n)."""
    sky = wcs.pixel_to_world(u + crpix[0], v + crpix[1])
    plane = np.rad2deg(tangent_coordinates(unit_vectors(*sky), unit_vectors(*crval)))
    lost = np.flatnonzero(~np.isfinite(plane).all(axis=0))
    if lost.size or not np.isfinite(crval).all():
        k = lost[0] if lost.size else 0
        raise WCSError(
            f"the {wcs.kind} WCS gives no usable position at pixel ({u[k] + crpix[0]:.1f}, "
            f"{v[k] + crpix[1]:.1f}) of its detector, so no SIP solution can be fitted"
        )
    return np.asarray(plane)


def _least_squares(u: Floats, v: Floats, values: Floats, scale: Floats, degree: int) -> Floats:
    """Coefficients, shape (2, n, n), of polynomials in u, v without a constant.

    Solved with u and v scaled to -1..1: their fifth powers in pixels span sixteen decades. By the
    normal equations, whose error each further step reduces ten thousandfold at least: LAPACK's
    least squares would wake a thread on every core, to compete with the other workers of an ingest.
    """
    powers = [(p, q) for p in range(degree + 1) for q in range(degree + 1 - p) if p + q > 0]
    design = np.stack([(u / scale[0]) ** p * (v / scale[1]) ** q for p, q in powers], axis=-1)
    normal = np.einsum("ki,kj->ij", design, design)
    solution = np.zeros((len(powers), 2))
    for _ in range(_SOLUTION_STEPS):
        missing = values - np.einsum("ki,ir->rk", design, solution)
        solution += np.linalg.solve(normal, np.einsum("ki,rk->ir", design, missing))
    coefficients = np.zeros((2, degree + 1, degree + 1))
    for (p, q), pair in zip(powers, solution, strict=True):
        coefficients[:, p, q] = pair / (scale[0] ** p * scale[1] ** q)
    return coefficients


class SipTable:
    """SIP solutions of many exposures, evaluated together.

    Parameters
    ----------
    solutions : sequence of SipFit
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

    def __init__(self, solutions: Sequence[SipFit]) -> None:
        n = len(solutions)
        self._crval = np.array([s.crval for s in solutions], np.float64).reshape(n, 2)
        self._crpix = np.array([s.crpix for s in solutions], np.float64).reshape(n, 2)
        self._cd = np.array([s.cd for s in solutions], np.float64).reshape(n, 2, 2)
        size = max((m.shape[0] for s in solutions for m in (s.a, s.b)), default=1)
        self._ab = _padded([m for s in solutions for m in (s.a, s.b)], size)
        self._ab = self._ab.reshape(n, 2, size, size)
        parts = (self._crval, self._crpix, self._cd, self._ab)
        finite = np.all([np.isfinite(p).all(axis=tuple(range(1, p.ndim))) for p in parts], axis=0)
        (c00, c01), (c10, c11) = np.moveaxis(self._cd, 0, -1)
        determinant = c00 * c11 - c01 * c10
        bad = np.flatnonzero(~finite | (determinant == 0.0))
        if bad.size:
            raise WCSError(
                f"SIP solution {bad[0]} cannot be used: crval {self._crval[bad[0]]}, crpix "
                f"{self._crpix[bad[0]]}, CD {self._cd[bad[0]].tolist()}; expected finite values "
                "and a CD matrix that can be inverted"
            )
        inverse = np.array([[c11, -c01], [-c10, c00]]) / determinant
        self._cd_inverse = np.moveaxis(inverse, -1, 0)

    def __len__(self) -> int:
        return len(self._crval)

    def __repr__(self) -> str:
        return f"<SipTable of {len(self)} exposures, order {self._ab.shape[-1] - 1}>"

    def take(self, numbers: npt.ArrayLike) -> Self:
        """Pick some exposures."""
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
        x, y = (np.atleast_1d(np.asarray(pixels, np.float64)) for pixels in (x, y))
        u, v = x - self._crpix[:, :1], y - self._crpix[:, 1:]
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
        ra, dec = (np.atleast_1d(np.asarray(degrees, np.float64)) for degrees in (ra, dec))
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
        u, v, polynomials = big_u, big_v, _with_slopes(self._ab)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for _ in range(_MAX_STEPS):
                a, b, a_u, b_u, a_v, b_v = _values(polynomials, u, v).swapaxes(0, 1)
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


def _padded(matrices: Sequence[Floats], size: int) -> Floats:
    """Stack square coefficient matrices of different orders: (n, size, size)."""
    stack = np.zeros((len(matrices), size, size))
    for matrix, slot in zip(matrices, stack, strict=True):
        slot[: matrix.shape[0], : matrix.shape[1]] = matrix
    return stack


def _transformed(matrices: Floats, u: Floats, v: Floats) -> tuple[Floats, Floats]:
    """Apply each exposure's 2x2 matrix to its row of coordinates."""
    m = matrices[:, :, :, None]
    return m[:, 0, 0] * u + m[:, 0, 1] * v, m[:, 1, 0] * u + m[:, 1, 1] * v


def _values(coefficients: Floats, u: Floats, v: Floats) -> Floats:
    """Values of polynomials of total degree n - 1, by Horner's rule.

    `coefficients` has shape (n_exp, m, n, n), for m polynomials of each exposure, `u` and `v` have
    shape (n_exp, n_pos), the answer (n_exp, m, n_pos).
    """
    size = coefficients.shape[-1]
    u, v = u[:, None], v[:, None]
    # The polynomials in v of all powers of u together: of few positions each call is felt.
    rows = np.zeros((size, *coefficients.shape[:2], u.shape[-1]))
    columns = coefficients.transpose(3, 2, 0, 1)[..., None]
    for q in reversed(range(size)):
        row = rows[: size - q]
        row *= v
        row += columns[q, : size - q]
    value: Floats = rows[-1]
    for row in rows[-2::-1]:
        value *= u
        value += row
    return value


def _with_slopes(coefficients: Floats) -> Floats:
    """Add the derivatives along u and v: (n_exp, 2, n, n) becomes (n_exp, 6, n, n)."""
    size = coefficients.shape[-1]
    power = np.arange(1.0, size)
    both = np.zeros((len(coefficients), 3, 2, size, size))
    both[:, 0] = coefficients
    both[:, 1, :, :-1] = coefficients[:, :, 1:] * power[:, None]
    both[:, 2, :, :, :-1] = coefficients[..., 1:] * power
    return both.reshape(-1, 6, size, size)
