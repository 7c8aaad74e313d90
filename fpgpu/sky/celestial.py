"""The part of a FITS header that is its WCS, and of that the part that is of the sky.

A header of JWST has hundreds of cards, each of which costs astropy time several times over; only
those that a WCS is made of are handed to it. Of a WCS with more than two axes, astropy can drop
some only as long as it carries no SIP distortion, so here too the header itself is reduced.
"""

import math
import re
from typing import Any

from fpgpu.errors import WCSError

__all__ = [
    "axis_count",
    "celestial_header",
    "check_celestial",
    "drop_further_axes",
    "image_shape",
    "linear_matrix",
    "wcs_header",
    "wcs_text",
]

# All that WCSLIB and astropy read of an image: FITS standard 4.0, tables 22 and 26 to 35; older
# forms of the matrix and the projection; SIP; distortion tables; the surfaces of IRAF.
_WCS_KEYWORD = re.compile(
    r"NAXIS\d*|(WCSAXES|WCSNAME|LONPOLE|LATPOLE|RADESYS|EQUINOX|CUBEFACE)[A-Z]?|RADECSYS|EPOCH"
    r"|(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA|CNAME|CRDER|CSYER|CZPHS|CPERI)\d+[A-Z]?"
    r"|(CD|PC|PV|PS)\d+_\d+[A-Z]?|(CD|PC)\d{6}|PROJP\d+|WAT\d_\d+"
    r"|[AB]P?_(ORDER|DMAX|\d+_\d+)|AXISCORR|D2IM.*|(CPDIS|CQDIS|CPERR|CQERR)\d+[A-Z]?|D[PQ]\d+.*"
    r"|(SPECSYS|SSYSOBS|SSYSSRC|VELOSYS|VSOURCE|ZSOURCE|VELANGL|RESTFRQ|RESTWAV)[A-Z]?|VELREF"
    r"|RESTFREQ|(DATE|MJD).*|[JB]EPOCH|TSTART|TSTOP|XPOSURE|TELAPSE|(TIM|TREF|OBSGEO).*|PLEPHEM"
    r"|OBSORBIT"
    # Plate solutions of the Digitized Sky Survey.
    r"|AMD[XY]\d+|PPO[1-6]|PLTRA[HMS]|PLTDEC(SN|[DMS])|[XY]PIXELSZ|CNPIX[12]"
)

_CARD_LENGTH = 80

_PER_AXIS = re.compile(
    r"(NAXIS|CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA|CNAME|CRDER|CSYER)(\d+)([A-Z]?)"
)
_MATRIX = re.compile(r"(PC|CD)(\d+)_(\d+)([A-Z]?)")
_PARAMETER = re.compile(r"(PV|PS)(\d+)_(\d+)([A-Z]?)")


def image_shape(header: Any) -> tuple[int, int]:
    """Number of pixels along the first two axes of an image."""
    sizes = []
    for keyword in ("NAXIS1", "NAXIS2"):
        value = header.get(keyword)
        if value is None:
            raise WCSError(
                f"the header has no {keyword}; expected the size of the image in NAXIS1 and "
                "NAXIS2, so give the header of the image extension, not of the file"
            )
        if not isinstance(value, int) or value < 1:
            raise WCSError(f"the header has {keyword} = {value!r}; expected a positive integer")
        sizes.append(value)
    return sizes[0], sizes[1]


def wcs_header(header: Any) -> Any:
    """Give the cards of a header that its WCS is made of."""
    return type(header)(card for card in header.cards if _WCS_KEYWORD.fullmatch(card.keyword))


def wcs_text(text: str) -> str:
    """Give the cards of a header's text that its WCS is made of."""
    kept, keep = [], False
    for start in range(0, len(text), _CARD_LENGTH):
        keyword = text[start : start + 8].rstrip()
        # A long string goes on in the next card.
        keep = bool(_WCS_KEYWORD.fullmatch(keyword)) or (keep and keyword == "CONTINUE")
        if keep:
            kept.append(text[start : start + _CARD_LENGTH])
    return "".join(kept)


def axis_count(header: Any) -> int:
    """Count the axes that a header's WCS describes."""
    numbers = [int(key[5:]) for key in header if re.fullmatch(r"CTYPE\d+", key)]
    declared = [header.get(key, 0) for key in ("NAXIS", "WCSAXES")]
    return max([*numbers, *(n for n in declared if isinstance(n, int))], default=0)


def check_celestial(header: Any) -> None:
    """Refuse a header whose WCS is absent, not of the sky, or of a line or a point.

    WCSLIB reads a row of zeros in CD as one of the unit matrix, without a word.
    """
    axes = _celestial_axes(header)
    _check_matrix(header, axes)


def linear_matrix(header: Any, axes: tuple[int, int], name: str) -> list[float]:
    """Give CD, or CDELT times PC, of two axes row by row, with what absent cards stand for."""
    scale = {i: float(header.get(f"CDELT{i}", 1)) if name == "PC" else 1.0 for i in axes}
    places = [(i, j) for i in axes for j in axes]
    default = {(i, j): float(name == "PC" and i == j) for i, j in places}
    return [scale[i] * float(header.get(f"{name}{i}_{j}", default[i, j])) for i, j in places]


def _check_matrix(header: Any, axes: tuple[int, int]) -> None:
    """Refuse a linear transformation that maps the image to a line or a point."""
    name = "CD" if any(re.fullmatch(r"CD\d+_\d+", key) for key in header) else "PC"
    a, b, c, d = linear_matrix(header, axes, name)
    # Compared as a product, so that small scales do not underflow to a singular matrix.
    if not math.isfinite(a * d - b * c) or a * d == b * c:
        what = "CD" if name == "CD" else "CDELT times PC"
        raise WCSError(
            f"the header's {what} matrix is [[{a:g}, {b:g}], [{c:g}, {d:g}]], which maps the image "
            "to a line or a point; expected degrees per pixel in two directions"
        )


def celestial_header(header: Any) -> Any:
    """Copy a header with its two celestial axes only."""
    image_shape(header)
    axes = _celestial_axes(header)
    if axes != (1, 2) and "A_ORDER" in header:
        raise WCSError(
            f"the header has SIP distortion, which applies to axes 1 and 2, but its celestial "
            f"axes are {axes[0]} and {axes[1]}"
        )
    renumbered = {str(axis): str(new) for new, axis in enumerate(axes, start=1)}
    names = {keyword: _renamed(keyword, renumbered, header) for keyword in header}
    changed = {keyword: new for keyword, new in names.items() if new != keyword}
    reduced = header.copy()
    # All go before any comes: what one card is called now was the name of another.
    for keyword in changed:
        reduced.remove(keyword, remove_all=True)
    for keyword, new in changed.items():
        if new is not None:
            reduced[new] = header[keyword]
    reduced["NAXIS"] = 2
    reduced["WCSAXES"] = 2
    return reduced


def drop_further_axes(header: Any) -> None:
    """Remove the cards of axes that an image does not have, in place."""
    if axis_count(header) <= 2:
        return
    axes = _celestial_axes(header)
    if axes != (1, 2):
        raise WCSError(
            f"the sky is along axes {axes[0]} and {axes[1]} of its WCS (CTYPE1 is "
            f"{header.get('CTYPE1')!r}, CTYPE2 is {header.get('CTYPE2')!r}), but the image is of "
            "axes 1 and 2; expected an image of the sky"
        )
    same = {"1": "1", "2": "2"}
    for keyword in {key for key in header if _renamed(key, same, header) is None}:
        header.remove(keyword, remove_all=True)
    for keyword in {"NAXIS", "WCSAXES"}.intersection(header):
        # Replaced, for the card may belong to another header, too.
        at = header.index(keyword)
        header.remove(keyword, remove_all=True)
        header.insert(at, (keyword, 2))


def _celestial_axes(header: Any) -> tuple[int, int]:
    """Numbers of the equatorial axes, the smaller first."""
    types = {axis: str(header.get(f"CTYPE{axis}", "")) for axis in range(1, axis_count(header) + 1)}
    found = [
        axis
        for axis, name in types.items()
        if name.split("-")[0].strip().upper() in ("RA", "DEC", "GLON", "GLAT")
    ]
    if len(found) != 2:
        listing = ", ".join(f"CTYPE{axis} = {name!r}" for axis, name in types.items())
        raise WCSError(
            f"the header has no pair of equatorial axes: {listing or 'no axes at all'}; expected "
            "RA---xxx and DEC--xxx as in 'RA---TAN', 'DEC--TAN'"
        )
    return found[0], found[1]


def _renamed(keyword: str, renumbered: dict[str, str], header: Any) -> str | None:
    """Name of a keyword when only the celestial axes count; None when it goes."""
    if match := _PER_AXIS.fullmatch(keyword):
        name, axis, suffix = match.groups()
        return f"{name}{renumbered[axis]}{suffix}" if axis in renumbered else None
    if match := _MATRIX.fullmatch(keyword):
        name, row, column, suffix = match.groups()
        if row not in renumbered:
            return None
        if column not in renumbered:
            if header[keyword] != 0 and not suffix:
                raise WCSError(
                    f"the header has {keyword} = {header[keyword]!r}: its celestial coordinates "
                    f"depend on pixel axis {column}, which an image does not have"
                )
            return None
        return f"{name}{renumbered[row]}_{renumbered[column]}{suffix}"
    if match := _PARAMETER.fullmatch(keyword):
        name, axis, number, suffix = match.groups()
        return f"{name}{renumbered[axis]}_{number}{suffix}" if axis in renumbered else None
    return keyword
