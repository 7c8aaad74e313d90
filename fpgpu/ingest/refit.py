"""FITS WCSs made such as every reader of a header takes them alike: TAN with SIP, in ICRS.

A store keeps headers, and other programs read them. What a header alone does not say (look-up
tables in other extensions, as HST has them), what needs a frame (FK5, FK4, galactic), and what only
WCSLIB knows (TPV, TNX, further projections) gets a SIP solution in its place.
"""

from typing import Any

from fpgpu.errors import WCSError
from fpgpu.ingest.cards import drop_wcs, replace_wcs
from fpgpu.sky.cards import has_lookup, settle_cards
from fpgpu.sky.disagreement import disagreement
from fpgpu.sky.sip import SipFit, fit_sip
from fpgpu.sky.wcs import SkyWCS

__all__ = ["LOOKUP_TOLERANCE", "refit_gwcs", "refit_header", "refit_native"]

GWCS_TOLERANCE = 1e-3
"""Pixels by which a SIP refit may miss a gWCS."""

LOOKUP_TOLERANCE = 0.1
"""Pixels by which the SIP refit may miss the WCS with its tables, which no polynomial follows."""

FRAME_TOLERANCE = 1e-4
"""Pixels by which a SIP refit may miss a WCS whose frame is none that a header can keep."""

EXACT = 2e-5
"""Pixels by which a refit may miss a WCS that could stay as it is."""

_DEGREES = (5, 7, 9)
_GOOD_ENOUGH = 1e-3

Refitted = tuple[list[str], float | None]
"""What a user should know, and the pixels by which a refit misses; None where there is none."""


def refit_header(
    header: Any, shape: tuple[int, int], tolerance: float | None = None, hdus: Any = None
) -> Refitted:
    """Settle the WCS of a header, in place.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Of the science image. A WCS that is TAN or TAN-SIP and ICRS stays as it is.
    shape : tuple of int
        (nx, ny) of the image.
    tolerance : float, optional
        Pixels by which a refit may miss that cannot be done without: by default
        `LOOKUP_TOLERANCE` and `FRAME_TOLERANCE`.
    hdus : astropy.io.fits.HDUList, optional
        The whole file, for look-up tables.

    Returns
    -------
    notes : list of str
        What a user should know.
    residual : float or None
        Pixels by which a refit misses, None where there is none.

    Raises
    ------
    WCSError
        When there is no usable WCS, a table is missing or malformed, or a refit that cannot be
        done without misses by more than the tolerance.
    """
    notes = settle_cards(header)
    is_table = has_lookup(header)
    try:
        sky = SkyWCS.from_header(header, hdus if is_table else None)
    except WCSError:
        raise
    # astropy raises KeyError, OSError, AssertionError and more for tables that are not as declared.
    except Exception as error:
        raise WCSError(
            f"its look-up tables of distortion cannot be used: {error} ({type(error).__name__})"
        ) from error
    # Of the header: once a WCS is set up, it calls TPV and TNX TAN.
    types = f"CTYPE {header.get('CTYPE1')}, {header.get('CTYPE2')}"
    what = "distortion in look-up tables" if is_table else types
    found, residual = _refit(header, sky, shape, tolerance, what, is_table=is_table)
    return [*notes, *found], residual


def refit_gwcs(sky: SkyWCS, shape: tuple[int, int], tolerance: float | None = None) -> SipFit:
    """Fit SIP to a gWCS; more closely where its frame is none that can be kept beside the refit."""
    limit = GWCS_TOLERANCE if sky.frame is None else FRAME_TOLERANCE
    return fit_sip(sky, shape, tolerance=limit if tolerance is None else tolerance)


def refit_native(
    header: Any, wcs: Any, shape: tuple[int, int], tolerance: float | None = None
) -> Refitted:
    """Put a FITS WCS, with its look-up tables, into a header, settled as `refit_header` does."""
    sky = SkyWCS.from_native(wcs, shape)
    is_table = any(
        table is not None for table in (wcs.cpdis1, wcs.cpdis2, wcs.det2im1, wcs.det2im2)
    )
    drop_wcs(header)
    # Of a WCS with tables, and of TPV, astropy writes what is left without them.
    header.update(wcs.to_header(relax=True, key=" "))
    drop_wcs(header, tables_only=True)
    notes, residual = _refit(header, sky, shape, tolerance, "the WCS given", is_table=is_table)
    found = disagreement(sky, SkyWCS.from_header(header), shape)
    if not found.max_pixels <= (residual or 0.0) * 1.5 + EXACT:
        raise WCSError(
            "the WCS given cannot be written into a header: what astropy writes is off by "
            f"{found.max_pixels:.2g} px; give the header that it was made from"
        )
    return notes, residual


def _refit(
    header: Any,
    sky: SkyWCS,
    shape: tuple[int, int],
    tolerance: float | None,
    what: str,
    *,
    is_table: bool,
) -> Refitted:
    """Put SIP coefficients in ICRS in place of any other WCS."""
    frame = "the order DEC, RA" if sky.frame is None else sky.frame.name
    sip = _coefficients(sky)
    if sip is not None and sky.is_plain:
        return _without_tables(header) if is_table else [], None
    if not sky.is_plain:
        header.remove("S_REGION", ignore_missing=True)
    if sip is not None:
        replace_wcs(header, sip)
        return [f"the WCS was turned from {frame} into ICRS"], None
    is_plate = "AMDX1" in header
    must = is_table or is_plate or not sky.is_plain
    limit = EXACT
    if must:
        limit = tolerance or (LOOKUP_TOLERANCE if is_table else FRAME_TOLERANCE)
    try:
        sip = _best_fit(sky, shape, _GOOD_ENOUGH if is_table else EXACT)
    except WCSError:
        if must:
            raise
        return [f"{what}: evaluated as it is, for no SIP polynomial follows it"], None
    if sip.residual <= limit:
        replace_wcs(header, sip)
        into = "" if sky.is_plain else f" in ICRS, made from {frame}"
        # Tables may have a kink between the points where the distance is measured.
        most = f"{'about ' if is_table else ''}{sip.residual:.1e} px from it at most"
        return [f"{what}: the header now has a SIP refit{into}, {most}"], sip.residual
    if must:
        which = "with look-up tables" if is_table else f"in {frame}"
        if is_plate and sky.is_plain:
            which = "of a DSS plate"
        raise WCSError(
            f"the SIP refit of its WCS {which} misses by {sip.residual:.2g} px; the tolerance is "
            f"{limit:g} px (sip_tolerance)"
        )
    return [
        f"{what}: evaluated as it is, for a SIP refit would be off by {sip.residual:.1e} px"
    ], None


def _without_tables(header: Any) -> list[str]:
    """Remove the cards of look-up tables that change nothing, or that a file does not have."""
    drop_wcs(header, tables_only=True)
    return [
        "the cards of look-up tables of distortion were left out: without tables, or with those "
        "that the file has, positions are the same"
    ]


def _coefficients(sky: SkyWCS) -> SipFit | None:
    """The SIP coefficients that a WCS has; None when they are not all of it."""
    try:
        return SipFit.from_wcs(sky)
    except WCSError:
        return None


def _best_fit(wcs: SkyWCS, shape: tuple[int, int], good: float) -> SipFit:
    """Fit SIP of the lowest degree that is good, or else of the best."""
    fits: list[SipFit] = []
    for degree in _DEGREES:
        fits.append(fit_sip(wcs, shape, degree, tolerance=float("inf")))
        if fits[-1].residual <= good:
            break
    return min(fits, key=lambda fit: fit.residual)
