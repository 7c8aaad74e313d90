"""Options of the commands that work on a circle of sky, and what they make of them."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpgpu.cli.arguments import add_backend, add_options, read_angle
from fpgpu.errors import MissingStoreError, PlanError, UsageError

if TYPE_CHECKING:
    from fpgpu.likelihood.mixture import SersicMixture
    from fpgpu.patch.plan import PatchPlan
    from fpgpu.sky.regions import CircularRegion
    from fpgpu.survey import Survey

__all__ = [
    "add_bands",
    "add_catalog",
    "add_circle",
    "add_profiles",
    "add_selection",
    "flux_units",
    "mixture_of",
    "plan_of",
    "region_of",
    "require_psf",
    "require_whole",
    "sources_near",
]

CIRCLE = """
--ra DEG   right ascension of the centre: degrees, or hours as 10:00:24
--dec DEG  declination of the centre: degrees, or as +2:12:00
--radius ARCSEC
           radius of the circle; other units as 0.5arcmin"""
BANDS = """
--bands BAND  bands, in this order, with spaces or commas between them (default: all)
"""
MARGIN = """
--margin ARCSEC
          take sources this far outside the circle, too: their light reaches in (default: 0.5)
"""
PROFILES = """
--profiles H5  table of Sersic profiles that psf.h5 was made for, in forcepho's format (default:
               fpgpu's own)
"""
SELECTION = """
--select {corners,overlap}
              which super-pixels: those with a corner pixel inside, as forcepho's, or all that
              overlap the circle (default: corners)
--units UNIT  take the exposures that are in this unit, as nJy; any takes all (default: all, and a
              band that mixes units is refused)
"""


class _Names(argparse.Action):
    """Takes names with spaces or commas between them."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        names = " ".join(values).replace(",", " ").split()
        if not names:
            parser.error(f"argument {option}: no band was named; leave it out for all bands")
        setattr(namespace, self.dest, names)


def add_circle(parser: Any, *, required: bool, radii: bool = False) -> None:
    """Add the options for a circle, which may be required, and may have several radii."""
    ra = partial(read_angle, name="the right ascension", sixty="hourangle")
    dec = partial(read_angle, name="the declination")
    several = "; of several, times has a bar each" if radii else ""
    add_options(
        parser,
        CIRCLE + several,
        ra={"required": required, "type": ra},
        dec={"required": required, "type": dec},
        radius={"required": required, "nargs": "+" if radii else None},
    )


def add_bands(parser: argparse.ArgumentParser) -> None:
    """Add the option for bands."""
    add_options(parser, BANDS, bands={"nargs": "+", "action": _Names})


def add_catalog(parser: Any, what: str) -> None:
    """Add the options for sources; `what` says what the catalogue is for."""
    add_options(parser, f"--catalog FITS  {what}", MARGIN, margin={"default": "0.5"})


def add_profiles(parser: Any) -> None:
    """Add the option for the table of Sersic profiles."""
    add_options(parser, PROFILES)


def add_selection(parser: Any) -> None:
    """Add the options for super-pixels and the backend."""
    add_options(parser, SELECTION, select={"default": "corners"})
    add_backend(parser, "the patch is built")


def require_whole(args: argparse.Namespace) -> None:
    """Refuse a part of a circle."""
    given = [args.ra is not None, args.dec is not None, args.radius is not None]
    if any(given) and not all(given):
        raise UsageError("a circle needs --ra, --dec and --radius together")


def sources_near(args: argparse.Namespace, region: "CircularRegion") -> Any:
    """Read the sources whose light reaches into a circle; None where no catalogue was given."""
    from fpgpu.catalog import select_sources

    return args.catalog and select_sources(args.catalog, region, args.margin)


def region_of(args: argparse.Namespace, radius: float | None = None) -> "CircularRegion":
    """Make the region of the options for a circle; its radius, degrees, is the first by default."""
    from astropy.units import Quantity

    from fpgpu.sky.regions import CircularRegion

    if radius is None:
        radius = args.radius[0] if isinstance(args.radius, list) else args.radius
    return CircularRegion(args.ra, args.dec, Quantity(radius, "deg"))


def mixture_of(args: argparse.Namespace) -> "SersicMixture":
    """Read the table of Sersic profiles that was named, or take fpgpu's own."""
    from fpgpu.likelihood.mixture import SersicMixture
    from fpgpu.psf.profiles import default_profiles

    return SersicMixture.from_file(args.profiles) if args.profiles else default_profiles()


def require_psf(survey: "Survey", folder: Path, catalog: Any) -> None:
    """Refuse sources without PSFs."""
    if catalog is not None and len(catalog) and survey.psf is None:
        raise MissingStoreError(
            f"{folder / 'psf.h5'}: no such PSF store, but the catalogue has {len(catalog)} sources"
            " here; make it from images with fpgpu psf, or leave --catalog out for pixels alone"
        )


def plan_of(survey: "Survey", args: argparse.Namespace, region: "CircularRegion") -> "PatchPlan":
    """Plan the patch of a circle; where there are no exposures, say where there are some."""
    plan = survey.plan(region, args.bands, select=args.select, units=args.units)
    if plan.exposures:
        return plan
    band, expID = next(iter(survey.meta))
    nx, ny = survey.pixels.shape
    ra, dec = survey.meta.sky_wcs(band, expID).pixel_to_world((nx - 1) / 2, (ny - 1) / 2)
    raise PlanError(
        f"no exposure of {', '.join(args.bands or survey.bands)} is in {region!r}; the first of"
        f" all {survey.meta.nexp}, {band}/{expID}, is around ra {ra:.5f}, dec {dec:.5f}"
    )


def flux_units(survey: "Survey", plan: "PatchPlan") -> str:
    """Name the units of the pixels: those that the exposures have in common, or all of them."""
    from fpgpu.stores.units import units_of

    found = units_of(survey.pixels, [(e.band, e.expID) for e in plan.exposures])
    return ", ".join(dict.fromkeys(found.values()))
