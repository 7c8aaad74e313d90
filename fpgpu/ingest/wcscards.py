"""The cards of a header that make up its WCS: replaced, or moved to a part of the image."""

import re
from typing import Any

from fpgpu.sky.cards import WCS_CARD
from fpgpu.sky.sip import SipFit
from fpgpu.sky.wcs import SkyWCS

__all__ = ["drop_wcs", "is_place", "move_header", "move_wcs", "replace_wcs"]

_TABLE_CARD = re.compile(r"(CPDIS|CPERR|D2IMDIS|D2IMERR)\d|(DP|D2IM)\d(\..*)?|D2IMEXT|NPOLEXT")

# Descriptions of the same place that do not follow when the first pixel becomes another one.
_ALTERNATE_CARD = re.compile(
    r"(WCSAXES|WCSNAME|LONPOLE|LATPOLE|RADESYS|EQUINOX)[A-Z]"
    r"|(CRPIX|CRVAL|CTYPE|CUNIT|CDELT|CROTA)\d[A-Z]|(CD|PC|PV)\d+_\d+[A-Z]"
    r"|S_REGION|LTV\d|LTM\d_\d"
)


def replace_wcs(header: Any, sip: SipFit) -> None:
    """Put a SIP WCS in ICRS in place of whatever celestial WCS a header has.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Changed in place.
    sip : SipFit
        The WCS.
    """
    drop_wcs(header)
    for card in sip.to_header().cards:
        header.append(card, end=True)


def drop_wcs(header: Any, *, tables_only: bool = False) -> None:
    """Remove the celestial WCS of a header, in place.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Alternative WCS stay.
    tables_only : bool, optional
        Remove only the cards of look-up tables.
    """
    pattern = _TABLE_CARD if tables_only else WCS_CARD
    for keyword in {key for key in header if pattern.fullmatch(key)}:
        header.remove(keyword, remove_all=True, ignore_missing=True)


def is_place(keyword: str) -> bool:
    """Tell whether a keyword says where an image is on the sky, in its WCS or an alternative one.

    Parameters
    ----------
    keyword : str

    Returns
    -------
    bool
    """
    return bool(WCS_CARD.fullmatch(keyword) or _ALTERNATE_CARD.fullmatch(keyword))


def move_header(header: Any, x0: int, y0: int) -> None:
    """Make the WCS of an image that of a part of it, in place.

    Parameters
    ----------
    header : astropy.io.fits.Header
        With CRPIXn; SIP polynomials are relative to it and need no change. Alternative WCS and
        S_REGION are removed.
    x0, y0 : int
        Zero-based pixel of the image that is the first one of the part.
    """
    for keyword in {key for key in header if _ALTERNATE_CARD.fullmatch(key)}:
        header.remove(keyword, remove_all=True, ignore_missing=True)
    for keyword, shift in (("CRPIX1", x0), ("CRPIX2", y0)):
        header[keyword] = float(header.get(keyword, 0.0)) - shift


def move_wcs(gwcs: Any, x0: int, y0: int, shape: tuple[int, int]) -> Any:
    """Make a gWCS that of a part of its image.

    Parameters
    ----------
    gwcs : gwcs.WCS
        Not changed.
    x0, y0 : int
        Zero-based pixel of the image that is the first one of the part.
    shape : tuple of int
        (nx, ny) of the part.

    Returns
    -------
    gwcs.WCS
        In one step, with the inverse that the other has, and valid all over the part.
    """
    from astropy import units as u
    from astropy.modeling.models import Shift
    from gwcs import WCS

    transform = gwcs.forward_transform
    unit = u.pix if transform.uses_quantity else 1
    moved = WCS(
        forward_transform=(Shift(x0 * unit) & Shift(y0 * unit)) | transform,
        input_frame=gwcs.input_frame,
        output_frame=gwcs.output_frame,
    )
    if SkyWCS.from_gwcs(gwcs).bounding_box is not None:
        moved.bounding_box = tuple((-0.5 * unit, (n - 0.5) * unit) for n in shape)
    return moved
