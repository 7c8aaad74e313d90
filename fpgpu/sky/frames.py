"""From the frame of a WCS to ICRS, the one frame of everything beyond `fpgpu.sky.wcs`.

FK5 of any equinox and galactic coordinates are ICRS turned, which is one matrix; FK4 is not, as
its positions hold the aberration of a fixed year. astropy says what either is.
"""

from typing import Any

import numpy as np

from fpgpu.errors import WCSError
from fpgpu.sky.sphere import Floats, positions, unit_vectors

__all__ = ["SkyFrame", "fits_frame", "gwcs_frame"]

_ROUNDING = 1e-13

_KNOWN = "expected ICRS, FK5, FK4, FK4-NO-E or galactic coordinates"


class SkyFrame:
    """A frame other than ICRS.

    Parameters
    ----------
    frame : astropy.coordinates.BaseCoordinateFrame
        FK5, FK4, FK4NoETerms or Galactic.

    Attributes
    ----------
    name : str
        With its equinox, such as ``"FK5 J2000"``.
    """

    def __init__(self, frame: Any) -> None:
        self._frame = frame
        self.name = _named(frame)
        self._matrix: Floats | None = None
        axes = np.concatenate([np.eye(3), np.full((1, 3), np.sqrt(1 / 3))])
        turned = unit_vectors(*self.to_icrs(*positions(axes)))
        if np.abs(turned[:3].T @ axes[3] - turned[3]).max() < _ROUNDING:
            self._matrix = turned[:3].T

    def __repr__(self) -> str:
        return f"<SkyFrame {self.name}>"

    def to_icrs(self, lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
        """Turn positions into ICRS.

        Parameters
        ----------
        lon, lat : ndarray of float64
            Degrees, of one shape.

        Returns
        -------
        ra, dec : ndarray of float64
            Degrees, ra in [0, 360).
        """
        if self._matrix is not None:
            return positions(unit_vectors(lon, lat) @ self._matrix.T)
        from astropy.coordinates import ICRS

        return _transformed(self._frame, ICRS(), lon, lat)

    def from_icrs(self, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
        """Turn ICRS positions into those of the frame.

        Parameters
        ----------
        ra, dec : ndarray of float64
            Degrees, of one shape.

        Returns
        -------
        lon, lat : ndarray of float64
            Degrees.
        """
        if self._matrix is not None:
            return positions(unit_vectors(ra, dec) @ self._matrix)
        from astropy.coordinates import ICRS

        return _transformed(ICRS(), self._frame, ra, dec)


def fits_frame(wcs: Any) -> SkyFrame | None:
    """Give the frame of a FITS WCS by the rules of the FITS standard, as astropy has them."""
    # Of galactic coordinates astropy goes by RADESYS, which does not concern them.
    if wcs.wcs.lngtyp.strip() == "GLON":
        from astropy.coordinates import Galactic

        return SkyFrame(Galactic())
    if wcs.wcs.radesys == "ICRS":
        return None
    from astropy.wcs.utils import wcs_to_celestial_frame

    try:
        return _known(wcs_to_celestial_frame(wcs))
    except ValueError:
        raise WCSError(f"RADESYS is {wcs.wcs.radesys!r}; {_KNOWN}") from None


def gwcs_frame(gwcs: Any) -> SkyFrame | None:
    """Give the frame in which the positions of a gWCS are."""
    return _known(getattr(gwcs.output_frame, "reference_frame", None))


def _known(frame: Any) -> SkyFrame | None:
    """Wrap a frame of astropy; None of ICRS."""
    from astropy.coordinates import FK4, FK5, ICRS, FK4NoETerms, Galactic

    if isinstance(frame, ICRS):
        return None
    if not isinstance(frame, FK4 | FK4NoETerms | FK5 | Galactic):
        raise WCSError(f"the positions are in the frame {frame!r}; {_KNOWN}")
    return SkyFrame(frame)


def _named(frame: Any) -> str:
    """Name a frame as FITS does, with its equinox."""
    if not hasattr(frame, "equinox"):
        return str(frame.name)
    if frame.name == "fk5":
        return f"FK5 J{frame.equinox.jyear:.10g}"
    name = "FK4" if frame.name == "fk4" else "FK4-NO-E"
    return f"{name} B{frame.equinox.byear:.10g}"


def _transformed(source: Any, target: Any, lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
    """Let astropy transform positions in degrees."""
    from astropy import units as u
    from astropy.coordinates import UnitSphericalRepresentation

    place = UnitSphericalRepresentation(lon * u.deg, lat * u.deg)
    found = source.realize_frame(place).transform_to(target).spherical
    return found.lon.to_value(u.deg), found.lat.to_value(u.deg)
