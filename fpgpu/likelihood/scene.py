"""Proposals: the sources of a scene as kernels read them, made from a catalogue."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.errors import CatalogError
from fpgpu.layout import MAXBANDS, MAXSOURCES, SOURCE_DTYPE
from fpgpu.likelihood.mixture import SersicMixture

__all__ = ["catalog_column", "proposal_from_catalog", "relative_longitude"]

Float = npt.NDArray[np.float64]

UNITS = {"ra": "deg", "dec": "deg", "q": "", "pa": "rad", "sersic": "", "rhalf": "arcsec"}
"""Units of the parameters of a source; every other column is a flux."""

FLUX_UNIT = "nJy"


def proposal_from_catalog(
    catalog: Any,
    bandlist: Sequence[str],
    mixture: SersicMixture,
    reference: tuple[float, float] | Float,
) -> npt.NDArray[Any]:
    """Make the proposal that describes the sources of a catalogue.

    Parameters
    ----------
    catalog : astropy.table.Table or structured array, shape (n_sources,)
        Columns ra, dec (degrees), q (square root of the axis ratio b/a), pa (radians), sersic,
        rhalf (arcsec), and one of fluxes (nJy) for each band. A column that says another unit is
        converted.
    bandlist : sequence of str
        The bands of the patch, in its order.
    mixture : SersicMixture
        Gaussians of the profiles.
    reference : (float, float)
        Right ascension and declination, degrees, that positions are relative to.

    Returns
    -------
    ndarray of SOURCE_DTYPE, shape (n_sources,)
        Slots of bands and radii that are not used are 0.

    Raises
    ------
    CatalogError
        If a column is missing, a value is one that no source can have or that `mixture` does not
        cover, or there are more sources or bands than kernels take.
    """
    columns = {name: catalog_column(catalog, name) for name in UNITS}
    fluxes = [catalog_column(catalog, band) for band in bandlist]
    n_sources = len(columns["ra"])
    for what, number, most in (
        ("sources", n_sources, MAXSOURCES),
        ("bands", len(fluxes), MAXBANDS),
    ):
        if number > most:
            raise CatalogError(f"{number} {what}; a patch has at most {most}")
    _check_shapes(columns)
    amplitudes = mixture.evaluate(columns["sersic"], columns["rhalf"])

    proposal = np.zeros(n_sources, SOURCE_DTYPE)
    proposal["ra"] = relative_longitude(columns["ra"], float(reference[0]))
    proposal["dec"] = columns["dec"] - float(reference[1])
    for field, name in (("q", "q"), ("pa", "pa"), ("nsersic", "sersic"), ("rh", "rhalf")):
        proposal[field] = columns[name]
    for i, flux in enumerate(fluxes):
        proposal["fluxes"][:, i] = flux
    used = slice(mixture.n_radii)
    proposal["mixture_amplitudes"][:, used] = amplitudes.amplitudes
    proposal["damplitude_drh"][:, used] = amplitudes.d_rhalf
    proposal["damplitude_dnsersic"][:, used] = amplitudes.d_sersic
    return proposal


def catalog_column(catalog: Any, name: str) -> Float:
    """Take a column of a catalogue as plain numbers in the unit that fpgpu computes in.

    Parameters
    ----------
    catalog : astropy.table.Table or structured array, shape (n_sources,)
        The catalogue.
    name : str
        A parameter of a source, or a band.

    Returns
    -------
    ndarray of float64, shape (n_sources,)
        Degrees for ra and dec, radians for pa, arcsec for rhalf, nJy for a flux.

    Raises
    ------
    CatalogError
        If there is no such column, its unit cannot be converted, or values are masked, not finite
        or no numbers.
    """
    names = getattr(getattr(catalog, "dtype", None), "names", None) or ()
    if name not in names:
        raise CatalogError(
            f"the catalogue has no column {name!r}; it has {', '.join(names) or 'none'}"
        )
    column = catalog[name]
    if np.ndim(column) != 1 or column.dtype.kind not in "fiu":
        raise CatalogError(
            f"column {name!r} is {column.dtype} of shape {np.shape(column)}; expected one number a "
            "source"
        )
    bad = np.ma.getmaskarray(column) | ~np.isfinite(np.ma.getdata(column))
    _refuse(np.asarray(bad), name, np.ma.getdata(column), "masked or not finite")
    return _in_unit(column, name, UNITS.get(name, FLUX_UNIT))


def relative_longitude(ra: Float, reference: float) -> Float:
    """Subtract right ascensions, the short way around the circle.

    Parameters
    ----------
    ra : ndarray of float64
        Degrees.
    reference : float
        Degrees.

    Returns
    -------
    ndarray of float64
        Within -180 to 180 degrees; to the last bit the plain difference where that is within.
    """
    difference = ra - reference
    return difference - 360 * np.round(difference / 360)


def _in_unit(column: Any, name: str, unit: str) -> Float:
    """Convert a column that says its unit; take it as it is where it says none."""
    values = np.asarray(np.ma.getdata(column), np.float64)
    own = getattr(column, "unit", None)
    if own is None:
        return values
    from astropy.units import Quantity

    try:
        return np.asarray(Quantity(values, own).to_value(unit), np.float64)
    except (TypeError, ValueError) as exc:
        raise CatalogError(
            f"column {name!r} is in {own}, which is no {unit or 'plain number'}"
        ) from exc


def _check_shapes(columns: dict[str, Float]) -> None:
    """Refuse places and shapes that no source has; the mixture judges sersic and rhalf."""
    dec, q, rhalf = columns["dec"], columns["q"], columns["rhalf"]
    _refuse(abs(dec) > 90, "dec", dec, "beyond a pole")
    _refuse(
        (q <= 0) | (q > 1), "q", q, "not in (0, 1]; it is the square root of the axis ratio b/a"
    )
    _refuse(rhalf < 0, "rhalf", rhalf, "negative")


def _refuse(bad: npt.NDArray[np.bool_], name: str, values: Any, why: str) -> None:
    """Raise for the first source with a bad value."""
    if bad.any():
        source = int(np.flatnonzero(bad)[0])
        raise CatalogError(
            f"source {source}: {name} {values[source]} is {why}; {int(bad.sum())} of {len(bad)} "
            "sources are like that"
        )
