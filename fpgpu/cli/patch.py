"""``fpgpu patch``: build the patch of a region of sky, and write it."""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpgpu.cli.console import format_bytes, format_table
from fpgpu.errors import CatalogError, MissingStoreError, NotInStoreError, PlanError

if TYPE_CHECKING:
    from fpgpu.patch.device import Patch
    from fpgpu.patch.plan import PatchPlan
    from fpgpu.sky.regions import CircularRegion
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

PICTURES = ("footprints", "superpixels", "pixels")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The parser of the command.
    """
    parser.add_argument("folder", metavar="DIR", type=Path, help="the store folder")
    for name, unit, what in (
        ("ra", "DEG", "right ascension of the centre"),
        ("dec", "DEG", "declination of the centre"),
        ("radius", "ARCSEC", "radius of the circle"),
    ):
        parser.add_argument(f"--{name}", required=True, metavar=unit, type=float, help=what)
    parser.add_argument(
        "--bands", nargs="+", metavar="BAND", help="bands, in this order (default: all)"
    )
    parser.add_argument(
        "--catalog",
        metavar="FITS",
        type=Path,
        help="table with columns ra and dec in degrees: its sources in and near the circle are "
        "taken, which needs psf.h5 in DIR (default: pixels and geometry only)",
    )
    parser.add_argument(
        "--margin",
        metavar="ARCSEC",
        type=float,
        default=0.5,
        help="take sources this far outside the circle, too: their light reaches in (default: 0.5)",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        default=Path("patch.h5"),
        help="the file to write; an older patch is replaced (default: patch.h5)",
    )
    parser.add_argument(
        "--select",
        choices=("corners", "overlap"),
        default="corners",
        help="which super-pixels: those with a corner pixel inside, as forcepho's, or all that "
        "overlap the circle (default: corners)",
    )
    parser.add_argument(
        "--plot",
        metavar="PREFIX",
        help=f"write pictures PREFIX_{'.png, PREFIX_'.join(PICTURES)}.png",
    )
    parser.add_argument(
        "--backend",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where the patch is built; auto takes a GPU where one works (see fpgpu doctor)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Build and write the patch.

    Parameters
    ----------
    args : argparse.Namespace
        The parsed arguments.

    Returns
    -------
    int
        0; whatever goes wrong is an error.
    """
    import fpgpu.survey
    from fpgpu.patch.file import check_replaceable, write_patch
    from fpgpu.sky.regions import CircularRegion

    region = CircularRegion(args.ra, args.dec, args.radius / 3600)
    check_replaceable(args.out)
    if args.plot is not None:
        from fpgpu.plots import require_matplotlib

        require_matplotlib()
    catalog = None
    if args.catalog is not None:
        reach = CircularRegion(args.ra, args.dec, (args.radius + args.margin) / 3600)
        catalog = _sources_inside(args.catalog, reach)
    seconds: dict[str, float] = {}
    with _timed(seconds, "open"):
        survey = fpgpu.survey.open(args.folder, backend=args.backend)
    with survey:
        _require_usable(survey, args.bands, args.folder, catalog)
        with _timed(seconds, "plan"):
            plan = survey.plan(region, args.bands, select=args.select)
        _require_exposures(survey, plan, args.bands)
        with _timed(seconds, "build"):
            patch = survey.patch(plan, catalog)
        with patch:
            units = _flux_units(survey, plan)
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
        print(json.dumps(summary, indent=2))
    else:
        _print(summary, args.quiet)
    return 0


@contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    """Take the time of a step."""
    start = time.perf_counter()
    yield
    seconds[what] = time.perf_counter() - start


def _sources_inside(path: Path, region: "CircularRegion") -> Any:
    """Read the sources of a catalogue that are inside a region."""
    from astropy.io.registry import IORegistryError
    from astropy.table import Table

    from fpgpu.patch.proposal import catalog_column

    if not path.is_file():
        raise CatalogError(f"{path}: no such catalogue; check the path")
    try:
        table = Table.read(path)
    except (IORegistryError, OSError, ValueError, TypeError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CatalogError(f"{path}: cannot be read as a table: {reason}") from error
    try:
        inside = region.contains_sky(catalog_column(table, "ra"), catalog_column(table, "dec"))
    except CatalogError as error:
        raise CatalogError(f"{path}: {error}") from error
    return table[inside]


def _require_usable(
    survey: "Survey", bands: Sequence[str] | None, folder: Path, catalog: Any
) -> None:
    """Refuse bands that are not there, and sources without PSFs."""
    for band in bands or ():
        if band not in survey.bands:
            by_case = {name.upper(): name for name in survey.bands}
            near = [by_case[name] for name in get_close_matches(band.upper(), by_case, n=3)]
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            known = ", ".join(survey.bands) or "none"
            raise NotInStoreError(f"{folder}: no band {band!r}; it has {known}{hint}")
    if catalog is not None and len(catalog) and survey.psf is None:
        raise MissingStoreError(
            f"{folder / 'psf.h5'}: no such PSF store, but the catalogue has {len(catalog)} sources"
            " here; add PSFs with fpgpu.PSFStore.add_psf, or leave --catalog out for pixels alone"
        )


def _require_exposures(survey: "Survey", plan: "PatchPlan", bands: Sequence[str] | None) -> None:
    """Refuse a place where there are no exposures, and say where there are some."""
    if plan.exposures:
        return
    band, expID = next(iter(survey.meta))
    nx, ny = survey.pixels.shape
    ra, dec = survey.meta.sky_wcs(band, expID).pixel_to_world((nx - 1) / 2, (ny - 1) / 2)
    raise PlanError(
        f"no exposure of {', '.join(bands or survey.bands)} is in {plan.region!r}; the first of"
        f" all {survey.meta.nexp}, {band}/{expID}, is around ra {ra:.5f}, dec {dec:.5f}"
    )


def _flux_units(survey: "Survey", plan: "PatchPlan") -> str:
    """Units of the pixels: those that the exposures have in common, or all of them."""
    found = [survey.pixels.record(e.band, e.expID).flux_units for e in plan.exposures]
    return ", ".join(dict.fromkeys(found))


def _plot(prefix: str, survey: "Survey", patch: "Patch", units: str) -> list[str]:
    """Write the pictures."""
    from fpgpu import plots

    plan = patch.plan
    data, ierr = patch.retrieve("data"), patch.retrieve("ierr")
    figures = (
        plots.plot_footprints(survey.meta, plan),
        plots.plot_superpixels(survey.meta, plan),
        plots.plot_pixels(plan, data, ierr, flux_units=units),
    )
    names = (f"{prefix}_{picture}.png" for picture in PICTURES)
    return [str(plots.save(figure, name)) for figure, name in zip(figures, names, strict=True)]


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
        f" {format_bytes(summary['memory_bytes'])} on {summary['backend']}"
    )
    for path in (summary["out"], *summary["pictures"]):
        print(f"wrote {path}")
