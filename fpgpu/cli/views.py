"""``fpgpu views``: write forcepho's meta.json and meta.asdf as the store is now."""

import argparse

from fpgpu.cli.arguments import FOLDER, add_options

__all__ = ["DESCRIPTION", "EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "write forcepho's meta.json and meta.asdf as the store is now"
DESCRIPTION = (
    "Write meta.json, and meta.asdf where there are gWCS, from the store. Headers that somebody "
    "has changed in meta.json are taken over into the store first."
)
EXAMPLES = """examples:
  fpgpu views stores
  fpgpu views stores --no-asdf     leave out the gWCS, which take some 20 ms for each exposure
"""
OPTIONS = """
--no-asdf  do not write meta.asdf
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_options(parser, FOLDER, OPTIONS)


def run(args: argparse.Namespace) -> int:
    """Write the files."""
    from fpgpu.stores.folder import StoreFolder
    from fpgpu.stores.views import write_views

    write_views(StoreFolder(args.folder).require().pixels, asdf=not args.no_asdf)
    return 0
