"""FITS WCSs of every kind that ingest admits, each with what astropy is to be asked about it."""

import warnings
from typing import Any, NamedTuple

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

SHAPE = (128, 96)
SCALE = 1e-4
"""Degrees per pixel, about."""

Array = np.ndarray

_CD = {"CD1_1": -SCALE, "CD1_2": 2e-5, "CD2_1": 3e-5, "CD2_2": SCALE}
_PC = {"CDELT1": -SCALE, "CDELT2": SCALE, "PC1_1": 0.9, "PC1_2": -0.2, "PC2_1": 0.3, "PC2_2": 1.1}
_PC_AS_CD = {
    "CD1_1": -0.9 * SCALE, "CD1_2": 0.2 * SCALE, "CD2_1": 0.3 * SCALE, "CD2_2": 1.1 * SCALE
}  # fmt: skip
# 30 degrees, with CDELT of 1 and 2 times the scale.
_CROTA = {"CDELT1": -SCALE, "CDELT2": 2 * SCALE, "CROTA2": 30.0}
_CROTA_AS_CD = {
    "CD1_1": -SCALE * 0.75**0.5, "CD1_2": -SCALE, "CD2_1": -SCALE * 0.5, "CD2_2": SCALE * 3**0.5
}  # fmt: skip
_ARCSEC = {
    "CUNIT1": "arcsec", "CUNIT2": "arcsec", "CRVAL1": 540360.0, "CRVAL2": 115920.0,
    **_PC, "CDELT1": -SCALE * 3600, "CDELT2": SCALE * 3600,
}  # fmt: skip
_SPECTRAL = {"WCSAXES": 3, "CTYPE3": "WAVE", "CRVAL3": 1e-6, "CRPIX3": 1.0, "CD3_3": 1e-9}
_PV = {
    "PV1_0": 1e-5, "PV1_1": 1.01, "PV1_2": 0.02, "PV1_4": 3.0, "PV1_6": -2.0, "PV1_7": 4.0,
    "PV2_0": 0.0, "PV2_1": 0.99, "PV2_2": -0.01, "PV2_4": 4.0, "PV2_5": 1.5, "PV2_10": -3.0,
}  # fmt: skip
_PV1 = {"PV1_0": 1e-4, "PV1_1": 1.01, "PV1_2": 0.02, "PV2_0": 0.0, "PV2_1": 0.99, "PV2_2": 0.01}
_SIP = {"A_ORDER": 3, "B_ORDER": 2, "A_2_0": 1e-5, "A_1_2": 3e-7, "B_0_2": -2e-5, "B_1_1": 1e-5}


class Kind(NamedTuple):
    """A header, the one that means the same without contradictions, and what a user is told."""

    header: fits.Header
    plain: fits.Header
    told: str


def header(projection: str = "TAN", axes: str = "RA DEC", **cards: Any) -> fits.Header:
    """Header of a detector of `SHAPE` with a CD matrix, unless `cards` have another."""
    made = fits.Header({"NAXIS": 2, "NAXIS1": SHAPE[0], "NAXIS2": SHAPE[1]})
    for n, name in enumerate(axes.split(), start=1):
        made[f"CTYPE{n}"] = f"{name}{'-' * (5 - len(name))}{projection}"
    place = {"CRVAL1": 150.1, "CRVAL2": 32.2, "CRPIX1": 30.5, "CRPIX2": 70.5}
    matrix = {} if "CDELT1" in cards else _CD
    for keyword, value in (place | matrix | cards).items():
        made[keyword] = value
    return made


def surfaces(projection: str) -> fits.Header:
    """Header with the surfaces of IRAF: a Chebyshev and a plain polynomial of two variables."""
    made = header(projection)
    made["WAT0_001"] = "system=image"
    for axis, (name, kind, values) in enumerate(
        (("lngcor", 1, "1.E-5 2.E-4 3.E-4 4.E-4"), ("latcor", 3, "-1.E-5 1.E-3 -2.E-3 0.5")), 1
    ):
        text = (
            f"wtype={projection.lower()} axtype={'ra' if axis == 1 else 'dec'} {name} = "
            f'"{kind}. 2. 2. 1. -0.02 0.02 -0.02 0.02 {values} "'
        )
        for part in range(0, len(text), 68):
            made[f"WAT{axis}_{part // 68 + 1:03d}"] = text[part : part + 68]
    return made


def tpd() -> fits.Header:
    """Header with a polynomial after the matrix, in the records of the draft on distortions."""
    made = header()
    for axis in (1, 2):
        made[f"CQDIS{axis}"] = "TPD"
        for record in ("NAXES: 2", "AXIS.1: 1", "AXIS.2: 2", "TPD.FWD.1: 1.0", "TPD.FWD.4: 3.0"):
            made.append(fits.Card(f"DQ{axis}", record), end=True)
    return made


def fortran() -> fits.Header:
    """Header with numbers as FORTRAN writes them, which WCSLIB cuts off at the D."""
    made = header(CD1_1=1.0, CRVAL1=1.0)
    for text in ("CD1_1   =             -1.0D-04", "CRVAL1  =            1.501D+02"):
        card = fits.Card.fromstring(text)
        at = made.index(card.keyword)
        del made[at]
        made.insert(at, card)
    return made


def _kinds() -> dict[str, Kind]:
    as_it_is = {
        "TAN": (header(), ""),
        "TAN-SIP": (header("TAN-SIP", **_SIP), ""),
        "SIP of degree 9": (header("TAN-SIP", **_SIP | {"A_ORDER": 9, "A_9_0": 1e-19}), ""),
        "PC": (header(**_PC), ""),
        "CROTA": (header(CDELT1=-SCALE, CDELT2=SCALE, CROTA2=30.0), ""),
        "CROTA beside CD": (header(CROTA2=30.0), ""),
        "LONPOLE": (header(LONPOLE=120.0), ""),
        "pole": (header(CRVAL2=89.999), ""),
        "RA 0": (header(CRVAL1=0.001), ""),
        "declination first": (
            header(axes="DEC RA", CRVAL1=-32.2, CRVAL2=150.1), "from the order DEC, RA into ICRS"),
        "arcsec": (
            header(CUNIT1="arcsec", CUNIT2="arcsec", CRVAL1=5e5, CRVAL2=-9e4,
                   **{key: value * 3600 for key, value in _CD.items()}), ""),
        "declination first, ARC": (
            header("ARC", axes="DEC RA", CRVAL1=-32.2, CRVAL2=150.1), "from the order DEC, RA"),
        "PV of the longitude": (header(PV1_1=0.0, PV1_2=90.0, PV1_3=120.0), ""),
        "off the pole": (header(PV1_1=0.0, PV1_2=80.0, PV1_0=1.0), "refit"),
        "TPV": (header("TPV", **_PV), "RA---TPV, DEC--TPV: the header now has a SIP refit"),
        "TPV radial": (header("TPV", **_PV, PV1_3=0.05, PV2_3=0.03), "TPV: evaluated as it is"),
        "TNX": (surfaces("TNX"), "RA---TNX, DEC--TNX: the header now has a SIP refit"),
        "TPD": (tpd(), "the header now has a SIP refit"),
        "ZPN": (header("ZPN", PV2_1=1.0, PV2_3=42.0), "RA---ZPN, DEC--ZPN: the header now has"),
        "ZPN of PROJP": (header("ZPN", PROJP1=1.0, PROJP3=42.0), "refit"),
        "ZPN-SIP": (header("ZPN-SIP", PV2_1=1.0, PV2_3=42.0, **_SIP), "refit"),
        "SIN": (header("SIN"), "refit"),
        "slanted SIN": (header("SIN", PV2_1=0.1, PV2_2=0.2), "refit"),
        "STG": (header("STG"), "refit"),
        "ARC": (header("ARC"), "refit"),
        "ZEA": (header("ZEA"), "refit"),
        "AZP": (header("AZP", PV2_1=2.0, PV2_2=30.0), "refit"),
        "NCP": (header("NCP"), "refit"),
        "CAR": (header("CAR"), "refit"),
        "turned CAR": (header("CAR", PV1_0=1.0, PV1_1=10.0, PV1_2=20.0), "refit"),
        "CEA": (header("CEA"), "refit"),
        "SFL": (header("SFL"), "refit"),
        "GLS": (header("GLS"), "refit"),
        "AIT": (header("AIT"), "refit"),
        "COD": (header("COD", PV2_1=45.0, PV2_2=25.0), "refit"),
        "HPX": (header("HPX"), "refit"),
        "linear": (header(""), "refit"),
        "wide CAR": (header("CAR", **{key: value * 3e3 for key, value in _CD.items()}), "refit"),
        "ICRS and EQUINOX": (header(RADESYS="ICRS", EQUINOX=1950.0), ""),
        "FK5": (header(RADESYS="FK5"), r"turned from FK5 J2000 into ICRS"),
        "FK5 of 2015": (header("TAN-SIP", RADESYS="FK5", EQUINOX=2015.5, **_SIP), r"FK5 J2015\.5"),
        "FK5 of 1900": (header(RADESYS="FK5", EQUINOX=1900.0, CRVAL2=89.9), "FK5 J1900"),
        "EQUINOX 2000": (header(EQUINOX=2000.0), "FK5 J2000 into"),
        "FK4": (header("TAN-SIP", RADESYS="FK4", **_SIP), r"ICRS, made from FK4 B1950,"),
        "FK4 of 1975": (header(RADESYS="FK4", EQUINOX=1975.0), "FK4 B1975,"),
        "FK4 without E-terms": (header(RADESYS="FK4-NO-E", EQUINOX=1950.0), "from FK4-NO-E B1950"),
        "EQUINOX 1950": (header(EQUINOX=1950.0), "FK4 B1950,"),
        "EPOCH 1950": (header(EPOCH=1950.0), "FK4 B1950,"),
        "RADECSYS": (header(RADECSYS="FK4", EQUINOX=1950.0), "from FK4"),
        "TPV in FK5": (header("TPV", RADESYS="FK5", EQUINOX=1980.0, **_PV), "from FK5"),
        "CAR in FK4": (header("CAR", EQUINOX=1950.0), "from FK4"),
        "galactic": (header(axes="GLON GLAT"), "turned from galactic into ICRS"),
        "galactic CAR": (header("CAR", axes="GLON GLAT"), "from galactic"),
    }  # fmt: skip
    for n, name in enumerate(("RA", "DEC"), start=1):
        as_it_is["linear"][0][f"CTYPE{n}"] = name
    settled = {
        "-SIP without coefficients": (header("TAN-SIP"), header(), "no SIP coefficients"),
        "-SIP with orders only": (header("TAN-SIP", A_ORDER=2, B_ORDER=2), header(), ""),
        "SIP without -SIP": (
            header(**_SIP), header("TAN-SIP", **_SIP), "coefficients were taken, although"),
        "STG with SIP": (
            header("STG", **_SIP), header("STG-SIP", **_SIP), "coefficients were taken, although"),
        "PV of SCAMP": (header(**_PV), header("TPV", **_PV), "as SCAMP writes: taken as TPV"),
        "PV of SCAMP, degree 1": (
            header(**_PV1), header("TPV", **_PV1), "as SCAMP writes: taken as TPV"),
        "PV of SCAMP that changes nothing": (
            header(PV1_0=0.0, PV1_1=1.0, PV1_2=0.0, PV2_0=0.0, PV2_1=1.0, PV2_2=0.0), header(),
            "taken as TPV"),
        "PV of SCAMP along one axis": (
            header(PV1_0=0.0, PV1_1=1.0, PV1_2=0.0), header(), "taken as TPV"),
        "TPV without factors": (header("TPV"), header(), ""),
        "PV of SCAMP beside SIP": (
            header("TAN-SIP", **_PV, **_SIP), header("TAN-SIP", **_SIP), "PV polynomials of SCAMP"),
        "PV of degree 1 beside SIP": (
            header("TAN-SIP", **_PV1, **_SIP), header("TAN-SIP", **_SIP), "were left out"),
        "TPV beside SIP": (
            header("TPV", **_PV, **_SIP), header("TPV", **_PV), "SIP .* were left out"),
        "PC beside CD": (header(CDELT1=2e-4, PC1_1=-1.0, **_CD), header(), "CD matrix was taken"),
        "the same PC and CD": (
            header(CDELT1=SCALE, CDELT2=SCALE, PC1_1=-1.0, PC1_2=0.2, PC2_1=0.3, PC2_2=1.0, **_CD),
            header(), ""),
        "CDELT and CROTA beside CD": (
            header(CDELT1=2e-4, CDELT2=2e-4, CROTA2=9.0, **_CD), header(), ""),
        "TPV with PC": (
            header("TPV", **_PC, **_PV), header("TPV", **_PC_AS_CD, **_PV), "CDELT was taken"),
        "TPV with PC in arcsec": (
            header("TPV", **_ARCSEC, **_PV), header("TPV", **_PC_AS_CD, **_PV), "CDELT was taken"),
        "TPV with CROTA": (
            header("TPV", **_CROTA, **_PV), header("TPV", **_CROTA_AS_CD, **_PV), "CDELT was"),
        "PV of SCAMP with PC": (
            header(**_PC, **_PV), header("TPV", **_PC_AS_CD, **_PV), "CDELT was taken .* SCAMP"),
        "PV of zeros for the latitude": (header(PV2_1=0.0, PV2_2=0.0), header(), ""),
        "PV of zeros": (
            header(PV1_0=0.0, PV1_1=0.0, PV1_2=0.0, PV2_1=0.0, PV2_2=0.0), header(), ""),
        "orders with a point": (
            header("TAN-SIP", **_SIP | {"A_ORDER": 3.0, "B_ORDER": 2.0}),
            header("TAN-SIP", **_SIP), ""),
        "types in lower case": (header("tan-sip", axes="ra dec", **_SIP),
            header("TAN-SIP", **_SIP), ""),
        "FORTRAN numbers": (fortran(), header(), ""),
        "three axes": (header(**_SPECTRAL), header(), ""),
        "three axes with SIP": (
            header("TAN-SIP", **_SPECTRAL, **_SIP), header("TAN-SIP", **_SIP), ""),
        "EQUINOX in words": (header(EQUINOX="J2000.0"), header(EQUINOX=2000.0), "taken as 2000"),
        "EQUINOX as a string": (header(EQUINOX="1950"), header(EQUINOX=1950.0), "taken as 1950"),
        "RADESYS in lower case": (
            header(RADESYS="fk5", EQUINOX=1980.0), header(RADESYS="FK5", EQUINOX=1980.0), "FK5"),
    }  # fmt: skip
    return {name: Kind(made, made, told) for name, (made, told) in as_it_is.items()} | {
        name: Kind(*kind) for name, kind in settled.items()
    }


KINDS = _kinds()


def truth(plain: fits.Header, x: Array, y: Array) -> tuple[Array, Array]:
    """ICRS positions of pixels, degrees, by astropy alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that astropy mends
        wcs = WCS(plain)
    if plain["CTYPE1"] == "RA":  # without a projection astropy knows no frame
        return wcs.all_pix2world(x, y, 0)
    sky = wcs.pixel_to_world(x, y).icrs
    return sky.ra.deg, sky.dec.deg


def detector_grid(n: int = 9, shape: tuple[int, int] = SHAPE) -> tuple[Array, Array]:
    """Pixels from edge to edge of a detector."""
    x, y = np.meshgrid(*(np.linspace(-0.5, side - 0.5, n) for side in shape))
    return x.ravel(), y.ravel()


def apart(a: tuple[Array, Array], b: tuple[Array, Array]) -> Array:
    """Distances on the sky in degrees."""
    from astropy.coordinates import angular_separation

    return np.rad2deg(angular_separation(*np.deg2rad(a), *np.deg2rad(b)))
