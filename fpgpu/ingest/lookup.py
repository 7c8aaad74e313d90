"""Distortion in look-up tables, as HST has it, refitted to SIP.

The tables (D2IMARR: irregular columns of the detector; WCSDVARR: what a polynomial leaves) are in
extensions of their own, so that a header alone is not enough: `astropy.wcs` evaluates the WCS with
the whole file. A store keeps headers only, and so gets a SIP solution fitted to it.
"""

import math
import re
from typing import Any

from fpgpu.errors import WCSError
from fpgpu.sky.sip import SipFit, fit_sip
from fpgpu.sky.wcs import SkyWCS

__all__ = ["LOOKUP_TOLERANCE", "fit_tables", "has_lookup", "refit_lookup"]

LOOKUP_TOLERANCE = 0.1
"""Pixels by which the SIP refit may miss the WCS with its tables, which no polynomial follows."""

_TABLE_CARD = re.compile(r"(CPDIS|CPERR|D2IMDIS|D2IMERR)\d|(DP|D2IM)\d(\..*)?|D2IMEXT|NPOLEXT")

_DEGREES = (5, 7, 9)
_GOOD_ENOUGH = 1e-3


def has_lookup(header: Any) -> bool:
    """Tell whether a header says that its distortion is partly in look-up tables.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Of the science image.

    Returns
    -------
    bool
        Whether it has CPDISn, D2IMDISn or the older D2IMEXT.
    """
    return any(key in header for key in ("CPDIS1", "CPDIS2", "D2IMDIS1", "D2IMDIS2", "D2IMEXT"))


def refit_lookup(header: Any, hdus: Any, shape: tuple[int, int], tolerance: float | None) -> SipFit:
    """Fit a SIP solution to a WCS with look-up tables, and drop the cards of the tables.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Of the science image. The cards of the tables are removed; the rest of its WCS is not
        changed.
    hdus : astropy.io.fits.HDUList
        The whole file.
    shape : tuple of int
        (nx, ny) of the image.
    tolerance : float or None
        Pixels by which the fit may miss; `LOOKUP_TOLERANCE` by default.

    Returns
    -------
    SipFit
        Of the lowest degree of 5, 7 and 9 that misses by less than 1e-3 px, or else of the best.

    Raises
    ------
    WCSError
        When a table is missing or malformed, or the fit misses by more than the tolerance.
    """
    try:
        wcs = SkyWCS.from_header(header, hdus)
    except WCSError:
        raise
    # astropy raises KeyError, OSError, AssertionError and more for tables that are not as declared.
    except Exception as error:
        raise WCSError(
            f"its look-up tables of distortion cannot be used: {error} ({type(error).__name__})"
        ) from error
    best = fit_tables(wcs, shape, tolerance)
    for keyword in {card.keyword for card in header.cards if _TABLE_CARD.fullmatch(card.keyword)}:
        header.remove(keyword, remove_all=True, ignore_missing=True)
    return best


def fit_tables(wcs: SkyWCS, shape: tuple[int, int], tolerance: float | None = None) -> SipFit:
    """Fit a SIP solution to a WCS with look-up tables.

    Parameters
    ----------
    wcs : SkyWCS
        With its tables.
    shape : tuple of int
        (nx, ny) of the image.
    tolerance : float, optional
        Pixels by which the fit may miss; `LOOKUP_TOLERANCE` by default.

    Returns
    -------
    SipFit
        Of the lowest degree of 5, 7 and 9 that misses by less than 1e-3 px, or else of the best.

    Raises
    ------
    WCSError
        When the fit misses by more than the tolerance.
    """
    limit = LOOKUP_TOLERANCE if tolerance is None else tolerance
    fits: list[SipFit] = []
    for degree in _DEGREES:
        fits.append(fit_sip(wcs, shape, degree, tolerance=math.inf))
        if fits[-1].residual <= _GOOD_ENOUGH:
            break
    best = min(fits, key=lambda fit: fit.residual)
    if not best.residual <= limit:
        raise WCSError(
            f"the SIP refit of its WCS with look-up tables misses by {best.residual:.2g} px; the "
            f"tolerance is {limit:g} px (sip_tolerance)"
        )
    return best
