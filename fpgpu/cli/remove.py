"""``fpgpu remove``: take exposures out of a store folder."""

import argparse

from fpgpu.cli.arguments import FOLDER, JSON, add_options
from fpgpu.cli.console import print_json

__all__ = ["DESCRIPTION", "EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "take exposures out of a store folder"
DESCRIPTION = (
    "Take exposures out of the pixel store and the meta store in one instant. A pattern that "
    "matches nothing is refused, and then nothing is removed."
)
EXAMPLES = """examples:
  fpgpu remove stores F200W/jw01180_nrca1_cal
  fpgpu remove stores 'F200W/*_nrca1_*' --dry-run
"""
OPTIONS = """
patterns BAND/EXPID
           exposures, or patterns of them with *, ? and [...]; * matches slashes, too
--dry-run  only tell what would be removed
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_options(parser, FOLDER, OPTIONS, JSON, patterns={"nargs": "+"})


def run(args: argparse.Namespace) -> int:
    """Remove the exposures."""
    from fpgpu.stores.upkeep.remove import remove

    names = ["/".join(key) for key in remove(args.folder, args.patterns, dry_run=args.dry_run)]
    if args.json:
        print_json({"removed": names, "dry_run": args.dry_run})
        return 0
    for name in names:
        print(name)
    if not args.quiet:
        count = "1 exposure" if len(names) == 1 else f"{len(names)} exposures"
        print(f"{'would be removed' if args.dry_run else 'removed'}: {count}")
    return 0
