"""The area of pixels on the sky, from a WCS.

A flat-fielded image keeps the surface brightness of a uniform sky uniform, so that a pixel which
sees more sky holds more light of a star than its value says: fluxes are values times the area of
the pixel, relative to the pixel that the zero point is for (ACS Data Handbook, section 5.1.3).
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.errors import WCSError
from fpgpu.ingest.tiles import Box
from fpgpu.sky.sip import SipFit
from fpgpu.sky.sphere import Floats
from fpgpu.sky.wcs import SkyWCS

__all__ = ["area_map", "nominal_area", "solid_angle"]

_COLUMNS = 64


def area_map(header: Any, box: Box, nominal: float) -> npt.NDArray[np.float32]:
    """Compute the area of every pixel ``[x, y]`` relative to a nominal one, in square degrees.

    The determinant of the derivative of the gnomonic plane by the pixel, from the linear and the
    SIP terms of the WCS, times the cube of the cosine of the distance from the tangent point, by
    which the plane is larger than the sky.
    """
    sip = SipFit.from_wcs(SkyWCS.from_header(header))
    nx, ny = box.shape
    area = np.empty((ny, nx), np.float32).T
    v = np.arange(box.y0, box.y1) - sip.crpix[1]
    scale = abs(float(np.linalg.det(sip.cd))) / nominal
    # A few columns at a time: the powers of all pixels at once would take many images' memory.
    for start in range(0, nx, _COLUMNS):
        stop = min(start + _COLUMNS, nx)
        u = np.arange(box.x0 + start, box.x0 + stop) - sip.crpix[0]
        shift_x, x_by_u, x_by_v = _with_derivatives(sip.a, u, v)
        shift_y, y_by_u, y_by_v = _with_derivatives(sip.b, u, v)
        flat = (1 + x_by_u) * (1 + y_by_v) - x_by_v * y_by_u
        plane = np.einsum("ij,jxy->ixy", sip.cd, [u[:, None] + shift_x, v + shift_y])
        distance = np.deg2rad(plane)
        area[start:stop] = scale * flat / (1 + (distance**2).sum(axis=0)) ** 1.5
    return area


def nominal_area(header: Any) -> tuple[float, str]:
    """Give the square degrees of the pixel that HST's zero points are for, and where they come
    from.

    That of the pixels of the instrument's distortion model, IDCSCALE; where there is none, that of
    the pixel at the reference point of the WCS (``"CRPIX"``).
    """
    scale = header.get("IDCSCALE")
    if isinstance(scale, float | int) and not isinstance(scale, bool) and 0 < scale < 60:
        return (float(scale) / 3600) ** 2, "IDCSCALE"
    sip = SipFit.from_wcs(SkyWCS.from_header(header))
    return abs(float(np.linalg.det(sip.cd))), "CRPIX"


def solid_angle(header: Any) -> float:
    """Give the steradians of the pixel in the middle of an image, by its celestial FITS WCS."""
    x, y = (header["NAXIS1"] - 1) / 2, (header["NAXIS2"] - 1) / 2
    wcs = SkyWCS.from_header(header)
    ra, dec = wcs.pixel_to_world(
        np.array([x - 0.5, x + 0.5, x, x]), np.array([y, y, y - 0.5, y + 0.5])
    )
    east = (np.diff(ra)[[0, 2]] + 180) % 360 - 180
    north = np.diff(dec)[[0, 2]]
    east = east * math.cos(math.radians(float(dec.mean())))
    area = abs(east[0] * north[1] - east[1] * north[0]) * math.radians(1) ** 2
    if not math.isfinite(area) or area <= 0:
        raise WCSError(f"the WCS gives a pixel in the middle an area of {area!r} sr")
    return float(area)


def _with_derivatives(coefficients: Floats, u: Floats, v: Floats) -> tuple[Floats, Floats, Floats]:
    """A polynomial in u and v on their grid, and its derivatives by both, each (nu, nv)."""
    n = len(coefficients)
    power = np.arange(n)
    of_u, of_v = u[:, None] ** power, v[:, None] ** power
    by_u, by_v = np.zeros_like(of_u), np.zeros_like(of_v)
    by_u[:, 1:], by_v[:, 1:] = of_u[:, :-1] * power[1:], of_v[:, :-1] * power[1:]
    value, slope = of_u @ coefficients, by_u @ coefficients
    # Not a matrix product: its threads would compete with the other workers of an ingest.
    return (
        np.einsum("up,vp->uv", value, of_v),
        np.einsum("up,vp->uv", slope, of_v),
        np.einsum("up,vp->uv", value, by_v),
    )
