"""Where units end: angles and positions, as astropy has them or people write them, in degrees.

Whatever takes a position, a radius or a margin takes it through here; everything below computes in
degrees, ICRS.
"""

from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
import numpy.typing as npt

from fpgpu.errors import RegionError

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord
    from astropy.units import Quantity

__all__ = ["AngleLike", "PositionLike", "in_degrees", "is_position", "mask_of", "sky_position"]

AngleLike: TypeAlias = Union["Quantity", npt.ArrayLike]
"""Degrees; or a Quantity or Angle; or text, as ``"3 arcsec"`` or ``"-27:47:24"``."""

PositionLike: TypeAlias = Union["SkyCoord", AngleLike]
"""A SkyCoord in any frame, which is right ascension and declination in one; or one of the two."""


def in_degrees(angle: AngleLike, name: str, *, plain: str = "deg", sixty: str = "deg") -> Any:
    """Take an angle, or an array of them, as degrees.

    Parameters
    ----------
    angle : float, array_like, Quantity, Angle or str
        The angle.
    name : str
        What it is, for messages.
    plain : str, optional
        Unit of a plain number.
    sixty : str, optional
        Unit of the first part of text such as ``"10:00:24"``.

    Returns
    -------
    float or ndarray of float64
        Degrees; of an array, NaN where it is masked.

    Raises
    ------
    RegionError
        If it is no angle, or one that is masked.

    Examples
    --------
    >>> round(in_degrees("-27:47:24", "dec"), 9)
    -27.79
    >>> round(in_degrees("12:00:00", "ra", sixty="hourangle"), 9)
    180.0
    >>> in_degrees(1.5, "radius", plain="arcmin")
    0.025
    """
    if type(angle) is float and plain == "deg":
        return angle
    try:
        if isinstance(angle, str):
            return _read(angle, plain, sixty)
        if hasattr(angle, "unit"):
            from astropy.units import Quantity

            return _plain(Quantity(angle).to_value("deg"), angle)
        # NumPy makes NaN of None.
        values = np.asarray("nothing" if angle is None else angle, np.float64)
        if plain != "deg":
            from astropy.units import Quantity

            values = Quantity(values, plain).to_value("deg")
        return _plain(values, angle)
    except RegionError:
        raise
    except (TypeError, ValueError) as error:
        ways = ["10:00:24", "10h00m24s"] if sixty == "hourangle" else ["-27:47:24", "3arcsec"]
        if not isinstance(angle, str):
            ways = ["a Quantity such as 3 * u.arcsec"]
        raise RegionError(
            f"{name} is {angle!r}, which is no angle; expected a number ({plain}),"
            f" {' or '.join(ways)}"
        ) from error


def is_position(value: Any) -> bool:
    """Tell whether a value is a position in itself, such as a SkyCoord.

    Parameters
    ----------
    value : object
        Anything.

    Returns
    -------
    bool
        Whether it can be transformed to another frame of the sky.

    Examples
    --------
    >>> is_position(53.16)
    False
    """
    return hasattr(value, "transform_to")


def sky_position(ra: PositionLike, dec: AngleLike | None = None) -> tuple[Any, Any]:
    """Take a position, or an array of them, as right ascension and declination.

    Parameters
    ----------
    ra : SkyCoord; or float, array_like, Quantity, Angle or str
        Both coordinates, in any frame; or the right ascension. Text such as ``"10:00:24"`` is in
        hours.
    dec : float, array_like, Quantity, Angle or str, optional
        The declination, where `ra` is not both.

    Returns
    -------
    (float or ndarray of float64, float or ndarray of float64)
        Degrees, ICRS.

    Raises
    ------
    RegionError
        If it is no position.

    Examples
    --------
    >>> from astropy.coordinates import SkyCoord
    >>> ra, dec = sky_position(SkyCoord("10:00:24 +2:12:00", unit=("hourangle", "deg")))
    >>> print(f"{ra:.4f} {dec:.4f}")
    150.1000 2.2000
    >>> sky_position(150.1, "+2:12:00")
    (150.1, 2.2)
    """
    if is_position(ra):
        if dec is not None:
            raise RegionError(f"{ra!r} is ra and dec in one, but dec {dec!r} was given, too")
        from astropy.coordinates import SkyCoord

        # Of a position that is given as x, y and z, too.
        sky = SkyCoord(ra).icrs.spherical
        return _plain(sky.lon.deg, sky.lon), _plain(sky.lat.deg, sky.lat)
    if dec is None:
        raise RegionError(f"a position was given as {ra!r}; expected a SkyCoord, or ra and dec")
    return in_degrees(ra, "ra", sixty="hourangle"), in_degrees(dec, "dec")


def _read(text: str, plain: str, sixty: str) -> float:
    """Read an angle; digits without any unit are in `plain`."""
    from astropy.coordinates import Angle

    try:
        return float(Angle(float(text), plain).deg)
    except ValueError:
        return float(Angle(text, sixty).deg)


def mask_of(values: Any) -> npt.NDArray[np.bool_] | None:
    """Tell what is masked in an array of NumPy or astropy, which a plain array forgets.

    Parameters
    ----------
    values : object
        Anything, such as a MaskedColumn, a Masked Quantity or a CCDData.

    Returns
    -------
    ndarray of bool or None
        True where it is masked; None where nothing is.

    Examples
    --------
    >>> mask_of(np.ma.array([1.0, 2.0], mask=[True, False])).tolist()
    [True, False]
    """
    mask = getattr(values, "mask", None)
    # A Series of pandas has a method of that name.
    is_mask = isinstance(mask, bool | np.bool_ | np.ndarray)
    return np.asarray(mask, bool) if is_mask and np.any(mask) else None


def _plain(values: Any, given: Any) -> Any:
    """Make a float of what is one number, so that it compares and prints as a value."""
    values, mask = np.asarray(values, np.float64), mask_of(given)
    if mask is not None:
        if values.ndim == 0:
            raise RegionError("a position or an angle is masked; leave it out, or give its value")
        values = np.where(mask, np.nan, values)
    return float(values) if values.ndim == 0 else values
