"""Catalogues of sources in whatever form: their columns and units, and who is in a region."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.errors import CatalogError
from fpgpu.paths import as_path
from fpgpu.sky.angles import AngleLike, in_degrees
from fpgpu.sky.regions import RegionLike, as_region
from fpgpu.sky.sphere import Floats, separation

__all__ = [
    "MARGIN",
    "UNITS",
    "as_catalog",
    "catalog_column",
    "position_rounding",
    "refuse_sources",
    "select_sources",
    "sources_in",
]

logger = logging.getLogger(__name__)

MARGIN = 0.5 / 3600
"""Degrees outside a region from which sources are taken, too: their light reaches in."""

UNITS = {"ra": "deg", "dec": "deg", "q": "", "pa": "rad", "sersic": "", "rhalf": "arcsec"}
"""Units of the parameters of a source; every other column is a flux."""

FLUX_UNIT = "nJy"


def as_catalog(catalog: Any) -> Any:
    """Bring a catalogue into a form that has named columns, and rows that can be picked.

    Parameters
    ----------
    catalog : astropy.table.Table, structured array, dict of lists, DataFrame, SkyCoord or path
        The sources; or a list of dicts, or a table of astropy.io.fits with the units of its header;
        or the name of a file that `astropy.table.Table.read` knows.

    Returns
    -------
    astropy.table.Table or structured array, shape (n_sources,)
        The argument itself where it is one.

    Raises
    ------
    CatalogError
        If it has no named columns, or they differ in length, or the file cannot be read.

    Examples
    --------
    >>> as_catalog({"ra": [53.16], "dec": [-27.79]}).colnames
    ['ra', 'dec']
    """
    if isinstance(catalog, str | Path):
        return _read(as_path(catalog))
    if hasattr(catalog, "icrs"):
        catalog = {"sky": catalog.reshape(-1)}
    if hasattr(catalog, "to_records"):
        return catalog.to_records(index=False)
    from astropy.io.fits import BinTableHDU, FITS_rec, TableHDU
    from astropy.table import QTable, Table

    if isinstance(catalog, FITS_rec):
        catalog = BinTableHDU(catalog)
    if isinstance(catalog, BinTableHDU | TableHDU):
        return Table.read(catalog)  # the records alone say nothing of units
    is_rows = isinstance(catalog, list) and all(isinstance(row, Mapping) for row in catalog)
    if not is_rows and not isinstance(catalog, Mapping):
        if catalog is None or _names(catalog):
            return catalog
        raise CatalogError(
            f"a catalogue was given as {type(catalog).__name__} without named columns; expected a "
            "table, structured array, dict of lists, list of dicts, DataFrame, SkyCoord, or a file"
        )
    try:
        return QTable(rows=catalog) if is_rows else QTable(dict(catalog))
    except (TypeError, ValueError) as exc:
        raise CatalogError(f"the columns of the catalogue do not make a table: {exc}") from exc


def _read(path: Path) -> Any:
    """Read a file of any kind that astropy knows."""
    from astropy.io.registry import IORegistryError
    from astropy.table import Table
    from astropy.units import UnitsWarning

    if not path.is_file():
        raise CatalogError(f"{path}: no such catalogue; check the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnitsWarning)  # catalog_column judges those it needs
            return Table.read(path)
    except (IORegistryError, OSError, ValueError, TypeError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CatalogError(f"{path}: cannot be read as a table: {reason}") from error


def catalog_column(catalog: Any, name: str) -> Floats:
    """Take a column of a catalogue as plain numbers in the unit that fpgpu computes in.

    Parameters
    ----------
    catalog : astropy.table.Table, structured array, dict of lists, DataFrame or SkyCoord
        The catalogue, of n_sources rows. A column is found in capitals, too; ra and dec may come as
        one column of SkyCoord, in any frame.
    name : str
        A parameter of a source, or a band.

    Returns
    -------
    ndarray of float64, shape (n_sources,)
        Degrees (ICRS) for ra and dec, radians for pa, arcsec for rhalf, nJy for a flux. A column
        that says another unit is converted; fluxes in magnitudes are taken as AB.

    Raises
    ------
    CatalogError
        If there is no such column, its unit cannot be converted, or values are masked, not finite
        or no numbers.
    """
    column = _column(as_catalog(catalog), name)
    if np.ndim(column) != 1 or column.dtype.kind not in "fiu":
        hint = ""
        if column.dtype.kind in "USO" and name.lower() in ("ra", "dec"):
            hint = (
                "; give text such as 10:00:24 as one column of SkyCoord(ra, dec,"
                ' unit=("hourangle", "deg"))'
            )
        raise CatalogError(
            f"column {name!r} is {column.dtype} of shape {np.shape(column)}; expected one number a "
            f"source{hint}"
        )
    values = np.asarray(np.ma.getdata(getattr(column, "value", column)))
    bad = np.ma.getmaskarray(column) | ~np.isfinite(values)
    refuse_sources(np.asarray(bad), name, values, "masked or not finite")
    return _in_unit(values, getattr(column, "unit", None), name)


def position_rounding(catalog: Any) -> tuple[Floats, Floats] | None:
    """Tell how far positions may be off because they come in single precision.

    Parameters
    ----------
    catalog : astropy.table.Table, structured array, dict of lists, DataFrame or SkyCoord
        The catalogue, of n_sources rows.

    Returns
    -------
    (ndarray of float64, ndarray of float64), shape (n_sources,), or None
        Half a step of ra and of dec, degrees; None where positions are of double precision.
    """
    steps = []
    for name in ("ra", "dec"):
        column = _column(as_catalog(catalog), name)
        values = np.asarray(np.ma.getdata(getattr(column, "value", column)))
        is_short = values.dtype.kind == "f" and values.dtype.itemsize < 8
        step = (
            0.5 * np.spacing(abs(values)).astype(np.float64) if is_short else np.zeros(len(values))
        )
        steps.append(_in_unit(step, getattr(column, "unit", None), name))
    return (steps[0], steps[1]) if any(step.any() for step in steps) else None


def select_sources(catalog: Any, region: RegionLike, margin: AngleLike = MARGIN) -> Any:
    """Take the rows of a catalogue whose light reaches into a region.

    Parameters
    ----------
    catalog : astropy.table.Table, structured array, dict of lists, DataFrame, SkyCoord or path
        The sources, of which ra and dec are needed.
    region : CircularRegion, RectangularRegion, PolygonRegion or SkyRegion of regions
        The region.
    margin : float or Quantity, optional
        Degrees, or with units, by which sources may lie outside of it; half an arcsec by default.

    Returns
    -------
    astropy.table.Table or structured array
        Their rows, in the order of the catalogue.

    Raises
    ------
    CatalogError
        If it has no usable positions, or is a file that cannot be read.
    RegionError
        If it is no region, or the margin no angle.

    Examples
    --------
    >>> from fpgpu import CircularRegion
    >>> catalog = {"ra": [53.16, 53.2], "dec": [-27.79, -27.79], "F200W": [12.0, 30.0]}
    >>> select_sources(catalog, CircularRegion(53.16, -27.79, "1 arcsec"))["F200W"].tolist()
    [12.0]
    """
    table = as_catalog(catalog)
    try:
        ra, dec = catalog_column(table, "ra"), catalog_column(table, "dec")
        return table[sources_in(region, ra, dec, margin)]
    except CatalogError as error:
        file = f"{catalog}: " if isinstance(catalog, str | Path) else ""
        raise CatalogError(f"{file}{error}") from error


def sources_in(
    region: RegionLike, ra: Floats, dec: Floats, margin: AngleLike
) -> npt.NDArray[np.intp]:
    """Pick the sources whose light reaches into a region; log a warning where there are none.

    Parameters
    ----------
    region : CircularRegion, RectangularRegion, PolygonRegion or SkyRegion of regions
        The region.
    ra, dec : ndarray of float64, shape (n_sources,)
        Degrees.
    margin : float or Quantity
        Degrees, or with units, by which sources may lie outside of it.

    Returns
    -------
    ndarray of int, shape (n,)
        Numbers of the sources, in their order.

    Raises
    ------
    CatalogError
        If the margin is no number of degrees from 0 on.
    """
    region, margin = as_region(region), in_degrees(margin, "margin")
    if np.ndim(margin) or not 0 <= margin <= 180:
        raise CatalogError(
            f"the margin around the region is {margin!r}; expected one number, 0 to 180 degrees"
        )
    taken = np.flatnonzero(region.near_sky(ra, dec, margin))
    if not ra.size:
        logger.warning("the catalogue is empty: the patch of %r has no sources", region)
    elif not taken.size:
        distance = separation(*region.center, ra, dec)
        nearest = int(np.argmin(distance))
        radians = ra.max() <= 2 * np.pi and abs(dec).max() <= np.pi / 2
        logger.warning(
            "none of the %d sources of the catalogue is in %r or within %g arcsec of it: the patch"
            " has no sources; the nearest to its centre is source %d at ra %.6f, dec %.6f, %.4g"
            " degrees away%s",
            ra.size, region, 3600 * margin, nearest, ra[nearest], dec[nearest], distance[nearest],
            "; if these are radians, give the columns that unit" if radians else "",
        )  # fmt: skip
    return taken


def refuse_sources(bad: npt.NDArray[np.bool_], name: str, values: Any, why: str) -> None:
    """Raise for the first source with a bad value.

    Parameters
    ----------
    bad : ndarray of bool, shape (n_sources,)
        Which are.
    name : str
        The column.
    values : ndarray, shape (n_sources,)
        What is in it.
    why : str
        What is wrong with them.

    Raises
    ------
    CatalogError
        If there is one.
    """
    if bad.any():
        source = int(np.flatnonzero(bad)[0])
        raise CatalogError(
            f"source {source}: {name} {values[source]} is {why}; {int(bad.sum())} of {len(bad)} "
            "sources are like that"
        )


def _names(catalog: Any) -> Sequence[str]:
    """Name the columns of a table or of a structured array; none where it is neither."""
    of_array = getattr(getattr(catalog, "dtype", None), "names", None)
    return getattr(catalog, "colnames", None) or of_array or ()


def _column(catalog: Any, name: str) -> Any:
    """Find a column by its name, or ra and dec in a column of sky positions."""
    names = _names(catalog)
    alike = [name] if name in names else [n for n in names if n.lower() == name.lower()]
    if len(alike) == 1:
        return catalog[alike[0]]
    if not alike and name in ("ra", "dec"):
        skies = [catalog[n] for n in names if hasattr(catalog[n], "icrs")]
        if len(skies) == 1:
            # Of positions that are given as x, y and z, too.
            place = skies[0].icrs.spherical
            return (place.lon if name == "ra" else place.lat).to("deg")
    if alike:
        raise CatalogError(
            f"column {name!r} is ambiguous: the catalogue has {' and '.join(alike)}; rename all"
            " but one"
        )
    raise CatalogError(f"the catalogue has no column {name!r}; it has {', '.join(names) or 'none'}")


def _in_unit(values: npt.NDArray[Any], own: Any, name: str) -> Floats:
    """Convert values that come with a unit; take them as they are where they have none."""
    values = np.asarray(values, np.float64)
    if own is None or not str(own):
        return values
    from astropy import units as u

    unit, named = UNITS.get(name.lower(), FLUX_UNIT), own
    if isinstance(own, u.UnrecognizedUnit):
        # "degrees", "DEG", "Radians": words that people write where a unit is meant.
        own = u.Unit(str(own).lower().rstrip("s"), parse_strict="silent")
    if own == u.mag:
        own = u.ABmag
    try:
        return np.asarray(u.Quantity(values, own, subok=True).to_value(unit), np.float64)
    except (TypeError, ValueError) as exc:
        raise CatalogError(
            f"column {name!r} is in {named}, which is no {unit or 'plain number'}"
        ) from exc
