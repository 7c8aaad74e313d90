"""``fpgpu plot``: pictures of a survey, of its exposures, and of patches of it."""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from fpgpu.cli import circle
from fpgpu.cli.arguments import FOLDER, JSON, add_options
from fpgpu.cli.console import Progress, print_json
from fpgpu.errors import CatalogError, NotInStoreError, UsageError
from fpgpu.stores.names import each_band

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fpgpu.survey import Survey

__all__ = ["DESCRIPTION", "EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "pictures of a survey, of its exposures, and of patches of it"
DESCRIPTION = (
    "Write pictures PREFIX_KIND.png. The kinds footprints, coverage, superpixels, pixels, residuals"
    " and times are of a circle of sky and need --ra, --dec and --radius. Pictures with a panel an"
    " exposure hold 12; further ones are numbered."
)
EXAMPLES = """examples:
  fpgpu plot stores survey
  fpgpu plot stores survey --depth magnitude --bands F200W F444W --out field
  fpgpu plot stores exposure --exposure F200W/jw01180_nrca1_cal
  fpgpu plot stores footprints coverage pixels --ra 53.16 --dec -27.79 --radius 3
  fpgpu plot stores residuals --ra 53.16 --dec -27.79 --radius 1 --catalog sources.fits
  fpgpu plot stores times --ra 53.16 --dec -27.79 --radius 1 3 10
"""
OPTIONS = """
--out PREFIX  what the names of the pictures begin with (default: fpgpu)
--format {png,pdf,svg}
              default: png
"""

OF_THE_WHOLE = """
--depth {exposures,magnitude}
          depth as the number of exposures, or as a limiting magnitude from their weights
--field N
          which field, where the survey has several that are degrees apart (default: 1, the one with
          most exposures)
--exposure BAND/EXPID
          which exposure (default: the first)
--at X Y  pixel in the middle of the close-up (default: the brightest)
"""
WHOLE = {
    "survey": "footprints of all exposures, and the depth of each band",
    "exposure": "how an exposure is laid out in super-pixels, with its mask",
}
OF_A_CIRCLE = {
    "footprints": "exposures over the circle, and the super-pixels around it",
    "coverage": "how many exposures of each band there are at each place",
    "superpixels": "super-pixels taken of each exposure",
    "pixels": "flux and weight of each exposure",
    "residuals": "data, model and residual of each exposure",
    "times": "where the time of the patch goes, measured",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    kinds = WHOLE | OF_A_CIRCLE
    what = "; ".join(f"{kind}: {what}" for kind, what in kinds.items())
    add_options(parser, FOLDER, f"kinds KIND  {what}", kinds={"nargs": "+", "choices": [*kinds]})
    add_options(parser, OPTIONS, out={"default": "fpgpu"}, format={"default": "png"})
    circle.add_bands(parser)
    add_options(parser, JSON)

    whole = parser.add_argument_group("survey and exposure")
    depth, field = {"default": "exposures"}, {"type": int, "default": 1}
    at = {"nargs": 2, "metavar": ("X", "Y"), "type": float}
    add_options(whole, OF_THE_WHOLE, depth=depth, field=field, at=at)
    place = parser.add_argument_group("of a circle of sky")
    circle.add_circle(place, required=False, radii=True)
    circle.add_catalog(
        place,
        "sources of times and residuals: columns ra, dec in degrees; for residuals also q, pa, "
        "sersic, rhalf and a flux for each band",
    )
    circle.add_profiles(place)
    circle.add_selection(place)


def run(args: argparse.Namespace) -> int:
    """Write the pictures.

    Gives 0; whatever goes wrong is an error.
    """
    import fpgpu.survey
    from fpgpu import plots

    _require_options(args)
    plots.require_matplotlib()
    kinds = dict.fromkeys(args.kinds)
    written: list[str] = []
    with (
        fpgpu.survey.open(args.folder, backend=args.backend) as survey,
        Progress(len(kinds), "plot", enabled=not (args.quiet or args.json)) as progress,
    ):
        each_band(args.bands or (), survey.bands, args.folder)
        for kind in kinds:
            figures = DRAW[kind](survey, args)
            written += map(str, plots.save_all(args.out, {kind: figures}, args.format))
            progress.step(kind)
    if args.json:
        print_json({"pictures": written})
    else:
        print("\n".join(f"wrote {path}" for path in written))
    return 0


def _require_options(args: argparse.Namespace) -> None:
    """Refuse a picture without the options it needs, before anything is opened."""
    of_a_circle = [kind for kind in args.kinds if kind in OF_A_CIRCLE]
    given = {"--ra": args.ra, "--dec": args.dec, "--radius": args.radius}
    lacking = [name for name, value in given.items() if value is None]
    if of_a_circle and lacking:
        raise UsageError(
            f"{' and '.join(of_a_circle)} show a circle of sky: give {', '.join(lacking)}, too"
        )
    circle.require_whole(args)
    if "residuals" in args.kinds and args.catalog is None:
        raise UsageError("residuals are those of a model: give its sources with --catalog, too")


def _survey(survey: "Survey", args: argparse.Namespace) -> Iterator["Figure"]:
    """The whole survey."""
    from fpgpu.plots import plot_survey

    region = None if args.radius is None else circle.region_of(args)
    pixels = survey.pixels if args.depth == "magnitude" else None
    yield plot_survey(survey.meta, args.bands, pixels=pixels, region=region, field=args.field)


def _exposure(survey: "Survey", args: argparse.Namespace) -> Iterator["Figure"]:
    """One exposure."""
    from fpgpu.plots import plot_layout

    keys = {f"{band}/{expID}": (band, expID) for band, expID in survey.pixels}
    name = args.exposure or next(iter(keys), "")
    if name not in keys:
        from difflib import get_close_matches

        near = get_close_matches(name, keys, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise NotInStoreError(
            f"{args.folder}: no exposure {name!r} among its {len(keys)}, named BAND/EXPID{hint}"
        )
    place = None if args.at is None else tuple(args.at)
    yield plot_layout(survey.pixels, *keys[name], place=place)


def _of_patch(kind: str, survey: "Survey", args: argparse.Namespace) -> Iterator["Figure"]:
    """One of the pictures of the pixels of a patch."""
    from fpgpu.plots.kinds import pictures_of_patch

    plan = circle.plan_of(survey, args, circle.region_of(args))
    units = circle.flux_units(survey, plan)
    with survey.patch(plan) as patch:
        data, ierr = patch.retrieve("data"), patch.retrieve("ierr")
    yield from pictures_of_patch(survey.meta, plan, data, ierr, units)[kind]()


def _residuals(survey: "Survey", args: argparse.Namespace) -> Iterator["Figure"]:
    """Data, model, residual: the model is that of a catalogue of Sersic profiles."""
    from fpgpu.likelihood.scene import proposal_from_catalog
    from fpgpu.plots.kinds import draw_residuals

    region = circle.region_of(args)
    catalog = circle.sources_near(args, region)
    if not len(catalog):
        raise CatalogError(f"{args.catalog}: none of its sources is in or near {region!r}")
    mixture = circle.mixture_of(args)
    circle.require_psf(survey, args.folder, catalog)
    plan = circle.plan_of(survey, args, region)
    with survey.patch(plan, catalog, radii=mixture.radii, margin=None) as patch:
        arrays, reference = patch.host_arrays(), patch.reference
    proposal = proposal_from_catalog(catalog, plan.bandlist, mixture, reference)
    yield from draw_residuals(plan, arrays, proposal, circle.flux_units(survey, plan))


def _times(survey: "Survey", args: argparse.Namespace) -> Iterator["Figure"]:
    """Where the time goes, a bar a radius."""
    from fpgpu.patch.timing import time_patch
    from fpgpu.plots import plot_times

    options: dict[str, Any] = {"backend": survey.backend, "select": args.select, "margin": None}
    if args.profiles is not None:
        options["radii"] = circle.mixture_of(args).radii
    times = []
    for radius in args.radius:
        region = circle.region_of(args, radius)
        circle.plan_of(survey, args, region)  # refuses a place without exposures
        catalog = circle.sources_near(args, region)
        circle.require_psf(survey, args.folder, catalog)
        times.append(time_patch(survey, region, catalog, args.bands, **options))
    yield plot_times(times)


DRAW: dict[str, Callable[["Survey", argparse.Namespace], Iterator["Figure"]]] = {
    "survey": _survey,
    "exposure": _exposure,
    "footprints": partial(_of_patch, "footprints"),
    "coverage": partial(_of_patch, "coverage"),
    "superpixels": partial(_of_patch, "superpixels"),
    "pixels": partial(_of_patch, "pixels"),
    "residuals": _residuals,
    "times": _times,
}
"""How each kind is drawn."""
