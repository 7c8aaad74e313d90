"""Plain FITS exposures that are read in milliseconds."""

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from tests.sky.wcs_kinds import SHAPE

BLOCK = np.ones(SHAPE[::-1], np.float32)

BANDS = ("F090W", "F200W")


def make_small_files(folder: Path, n: int, side: int = 32) -> list[Path]:
    """Write exposures with flagged pixels, in two bands, each with values of its own."""
    files = []
    for number in range(n):
        rng = np.random.default_rng(number)
        header = fits.Header(
            {
                "FILTER": BANDS[number % len(BANDS)], "ABMAG": 27.0 + number,
                "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CUNIT1": "deg", "CUNIT2": "deg",
                "CRPIX1": side / 2, "CRPIX2": side / 2, "CRVAL1": 53.0 + number / 100,
                "CRVAL2": -27.0, "CDELT1": -1e-5, "CDELT2": 1e-5,
            }
        )  # fmt: skip
        shape = side, side
        images = {
            "SCI": rng.normal(size=shape).astype(np.float32),
            "ERR": rng.uniform(1, 2, shape).astype(np.float32),
            "DQ": rng.choice(np.array([0, 1, 4, 5], np.uint32), shape, p=[0.7, 0.1, 0.1, 0.1]),
        }
        hdus = [fits.ImageHDU(image, name=name) for name, image in images.items()]
        hdus[0].header.update(header)
        files.append(folder / f"e{number}.fits")
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(files[-1])
    return files


def write_plain(path: Path, science: fits.Header, primary: dict[str, Any] | None = None) -> Path:
    """A plain exposure; FILTER and ABMAG are the science header's unless the primary has them."""
    primary = {"FILTER": "F200W", "ABMAG": 31.4} | (primary or {})
    hdus = [fits.PrimaryHDU(header=fits.Header(primary))]
    hdus += [fits.ImageHDU(BLOCK, science, name="SCI"), fits.ImageHDU(BLOCK, name="ERR")]
    fits.HDUList(hdus).writeto(path)
    return path
