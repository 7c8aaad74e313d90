"""``fpgpu ds9``: footprints, a region and sources as a region file for DS9."""

import argparse
import sys
from pathlib import Path

from fpgpu.cli import circle
from fpgpu.cli.arguments import FOLDER, add_options
from fpgpu.errors import StoreConflictError, StoreWriteError, UsageError

__all__ = ["DESCRIPTION", "EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "footprints, a region and sources as a region file for DS9"
DESCRIPTION = (
    "Write the footprints of the exposures as polygons, with names, and a tag for each band; with"
    " a circle, only those that touch it; with a catalogue, its sources as points."
)
EXAMPLES = """examples:
  fpgpu ds9 stores --out survey.reg
  fpgpu ds9 stores --ra 53.16 --dec -27.79 --radius 3 --catalog sources.fits --out region.reg
  fpgpu ds9 stores --bands F200W --frame icrs
"""
OPTIONS = """
--frame {fk5,icrs}  coordinates (default: fk5)
--out FILE          the file to write (default: standard output)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_options(parser, FOLDER)
    circle.add_circle(parser, required=False)
    circle.add_bands(parser)
    circle.add_catalog(parser, "table with columns ra and dec in degrees; needs a circle")
    add_options(parser, OPTIONS, frame={"default": "fk5"})


def run(args: argparse.Namespace) -> int:
    """Write the region file.

    Gives 0; whatever goes wrong is an error.
    """
    from fpgpu.plots.ds9 import ds9_regions
    from fpgpu.stores.folder import StoreFolder
    from fpgpu.stores.meta import MetaStore
    from fpgpu.stores.names import each_band
    from fpgpu.stores.pixel import PixelStore

    circle.require_whole(args)
    if args.out is not None and args.out.is_file() and not _is_replaceable(args.out):
        raise StoreConflictError(
            f"{args.out}: exists and is no region file; choose another name, or remove it first"
        )
    if args.catalog is not None and args.radius is None:
        raise UsageError("--catalog takes the sources of a circle: give --ra, --dec, --radius, too")
    place = StoreFolder(args.folder).require()
    with MetaStore(place.meta) as meta, PixelStore(place.pixels, mode="r") as pixels:
        meta.image_shape = pixels.shape
        region = catalog = None
        bands = each_band(args.bands or meta.bands, meta.bands, args.folder)
        keys = [(band, expID) for band in bands for expID in meta.exposures(band)]
        if args.radius is not None:
            region = circle.region_of(args)
            keys = meta.exposures_touching(region, bands)
            catalog = circle.sources_near(args, region)
        text = ds9_regions(
            meta,
            exposures=keys,
            regions=() if region is None else (region,),
            catalog=catalog,
            frame=args.frame,
        )
    if args.out is None:
        sys.stdout.write(text)
        return 0
    try:
        args.out.write_text(text)
    except OSError as error:
        raise StoreWriteError(f"{args.out}: cannot be written: {error.strerror}") from error
    print(f"wrote {args.out}: {len(keys)} footprints")
    return 0


def _is_replaceable(path: Path) -> bool:
    """Whether a file is empty or for DS9."""
    with path.open("rb") as file:
        return file.read(13) in {b"", b"# Region file"}
