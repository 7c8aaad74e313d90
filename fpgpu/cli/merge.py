"""Put the exposures of several store folders into one.

Copy the exposures of store folders, with their headers and PSFs, into one folder, in which all
appear in one instant. The folders that are merged are not changed. What is in several of them and
differs is refused.

options:
  folders DIR+  store folders
  --out DIR     the folder to add to (required)
  --replace     where exposures or PSFs differ, take those of the last folder that has them
  --json

examples:
  fpgpu merge north south --out stores
  fpgpu merge update --out stores --replace
"""

from argparse import Namespace

from fpgpu.cli.console import Result, counted
from fpgpu.stores.upkeep.merge import merge


def run(args: Namespace) -> Result:
    """Merge the folders."""
    with counted(args, "copy", *args.folders) as step:
        done = merge(args.folders, args.out, replace=args.replace, on_progress=step)
    psfs = f"; PSFs for {', '.join(done.psf_bands)}" if done.psf_bands else ""
    counts = f"{len(done.added)} exposures added, {len(done.replaced)} replaced"
    return Result(f"{done.out}: {counts}{psfs}", done.as_dict())
