"""What the commands that work on a circle of sky make of their options."""

from argparse import Namespace
from typing import Any

from astropy.units import Quantity

from fpgpu.catalog import select_sources
from fpgpu.errors import MissingStoreError, PlanError, UsageError
from fpgpu.likelihood.mixture import SersicMixture
from fpgpu.patch.plan import PatchPlan
from fpgpu.psf.profiles import default_profiles
from fpgpu.sky.angles import in_degrees
from fpgpu.sky.regions import CircularRegion
from fpgpu.stores.units import units_of
from fpgpu.survey import Survey

__all__ = [
    "arcsec",
    "flux_units",
    "has_circle",
    "mixture_of",
    "plan_of",
    "radii_of",
    "region_of",
    "sources_of",
]


def arcsec(text: str) -> Quantity:
    """Read an angle, which is in arcseconds unless it says otherwise."""
    return Quantity(in_degrees(text, "the angle", plain="arcsec"), "deg")


def has_circle(args: Namespace, needed_by: str = "") -> bool:
    """Tell whether a circle was given; refuse a part of one, and none where it is needed."""
    options = {"--ra": args.ra, "--dec": args.dec, "--radius": args.radius}
    lacking = [name for name, value in options.items() if value is None]
    if lacking and needed_by:
        raise UsageError(f"{needed_by} of a circle of sky: give {', '.join(lacking)}, too")
    if lacking and len(lacking) < len(options):
        raise UsageError("a circle needs --ra, --dec and --radius together")
    return not lacking


def region_of(args: Namespace, radius: str | None = None) -> CircularRegion:
    """Make the circle that was given."""
    return CircularRegion(args.ra, args.dec, arcsec(radius or args.radius))


def plan_of(survey: Survey, args: Namespace, region: CircularRegion) -> PatchPlan:
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


def sources_of(survey: Survey, args: Namespace, region: CircularRegion) -> Any:
    """Read the sources whose light reaches into a circle; None where no catalogue was given."""
    if args.catalog is None:
        return None
    catalog = select_sources(args.catalog, region, arcsec(args.margin))
    if len(catalog) and survey.psf is None:
        raise MissingStoreError(
            f"{args.folder / 'psf.h5'}: no such PSF store, but the catalogue has {len(catalog)}"
            " sources here; make it from images with fpgpu psf, or leave --catalog out for pixels"
            " alone"
        )
    return catalog


def mixture_of(args: Namespace) -> SersicMixture:
    """Read the table of Sersic profiles that was named, or take fpgpu's own."""
    return SersicMixture.from_file(args.profiles) if args.profiles else default_profiles()


def radii_of(args: Namespace) -> Any:
    """Radii of the table of profiles that was named; None for those that PSFs usually have."""
    return SersicMixture.from_file(args.profiles).radii if args.profiles else None


def flux_units(survey: Survey, plan: PatchPlan) -> str:
    """Name the units of the pixels: those that the exposures have in common, or all of them."""
    found = units_of(survey.pixels, [(e.band, e.expID) for e in plan.exposures])
    return ", ".join(dict.fromkeys(found.values()))
