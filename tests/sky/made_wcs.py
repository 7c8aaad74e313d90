"""WCSs made to measure: FITS headers and gWCSs with the traits that cause trouble."""

from typing import Any

import astropy.units as u
import gwcs
import numpy as np
from astropy.coordinates import ICRS
from astropy.io import fits
from astropy.modeling import models
from gwcs import coordinate_frames as cf


def tan_header(
    ra: float = 53.16,
    dec: float = -27.79,
    shape: tuple[int, int] = (128, 96),
    scale: float = 0.06,
    angle: float = 20.0,
    sip: float = 1e-6,
) -> fits.Header:
    """Header of an image with SIP distortion; `scale` in arcsec, `sip` per pixel."""
    header = fits.Header()
    header["NAXIS"], header["NAXIS1"], header["NAXIS2"] = 2, *shape
    header["CRPIX1"], header["CRPIX2"] = shape[0] / 2 + 0.5, shape[1] / 2 + 0.5
    header["CRVAL1"], header["CRVAL2"] = ra, dec
    suffix = "-SIP" if sip else ""
    header["CTYPE1"], header["CTYPE2"] = f"RA---TAN{suffix}", f"DEC--TAN{suffix}"
    header["CUNIT1"] = header["CUNIT2"] = "deg"
    c, s = np.cos(np.deg2rad(angle)) * scale / 3600, np.sin(np.deg2rad(angle)) * scale / 3600
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = -c, s, s, c
    if sip:
        header["A_ORDER"] = header["B_ORDER"] = 3
        header["A_2_0"], header["A_1_1"], header["A_0_3"] = sip, -2 * sip, 1e-3 * sip
        header["B_0_2"], header["B_1_1"], header["B_2_1"] = -sip, 1.5 * sip, 1e-3 * sip
    return header


def cube_header(**traits: Any) -> fits.Header:
    """The same with a third, spectral axis."""
    header = tan_header(**traits)
    header["WCSAXES"] = 3
    header["CTYPE3"], header["CUNIT3"] = "WAVE", "um"
    header["CRPIX3"], header["CRVAL3"], header["CD3_3"] = 1.0, 2.0, 0.01
    return header


def sky_gwcs(
    ra: float = 53.16,
    dec: float = -27.79,
    shape: tuple[int, int] = (128, 96),
    scale: float = 0.06,
    bounding_box: tuple[tuple[float, float], tuple[float, float]] | None = None,
    inverse: bool = True,
    frame: cf.CoordinateFrame | None = None,
    quantities: bool = False,
) -> gwcs.WCS:
    """A gWCS: distortion polynomials, rotation, scale, gnomonic projection.

    `bounding_box` is ((x0, x1), (y0, y1)). With `inverse` false there is no analytic inverse.
    """
    half = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    centre = models.Shift(-half[0]) & models.Shift(-half[1])
    bend = models.Mapping((0, 1, 0, 1)) | (
        models.Polynomial2D(2, c1_0=1, c2_0=2e-6, c1_1=-3e-6)
        & models.Polynomial2D(2, c0_1=1, c0_2=-1e-6, c1_1=2e-6)
    )
    if inverse:
        bend.inverse = models.Identity(2)  # approximate, as those of real products
    turn = models.Rotation2D(25.0) | models.Scale(-scale / 3600) & models.Scale(scale / 3600)
    if quantities:
        centre = models.Shift(-half[0] * u.pix) & models.Shift(-half[1] * u.pix)
        bend = models.Multiply(scale / 3600 * u.deg / u.pix) & models.Multiply(
            scale / 3600 * u.deg / u.pix
        )
        turn = models.Rotation2D(25.0 * u.deg)
        native = models.RotateNative2Celestial(ra * u.deg, dec * u.deg, 180 * u.deg)
    else:
        native = models.RotateNative2Celestial(ra, dec, 180)
    transform = centre | bend | turn | models.Pix2Sky_TAN() | native
    detector = cf.Frame2D(name="detector", axes_order=(0, 1), unit=(u.pix, u.pix))
    sky = frame or cf.CelestialFrame(reference_frame=ICRS(), name="sky", unit=(u.deg, u.deg))
    made = gwcs.WCS([(detector, transform), (sky, None)])
    if bounding_box is not None:
        # gwcs takes a plain tuple of intervals in the order (x, y) only when told so.
        from astropy.modeling.bounding_box import ModelBoundingBox

        made.bounding_box = ModelBoundingBox.validate(transform, bounding_box, order="F")
    return made
