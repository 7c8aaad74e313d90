"""``fpgpu merge``: put the exposures of several store folders into one."""

import argparse

from fpgpu.cli.arguments import add_json, add_option
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The parser of the command.
    """
    add_option(parser, "folders", "DIR", "store folders", nargs="+")
    add_option(parser, "--out", "DIR", "the folder to add to", required=True)
    add_option(
        parser,
        "--replace",
        None,
        "where exposures or PSFs differ, take those of the last folder that has them",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Merge the folders.

    Parameters
    ----------
    args : argparse.Namespace
        The parsed arguments.

    Returns
    -------
    int
        0.
    """
    from fpgpu.stores.upkeep.merge import merge

    with counted(args, "copy", *args.folders) as step:
        done = merge(args.folders, args.out, replace=args.replace, on_progress=step)
    if args.json:
        print_json(done.as_dict())
        return 0
    psfs = f"; PSFs for {', '.join(done.psf_bands)}" if done.psf_bands else ""
    print(f"{done.out}: {len(done.added)} exposures added, {len(done.replaced)} replaced{psfs}")
    return 0
