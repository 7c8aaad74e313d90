"""Footprints, a region and sources as a region file for DS9.

Write the footprints of the exposures as polygons, with names, and a tag for each band; with a
circle, only those that touch it; with a catalogue, its sources as points.

options:
  folder
  --ra --dec --radius --bands
  --catalog FITS      table with columns ra and dec in degrees; needs a circle
  --margin
  --frame {fk5,icrs}  coordinates [default: fk5]
  --out FILE          the file to write (default: standard output)

examples:
  fpgpu ds9 stores --out survey.reg
  fpgpu ds9 stores --ra 53.16 --dec -27.79 --radius 3 --catalog sources.fits --out region.reg
  fpgpu ds9 stores --bands F200W --frame icrs
"""

from argparse import Namespace
from pathlib import Path

from fpgpu.catalog import select_sources
from fpgpu.cli import circle
from fpgpu.cli.console import Result
from fpgpu.errors import StoreConflictError, StoreWriteError, UsageError
from fpgpu.plots import ds9_regions
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.names import each_band
from fpgpu.stores.pixel import PixelStore


def run(args: Namespace) -> Result:
    """Write the region file."""
    if args.catalog is not None and args.radius is None:
        raise UsageError("--catalog takes the sources of a circle: give --ra, --dec, --radius, too")
    region = circle.region_of(args) if circle.has_circle(args) else None
    if args.out is not None and args.out.is_file() and not _is_replaceable(args.out):
        raise StoreConflictError(
            f"{args.out}: exists and is no region file; choose another name, or remove it first"
        )
    place, catalog = StoreFolder(args.folder).require(), None
    with MetaStore(place.meta) as meta, PixelStore(place.pixels, mode="r") as pixels:
        meta.image_shape = pixels.shape
        bands = each_band(args.bands or meta.bands, meta.bands, args.folder)
        if region is None:
            keys = [(band, expID) for band in bands for expID in meta.exposures(band)]
        else:
            keys = meta.exposures_touching(region, bands)
            if args.catalog is not None:
                catalog = select_sources(args.catalog, region, circle.arcsec(args.margin))
        text = ds9_regions(
            meta, exposures=keys, regions=region or (), catalog=catalog, frame=args.frame
        )
    if args.out is None:
        return Result(text.rstrip("\n"))
    try:
        args.out.write_text(text)
    except OSError as error:
        raise StoreWriteError(f"{args.out}: cannot be written: {error.strerror}") from error
    return Result(f"wrote {args.out}: {len(keys)} footprints")


def _is_replaceable(path: Path) -> bool:
    """Whether a file is empty or for DS9."""
    with path.open("rb") as file:
        return file.read(13) in {b"", b"# Region file"}
