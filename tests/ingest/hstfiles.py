"""HST files as calibration pipelines and drizzling write them, small."""

from pathlib import Path

import numpy as np
from astropy.io import fits

# Of ACS/WFC with F606W.
PHOTFLAM, PHOTPLAM = 7.8624958e-20, 5921.8877
EXPTIME = 507.0
SIZE = (256, 128)  # nx, ny
_SCALE = 0.05 / 3600


def write_flc(path: Path, *, unit="ELECTRONS", amplitude=0.02, chips=(1, 2), **primary) -> Path:
    """Write a file of one or two chips, with SIP and look-up tables of distortion.

    `amplitude` is how far the tables go, in pixels; 0 leaves them out.
    """
    random = np.random.default_rng(11)
    hdus = [fits.PrimaryHDU(header=_primary_header(path.name, primary))]
    for chip in chips:
        hdus += _chip(random, chip, unit, bool(amplitude))
    if amplitude:
        for table in range(1, 2 * max(chips) + 1):
            hdus.append(_npol_table(table, amplitude))
        hdus.append(_column_table(1, amplitude))
    fits.HDUList(hdus).writeto(path)
    return path


def write_drz(path: Path, *, unit="ELECTRONS/S", sky_sigma=0.05, shape=(192, 160)) -> Path:
    """Write a drizzled image: SCI, WHT (exposure times) and CTX; a corner without data."""
    random = np.random.default_rng(12)
    header = _sky_header(1)
    for key in list(header):
        if key[:2] in ("A_", "B_") or key.startswith(("IDCSCALE", "OCX", "OCY")):
            del header[key]
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["BUNIT"], header["PHOTFLAM"], header["PHOTPLAM"] = unit, PHOTFLAM, PHOTPLAM
    nx, ny = shape
    wht = np.where(np.arange(nx) < nx // 2, EXPTIME, 2 * EXPTIME) * np.ones((ny, 1))
    sci = random.normal(0, sky_sigma * np.sqrt(EXPTIME / wht))
    wht[:40, :50] = 0
    sci[:40, :50] = 0
    sci[60, 60] = 30.0
    images = {"SCI": sci.astype(">f4"), "WHT": wht.astype(">f4"), "CTX": np.ones((ny, nx), ">i4")}
    primary = fits.PrimaryHDU(header=_primary_header(path.name, {"EXPTIME": 2 * EXPTIME}))
    extensions = [fits.ImageHDU(image, header, name) for name, image in images.items()]
    fits.HDUList([primary, *extensions]).writeto(path)
    return path


def _primary_header(name: str, changes: dict) -> fits.Header:
    header = fits.Header()
    cards = {
        "FILENAME": name,
        "TELESCOP": "HST",
        "INSTRUME": "ACS",
        "OBSTYPE": "IMAGING",
        "DETECTOR": "WFC",
        "FILTER1": "F606W",
        "FILTER2": "CLEAR2L",
        "EXPTIME": EXPTIME,
        "CCDGAIN": 2.0,
        "ATODGNA": 2.02,
        "ATODGNB": 1.886,
        "ATODGNC": 2.017,
        "ATODGND": 2.011,
    } | changes
    header.update({key: value for key, value in cards.items() if value is not None})
    return header


def _chip(random, chip: int, unit: str, tables: bool) -> list[fits.ImageHDU]:
    nx, ny = SIZE
    sci = random.normal(50, 7, (ny, nx)).astype(">f4")
    err = np.full((ny, nx), 7, ">f4")
    dq = np.zeros((ny, nx), ">i2")
    dq[3, 5], dq[4, 6] = 16, 4096
    header = _sky_header(chip)
    header["BUNIT"], header["PHOTFLAM"], header["PHOTPLAM"] = unit, PHOTFLAM, PHOTPLAM
    if tables:
        for axis in (1, 2):
            table = 2 * (chip - 1) + axis
            header[f"CPERR{axis}"] = 0.1
            header[f"CPDIS{axis}"] = "Lookup"
            for text in (f"EXTVER: {table}", "NAXES: 2", "AXIS.1: 1", "AXIS.2: 2"):
                header.append(fits.Card(f"DP{axis}", text), end=True)
        header["D2IMERR1"], header["D2IMDIS1"] = 0.1, "Lookup"
        for text in ("EXTVER: 1", "NAXES: 2", "AXIS.1: 1", "AXIS.2: 2"):
            header.append(fits.Card("D2IM1", text), end=True)
    return [
        fits.ImageHDU(data, header if name == "SCI" else None, name, ver=chip)
        for name, data in (("SCI", sci), ("ERR", err), ("DQ", dq))
    ]


def _sky_header(chip: int) -> fits.Header:
    """SIP of degree 4, as large as that of ACS at the edges of this small detector."""
    nx, ny = SIZE
    header = fits.Header()
    header["WCSAXES"] = 2
    header["CRPIX1"], header["CRPIX2"] = nx / 2, ny / 2
    header["CRVAL1"], header["CRVAL2"] = 150.1, 2.2 + 0.01 * chip
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
    angle = np.deg2rad(25)
    header["CD1_1"], header["CD1_2"] = -_SCALE * np.cos(angle), _SCALE * np.sin(angle)
    header["CD2_1"], header["CD2_2"] = _SCALE * np.sin(angle) * 0.98, _SCALE * np.cos(angle)
    for axis, terms in (("A", {"2_0": 4, "1_1": -2, "0_2": 1}), ("B", {"2_0": -1, "1_1": 3})):
        header[f"{axis}_ORDER"] = 4
        for key, shift in terms.items():
            header[f"{axis}_{key}"] = shift / (nx / 2) ** 2
    header["A_3_0"], header["B_0_3"] = 0.2 / (nx / 2) ** 3, 0.3 / (nx / 2) ** 3
    header["RADESYS"] = "ICRS"
    header["IDCSCALE"] = 0.05
    header["WCSNAMEO"], header["CRPIX1O"], header["CTYPE1O"] = "OPUS", 1.0, "RA---TAN"
    return header


def _npol_table(version: int, amplitude: float) -> fits.ImageHDU:
    """A table of what the polynomial leaves: a grid over the chip, in pixels."""
    nx, ny = SIZE
    grid_x, grid_y = np.meshgrid(np.linspace(-1, 1, 17), np.linspace(-1, 1, 9))
    data = amplitude * (grid_x**3 - grid_x * grid_y**2 + 0.5 * grid_y) * (-1) ** version
    hdu = fits.ImageHDU(data.astype(">f4"), name="WCSDVARR", ver=version)
    hdu.header["CRPIX1"] = hdu.header["CRPIX2"] = 1.0
    hdu.header["CRVAL1"] = hdu.header["CRVAL2"] = 1.0
    hdu.header["CDELT1"], hdu.header["CDELT2"] = (nx - 1) / 16, (ny - 1) / 8
    return hdu


def _column_table(version: int, amplitude: float) -> fits.ImageHDU:
    """A table of irregular columns: one value a column, the same for all rows."""
    nx, _ = SIZE
    columns = 0.05 * amplitude * np.sin(2 * np.pi * np.arange(nx) / 68)
    hdu = fits.ImageHDU(np.tile(columns, (2, 1)).astype(">f4"), name="D2IMARR", ver=version)
    hdu.header["CRPIX1"] = hdu.header["CRPIX2"] = 1.0
    hdu.header["CRVAL1"] = hdu.header["CRVAL2"] = 1.0
    hdu.header["CDELT1"], hdu.header["CDELT2"] = 1.0, float(SIZE[1])
    return hdu
