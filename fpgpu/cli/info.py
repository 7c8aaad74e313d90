"""What a store folder holds.

Print bands, exposures, sizes, units, kinds of WCS, place and area on the sky of a store folder, and
how deep it is (five standard deviations of the flux within 0.15 arcsec, where a band has its mean
number of exposures, from a sample of the weights); or what was done to each exposure.

options:
  folder --json
  --exposures  what was done to each exposure: its files, options, factors, masked pixels, WCS
  --out FILE   with --exposures: write all of it to a table, .ecsv, .fits or .json

examples:
  fpgpu info stores
  fpgpu info stores --json
  fpgpu info stores --exposures
  fpgpu info stores --exposures --out exposures.ecsv
"""

from argparse import Namespace

import numpy as np

from fpgpu.cli.console import Result, format_bytes, format_table
from fpgpu.depth import aperture_ivar, limiting_magnitude
from fpgpu.errors import FpgpuError
from fpgpu.plots.skyplane import mean_position
from fpgpu.sky.sphere import separation
from fpgpu.stores.exposures import as_dicts, exposure_records, write_records
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.summary import BandSummary, summarize

PRINTED = (
    "band", "expID", "reader", "flux_factor", "flux_units", "wcs", "sip_residual_px", "n_masked",
    "masked_nonfinite_flux", "masked_bad_err", "masked_flagged", "bitmask", "input_size", "date",
)  # fmt: skip
"""Columns for a terminal; a file gets all of them."""

SAMPLED = 20
"""Exposures of a band that its depth is taken from."""


def run(args: Namespace) -> Result:
    """Summarize; the code is 1 when pixel and meta store do not hold the same exposures."""
    if args.exposures or args.out is not None:
        return _exposures(args)
    summary, files = summarize(args.folder), StoreFolder(args.folder)
    with PixelStore(files.pixels, mode="r") as pixels, MetaStore(files.meta) as meta:
        meta.image_shape = pixels.shape
        place = _place(meta)
        depths = {band.name: _depth(pixels, band) for band in summary.bands}
    told = {**summary.as_dict(), **place, "depth_ab": depths}
    (nx, ny), size = summary.shape, summary.super_pixel_size
    lines = [
        f"{summary.folder}: {summary.n_exposures} exposures of {nx}x{ny} pixels, bands: "
        f"{len(summary.bands)}, super-pixels of {size}x{size}, {format_bytes(summary.n_bytes)}"
    ]
    if place:
        around = "around ra {ra:.5f}, dec {dec:+.5f}, within {radius_arcmin:.3g} arcmin"
        lines.append(around.format(**place))
    header = ["band", "exposures", "units", "WCS", "sky arcmin2", "exposures arcmin2", "5 sigma AB"]
    rows = [
        [
            *(band.name, band.n_exposures, ", ".join(band.units)),
            ", ".join(f"{n} {kind}" for kind, n in band.wcs.items()),
            *(round(band.sky_arcmin2, 4), round(band.exposures_arcmin2, 4)),
            _printable(depths[band.name]),
        ]
        for band in summary.bands
    ]
    lines.append(format_table(header, rows))
    if summary.psf_bands:
        lines.append(f"PSFs for {', '.join(summary.psf_bands)}")
    for where, names in summary.disagreements().items():
        lines.append(f"only in {where}: {', '.join(names)}")
    return Result("\n".join(lines), told, code=not summary.consistent)


def _place(meta: MetaStore) -> dict[str, float]:
    """Where on the sky the exposures are: a circle around all of them."""
    outlines = [meta.footprint(*key) for key in meta]
    if not outlines:
        return {}
    ra, dec = mean_position(outlines)
    radius = float(separation(ra, dec, *np.concatenate(outlines).T).max())
    return {"ra": ra, "dec": dec, "radius_arcmin": 60 * radius}


def _depth(pixels: PixelStore, band: BandSummary) -> float | None:
    """Limiting magnitude of a band where it has its mean number of exposures."""
    if not band.sky_arcmin2:
        return None
    area = 3600 * band.exposures_arcmin2 / band.n_exposures
    try:
        expIDs = pixels.exposures(band.name)[:: 1 + band.n_exposures // SAMPLED]
        ivar = [aperture_ivar(pixels, (band.name, expID), area) for expID in expIDs]
    except FpgpuError:  # other units; or damage, which fpgpu verify is for
        return None
    n_mean = band.exposures_arcmin2 / band.sky_arcmin2
    depth = float(limiting_magnitude(n_mean * np.mean(ivar)))
    return round(depth, 2) if np.isfinite(depth) else None


def _exposures(args: Namespace) -> Result:
    """Show the records of the exposures, or write them to a file."""
    table = exposure_records(args.folder)
    if args.out is not None:
        write_records(table, args.out)
        return Result(f"{len(table)} exposures, {len(table.colnames)} columns in {args.out}")
    records = as_dicts(table)
    columns = [name for name in PRINTED if name in table.colnames]
    rows = [[_printable(record[name]) for name in columns] for record in records]
    return Result(format_table([name.replace("_", " ") for name in columns], rows), records)


def _printable(value: object) -> object:
    return "-" if value is None else value
