"""``fpgpu patch``: build the patch of a region of sky, and write it."""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpgpu.cli import circle
from fpgpu.cli.arguments import FOLDER, JSON, add_options
from fpgpu.cli.console import format_bytes, format_table, print_json

if TYPE_CHECKING:
    from fpgpu.patch.device import Patch
    from fpgpu.survey import Survey

__all__ = ["DESCRIPTION", "EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "build the patch of a region of sky, and write it"
DESCRIPTION = (
    "Find the exposures of a circle on the sky, read its super-pixels, build the "
    "patch in the backend's memory, and write all its arrays to an HDF5 file."
)
EXAMPLES = """examples:
  fpgpu patch stores --ra 53.16 --dec -27.79 --radius 3
  fpgpu patch stores --ra 53.16 --dec -27.79 --radius 3 --bands F200W F444W --plot patch
  fpgpu patch stores --ra 53.16 --dec -27.79 --radius 3 --catalog sources.fits --json
"""
OPTIONS = """
--out FILE  the file to write; an older patch is replaced (default: patch.h5)
--plot PREFIX
            write pictures PREFIX_footprints.png, PREFIX_superpixels.png, PREFIX_pixels.png; of many
            exposures, 12 in each (more pictures: see fpgpu plot)
"""

PICTURES = ("footprints", "superpixels", "pixels")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_options(parser, FOLDER)
    circle.add_circle(parser, required=True)
    circle.add_bands(parser)
    circle.add_catalog(
        parser,
        "table with columns ra and dec in degrees: its sources in and near the circle are "
        "taken, which needs psf.h5 in DIR (default: pixels and geometry only)",
    )
    circle.add_profiles(parser)
    add_options(parser, OPTIONS, out={"default": Path("patch.h5")})
    circle.add_selection(parser)
    add_options(parser, JSON)


def run(args: argparse.Namespace) -> int:
    """Build and write the patch.

    Gives 0; whatever goes wrong is an error.
    """
    import fpgpu.survey
    from fpgpu.patch.file import check_replaceable, write_patch

    region = circle.region_of(args)
    check_replaceable(args.out)
    if args.plot is not None:
        from fpgpu.plots import require_matplotlib

        require_matplotlib()
    catalog = circle.sources_near(args, region)
    seconds: dict[str, float] = {}
    with _timed(seconds, "open"):
        survey = fpgpu.survey.open(args.folder, backend=args.backend)
    with survey:
        circle.require_psf(survey, args.folder, catalog)
        with _timed(seconds, "plan"):
            plan = circle.plan_of(survey, args, region)
        with _timed(seconds, "build"):
            radii = circle.mixture_of(args).radii if args.profiles else None
            patch = survey.patch(plan, catalog, radii=radii, margin=None)
        with patch:
            units = circle.flux_units(survey, plan)
            with _timed(seconds, "write"):
                file_bytes = write_patch(args.out, patch, flux_units=units)
            pictures = []
            if args.plot is not None:
                with _timed(seconds, "plot"):
                    pictures = _plot(args.plot, survey, patch, units)
            summary = {
                **_summary(patch, seconds),
                "backend": survey.backend.description,
                "flux_units": units,
                "out": str(args.out),
                "file_bytes": file_bytes,
                "pictures": pictures,
            }
    if args.json:
        print_json(summary)
    else:
        _print(summary, args.quiet)
    return 0


@contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    """Take the time of a step."""
    start = time.perf_counter()
    yield
    seconds[what] = time.perf_counter() - start


def _plot(prefix: str, survey: "Survey", patch: "Patch", units: str) -> list[str]:
    """Write the pictures."""
    from fpgpu.plots import save_all
    from fpgpu.plots.kinds import pictures_of_patch

    data, ierr = patch.retrieve("data"), patch.retrieve("ierr")
    draw = pictures_of_patch(survey.meta, patch.plan, data, ierr, units)
    return [str(path) for kind in PICTURES for path in save_all(prefix, {kind: draw[kind]()})]


def _summary(patch: "Patch", seconds: dict[str, float]) -> dict[str, Any]:
    """What was built, for JSON."""
    plan = patch.plan
    ra, dec = plan.region.center
    return {
        "ra": ra,
        "dec": dec,
        "select": plan.select,
        "bands": list(plan.bandlist),
        "exposures": [
            {
                "band": exposure.band,
                "expID": exposure.expID,
                "superpixels": exposure.n_superpixels,
                "pixels": int(n_pixels),
            }
            for exposure, n_pixels in zip(plan.exposures, plan.exposure_N, strict=True)
        ],
        "n_pixels": plan.n_pixels,
        "n_sources": patch.n_sources,
        "memory_bytes": patch.nbytes,
        "seconds": {what: round(value, 6) for what, value in seconds.items()},
    }


def _print(summary: dict[str, Any], quiet: bool) -> None:
    """Print the plan, the times, and what was written."""
    if not quiet:
        rows = [list(exposure.values()) for exposure in summary["exposures"]]
        print(format_table(["band", "exposure", "super-pixels", "pixels"], rows))
        print()
        print(format_table(["step", "ms"], [[k, 1000 * s] for k, s in summary["seconds"].items()]))
        print()
    sources = f"{summary['n_sources']} sources" if summary["n_sources"] else "no sources"
    print(
        f"{len(summary['exposures'])} exposures, {summary['n_pixels']} pixels, {sources}:"
        f" {format_bytes(summary['memory_bytes'])} on {summary['backend']},"
        f" flux units {summary['flux_units']}"
    )
    for path in (summary["out"], *summary["pictures"]):
        print(f"wrote {path}")
