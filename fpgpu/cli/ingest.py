"""Put exposures into a store folder.

Read exposures, calibrate and mask them, and add them to a store folder. An exposure that is already
there is replaced. What was reported is durable: a run that was killed is completed by the same line
with --resume.

options:
  files FILE*  exposure files, folders of them, or quoted patterns; those of --config by default
  --out DIR    the store folder; that of --config by default
  --config FILE
               YAML file with files, options for all, and options for some; the command line goes
               before it
  --dry-run    say what would happen, and write nothing
  --json --bitmask --wcs --pad --backend
  --tile N     cut images that are larger than N pixels a side into tiles of this size
  --tile-overlap PIXELS
               pixels that neighbouring tiles share
  --weight {auto,err,ivm,exptime}
               where uncertainties come from; ivm, exptime: what the weights (WHT) are (default:
               errors where there are any, exposure times for drizzled HST images, else ivm)
  --no-fluxcal
               keep the units of the file
  --abmag MAG  AB magnitude of one unit of the images, whatever their headers say
  --pixel-area {auto,header,wcs}
               solid angle of a pixel, for surface brightnesses: PIXAR_SR of the header, or that of
               the WCS; auto takes PIXAR_SR and refuses one that the WCS contradicts
  --no-weight {refuse,store}
               exposures of which no pixel has any weight: refuse them (the default), or store them
               with zero weight
  --framedir DIR
               exposures are named by their path below this folder
  --split-by-detector BAND...
               give each detector module of this filter a band of its own; may be repeated
  --strict     stop at the first exposure that cannot go in
  --resume     leave out exposures that are there and whose files and options have not changed
  --executor WHERE
               who does the work: processes (the default), serial, dask://HOST:PORT, or mpi
  --workers N  processes to start (default: what cores, memory and files suggest)
  --break-lock
               go on although another process seems to change the stores; only if it is dead

where images are: extension, by name or number (from 0); but for --sci, also a file: {stem}_e.fits
  --sci EXT   the science image (default: SCI, the primary image, or the only one)
  --err EXT   uncertainties (default: ERR)
  --wht EXT   weights (default: WHT)
  --mask EXT  data-quality flags (default: DQ; none leaves them out)
  --background EXT
              background to be subtracted (default: BKG; none leaves it out)
  --area EXT  areas of pixels (default: AREA; none leaves them out)

examples:
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

import sys
from argparse import Namespace
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from fpgpu.backends.choose import get_backend
from fpgpu.cli.console import Result, format_table, progress
from fpgpu.errors import UsageError
from fpgpu.ingest.config import IngestConfig, load_config
from fpgpu.ingest.dryrun import plan_ingest
from fpgpu.ingest.inputs import Input
from fpgpu.ingest.pipeline import IngestReport, IngestRow, ingest
from fpgpu.ingest.report import unknown_bands
from fpgpu.stores.summary import disagreements

CONFIGURED = (
    "bitmask", "wcs", "pad", "framedir", "split_by_detector", "tile", "tile_overlap", "weight",
    "abmag", "pixel_area", "no_weight", "sci", "err", "wht", "mask", "background", "area",
)  # fmt: skip
"""Options that a configuration has, too."""


def run(args: Namespace) -> Result:
    """Ingest; the code is 1 when some files did not go in or the stores differ, 2 when none did."""
    items, out = _inputs(args)
    if args.dry_run:
        return _dry_run(args, items, out)
    get_backend(args.backend)  # refused here, not once for each file
    told: set[Path] = set()
    with progress(args, len(items), "ingest") as step:

        def tell(row: IngestRow) -> None:
            if row.status == "refused":
                tqdm.write(f"refused {row.reason}", file=sys.stderr)
            for note in row.notes if not args.quiet else ():
                tqdm.write(f"note {row.file}: {note}", file=sys.stderr)
            # Several exposures of a file are one step.
            if row.file not in told:
                step(row.file.name)
            told.add(row.file)

        asked = ("strict", "backend", "executor", "workers", "resume", "break_lock")
        options = {name: getattr(args, name) for name in asked}
        report = ingest(items, out, on_progress=tell, progress=False, **options)
    for text in report.unknown_bands:
        print(text, file=sys.stderr)
    code = 0 if report.ok else 1
    if not (report.added or report.unchanged):
        code = 2
    else:
        for where, names in disagreements(out).items():
            print(f"only in {where}, ingest them again: {', '.join(names)}", file=sys.stderr)
            code = 1
    return Result(_report(report, args.quiet), report.as_dict(), code)


def _inputs(args: Namespace) -> tuple[list[Input], Path]:
    """Find the inputs and the store folder."""
    config = IngestConfig(Path("command line")) if args.config is None else load_config(args.config)
    out = args.out or config.out
    if out is None:
        raise UsageError("no store folder; give --out DIR, or out in the configuration")
    if not (args.files or config.named):
        raise UsageError("no files; name some, or inputs in the configuration")
    # What was not said on the command line is left to the configuration.
    options = {name: getattr(args, name) for name in CONFIGURED}
    given = {k: value for k, value in options.items() if value is not None and value is not False}
    items = config.inputs(args.files, given | ({"fluxcal": False} if args.no_fluxcal else {}))
    if args.tile_overlap is not None and all(item.options.tile is None for item in items):
        raise UsageError("--tile-overlap is of tiles; give --tile N, too, or tile in --config")
    return items, out


def _report(report: IngestReport, quiet: bool) -> str:
    """Say what became of each exposure and why pixels are masked."""
    parts = []
    if report.added and not quiet:
        columns = ["band", "exposure", "status", "masked %", "WCS", "SIP refit px", "s"]
        rows = [
            [
                *(row.band, row.expID, row.status, round(100 * row.n_masked / row.n_pixels, 3)),
                *(row.wcs_kind, _pixels(row.sip_residual), round(row.seconds, 2)),
            ]
            for row in report.added
        ]
        flags = {f"DQ {flag}": n for flag, n in report.masked_by_flag().items()}
        masked = [
            [name, n, round(100 * n / report.n_pixels, 4)]
            for name, n in (report.masked_by_cause() | flags).items()
        ]
        parts += [
            format_table(columns, rows),
            format_table(["masked because", "pixels", "%"], masked),
        ]
    if not quiet:
        parts += _refusals(report.refused)
    plural = "" if len(report.added) == 1 else "s"
    counts = [f"{len(report.added)} exposure{plural} in {report.out}"]
    if report.unchanged:
        counts.append(f"{len(report.unchanged)} unchanged")
    counts.append(f"{len(report.refused)} refused")
    if report.left_out:
        counts.append(f"{len(report.left_out)} left out")
    return "\n\n".join([*parts, ", ".join(counts)])


def _dry_run(args: Namespace, items: list[Input], out: Path) -> Result:
    """Say what an ingest would do."""
    plan: list[IngestRow] = []
    with progress(args, len(items), "dry run") as step:
        for one in plan_ingest(items, out):
            if not plan or one.file != plan[-1].file:
                step(one.file.name)
            plan.append(one)
    by_status = defaultdict(list)
    for one in plan:
        by_status[one.status].append(one)
    good, refused = by_status["new"] + by_status["replace"], by_status["refused"]
    parts = [_planned(good)] if good and not args.quiet else []
    left_out = f", {len(by_status['left out'])} left out" if by_status["left out"] else ""
    parts += [
        *_refusals(refused),
        f"dry run: {len(by_status['new'])} new and {len(by_status['replace'])} replaced in {out},"
        f" {len(refused)} refused{left_out}; nothing was written",
    ]
    unknown = unknown_bands(items, (one.band for one in plan))
    for text in unknown:
        print(text, file=sys.stderr)
    exposures = [{**asdict(one), "file": str(one.file)} for one in plan]
    told = {"out": str(out), "exposures": exposures, "unknown_bands": unknown}
    return Result("\n\n".join(parts), told, (1 if unknown or refused else 0) if good else 2)


def _planned(plan: list[IngestRow]) -> str:
    """Lay out the exposures that would go in, and what a user should know of them."""
    columns = ["band", "exposure", "would be", "reader", "pixels", "unit", "nJy/unit"]
    columns += ["errors", "bad flags", "WCS", "refit px"]
    rows, by_note = [], defaultdict(list)
    for one in plan:
        factor = f"{one.flux_factor:.6g}" if one.flux_units == "nJy" else f"1 ({one.flux_units})"
        rows.append(
            [
                *(one.band, one.expID, one.status, one.reader, one.n_pixels, one.file_unit or "-"),
                *(factor, one.uncertainties, ",".join(one.bad_flags) or "-", one.wcs_kind),
                _pixels(one.sip_residual),
            ]
        )
        for note in one.notes:
            by_note[note].append(str(one.file))
    text = format_table(columns, rows)
    for note, files in by_note.items():
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        text += f"\nnote {files[0]}{more}: {note}"
    return text


def _pixels(residual: float | None) -> str:
    return "-" if residual is None else f"{residual:.1e}"


def _refusals(rows: Sequence[IngestRow]) -> list[str]:
    """Lay out what was refused, without saying the file twice."""
    cells = [
        [
            f"{row.file} {row.band}/{row.expID}" if row.expID else str(row.file),
            row.reason.removeprefix(f"{row.file.absolute()}: ").removeprefix(f"{row.file}: "),
        ]
        for row in rows
    ]
    return [format_table(["refused", "because"], cells)] if rows else []
