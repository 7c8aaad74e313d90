"""``fpgpu info``: what a store folder holds."""

import argparse
import json
from pathlib import Path

from fpgpu.cli.console import format_bytes, format_table

__all__ = ["DESCRIPTION", "EXAMPLES", "HELP", "add_arguments", "run"]


HELP = "what a store folder holds"
DESCRIPTION = (
    "Print bands, exposures, sizes, units, kinds of WCS and sky area of a store "
    "folder. Pixels are not read."
)
EXAMPLES = """examples:
  fpgpu info stores
  fpgpu info stores --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The parser of the command.
    """
    parser.add_argument("folder", metavar="DIR", type=Path, help="the store folder")
    parser.add_argument("--json", action="store_true", help="print JSON")


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
    from fpgpu.stores.summary import summarize

    summary = summarize(args.folder)
    if args.json:
        print(json.dumps(summary.as_dict(), indent=2))
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
