"""What a header says twice, or otherwise than WCSLIB reads it, settled before a WCS is made of it.

WCSLIB and astropy take one of two contradictory descriptions without a word, and which one depends
on their versions. Here one is taken and named where it is known which is meant, else both are
refused.
"""

import math
import re
from collections import Counter
from numbers import Real
from typing import Any

from fpgpu.errors import WCSError
from fpgpu.sky.celestial import linear_matrix

__all__ = ["WCS_CARD", "has_lookup", "refuse_duplicates", "settle_cards"]

WCS_CARD = re.compile(
    r"WCSAXES|WCSNAME|(CRPIX|CRVAL|CTYPE|CUNIT|CDELT|CROTA|CNAME|CRDER|CSYER)\d+"
    r"|(CD|PC|PV|PS)\d+_\d+|(CD|PC)\d{6}|PROJP\d+|LONPOLE|LATPOLE|RADESYS|RADECSYS|EQUINOX|EPOCH"
    r"|[AB]P?_(ORDER|DMAX|\d+_\d+)|SIPMXERR|SIPIVERR|WAT\d_\d+"
    r"|(CPDIS|CQDIS|CPERR|CQERR|D2IMDIS|D2IMERR)\d|(DP|DQ|D2IM)\d(\..*)?|D2IMEXT|NPOLEXT|AXISCORR"
    r"|AMD[XY]\d+|PPO[1-6]|PLTRA[HMS]|PLTDEC(SN|[DMS])|[XY]PIXELSZ|CNPIX[12]"
)
"""Keywords that the place of an image on the sky, or its frame, depends on."""

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
_SIP = re.compile(r"[AB]P?_(ORDER|DMAX|\d+_\d+)")
_ANY_COEFFICIENT = re.compile(r"[AB]P?_\d+_\d+")
_LARGEST_COEFFICIENT = 1e6
_COEFFICIENT = re.compile(r"([AB])_(\d+)_(\d+)")
_EPOCH = re.compile(r"\s*([BJ]?)\s*(\d{4}(\.\d*)?)\s*", re.IGNORECASE)

# Besselian equinoxes end and Julian ones begin here, says the FITS standard.
_JULIAN = 1984.0
_YEARS = 1700.0, 2200.0


def settle_cards(header: Any) -> list[str]:
    """Settle the contradictions in the cards of a header's WCS."""
    refuse_duplicates(header, WCS_CARD)
    axes = _sky_axes(header)
    if axes is None:  # which is refused elsewhere, with what there is instead
        return []
    _check_numbers(header)
    _rewrite_numbers(header)
    for n in axes:
        name = header[f"CTYPE{n}"]
        if name != name.strip().upper():
            _put(header, f"CTYPE{n}", name.strip().upper())
    for n in axes:
        kind = str(header.get(f"CPDIS{n}", "lookup")).strip()
        if kind.lower() != "lookup":
            raise WCSError(
                f"the header has CPDIS{n} = {kind!r}, a distortion that astropy does not know; "
                "expected 'Lookup', or SIP coefficients"
            )
    return [
        *_settle_frame(header, axes),
        *_settle_matrix(header),
        *_settle_distortion(header, axes),
    ]


def has_lookup(header: Any) -> bool:
    """Tell whether a header says that its distortion is partly in look-up tables."""
    return any(key in header for key in ("CPDIS1", "CPDIS2", "D2IMDIS1", "D2IMDIS2", "D2IMEXT"))


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


def _sky_axes(header: Any) -> tuple[int, int] | None:
    """Numbers of the axes of longitude and latitude."""
    found = {}
    for key in header:
        if re.fullmatch(r"CTYPE\d+", key):
            name = str(header[key]).split("-")[0].strip().upper()
            found[name] = int(key[5:])
    for pair in (("RA", "DEC"), ("GLON", "GLAT")):
        if all(name in found for name in pair):
            return found[pair[0]], found[pair[1]]
    return None


def _check_numbers(header: Any) -> None:
    """Refuse what is no number: WCSLIB takes T for 1 and text for 0, without a word."""
    for keyword in [key for key in header if _NUMBER.fullmatch(key)]:
        value = header[keyword]
        if value is None and keyword in _OPTIONAL:
            continue
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):
            what = "without a value" if value is None else f"= {value!r}"
            raise WCSError(f"the header has {keyword} {what}; expected a number")
        if keyword.endswith("_ORDER") and not isinstance(value, int):
            if not float(value).is_integer():
                raise WCSError(f"the header has {keyword} = {value!r}; expected a whole number")
            _put(header, keyword, int(value))
        if _ANY_COEFFICIENT.fullmatch(keyword) and abs(value) > _LARGEST_COEFFICIENT:
            raise WCSError(
                f"the header has {keyword} = {value!r}, which moves a pixel that far at a distance "
                "of one pixel; expected a SIP coefficient much below 1"
            )


def _rewrite_numbers(header: Any) -> None:
    """Write anew the numbers that astropy reads and WCSLIB does not, as 1.0D-05."""
    for card in list(header.cards):
        keyword = card.keyword
        if not WCS_CARD.fullmatch(keyword) or _PLAIN_NUMBER.match(card.image):
            continue
        # Records and HIERARCH are written in another way.
        is_standard = card.image.upper().startswith(f"{keyword:8}=")
        if is_standard and isinstance(card.value, float):
            _put(header, keyword, card.value)


def _settle_frame(header: Any, axes: tuple[int, int]) -> list[str]:
    """Make RADESYS and EQUINOX what WCSLIB understands: others it takes for none at all."""
    for keyword in ("RADESYS", "RADECSYS"):
        value = header.get(keyword)
        if isinstance(value, str) and value != value.strip().upper():
            _put(header, keyword, value.strip().upper())
    stated = [header.get(keyword) or "" for keyword in ("RADESYS", "RADECSYS")]
    is_galactic = header[f"CTYPE{axes[0]}"].startswith("GLON")
    if all(stated) and stated[0] != stated[1] and not is_galactic:
        raise WCSError(
            f"the header has RADESYS = {stated[0]!r} and RADECSYS = {stated[1]!r}; delete the one "
            "that does not hold"
        )
    system = header.get("RADESYS", header.get("RADECSYS", ""))
    if system == "ICRS" or is_galactic:
        return []
    keyword = "EQUINOX" if "EQUINOX" in header else "EPOCH"
    value = header.get(keyword)
    if value is None:
        return []
    notes = []
    if match := _EPOCH.fullmatch(str(value)):
        letter, year = match[1].upper(), float(match[2])
        if letter and not system and (letter == "J") != (year >= _JULIAN):
            raise WCSError(
                f"the header has {keyword} = {value!r} and no RADESYS, which means "
                f"{'FK5' if year >= _JULIAN else 'FK4'}; state RADESYS"
            )
        if isinstance(value, str):
            _put(header, keyword, year)
            notes.append(f"{keyword} = {value!r} was taken as {year:g}")
        value = year
    if isinstance(value, str | bool) or not _YEARS[0] <= value <= _YEARS[1]:
        raise WCSError(
            f"the header has {keyword} = {value!r} and RADESYS = {system!r}; expected the year of "
            "an equinox, such as 2000.0, or RADESYS = 'ICRS', which has none"
        )
    return notes


def _settle_matrix(header: Any) -> list[str]:
    """Keep one of two linear transformations."""
    cd, pc = (
        {key for key in header if re.fullmatch(rf"{name}(\d+_\d+|\d{{6}})", key)}
        for name in ("CD", "PC")
    )
    turned = [key for key in header if re.fullmatch(r"CROTA\d+", key) and header[key] != 0]
    if pc and turned and not cd:
        raise WCSError(
            f"the header has both a PC matrix and {turned[0]} = {header[turned[0]]!r}, of which "
            "the FITS standard allows one; delete the other"
        )
    if not (cd and pc) or _is_same_matrix(header):
        return []
    for key in {*pc, *(key for key in header if re.fullmatch(r"(CDELT|CROTA)\d+", key))}:
        header.remove(key, remove_all=True)
    return ["the header has both a CD matrix and a PC matrix with CDELT; the CD matrix was taken"]


def _is_same_matrix(header: Any) -> bool:
    """Whether CD is CDELT times PC, to the digits that headers have."""
    cd, pc = (linear_matrix(header, (1, 2), name) for name in ("CD", "PC"))
    return all(
        math.isclose(a, b, abs_tol=1e-9 * max(map(abs, cd))) for a, b in zip(cd, pc, strict=True)
    )


def _settle_distortion(header: Any, axes: tuple[int, int]) -> list[str]:
    """Keep one of SIP and PV, and make CTYPE say which."""
    types = [str(header[f"CTYPE{n}"]).strip().upper() for n in axes]
    projections = {name[5:8] for name in types}
    has_sip = _has_sip(header)
    says_sip = any(name.endswith("-SIP") for name in types)
    if projections & {"TNX", "ZPX"} and not all(f"WAT{n}_001" in header for n in axes):
        raise WCSError(
            f"CTYPE is {types[0]}, {types[1]}, but the header lacks its surfaces (WAT1_001, ...)"
        )
    if projections == {"TPV"}:
        _complete(header, axes)
        _drop(header, _SIP)
        note = "CTYPE says TPV; the SIP coefficients that are there, too, were left out"
        return [*_state_matrix(header, axes), *([note] if has_sip else [])]
    if projections == {"TAN"}:
        _drop_zeros(header, axes)
    if projections == {"TAN"} and _is_scamp(header, axes):
        if has_sip and says_sip:
            _drop(header, re.compile(r"PV\d+_\d+"))
            return ["SIP coefficients were taken; the PV polynomials of SCAMP were left out"]
        _drop(header, _SIP)
        _complete(header, axes)
        _set_types(header, axes, [name[:5] + "TPV" for name in types])
        dropped = "; the SIP coefficients that are there, too, were left out" if has_sip else ""
        note = f"PV polynomials beside CTYPE TAN, as SCAMP writes: taken as TPV{dropped}"
        return [*_state_matrix(header, axes), note]
    if has_sip and not all(name.endswith("-SIP") for name in types):
        _set_types(header, axes, [name.removesuffix("-SIP") + "-SIP" for name in types])
        return ["SIP coefficients were taken, although CTYPE has no -SIP"]
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
        if match is None or header[key] == 0:
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
    cards = [re.fullmatch(r"PV(\d+)_(\d+)", key) for key in header]
    return {(int(card[1]), int(card[2])): header[card[0]] for card in cards if card}


def _drop_zeros(header: Any, axes: tuple[int, int]) -> None:
    """Remove PV cards of zeros from a gnomonic WCS: neither polynomials nor a native place.

    Those of the latitude are then none of the projection. Of the longitude, PV3 = 0 alone means
    something (it is LONPOLE), but PV2 = 0 beside zeros only would be a projection of the equator.
    """
    if _is_scamp(header, axes):
        return
    lon, lat = axes
    values = _parameters(header)
    is_equator = (lon, 2) in values and not any(values.values())
    for axis, number in values:
        if axis == lat or (axis == lon and (number > 4 or is_equator)):
            header.remove(f"PV{axis}_{number}", remove_all=True)


def _state_matrix(header: Any, axes: tuple[int, int]) -> list[str]:
    """Write CDELT with PC or CROTA as a CD matrix, for TPV.

    Its polynomials are of coordinates in degrees; WCSLIB gives them what comes before CDELT.
    """
    if any(re.fullmatch(r"CD\d+_\d+|CD\d{6}", key) for key in header):
        return []
    scale = {n: float(header.get(f"CDELT{n}", 1.0)) for n in axes}
    pc = {
        (i, j): float(header.get(f"PC{i}_{j}", header.get(f"PC{i:03d}{j:03d}", i == j)))
        for i in axes
        for j in axes
    }
    cd = {(i, j): scale[i] * value for (i, j), value in pc.items()}
    lon, lat = axes
    if turn := math.radians(header.get(f"CROTA{lat}") or 0.0):
        cos, sin = math.cos(turn), math.sin(turn)
        cd = {
            (lon, lon): scale[lon] * cos, (lon, lat): -scale[lat] * sin,
            (lat, lon): scale[lon] * sin, (lat, lat): scale[lat] * cos,
        }  # fmt: skip
    numbers = "|".join(str(n) for n in axes)
    _drop(header, re.compile(rf"(CDELT|CROTA)({numbers})|PC({numbers})_({numbers})|PC\d{{6}}"))
    for (i, j), value in cd.items():
        header[f"CD{i}_{j}"] = value
    return ["CDELT was taken as part of a CD matrix in degrees, which the TPV polynomials follow"]


def _is_scamp(header: Any, axes: tuple[int, int]) -> bool:
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


def _complete(header: Any, axes: tuple[int, int]) -> None:
    """State the factors that are 1 by the convention of TPV, and 0 to WCSLIB."""
    for n in axes:
        header.setdefault(f"PV{n}_1", 1.0)


def _set_types(header: Any, axes: tuple[int, int], types: list[str]) -> None:
    """Put other axis types in place."""
    for n, name in zip(axes, types, strict=True):
        _put(header, f"CTYPE{n}", name)


def _put(header: Any, keyword: str, value: Any) -> None:
    """Replace a card, of which the old one may belong to others, too."""
    from astropy.io.fits import Card

    at = header.index(keyword)
    comment = header.comments[keyword]
    header.remove(keyword, remove_all=True)
    header.insert(at, Card(keyword, value, comment))


def _drop(header: Any, pattern: re.Pattern[str]) -> None:
    """Remove the cards of some keywords."""
    for keyword in {key for key in header if pattern.fullmatch(key)}:
        header.remove(keyword, remove_all=True)
