"""Options of the commands that work on a circle of sky, and what they make of them."""

import argparse
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpgpu.cli.arguments import add_backend
from fpgpu.errors import CatalogError, MissingStoreError, PlanError, UsageError

if TYPE_CHECKING:
    from fpgpu.likelihood.mixture import SersicMixture
    from fpgpu.patch.plan import PatchPlan
    from fpgpu.survey import Survey

__all__ = [
    "add_bands",
    "add_catalog",
    "add_circle",
    "add_profiles",
    "add_selection",
    "flux_units",
    "mixture_of",
    "require_exposures",
    "require_psf",
    "require_whole",
    "sources_near",
]


def add_circle(parser: Any, *, required: bool, radii: bool = False) -> None:
    """Add the options for a circle.

    Parameters
    ----------
    parser : argparse.ArgumentParser or group
        Where to.
    required : bool
        Whether the command cannot do without.
    radii : bool, optional
        Whether several radii may be given.
    """
    for name, unit, what in (
        ("ra", "DEG", "right ascension of the centre"),
        ("dec", "DEG", "declination of the centre"),
    ):
        parser.add_argument(f"--{name}", required=required, metavar=unit, type=float, help=what)
    parser.add_argument(
        "--radius",
        required=required,
        metavar="ARCSEC",
        type=float,
        nargs="+" if radii else None,
        help="radius of the circle" + ("; of several, times has a bar each" if radii else ""),
    )


def add_bands(parser: argparse.ArgumentParser) -> None:
    """Add the option for bands.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Where to.
    """
    parser.add_argument(
        "--bands", nargs="+", metavar="BAND", help="bands, in this order (default: all)"
    )


def add_catalog(parser: Any, what: str) -> None:
    """Add the options for sources.

    Parameters
    ----------
    parser : argparse.ArgumentParser or group
        Where to.
    what : str
        What the catalogue is for.
    """
    parser.add_argument("--catalog", metavar="FITS", type=Path, help=what)
    parser.add_argument(
        "--margin",
        metavar="ARCSEC",
        type=float,
        default=0.5,
        help="take sources this far outside the circle, too: their light reaches in (default: 0.5)",
    )


def add_profiles(parser: Any) -> None:
    """Add the option for the table of Sersic profiles.

    Parameters
    ----------
    parser : argparse.ArgumentParser or group
        Where to.
    """
    parser.add_argument(
        "--profiles",
        metavar="H5",
        type=Path,
        help="table of Sersic profiles that psf.h5 was made for, in forcepho's format (default: "
        "fpgpu's own)",
    )


def add_selection(parser: Any) -> None:
    """Add the options for super-pixels and the backend.

    Parameters
    ----------
    parser : argparse.ArgumentParser or group
        Where to.
    """
    parser.add_argument(
        "--select",
        choices=("corners", "overlap"),
        default="corners",
        help="which super-pixels: those with a corner pixel inside, as forcepho's, or all that "
        "overlap the circle (default: corners)",
    )
    parser.add_argument(
        "--units",
        metavar="UNIT",
        help="take the exposures that are in this unit, as nJy; any takes all (default: all, and a "
        "band that mixes units is refused)",
    )
    add_backend(parser, "the patch is built")


def require_whole(args: argparse.Namespace) -> None:
    """Refuse a part of a circle.

    Parameters
    ----------
    args : argparse.Namespace
        The options of `add_circle`.

    Raises
    ------
    UsageError
        If some of them are given, and not all.
    """
    given = [args.ra is not None, args.dec is not None, args.radius is not None]
    if any(given) and not all(given):
        raise UsageError("a circle needs --ra, --dec and --radius together")


def sources_near(args: argparse.Namespace, radius: float) -> Any:
    """Read the sources whose light reaches into a circle.

    Parameters
    ----------
    args : argparse.Namespace
        The options of `add_circle` and `add_catalog`.
    radius : float
        Of the circle, arcsec.

    Returns
    -------
    astropy.table.Table or None
        None where no catalogue was given.

    Raises
    ------
    CatalogError
        If it cannot be read, or has no usable positions.
    """
    from astropy.io.registry import IORegistryError
    from astropy.table import Table
    from astropy.units import UnitsWarning

    from fpgpu.catalog import catalog_column, sources_in
    from fpgpu.sky.regions import CircularRegion

    path = args.catalog
    if path is None:
        return None
    if not path.is_file():
        raise CatalogError(f"{path}: no such catalogue; check the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnitsWarning)  # a unit that matters is judged below
            table = Table.read(path)
    except (IORegistryError, OSError, ValueError, TypeError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CatalogError(f"{path}: cannot be read as a table: {reason}") from error
    region = CircularRegion(args.ra, args.dec, radius / 3600)
    try:
        ra, dec = catalog_column(table, "ra"), catalog_column(table, "dec")
        return table[sources_in(region, ra, dec, args.margin / 3600)]
    except CatalogError as error:
        raise CatalogError(f"{path}: {error}") from error


def mixture_of(args: argparse.Namespace) -> "SersicMixture":
    """Read the table of Sersic profiles.

    Parameters
    ----------
    args : argparse.Namespace
        The option of `add_profiles`.

    Returns
    -------
    SersicMixture
        That which was named, else fpgpu's own.

    Raises
    ------
    MissingStoreError, StoreFormatError
        If there is no such file, or it is no such table.
    """
    from fpgpu.likelihood.mixture import SersicMixture
    from fpgpu.psf.profiles import default_profiles

    return SersicMixture.from_file(args.profiles) if args.profiles else default_profiles()


def require_psf(survey: "Survey", folder: Path, catalog: Any) -> None:
    """Refuse sources without PSFs.

    Parameters
    ----------
    survey : Survey
        The stores.
    folder : Path
        Their folder.
    catalog : astropy.table.Table or None
        The sources.

    Raises
    ------
    MissingStoreError
        If there are sources and no PSF store.
    """
    if catalog is not None and len(catalog) and survey.psf is None:
        raise MissingStoreError(
            f"{folder / 'psf.h5'}: no such PSF store, but the catalogue has {len(catalog)} sources"
            " here; make it from images with fpgpu psf, or leave --catalog out for pixels alone"
        )


def require_exposures(survey: "Survey", plan: "PatchPlan", bands: Iterable[str] | None) -> None:
    """Refuse a place where there are no exposures, and say where there are some.

    Parameters
    ----------
    survey : Survey
        The stores.
    plan : PatchPlan
        Of the place.
    bands : iterable of str or None
        Bands that were asked for.

    Raises
    ------
    PlanError
        If the plan is empty.
    """
    if plan.exposures:
        return
    band, expID = next(iter(survey.meta))
    nx, ny = survey.pixels.shape
    ra, dec = survey.meta.sky_wcs(band, expID).pixel_to_world((nx - 1) / 2, (ny - 1) / 2)
    raise PlanError(
        f"no exposure of {', '.join(bands or survey.bands)} is in {plan.region!r}; the first of"
        f" all {survey.meta.nexp}, {band}/{expID}, is around ra {ra:.5f}, dec {dec:.5f}"
    )


def flux_units(survey: "Survey", plan: "PatchPlan") -> str:
    """Name the units of the pixels: those that the exposures have in common, or all of them.

    Parameters
    ----------
    survey : Survey
        The stores.
    plan : PatchPlan
        The exposures.

    Returns
    -------
    str
        Such as ``"nJy"``.
    """
    from fpgpu.stores.units import units_of

    found = units_of(survey.pixels, [(e.band, e.expID) for e in plan.exposures])
    return ", ".join(dict.fromkeys(found.values()))
