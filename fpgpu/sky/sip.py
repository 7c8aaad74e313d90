"""SIP solutions: fitted to a gWCS, read from FITS headers, written to them.

A gWCS is exact and slow, and FITS software does not read it. A gnomonic projection with SIP
polynomials of degree 5 about the middle of the detector reproduces those of JWST's imagers to
2e-7 px. The fit is linear least squares in the tangent plane.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fpgpu.errors import WCSError
from fpgpu.sky.native import tan_sip_terms
from fpgpu.sky.siptable import SipTable
from fpgpu.sky.sphere import Floats, tangent_coordinates, unit_vectors
from fpgpu.sky.wcs import SkyWCS

__all__ = ["SipFit", "SipTable", "fit_sip", "sip_residual"]

# Chebyshev nodes a side for the fit, and equidistant points a side, edges included, to check it.
_FIT_NODES = 24
_CHECK_POINTS = 65
_SOLUTION_STEPS = 3

# Points a side, edges included, at which coefficients must be their WCS, and how well, in pixels.
_SAME_POINTS = 7
_SAME = 1e-5

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
        """Take the coefficients of a FITS WCS, with or without SIP, and turn them to ICRS.

        Parameters
        ----------
        wcs : SkyWCS
            Of kind ``"fits"`` and projection TAN; of any frame that is ICRS turned.

        Returns
        -------
        SipFit

        Raises
        ------
        WCSError
            When the WCS is a gWCS (see `fit_sip`), of another projection, has another distortion,
            or is FK4: whenever its positions on the detector are not those of the coefficients.
        """
        if wcs.kind != "fits":
            raise WCSError("a gWCS has no SIP coefficients to take; fit them with fit_sip")
        terms = tan_sip_terms(wcs.native)
        if wcs.frame is not None:
            terms["crval"], terms["cd"] = wcs.frame.turn(terms["crval"], terms["cd"])
        fit = cls(**terms, residual=0.0)
        _require_same(wcs, fit)
        return fit

    def to_header(self) -> Any:
        """Write the solution as FITS keywords.

        Returns
        -------
        astropy.io.fits.Header
            WCS keywords only: no NAXIS, no SIMPLE.
        """
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
    residual, worst = _residual(wcs, SipFit(crval, crpix, cd, a, b, ap, bp, np.nan), half)
    if not residual <= tolerance:
        raise WCSError(
            f"a SIP fit of degree {degree} misses the WCS by {residual:.2g} px at pixel "
            f"({worst[0]:.1f}, {worst[1]:.1f}); the tolerance is {tolerance:g} px"
        )
    return SipFit(crval, crpix, cd, a, b, ap, bp, residual)


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
        Largest distance in pixels at the points where `fit_sip` measures its residual.

    Raises
    ------
    WCSError
        When the WCS gives no position somewhere on the detector.
    """
    return _residual(wcs, fit, 0.5 * np.array(shape, np.float64))[0]


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


def _residual(wcs: SkyWCS, fit: SipFit, half: Floats) -> tuple[float, Floats]:
    """Largest distance in pixels between a fit and its WCS, and the pixel where it occurs."""
    side = np.linspace(-1.0, 1.0, _CHECK_POINTS)
    u, v = _grid(side * half[0], side * half[1])
    distance = _distances(wcs, fit, u, v)
    worst = int(np.argmax(distance))
    return float(distance[worst]), np.array([u[worst], v[worst]]) + fit.crpix


def _require_same(wcs: SkyWCS, fit: SipFit) -> None:
    """Refuse coefficients that are not all of a WCS.

    Asked of the positions, not of the WCS: once it is set up, astropy does not tell the distortions
    that WCSLIB works out (TPV, TNX, TPD) from none.
    """
    x0, x1, y0, y1 = wcs.domain()
    x, y = _grid(np.linspace(x0, x1, _SAME_POINTS), np.linspace(y0, y1, _SAME_POINTS))
    distance = _distances(wcs, fit, x - fit.crpix[0], y - fit.crpix[1])
    if not (distance <= _SAME).all():
        raise WCSError(
            "the FITS WCS is more than a gnomonic projection with SIP distortion: the coefficients "
            f"alone are off by {distance.max():.2g} px"
        )


def _distances(wcs: SkyWCS, fit: SipFit, u: Floats, v: Floats) -> Floats:
    """Distances in pixels between a fit and its WCS at pixels relative to crpix."""
    truth = _plane(wcs, fit.crval, fit.crpix, u, v)
    sky = fit.pixel_to_world(u + fit.crpix[0], v + fit.crpix[1])
    ours = np.rad2deg(tangent_coordinates(unit_vectors(*sky), unit_vectors(*fit.crval)))
    return np.asarray(np.hypot(*(np.linalg.inv(fit.cd) @ (ours - truth))))
