"""A synthetic detector with JWST-like optics: plate scale, distortion, pointing, gWCS."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Pointing"]

# Shifts in pixels at the middle of the detector's edges, by powers (i, j) of the coordinates there:
# small enough for a 5th-order inverse, too large for any linear WCS.
_DISTORTION_X = {(0, 2): 0.6, (1, 1): -0.8, (1, 2): -0.1, (2, 0): 1.1, (3, 0): 0.15}
_DISTORTION_Y = {(0, 2): 1.2, (0, 3): -0.15, (1, 1): 0.9, (2, 0): -0.7, (2, 1): 0.12}


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
        nx, ny = self.shape
        transform = (
            (models.Shift((1 - nx) / 2) & models.Shift((1 - ny) / 2))
            | self._distortion()
            | models.AffineTransformation2D(turn, translation=[0, 0])
            | models.Pix2Sky_TAN()
            | models.RotateNative2Celestial(self.ra, self.dec, 180)
        )
        detector = frames.Frame2D(name="detector", unit=(u.pix, u.pix))
        world = frames.CelestialFrame(name="world", reference_frame=ICRS())
        wcs = WCS(forward_transform=transform, input_frame=detector, output_frame=world)
        wcs.bounding_box = ((-0.5, nx - 0.5), (-0.5, ny - 0.5))
        return wcs

    def area_map(self) -> npt.NDArray[np.float32]:
        """Give the area of every pixel relative to the one in the middle, by its edges."""
        distort, half = self._distortion(), 0.5
        x, y = (i - (n - 1) / 2 for i, n in zip(np.indices(self.shape), self.shape, strict=True))
        right, left = distort(x + half, y), distort(x - half, y)
        top, bottom = distort(x, y + half), distort(x, y - half)
        (ax, ay), (bx, by) = np.subtract(right, left), np.subtract(top, bottom)
        return np.asarray(ax * by - ay * bx, np.float32)

    def _distortion(self) -> Any:
        """Build the distortion in pixels from the middle, with a fitted inverse."""
        from astropy.modeling import fitting, models

        hx, hy = self.shape[0] / 2, self.shape[1] / 2
        axes = []
        for shifts, itself in ((_DISTORTION_X, "c1_0"), (_DISTORTION_Y, "c0_1")):
            terms = {f"c{i}_{j}": shift / hx**i / hy**j for (i, j), shift in shifts.items()}
            axes.append(models.Polynomial2D(3, **terms, **{itself: 1.0}))
        forward = models.Mapping((0, 1, 0, 1)) | (axes[0] & axes[1])
        x, y = np.meshgrid(np.linspace(-hx, hx, 25), np.linspace(-hy, hy, 25))
        places, fit = forward(x, y), fitting.LinearLSQFitter()
        # Powers of coordinates up to thousands would be fitted badly.
        domains = {"x_domain": (-hx, hx), "y_domain": (-hy, hy)}
        back = [fit(models.Polynomial2D(5, **domains), *places, target) for target in (x, y)]
        forward.inverse = models.Mapping((0, 1, 0, 1)) | (back[0] & back[1])
        return forward
