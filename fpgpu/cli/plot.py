"""Pictures of a survey, of its exposures, and of patches of it.

Write pictures PREFIX_KIND.png. The kinds footprints, coverage, superpixels, pixels, residuals and
times are of a circle of sky and need --ra, --dec and --radius. Pictures with a panel an exposure
hold 12; further ones are numbered.

options:
  folder
  kinds {survey,exposure,footprints,coverage,superpixels,pixels,residuals,times}+
              survey: footprints of all exposures, and the depth of each band; exposure: how an
              exposure is laid out in super-pixels, with its mask; footprints: exposures over the
              circle, and the super-pixels around it; coverage: how many exposures of each band
              there are at each place; superpixels: super-pixels taken of each exposure; pixels:
              flux and weight of each exposure; residuals: data, model and residual of each
              exposure; times: where the time of the patch goes, measured
  --out PREFIX
              what the names of the pictures begin with [default: fpgpu]
  --format {png,pdf,svg}
              of the pictures [default: png]
  --bands --json

survey and exposure:
  --depth {exposures,magnitude}
              depth as the number of exposures, or as a limiting magnitude from their weights
              [default: exposures]
  --field N   which field, where the survey has several that are degrees apart; 1 is the one with
              most exposures [default: 1]
  --exposure BAND/EXPID
              which exposure (default: the first)
  --at X Y    pixel in the middle of the close-up (default: the brightest)

of a circle of sky:
  --ra --dec
  --radius ARCSEC+
              radius of the circle; other units as 0.5arcmin; of several, times has a bar each
  --catalog FITS
              sources of times and residuals: columns ra, dec in degrees; for residuals also q, pa,
              sersic, rhalf and a flux for each band
  --margin --profiles --select --units --backend

examples:
  fpgpu plot stores survey
  fpgpu plot stores survey --depth magnitude --bands F200W F444W --out field
  fpgpu plot stores exposure --exposure F200W/jw01180_nrca1_cal
  fpgpu plot stores footprints coverage pixels --ra 53.16 --dec -27.79 --radius 3
  fpgpu plot stores residuals --ra 53.16 --dec -27.79 --radius 1 --catalog sources.fits
  fpgpu plot stores times --ra 53.16 --dec -27.79 --radius 1 3 10
"""

from argparse import Namespace
from collections.abc import Iterable
from difflib import get_close_matches
from functools import partial
from typing import Any

import fpgpu.survey
from fpgpu import plots
from fpgpu.cli import circle
from fpgpu.cli.console import Result, progress
from fpgpu.errors import CatalogError, NotInStoreError, UsageError
from fpgpu.likelihood.reference import evaluate
from fpgpu.likelihood.scene import proposal_from_catalog
from fpgpu.patch.device import Patch
from fpgpu.patch.timing import PatchTimes, time_patch
from fpgpu.stores.names import each_band
from fpgpu.survey import Survey

OF_THE_WHOLE = ("survey", "exposure")


def run(args: Namespace) -> Result:
    """Write the pictures."""
    of_a_circle = [kind for kind in args.kinds if kind not in OF_THE_WHOLE]
    circle.has_circle(args, f"{' and '.join(of_a_circle)} are" if of_a_circle else "")
    if "residuals" in args.kinds and args.catalog is None:
        raise UsageError("residuals are those of a model: give its sources with --catalog, too")
    plots.require_matplotlib()
    kinds = dict.fromkeys(args.kinds)
    written: list[str] = []
    with (
        fpgpu.survey.open(args.folder, backend=args.backend) as survey,
        progress(args, len(kinds), "plot") as step,
    ):
        each_band(args.bands or (), survey.bands, args.folder)
        for kind in kinds:
            figures = draw(kind, survey, args)
            written += map(str, plots.save_all(args.out, {kind: figures}, args.format))
            step(kind)
    return Result("\n".join(f"wrote {path}" for path in written), {"pictures": written})


def draw(kind: str, survey: Survey, args: Namespace) -> Iterable[Any]:
    """Draw all pictures of a kind."""
    if kind == "survey":
        region = circle.region_of(args, args.radius[0]) if args.radius else None
        pixels = survey.pixels if args.depth == "magnitude" else None
        whole = partial(plots.plot_survey, survey.meta, args.bands, field=args.field)
        return [whole(pixels=pixels, region=region)]
    if kind == "exposure":
        place = tuple(args.at) if args.at else None
        return [plots.plot_layout(survey.pixels, *_exposure(survey, args), place=place)]
    if kind == "times":
        return [plots.plot_times([_times(survey, args, radius) for radius in args.radius])]
    region = circle.region_of(args, args.radius[0])
    catalog = circle.sources_of(survey, args, region) if kind == "residuals" else None
    if catalog is not None and not len(catalog):
        raise CatalogError(f"{args.catalog}: none of its sources is in or near {region!r}")
    plan = circle.plan_of(survey, args, region)
    with survey.patch(plan, catalog, radii=circle.radii_of(args), margin=None) as patch:
        return draw_patch(kind, survey, patch, catalog, circle.mixture_of(args))


def draw_patch(
    kind: str, survey: Survey, patch: Patch, catalog: Any = None, mixture: Any = None
) -> Iterable[Any]:
    """Draw all pictures of a kind that is of the pixels of a patch.

    The model of residuals is that of a catalogue of Sersic profiles, by the plain NumPy likelihood.
    """
    plan, arrays = patch.plan, patch.host_arrays()
    pixels, units = (arrays["data"], arrays["ierr"]), circle.flux_units(survey, plan)
    if kind == "footprints":
        return [plots.plot_footprints(survey.meta, plan)]
    if kind == "coverage":
        return [plots.plot_coverage(survey.meta, plan, arrays["ierr"])]
    if kind == "superpixels":
        return plots.pages(plan, partial(plots.plot_superpixels, survey.meta, plan))
    if kind == "pixels":
        return plots.pages(plan, partial(plots.plot_pixels, plan, *pixels, flux_units=units))
    proposal = proposal_from_catalog(catalog, plan.bandlist, mixture, patch.reference)
    model = evaluate(arrays, proposal).model
    return plots.pages(plan, partial(plots.plot_residuals, plan, *pixels, model, flux_units=units))


def _exposure(survey: Survey, args: Namespace) -> tuple[str, str]:
    """Find the exposure that was named, or the first."""
    keys = {"/".join(key): key for key in survey.pixels}
    name = args.exposure or next(iter(keys), "")
    if name not in keys:
        near = get_close_matches(name, keys, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise NotInStoreError(
            f"{args.folder}: no exposure {name!r} among its {len(keys)}, named BAND/EXPID{hint}"
        )
    return keys[name]


def _times(survey: Survey, args: Namespace, radius: str) -> PatchTimes:
    """Measure where the time of a patch goes."""
    region = circle.region_of(args, radius)
    circle.plan_of(survey, args, region)  # refuses a place without exposures
    catalog, radii = circle.sources_of(survey, args, region), circle.radii_of(args)
    options = {"backend": survey.backend, "select": args.select, "radii": radii, "margin": None}
    return time_patch(survey, region, catalog, args.bands, **options)
