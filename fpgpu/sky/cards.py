"""The cards of a header that its WCS is made of, settled before a WCS is made of them.

A header of JWST has hundreds of cards, each of which costs astropy time several times over: only
those that a WCS is made of are handed to it. Of two contradictory descriptions WCSLIB and astropy
take one without a word, and which one depends on their versions. Here one is taken and named where
it is known which is meant, else both are refused.
"""

import math
import re
from collections import Counter
from numbers import Real
from typing import Any

from fpgpu.errors import WCSError

__all__ = [
    "WCS_CARD",
    "has_lookup",
    "image_shape",
    "refuse_duplicates",
    "settle_cards",
    "wcs_header",
    "wcs_text",
]

WCS_CARD = re.compile(
    r"WCSAXES|WCSNAME|(CRPIX|CRVAL|CTYPE|CUNIT|CDELT|CROTA|CNAME|CRDER|CSYER)\d+"
    r"|(CD|PC|PV|PS)\d+_\d+|(CD|PC)\d{6}|PROJP\d+|LONPOLE|LATPOLE|RADESYS|RADECSYS|EQUINOX|EPOCH"
    r"|[AB]P?_(ORDER|DMAX|\d+_\d+)|SIPMXERR|SIPIVERR|WAT\d_\d+"
    r"|(CPDIS|CQDIS|CPERR|CQERR|D2IMDIS|D2IMERR)\d|(DP|DQ|D2IM)\d(\..*)?|D2IMEXT|NPOLEXT|AXISCORR"
    r"|AMD[XY]\d+|PPO[1-6]|PLTRA[HMS]|PLTDEC(SN|[DMS])|[XY]PIXELSZ|CNPIX[12]"
)
"""Keywords that the place of an image on the sky, or its frame, depends on."""

# What WCSLIB and astropy read beside: alternative WCSs, the size, times and places of observation
# (FITS standard 4.0, tables 22 and 26 to 35).
_WCS_KEYWORD = re.compile(
    rf"({WCS_CARD.pattern})[A-Z]?|NAXIS\d*|(CUBEFACE|(CZPHS|CPERI)\d+)[A-Z]?"
    r"|(SPECSYS|SSYSOBS|SSYSSRC|VELOSYS|VSOURCE|ZSOURCE|VELANGL|RESTFRQ|RESTWAV)[A-Z]?|VELREF"
    r"|RESTFREQ|(DATE|MJD).*|[JB]EPOCH|TSTART|TSTOP|XPOSURE|TELAPSE|(TIM|TREF|OBSGEO).*|PLEPHEM"
    r"|OBSORBIT"
)
_CARD_LENGTH = 80

# The groups are numbers of axes.
_OF_AXES = re.compile(
    r"(?:NAXIS|CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA|CNAME|CRDER|CSYER)(\d+)[A-Z]?"
    r"|(?:PC|CD)(\d+)_(\d+)[A-Z]?|(?:PC|CD)(\d{3})(\d{3})|(?:PV|PS)(\d+)_\d+[A-Z]?"
)

# What has to be a number, and may be left without a value.
_NUMBER = re.compile(
    r"(CRPIX|CRVAL|CDELT|CROTA|PROJP)\d+|(PC|CD|PV)\d+_\d+|(PC|CD)\d{6}|LONPOLE|LATPOLE"
    r"|[AB]P?_(ORDER|\d+_\d+)"
)
_OPTIONAL = ("LONPOLE", "LATPOLE")
# The text of a card of which WCSLIB reads the number that it is: without FORTRAN's D, or spaces.
_PLAIN_NUMBER = re.compile(r".{8}= *[+-]?[\d.]+([Ee][+-]?\d+)? *(/|$)")

# Cards of records, of which there are many of one keyword.
_RECORD = re.compile(r"(DP|DQ|D2IM)\d")
_CD, _PC = re.compile(r"CD(\d+_\d+|\d{6})"), re.compile(r"PC(\d+_\d+|\d{6})")
_TURN = re.compile(r"CROTA\d+")
_SIP = re.compile(r"[AB]P?_(ORDER|DMAX|\d+_\d+)")
_PARAMETER = re.compile(r"PV(\d+)_(\d+)")
_LARGEST_COEFFICIENT = 1e6
_COEFFICIENT = re.compile(r"([AB])P?_(\d+)_(\d+)")
_EPOCH = re.compile(r"\s*([BJ]?)\s*(\d{4}(\.\d*)?)\s*", re.IGNORECASE)

# Besselian equinoxes end and Julian ones begin here, says the FITS standard.
_JULIAN = 1984.0
_YEARS = 1700.0, 2200.0

Axes = tuple[int, int]
"""Numbers of the axes of longitude and latitude: 1 and 2, or 2 and 1."""


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


def has_lookup(header: Any) -> bool:
    """Tell whether a header says that its distortion is partly in look-up tables."""
    return any(key in header for key in ("CPDIS1", "CPDIS2", "D2IMDIS1", "D2IMDIS2", "D2IMEXT"))


def settle_cards(header: Any) -> list[str]:
    """Make the WCS of a header one of two axes of the sky that WCSLIB reads as it is meant.

    In place; tells what was settled.
    """
    refuse_duplicates(header, WCS_CARD)
    axes = _sky_axes(header)
    _drop_further_axes(header)
    _settle_numbers(header)
    for n in axes:
        _put(header, f"CTYPE{n}", header[f"CTYPE{n}"].strip().upper())
        kind = str(header.get(f"CPDIS{n}", "lookup")).strip()
        if kind.lower() != "lookup":
            raise WCSError(
                f"the header has CPDIS{n} = {kind!r}, a distortion that astropy does not know; "
                "expected 'Lookup', or SIP coefficients"
            )
    return [
        *_settle_frame(header, axes),
        *_settle_matrix(header, axes),
        *_settle_distortion(header, axes),
    ]


def refuse_duplicates(header: Any, pattern: re.Pattern[str]) -> None:
    """Refuse cards that are there twice with different values."""
    for keyword, count in Counter(header.keys()).items():
        if count == 1 or not pattern.fullmatch(keyword) or _RECORD.match(keyword):
            continue
        values = [card.value for card in header.cards if card.keyword == keyword]
        if any(value != values[0] for value in values):
            from astropy.io.fits.card import Undefined

            listing = " and ".join(
                "no value" if isinstance(value, Undefined) else repr(value) for value in values
            )
            raise WCSError(
                f"the header has {keyword} {count} times, as {listing}; delete those that do not "
                "hold"
            )


def _sky_axes(header: Any) -> Axes:
    """Find the axes of longitude and latitude, which are those of the image."""
    types = {int(key[5:]): str(header[key]) for key in header if re.fullmatch(r"CTYPE\d+", key)}
    found = {name.split("-")[0].strip().upper(): axis for axis, name in types.items()}
    for lon, lat in (("RA", "DEC"), ("GLON", "GLAT")):
        if lon in found and lat in found:
            axes = found[lon], found[lat]
            break
    else:
        listing = ", ".join(f"CTYPE{axis} = {name!r}" for axis, name in types.items())
        raise WCSError(
            f"the header has no pair of equatorial axes: {listing or 'no axes at all'}; expected "
            "RA---xxx and DEC--xxx as in 'RA---TAN', 'DEC--TAN'"
        )
    if {*axes} != {1, 2}:
        raise WCSError(
            f"the sky is along axes {min(axes)} and {max(axes)} of its WCS (CTYPE1 is "
            f"{types.get(1)!r}, CTYPE2 is {types.get(2)!r}), but the image is of axes 1 and 2; "
            "expected an image of the sky"
        )
    return axes


def _drop_further_axes(header: Any) -> None:
    """Remove the cards of axes that an image does not have."""
    for keyword in {*header}:
        match = _OF_AXES.fullmatch(keyword)
        axes = [int(number) for number in match.groups() if number] if match else []
        if all(axis <= 2 for axis in axes):
            continue
        if axes[0] <= 2 and keyword[-1].isdigit() and header[keyword] != 0:
            raise WCSError(
                f"the header has {keyword} = {header[keyword]!r}: its celestial coordinates "
                f"depend on pixel axis {axes[1]}, which an image does not have"
            )
        header.remove(keyword, remove_all=True)
    for keyword in ("NAXIS", "WCSAXES"):
        value = header.get(keyword)
        if isinstance(value, int) and value > 2:
            _put(header, keyword, 2)


def _settle_numbers(header: Any) -> None:
    """Refuse what is no number, and write anew those that astropy reads and WCSLIB does not.

    WCSLIB takes T for 1, text for 0, and 1.0D-05 for 1, without a word.
    """
    for card in list(header.cards):
        keyword = card.keyword
        if not WCS_CARD.fullmatch(keyword):
            continue
        value = header[keyword]
        if _NUMBER.fullmatch(keyword) and not (value is None and keyword in _OPTIONAL):
            _require_number(keyword, value)
            if keyword.endswith("_ORDER") and not isinstance(value, int):
                _put(header, keyword, int(value))
                continue
        # Records and HIERARCH are written in another way.
        is_standard = card.image.upper().startswith(f"{keyword:8}=")
        if is_standard and isinstance(value, float) and not _PLAIN_NUMBER.match(card.image):
            _put(header, keyword, value)


def _require_number(keyword: str, value: Any) -> None:
    """Refuse what no such card can be."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        what = "without a value" if value is None else f"= {value!r}"
        raise WCSError(f"the header has {keyword} {what}; expected a number")
    if keyword.endswith("_ORDER") and not float(value).is_integer():
        raise WCSError(f"the header has {keyword} = {value!r}; expected a whole number")
    if _COEFFICIENT.fullmatch(keyword) and abs(value) > _LARGEST_COEFFICIENT:
        raise WCSError(
            f"the header has {keyword} = {value!r}, which moves a pixel that far at a distance "
            "of one pixel; expected a SIP coefficient much below 1"
        )


def _settle_frame(header: Any, axes: Axes) -> list[str]:
    """Make RADESYS and EQUINOX what WCSLIB understands: others it takes for none at all."""
    stated = []
    for keyword in ("RADESYS", "RADECSYS"):
        value = header.get(keyword)
        if isinstance(value, str):
            _put(header, keyword, value.strip().upper())
        stated.append(header.get(keyword) or "")
    if header[f"CTYPE{axes[0]}"].startswith("GLON"):
        return []
    if all(stated) and stated[0] != stated[1]:
        raise WCSError(
            f"the header has RADESYS = {stated[0]!r} and RADECSYS = {stated[1]!r}; delete the one "
            "that does not hold"
        )
    system = stated[0] or stated[1]
    keyword = "EQUINOX" if "EQUINOX" in header else "EPOCH"
    given = header.get(keyword)
    if system == "ICRS" or given is None:
        return []
    match = _EPOCH.fullmatch(str(given))
    year = float(match[2]) if match else given
    if isinstance(year, str | bool) or not _YEARS[0] <= year <= _YEARS[1]:
        raise WCSError(
            f"the header has {keyword} = {given!r} and RADESYS = {system!r}; expected the year of "
            "an equinox, such as 2000.0, or RADESYS = 'ICRS', which has none"
        )
    if match and match[1] and not system and (match[1].upper() == "J") != (year >= _JULIAN):
        raise WCSError(
            f"the header has {keyword} = {given!r} and no RADESYS, which means "
            f"{'FK5' if year >= _JULIAN else 'FK4'}; state RADESYS"
        )
    if isinstance(given, str):
        _put(header, keyword, year)
        return [f"{keyword} = {given!r} was taken as {year:g}"]
    return []


def _settle_matrix(header: Any, axes: Axes) -> list[str]:
    """Keep one of two linear transformations, which must not map an image to a line or a point.

    WCSLIB reads a row of zeros in CD as one of the unit matrix, without a word.
    """
    has_cd, has_pc = (any(map(pattern.fullmatch, header)) for pattern in (_CD, _PC))
    turned = [key for key in header if _TURN.fullmatch(key) and header[key] != 0]
    if has_pc and turned and not has_cd:
        raise WCSError(
            f"the header has both a PC matrix and {turned[0]} = {header[turned[0]]!r}, of which "
            "the FITS standard allows one; delete the other"
        )
    matrix = a, b, c, d = _matrix(header, axes, "CD" if has_cd else "PC")
    # Compared as a product, so that small scales do not underflow to a singular matrix.
    if not math.isfinite(a * d - b * c) or a * d == b * c:
        raise WCSError(
            f"the header's {'CD' if has_cd else 'CDELT times PC'} matrix is [[{a:g}, {b:g}], "
            f"[{c:g}, {d:g}]], which maps the image to a line or a point; expected degrees per "
            "pixel in two directions"
        )
    rounding = 1e-9 * max(map(abs, matrix))
    pairs = zip(matrix, _matrix(header, axes, "PC"), strict=True)
    if not (has_cd and has_pc) or all(math.isclose(*pair, abs_tol=rounding) for pair in pairs):
        return []
    _drop(header, re.compile(rf"{_PC.pattern}|(CDELT|CROTA)\d+"))
    return ["the header has both a CD matrix and a PC matrix with CDELT; the CD matrix was taken"]


def _matrix(header: Any, axes: Axes, name: str) -> list[float]:
    """Give CD, or CDELT times PC or CROTA, row by row, with what absent cards stand for."""
    if name == "CD":
        return [_element(header, name, i, j) for i in (1, 2) for j in (1, 2)]
    scale = {n: float(header.get(f"CDELT{n}", 1.0)) for n in axes}
    lon, lat = axes
    turn = math.radians(header.get(f"CROTA{lat}", 0.0))
    if turn == 0:
        return [scale[i] * _element(header, name, i, j) for i in (1, 2) for j in (1, 2)]
    cos, sin = math.cos(turn), math.sin(turn)
    cd = {
        (lon, lon): scale[lon] * cos, (lon, lat): -scale[lat] * sin,
        (lat, lon): scale[lon] * sin, (lat, lat): scale[lat] * cos,
    }  # fmt: skip
    return [cd[place] for place in sorted(cd)]


def _element(header: Any, name: str, i: int, j: int) -> float:
    """Give an element of CD or PC, in either form of its keyword."""
    value = header.get(f"{name}{i}_{j}", header.get(f"{name}{i:03d}{j:03d}"))
    return float(name == "PC" and i == j if value is None else value)


def _settle_distortion(header: Any, axes: Axes) -> list[str]:
    """Keep one of SIP and PV, and make CTYPE say which."""
    types = [header[f"CTYPE{n}"] for n in axes]
    projections = {name[5:8] for name in types}
    if projections & {"TNX", "ZPX"} and not all(f"WAT{n}_001" in header for n in axes):
        raise WCSError(
            f"CTYPE is {types[0]}, {types[1]}, but the header lacks its surfaces (WAT1_001, ...)"
        )
    has_sip = _has_sip(header)
    says_sip = any(name.endswith("-SIP") for name in types)
    is_scamp = projections == {"TAN"} and _is_scamp(header, axes)
    if is_scamp and has_sip and says_sip:
        _drop(header, _PARAMETER)
        return ["SIP coefficients were taken; the PV polynomials of SCAMP were left out"]
    if is_scamp or projections == {"TPV"}:
        _drop(header, _SIP)
        notes = _state_tpv(header, axes, types)
        dropped = "the SIP coefficients that are there, too, were left out"
        if is_scamp:
            note = "PV polynomials beside CTYPE TAN, as SCAMP writes: taken as TPV"
            return [*notes, f"{note}; {dropped}" if has_sip else note]
        return [*notes, f"CTYPE says TPV; {dropped}"] if has_sip else notes
    if projections == {"TAN"}:
        _drop_zeros(header, axes)
    if has_sip and not all(name.endswith("-SIP") for name in types):
        _set_types(header, axes, [name.removesuffix("-SIP") + "-SIP" for name in types])
        return ["SIP coefficients were taken, although CTYPE has no -SIP"]
    if not has_sip and not says_sip:
        _drop(header, _SIP)  # of which astropy would tell pages
    # Orders without coefficients are those of a polynomial that is zero.
    if says_sip and not has_sip and "A_ORDER" not in header and "B_ORDER" not in header:
        _set_types(header, axes, [name.removesuffix("-SIP") for name in types])
        return ["CTYPE has -SIP, but there are no SIP coefficients: taken as without distortion"]
    return []


def _has_sip(header: Any) -> bool:
    """Whether there are SIP coefficients; astropy skips those that their order leaves out."""
    found = False
    for key in header:
        match = _COEFFICIENT.fullmatch(key)
        if match is None or "P" in key or header[key] == 0:
            continue
        found = True
        order = header.get(f"{match[1]}_ORDER")
        degree = int(match[2]) + int(match[3])
        if not isinstance(order, int) or order < 2 or degree > order:
            raise WCSError(
                f"the header has {key} = {header[key]!r}, but {match[1]}_ORDER is {order!r}; "
                f"expected {max(degree, 2)} or more"
            )
    return found


def _parameters(header: Any) -> dict[tuple[int, int], float]:
    """Values of the PV cards, by axis and number."""
    cards = map(_PARAMETER.fullmatch, header)
    return {(int(card[1]), int(card[2])): header[card[0]] for card in cards if card}


def _drop_zeros(header: Any, axes: Axes) -> None:
    """Remove PV cards of zeros from a gnomonic WCS: neither polynomials nor a native place.

    Those of the latitude are then none of the projection. Of the longitude, PV3 = 0 alone means
    something (it is LONPOLE), but PV2 = 0 beside zeros only would be a projection of the equator.
    """
    lon, lat = axes
    values = _parameters(header)
    is_equator = (lon, 2) in values and not any(values.values())
    for axis, number in values:
        if axis == lat or (axis == lon and (number > 4 or is_equator)):
            header.remove(f"PV{axis}_{number}", remove_all=True)


def _is_scamp(header: Any, axes: Axes) -> bool:
    """Whether the PV cards of a gnomonic WCS are polynomials.

    The FITS standard has PV0 to PV4 of the longitude for it, of which PV1 and PV2 are a longitude
    and a latitude, by default 0 and 90 degrees; to SCAMP they are factors of the coordinates,
    about 1 and 0. A gnomonic projection of the equator is none.
    """
    lon, lat = axes
    values = _parameters(header)
    return any(
        value != 0 and (axis == lat or (axis == lon and number > 4))
        for (axis, number), value in values.items()
    ) or (0.5 < values.get((lon, 1), 0.0) < 2.0 and abs(values.get((lon, 2), 0.0)) < 1.0)


def _state_tpv(header: Any, axes: Axes, types: list[str]) -> list[str]:
    """Write a WCS of PV polynomials as the convention of TPV has it.

    Its factors are 1 by default, and 0 to WCSLIB; its polynomials are of coordinates in degrees,
    where WCSLIB gives them what comes before CDELT.
    """
    _set_types(header, axes, [name[:5] + "TPV" for name in types])
    for n in axes:
        header.setdefault(f"PV{n}_1", 1.0)
    if any(map(_CD.fullmatch, header)):
        return []
    matrix = _matrix(header, axes, "PC")
    _drop(header, re.compile(rf"{_PC.pattern}|(CDELT|CROTA)\d+"))
    header.update(zip(("CD1_1", "CD1_2", "CD2_1", "CD2_2"), matrix, strict=True))
    return ["CDELT was taken as part of a CD matrix in degrees, which the TPV polynomials follow"]


def _set_types(header: Any, axes: Axes, types: list[str]) -> None:
    """Put other axis types in place."""
    for n, name in zip(axes, types, strict=True):
        _put(header, f"CTYPE{n}", name)


def _put(header: Any, keyword: str, value: Any) -> None:
    """Replace a card by one of another value; the old one may belong to other headers, too."""
    if isinstance(value, str) and header[keyword] == value:
        return
    from astropy.io.fits import Card

    at = header.index(keyword)
    comment = header.comments[keyword]
    header.remove(keyword, remove_all=True)
    header.insert(at, Card(keyword, value, comment))


def _drop(header: Any, pattern: re.Pattern[str]) -> None:
    """Remove the cards of some keywords."""
    for keyword in {key for key in header if pattern.fullmatch(key)}:
        header.remove(keyword, remove_all=True)
