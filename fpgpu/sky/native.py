"""What is particular to astropy's FITS WCS and to gWCS, and known nowhere else."""

import warnings
from typing import Any

import numpy as np

from fpgpu.errors import WCSError
from fpgpu.sky.sphere import Floats

__all__ = [
    "bounding_box_of",
    "degrees",
    "fits_wcs",
    "gwcs_forward",
    "gwcs_inverse",
    "has_inverse",
    "physical_types",
    "set_up",
]


def fits_wcs(header: Any, fobj: Any) -> Any:
    """Build astropy's WCS without the noise about dates and observatory positions."""
    from astropy.io.fits import VerifyError
    from astropy.wcs import WCS, FITSFixedWarning

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)
            return WCS(header, fobj)
    # WCSLIB's own errors derive from ValueError; the others come from values of a wrong type.
    except (ValueError, TypeError, KeyError, VerifyError) as error:
        text = " ".join(str(error).split())
        raise WCSError(f"the WCS of the FITS header cannot be used: {text}") from error


def set_up(wcs: Any) -> None:
    """Let WCSLIB work out what a FITS WCS is, and refuse a gnomonic projection of the equator.

    That is what it makes of SCAMP's polynomials of degree 1 (to it, PVi_1 and PVi_2 of the
    longitude are a place on the native sphere). In a header `fpgpu.sky.cards` finds them.
    """
    prm = wcs.wcs
    try:
        prm.set()
    except ValueError as error:  # WCSLIB's own errors derive from it
        raise WCSError(f"the FITS WCS cannot be used: {' '.join(str(error).split())}") from error
    if "TAN" in {name[5:8] for name in prm.ctype} and abs(prm.theta0) < 1.0:
        raise WCSError(
            f"the FITS WCS is gnomonic about native latitude {prm.theta0:g}, where there is no "
            "such projection; the polynomials of SCAMP (PVi_j) need CTYPE RA---TPV, DEC--TPV"
        )


def physical_types(gwcs: Any) -> list[str]:
    """Kinds of the world axes; a gWCS whose frames are mere names has none."""
    try:
        return [str(name) for name in gwcs.world_axis_physical_types]
    except AttributeError:
        return [f"of unknown kind (frame {gwcs.output_frame!r})"]


def bounding_box_of(gwcs: Any) -> tuple[float, float, float, float] | None:
    """Bounding box as x0, x1, y0, y1, or None when there is none along both axes."""
    intervals = getattr(gwcs.bounding_box, "intervals", {})
    if 0 not in intervals or 1 not in intervals:
        return None
    ends = [*intervals[0], *intervals[1]]
    x0, x1, y0, y1 = (float(getattr(end, "value", end)) for end in ends)
    return min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)


def gwcs_forward(gwcs: Any, x: Floats, y: Floats) -> Any:
    """World values of pixels, whatever the bounding box, with units if the transform has them."""
    inputs = [x, y]
    if gwcs.forward_transform.uses_quantity:
        inputs = [value * unit for value, unit in zip(inputs, gwcs.input_frame.unit, strict=True)]
    return gwcs(*inputs, with_bounding_box=False)


def gwcs_inverse(gwcs: Any, world: list[Floats]) -> Any:
    """Pixels of world values in degrees by the inverse transform, whatever the bounding box."""
    inputs = [w / _in_degrees(u) for w, u in zip(world, gwcs.world_axis_units, strict=True)]
    if gwcs.backward_transform.uses_quantity:
        inputs = [value * unit for value, unit in zip(inputs, gwcs.output_frame.unit, strict=True)]
    return gwcs.invert(*inputs, with_bounding_box=False)


def has_inverse(gwcs: Any) -> bool:
    """Whether a gWCS brings an inverse transform."""
    try:
        return gwcs.backward_transform is not None
    except NotImplementedError:
        return False


def degrees(values: Any, unit: str) -> Floats:
    """Strip the unit of a native output, be it attached to the values or declared by the WCS."""
    if hasattr(values, "to_value"):
        return np.asarray(values.to_value("deg"), np.float64)
    return np.asarray(values, np.float64) * _in_degrees(unit)


def _in_degrees(unit: str) -> float:
    """Give what one of a unit is in degrees."""
    if unit == "deg":
        return 1.0
    from astropy.units import Unit, UnitConversionError

    try:
        return float(Unit(unit).to("deg"))
    except (ValueError, UnitConversionError) as error:
        raise WCSError(f"positions of the WCS are in {unit!r}, which is no angle") from error
