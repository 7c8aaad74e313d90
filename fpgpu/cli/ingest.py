"""``fpgpu ingest``: put exposure files into a store folder."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fpgpu.cli.arguments import JSON, READING, add_backend, add_options
from fpgpu.cli.console import Progress, format_table, print_json
from fpgpu.cli.dryrun import run_dry
from fpgpu.errors import UsageError

if TYPE_CHECKING:
    from fpgpu.ingest.inputs import Input
    from fpgpu.ingest.pipeline import IngestReport, IngestRow

__all__ = ["DESCRIPTION", "EXAMPLES", "HELP", "add_arguments", "print_report", "run"]

HELP = "put exposures into a store folder"
DESCRIPTION = (
    "Read exposures, calibrate and mask them, and add them to a store folder. "
    "An exposure that is already there is replaced. What was reported is durable: a run that was "
    "killed is completed by the same line with --resume."
)
EXAMPLES = """examples:
  fpgpu ingest jw*_cal.fits --out stores
  fpgpu ingest cutout_cal.fits --out stores --wcs fits --pad
  fpgpu ingest *_cal.fits --out stores --bitmask DO_NOT_USE,SATURATED
  fpgpu ingest *_flc.fits mosaic_drz_sci.fits --out stores --tile 2048 --tile-overlap 64
  fpgpu ingest unnamed.fits --out stores --sci 1 --err 2
  fpgpu ingest --config survey.yaml --dry-run
  fpgpu ingest *_cal.fits --out stores --resume
  fpgpu ingest *_cal.fits --out stores --executor dask://scheduler:8786
  mpiexec -n 17 python -m mpi4py.futures -m fpgpu ingest *_cal.fits --out stores --executor mpi
"""
OPTIONS = """
files FILE  exposure files, folders of them, or quoted patterns; those of --config by default
--out DIR   the store folder; that of --config by default
--config FILE
            YAML file with files, options for all, and options for some; the command line goes
            before it
--dry-run   say what would happen, and write nothing
"""
MEANING = """
--tile N          cut images that are larger than N pixels a side into tiles of this size
--tile-overlap N  pixels that neighbouring tiles share
--weight {auto,err,ivm,exptime}
                  where uncertainties come from; ivm, exptime: what the weights (WHT) are (default:
                  errors where there are any, exposure times for drizzled HST images, else ivm)
--no-fluxcal      keep the units of the file
--abmag MAG       AB magnitude of one unit of the images, whatever their headers say
--pixel-area {auto,header,wcs}
                  solid angle of a pixel, for surface brightnesses: PIXAR_SR of the header, or that
                  of the WCS; auto takes PIXAR_SR and refuses one that the WCS contradicts
--no-weight {refuse,store}
                  exposures of which no pixel has any weight: refuse them (the default), or store
                  them with zero weight
"""
IMAGES = """
--sci EXT   the science image (default: SCI, the primary image, or the only one)
--err EXT   uncertainties (default: ERR)
--wht EXT   weights (default: WHT)
--mask EXT  data-quality flags (default: DQ; none leaves them out)
--background EXT
            background to be subtracted (default: BKG; none leaves it out)
--area EXT  areas of pixels (default: AREA; none leaves them out)
"""
WORK = """
--framedir DIR  exposures are named by their path below this folder
--split-by-detector BAND
                give each detector module of this filter a band of its own; may be repeated
--strict        stop at the first exposure that cannot go in
--resume        leave out exposures that are there and whose files and options have not changed
--executor WHERE
                who does the work: processes (the default), serial, dask://HOST:PORT, or mpi
--workers N     processes to start (default: what cores, memory and files suggest)
--break-lock    go on although another process seems to change the stores; only if it is dead
"""
GIVEN = (
    "bitmask", "wcs", "pad", "framedir", "split_by_detector", "fluxcal", "tile", "tile_overlap",
    "weight", "abmag", "pixel_area", "no_weight", "sci", "err", "wht", "mask", "background", "area",
)  # fmt: skip
"""Options that a configuration has, too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_options(parser, OPTIONS, JSON, READING, files={"nargs": "*"})
    add_backend(parser, "pixels are calibrated")
    fluxcal = {"dest": "fluxcal", "action": "store_false"}
    add_options(parser, MEANING, tile_overlap={"type": int}, no_fluxcal=fluxcal)
    group = parser.add_argument_group(
        "where images are",
        "name of an extension, or its number from 0 on; but for --sci, also a file: {stem}_e.fits",
    )
    add_options(group, IMAGES)
    add_options(parser, WORK, split_by_detector={"action": "append"})
    # What was not said on the command line is left to the configuration.
    parser.set_defaults(wcs=None, pad=None, fluxcal=None)


def run(args: argparse.Namespace) -> int:
    """Ingest the files.

    Gives 0 when every file went in and the stores agree, 1 when some did not, 2 when none did.
    """
    from fpgpu.backends.choose import get_backend
    from fpgpu.ingest.pipeline import ingest

    items, out = _inputs(args)
    if args.dry_run:
        return run_dry(items, out, as_json=args.json, quiet=args.quiet)
    get_backend(args.backend)  # refused here, not once for each file
    with Progress(len(items), "ingest", enabled=not (args.quiet or args.json)) as progress:
        told: set[Path] = set()

        def report_row(row: "IngestRow") -> None:
            if row.status == "refused":
                progress.problem(f"refused {row.reason}")
            for note in row.notes if not args.quiet else ():
                progress.problem(f"note {row.file}: {note}")
            # Several exposures of a file are one step.
            if row.file not in told:
                progress.step(row.file.name)
            told.add(row.file)

        report = ingest(
            items,
            out,
            on_progress=report_row,
            progress=False,
            strict=args.strict,
            backend=args.backend,
            executor=args.executor,
            workers=args.workers,
            resume=args.resume,
            break_lock=args.break_lock,
        )
    if args.json:
        print_json(report.as_dict())
    else:
        print_report(report, quiet=args.quiet)
    for text in report.unknown_bands:
        print(text, file=sys.stderr)
    if not (report.added or report.unchanged):
        return 2
    return 1 if _print_disagreements(report.out) or not report.ok else 0


def _inputs(args: argparse.Namespace) -> "tuple[list[Input], Path]":
    """Find the inputs and the store folder."""
    from fpgpu.ingest.config import IngestConfig, load_config

    config = IngestConfig(Path("command line")) if args.config is None else load_config(args.config)
    out = args.out or config.out
    if out is None:
        raise UsageError("no store folder; give --out DIR, or out in the configuration")
    if not (args.files or config.named):
        raise UsageError("no files; name some, or inputs in the configuration")
    given = {name: value for name in GIVEN if (value := getattr(args, name)) is not None}
    items = config.inputs(args.files, given)
    if args.tile_overlap is not None and all(item.options.tile is None for item in items):
        raise UsageError("--tile-overlap is of tiles; give --tile N, too, or tile in --config")
    return items, out


def print_report(report: "IngestReport", quiet: bool = False) -> None:
    """Print what became of each exposure and why pixels are masked."""
    rows = report.added
    if rows and not quiet:
        print(
            format_table(
                ["band", "exposure", "status", "masked %", "WCS", "SIP refit px", "s"],
                [
                    [
                        row.band,
                        row.expID,
                        row.status,
                        round(100 * row.n_masked / row.n_pixels, 3),
                        row.wcs_kind,
                        "-" if row.sip_residual is None else f"{row.sip_residual:.1e}",
                        round(row.seconds, 2),
                    ]
                    for row in rows
                ],
            )
        )
        print()
        print(format_table(["masked because", "pixels", "%"], _mask_rows(report)))
        print()
    if report.refused and not quiet:
        print(format_table(["refused", "because"], [_refusal(row) for row in report.refused]))
        print()
    plural = "" if len(rows) == 1 else "s"
    counts = [f"{len(rows)} exposure{plural} in {report.out}", f"{len(report.refused)} refused"]
    if report.unchanged:
        counts.insert(1, f"{len(report.unchanged)} unchanged")
    if report.left_out:
        counts.append(f"{len(report.left_out)} left out")
    print(", ".join(counts))


def _refusal(row: "IngestRow") -> list[object]:
    """Name what was refused, without saying the file twice."""
    what = f"{row.file} {row.band}/{row.expID}" if row.expID else str(row.file)
    return [what, row.reason.removeprefix(f"{row.file.absolute()}: ")]


def _print_disagreements(folder: Path) -> bool:
    """Print exposures that only one store of the folder holds; tell whether there are any."""
    from fpgpu.stores.summary import disagreements

    found = disagreements(folder)
    for where, names in found.items():
        print(f"only in {where}, ingest them again: {', '.join(names)}", file=sys.stderr)
    return bool(found)


def _mask_rows(report: "IngestReport") -> list[list[object]]:
    """Rows of the table of reasons for masking, then of the DQ flags that did it, over all."""
    counts = report.masked_by_cause() | {
        f"DQ {flag}": n for flag, n in report.masked_by_flag().items()
    }
    return [[name, n, round(100 * n / report.n_pixels, 4)] for name, n in counts.items()]
