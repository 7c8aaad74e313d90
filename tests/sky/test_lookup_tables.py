"""FITS distortion in look-up tables, which lie in other extensions of the file."""

import numpy as np
import pytest
from astropy.io import fits

from fpgpu.errors import WCSError
from fpgpu.sky.sip import SipFit, fit_sip
from fpgpu.sky.wcs import SkyWCS
from tests.sky.made_wcs import tan_header

SHAPE = (128, 96)


def with_tables() -> tuple[fits.Header, fits.HDUList]:
    """A header and the file whose tables move pixels by 0.25 along x and by -0.5 along y."""
    header = tan_header(shape=SHAPE, sip=0.0)
    hdus = fits.HDUList([fits.PrimaryHDU()])
    for axis, shift in ((1, 0.25), (2, -0.5)):
        header[f"CPDIS{axis}"] = "LOOKUP"
        for text in (f"EXTVER: {axis}", "NAXES: 2", "AXIS.1: 1", "AXIS.2: 2"):
            header.append(fits.Card(f"DP{axis}", text), end=True)
        table = fits.ImageHDU(np.full((3, 3), shift, np.float32), name="WCSDVARR", ver=axis)
        for n, side in enumerate(SHAPE, start=1):
            table.header[f"CRPIX{n}"], table.header[f"CRVAL{n}"] = 1.0, 1.0
            table.header[f"CDELT{n}"] = side / 2
        hdus.append(table)
    return header, hdus


def test_tables_of_the_file_move_the_pixels() -> None:
    header, hdus = with_tables()
    sky = SkyWCS.from_header(header, hdus)
    plain = SkyWCS.from_header(tan_header(shape=SHAPE, sip=0.0))
    x, y = np.array([3.0, 60.0, 120.0]), np.array([90.0, 40.0, 5.0])
    expected = plain.pixel_to_world(x + 0.25, y - 0.5)
    assert np.allclose(sky.pixel_to_world(x, y), expected, rtol=0, atol=1e-11)
    assert np.allclose(sky.world_to_pixel(*expected), (x, y), rtol=0, atol=1e-6)
    assert sky.shape == SHAPE


def test_tables_are_no_sip_coefficients_but_can_be_fitted() -> None:
    sky = SkyWCS.from_header(*with_tables())
    with pytest.raises(WCSError, match=r"expected .* and no look-up tables"):
        SipFit.from_wcs(sky)
    inner = fit_sip(sky, (96, 64), degree=2)
    assert inner.residual < 1e-6
