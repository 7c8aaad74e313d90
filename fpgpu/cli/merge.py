"""``fpgpu merge``: put the exposures of several store folders into one."""

import argparse

from fpgpu.cli.arguments import JSON, add_options
from fpgpu.cli.console import counted, print_json

__all__ = ["DESCRIPTION", "EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "put the exposures of several store folders into one"
DESCRIPTION = (
    "Copy the exposures of store folders, with their headers and PSFs, into one folder, in which "
    "all appear in one instant. The folders that are merged are not changed. What is in several of "
    "them and differs is refused."
)
EXAMPLES = """examples:
  fpgpu merge north south --out stores
  fpgpu merge update --out stores --replace
"""
OPTIONS = """
folders DIR  store folders
--out DIR    the folder to add to
--replace    where exposures or PSFs differ, take those of the last folder that has them
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_options(parser, OPTIONS, JSON, folders={"nargs": "+"}, out={"required": True})


def run(args: argparse.Namespace) -> int:
    """Merge the folders."""
    from fpgpu.stores.upkeep.merge import merge

    with counted(args, "copy", *args.folders) as step:
        done = merge(args.folders, args.out, replace=args.replace, on_progress=step)
    if args.json:
        print_json(done.as_dict())
        return 0
    psfs = f"; PSFs for {', '.join(done.psf_bands)}" if done.psf_bands else ""
    print(f"{done.out}: {len(done.added)} exposures added, {len(done.replaced)} replaced{psfs}")
    return 0
