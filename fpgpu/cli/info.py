"""``fpgpu info``: what a store folder holds."""

import argparse

from fpgpu.cli.arguments import add_folder, add_json, path_name
from fpgpu.cli.console import format_bytes, format_table, print_json

__all__ = ["DESCRIPTION", "EXAMPLES", "HELP", "add_arguments", "run"]


HELP = "what a store folder holds"
DESCRIPTION = (
    "Print bands, exposures, sizes, units, kinds of WCS and sky area of a store "
    "folder, or what was done to each exposure. Pixels are not read."
)
EXAMPLES = """examples:
  fpgpu info stores
  fpgpu info stores --json
  fpgpu info stores --exposures
  fpgpu info stores --exposures --out exposures.ecsv
"""

PRINTED = (
    "band", "expID", "reader", "flux_factor", "flux_units", "wcs", "sip_residual_px", "n_masked",
    "masked_nonfinite_flux", "masked_bad_err", "masked_flagged", "bitmask", "input_size", "date",
)  # fmt: skip
"""Columns for a terminal; a file gets all of them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The parser of the command.
    """
    add_folder(parser)
    add_json(parser)
    parser.add_argument(
        "--exposures",
        action="store_true",
        help="what was done to each exposure: its files, options, factors, masked pixels, WCS",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=path_name,
        help="with --exposures: write all of it to a table, .ecsv, .fits or .json",
    )


def run(args: argparse.Namespace) -> int:
    """Print the summary.

    Parameters
    ----------
    args : argparse.Namespace
        The parsed arguments.

    Returns
    -------
    int
        0, or 1 when pixel and meta store do not hold the same exposures.
    """
    if args.exposures or args.out is not None:
        return _show_exposures(args)
    from fpgpu.stores.summary import summarize

    summary = summarize(args.folder)
    if args.json:
        print_json(summary.as_dict())
        return 0 if summary.consistent else 1
    (nx, ny), size = summary.shape, summary.super_pixel_size
    print(
        f"{summary.folder}: {summary.n_exposures} exposures of {nx}x{ny} pixels, bands: "
        f"{len(summary.bands)}, super-pixels of {size}x{size}, {format_bytes(summary.n_bytes)}"
    )
    print(
        format_table(
            ["band", "exposures", "units", "WCS", "sky arcmin2", "exposures arcmin2"],
            [
                [
                    band.name,
                    band.n_exposures,
                    ", ".join(band.units),
                    ", ".join(f"{n} {kind}" for kind, n in band.wcs.items()),
                    round(band.sky_arcmin2, 4),
                    round(band.exposures_arcmin2, 4),
                ]
                for band in summary.bands
            ],
        )
    )
    if summary.psf_bands:
        print(f"PSFs for {', '.join(summary.psf_bands)}")
    for where, names in summary.disagreements().items():
        print(f"only in {where}: {', '.join(names)}")
    return 0 if summary.consistent else 1


def _show_exposures(args: argparse.Namespace) -> int:
    """Print the records of the exposures, or write them to a file."""
    from fpgpu.stores.exposures import as_dicts, exposure_records, write_records

    table = exposure_records(args.folder)
    if args.out is not None:
        write_records(table, args.out)
        print(f"{len(table)} exposures, {len(table.colnames)} columns in {args.out}")
    elif args.json:
        print_json(as_dicts(table))
    else:
        columns = [name for name in PRINTED if name in table.colnames]
        rows = [[_printable(row[name]) for name in columns] for row in as_dicts(table)]
        print(format_table([name.replace("_", " ") for name in columns], rows))
    return 0


def _printable(value: object) -> object:
    return "-" if value is None else value
