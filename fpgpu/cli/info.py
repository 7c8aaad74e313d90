"""``fpgpu info``: what a store folder holds."""

import argparse
from typing import TYPE_CHECKING

from fpgpu.cli.arguments import FOLDER, JSON, add_options
from fpgpu.cli.console import format_bytes, format_table, print_json
from fpgpu.errors import FpgpuError

if TYPE_CHECKING:
    from fpgpu.stores.meta import MetaStore
    from fpgpu.stores.pixel import PixelStore
    from fpgpu.stores.summary import BandSummary

__all__ = ["DESCRIPTION", "EXAMPLES", "HELP", "add_arguments", "run"]


HELP = "what a store folder holds"
DESCRIPTION = (
    "Print bands, exposures, sizes, units, kinds of WCS, place and area on the sky "
    "of a store folder, and how deep it is (five standard deviations of the flux within 0.15 "
    "arcsec, where a band has its mean number of exposures, from a sample of the weights); or what "
    "was done to each exposure."
)
EXAMPLES = """examples:
  fpgpu info stores
  fpgpu info stores --json
  fpgpu info stores --exposures
  fpgpu info stores --exposures --out exposures.ecsv
"""
OPTIONS = """
--exposures  what was done to each exposure: its files, options, factors, masked pixels, WCS
--out FILE   with --exposures: write all of it to a table, .ecsv, .fits or .json
"""

PRINTED = (
    "band", "expID", "reader", "flux_factor", "flux_units", "wcs", "sip_residual_px", "n_masked",
    "masked_nonfinite_flux", "masked_bad_err", "masked_flagged", "bitmask", "input_size", "date",
)  # fmt: skip
"""Columns for a terminal; a file gets all of them."""

SAMPLED = 20
"""Exposures of a band that its depth is taken from."""

DEPTH = "5 sigma AB"
"""Of the flux within 0.15 arcsec, where a band has its mean number of exposures."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_options(parser, FOLDER, JSON, OPTIONS)


def run(args: argparse.Namespace) -> int:
    """Print the summary.

    Gives 0, or 1 when pixel and meta store do not hold the same exposures.
    """
    if args.exposures or args.out is not None:
        return _show_exposures(args)
    from fpgpu.stores.folder import StoreFolder
    from fpgpu.stores.meta import MetaStore
    from fpgpu.stores.pixel import PixelStore
    from fpgpu.stores.summary import summarize

    summary = summarize(args.folder)
    files = StoreFolder(args.folder)
    with PixelStore(files.pixels, mode="r") as pixels, MetaStore(files.meta) as meta:
        meta.image_shape = pixels.shape
        place = _place(meta)
        depths = {band.name: _depth(pixels, band) for band in summary.bands}
    if args.json:
        print_json({**summary.as_dict(), **place, "depth_ab": depths})
        return 0 if summary.consistent else 1
    (nx, ny), size = summary.shape, summary.super_pixel_size
    print(
        f"{summary.folder}: {summary.n_exposures} exposures of {nx}x{ny} pixels, bands: "
        f"{len(summary.bands)}, super-pixels of {size}x{size}, {format_bytes(summary.n_bytes)}"
    )
    if place:
        print(
            "around ra {ra:.5f}, dec {dec:+.5f}, within {radius_arcmin:.3g} arcmin".format(**place)
        )
    print(
        format_table(
            ["band", "exposures", "units", "WCS", "sky arcmin2", "exposures arcmin2", DEPTH],
            [
                [
                    band.name,
                    band.n_exposures,
                    ", ".join(band.units),
                    ", ".join(f"{n} {kind}" for kind, n in band.wcs.items()),
                    round(band.sky_arcmin2, 4),
                    round(band.exposures_arcmin2, 4),
                    _printable(depths[band.name]),
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


def _place(meta: "MetaStore") -> dict[str, float]:
    """Where on the sky the exposures are: a circle around all of them."""
    import numpy as np

    from fpgpu.sky.sphere import positions, separation, unit_vectors

    outlines = [meta.footprint(*key) for key in meta]
    if not outlines:
        return {}
    ra, dec = np.concatenate(outlines).T
    centre = positions(unit_vectors(ra, dec).mean(axis=0))
    radius = float(separation(*centre, ra, dec).max())
    return {"ra": float(centre[0]), "dec": float(centre[1]), "radius_arcmin": 60 * radius}


def _depth(pixels: "PixelStore", band: "BandSummary") -> float | None:
    """Limiting magnitude of a band where it has its mean number of exposures."""
    from fpgpu.depth import aperture_ivar, limiting_magnitude

    if not band.sky_arcmin2:
        return None
    area = 3600 * band.exposures_arcmin2 / band.n_exposures
    try:
        expIDs = pixels.exposures(band.name)[:: 1 + band.n_exposures // SAMPLED]
        ivar = [aperture_ivar(pixels, (band.name, expID), area) for expID in expIDs]
    except FpgpuError:  # other units; or damage, which fpgpu verify is for
        return None
    n_mean = band.exposures_arcmin2 / band.sky_arcmin2
    depth = float(limiting_magnitude(n_mean * sum(ivar) / len(ivar)))
    return round(depth, 2) if depth == depth else None


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
