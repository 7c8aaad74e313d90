"""A synthetic detector with JWST-like optics: plate scale, distortion, pointing, gWCS."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.polynomial.polynomial import polyder, polyval2d

__all__ = ["Pointing"]

Floats = npt.NDArray[np.float64]

# Shifts in pixels at the middle of the detector's edges, by power [i, j] of the normalised
# coordinates (u, v): small enough for a 5th-order inverse, too large for any linear WCS.
_DISTORTION_X = np.array([[0, 0, 0.6, 0], [0, -0.8, -0.1, 0], [1.1, 0, 0, 0], [0.15, 0, 0, 0]])
_DISTORTION_Y = np.array([[0, 0, 1.2, -0.15], [0, 0.9, 0, 0], [-0.7, 0.12, 0, 0], [0, 0, 0, 0]])

_INVERSE_DEGREE = 5
_FIT_POINTS = 25


@dataclass(frozen=True)
class Pointing:
    """Where one exposure looks and how its detector sees the sky.

    Attributes
    ----------
    ra, dec : float
        Degrees, of the middle of the detector.
    roll : float
        Degrees by which the detector's y axis is turned from north to east.
    scale : float
        Arcseconds per pixel in the middle.
    shape : tuple of int
        (nx, ny) of the detector.
    """

    ra: float
    dec: float
    roll: float
    scale: float
    shape: tuple[int, int]

    @property
    def pixel_steradian(self) -> float:
        """Solid angle of the pixel in the middle, in steradians."""
        return float(np.deg2rad(self.scale / 3600) ** 2)

    @property
    def middle(self) -> tuple[float, float]:
        """Zero-based pixel coordinates of the middle."""
        return (self.shape[0] - 1) / 2, (self.shape[1] - 1) / 2

    def gwcs(self) -> Any:
        """Build the WCS as the JWST pipeline does: from the detector through a distortion."""
        import astropy.units as u
        from astropy.coordinates import ICRS
        from astropy.modeling import models
        from gwcs import WCS
        from gwcs import coordinate_frames as frames

        angle, step = np.deg2rad(self.roll), self.scale / 3600
        # East is to the left of north: the first axis of the tangent plane is mirrored.
        turn = step * np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        x0, y0 = self.middle
        transform = (
            (models.Shift(-x0) & models.Shift(-y0))
            | self._distortion_model()
            | models.AffineTransformation2D(turn, translation=[0, 0])
            | models.Pix2Sky_TAN()
            | models.RotateNative2Celestial(self.ra, self.dec, 180)
        )
        detector = frames.Frame2D(name="detector", unit=(u.pix, u.pix))
        world = frames.CelestialFrame(name="world", reference_frame=ICRS())
        wcs = WCS(forward_transform=transform, input_frame=detector, output_frame=world)
        nx, ny = self.shape
        wcs.bounding_box = ((-0.5, nx - 0.5), (-0.5, ny - 0.5))
        return wcs

    def area_map(self) -> npt.NDArray[np.float32]:
        """Give the area of every pixel relative to the one in the middle.

        Returns
        -------
        ndarray of float32, shape (nx, ny)
            The determinant of the distortion's Jacobian.
        """
        (hu, hv), (x0, y0) = self._half(), self.middle
        u, v = np.meshgrid(
            (np.arange(self.shape[0]) - x0) / hu,
            (np.arange(self.shape[1]) - y0) / hv,
            indexing="ij",
        )
        (xu, xv), (yu, yv) = (
            [polyval2d(u, v, polyder(shifts, axis=axis)) for axis in (0, 1)]
            for shifts in (_DISTORTION_X, _DISTORTION_Y)
        )
        return np.asarray((1 + xu / hu) * (1 + yv / hv) - xv / hv * yu / hu, np.float32)

    def _half(self) -> tuple[float, float]:
        """Half the detector's sides in pixels, which normalise the distortion's coordinates."""
        return self.shape[0] / 2, self.shape[1] / 2

    def _distortion_model(self) -> Any:
        """Build the distortion in pixels from the middle, with a fitted inverse."""
        from astropy.modeling import models

        hu, hv = self._half()
        u, v = np.meshgrid(
            np.linspace(-hu, hu, _FIT_POINTS), np.linspace(-hv, hv, _FIT_POINTS), indexing="ij"
        )
        forward = models.Mapping((0, 1, 0, 1)) | (
            self._polynomial(_DISTORTION_X, "c1_0") & self._polynomial(_DISTORTION_Y, "c0_1")
        )
        x, y = forward(u, v)
        forward.inverse = models.Mapping((0, 1, 0, 1)) | (
            _fit_polynomial(x, y, u, hu, hv) & _fit_polynomial(x, y, v, hu, hv)
        )
        return forward

    def _polynomial(self, shifts: Floats, linear: str) -> Any:
        """Build one axis: the coordinate itself and the shifts, in pixels."""
        from astropy.modeling import models

        hu, hv = self._half()
        powers = zip(*np.nonzero(shifts), strict=True)
        terms = {f"c{i}_{j}": shifts[i, j] / hu**i / hv**j for i, j in powers}
        return models.Polynomial2D(3, **terms, **{linear: 1.0})


def _fit_polynomial(x: Floats, y: Floats, target: Floats, hu: float, hv: float) -> Any:
    """Fit a polynomial in (x, y) to a target by least squares, in normalised coordinates."""
    from astropy.modeling import models

    powers = [(i, j) for i in range(_INVERSE_DEGREE + 1) for j in range(_INVERSE_DEGREE + 1 - i)]
    columns = np.stack([(x / hu) ** i * (y / hv) ** j for i, j in powers], axis=-1)
    found = np.linalg.lstsq(columns.reshape(-1, len(powers)), target.ravel(), rcond=None)[0]
    terms = {f"c{i}_{j}": c / hu**i / hv**j for (i, j), c in zip(powers, found, strict=True)}
    return models.Polynomial2D(_INVERSE_DEGREE, **terms)
