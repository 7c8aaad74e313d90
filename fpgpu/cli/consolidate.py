"""``fpgpu consolidate``: one file, or a file per exposure."""

import argparse
from functools import partial

from fpgpu.cli.arguments import FOLDER, JSON, add_options
from fpgpu.cli.console import counted, format_bytes, print_json
from fpgpu.errors import UsageError

__all__ = ["DESCRIPTION", "EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "put a store into one file, or give each exposure its own"
DESCRIPTION = (
    "Put all exposures of a store folder into one file, or, with --shard, give each a file of its "
    "own. Values stay the same, bit for bit, and are compared with their checksums. The old files, "
    "and those of exposures that were replaced, stay for a week for those who have the store open."
)
EXAMPLES = """examples:
  fpgpu consolidate stores
  fpgpu consolidate stores --shard
  fpgpu consolidate stores --now       without keeping the old files for a week
"""
OPTIONS = """
--shard  give each exposure a file of its own
--now    remove the old files at once; who has the store open must open it again
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_options(parser, FOLDER, OPTIONS, JSON)


def run(args: argparse.Namespace) -> int:
    """Change the form of the store."""
    from fpgpu.stores.upkeep.forms import consolidate, split

    if args.now and args.shard:
        raise UsageError("--now is for one file; leave --shard or --now out")
    change = split if args.shard else partial(consolidate, now=args.now)
    with counted(args, "copy", args.folder) as step:
        done = change(args.folder, on_progress=step)
    if args.json:
        print_json(done.as_dict())
    else:
        form = "one file" if done.form == "single" else "a file per exposure"
        print(
            f"{done.folder}: {done.n_exposures} exposures in {form}, {done.n_copied} of them "
            f"copied, {format_bytes(done.bytes_before)} before, "
            f"{format_bytes(done.bytes_after)} now"
        )
        if done.n_copied and not args.now:
            print(
                "what they replaced stays for a week, for those who have it open; consolidate "
                "with --now gives its space back at once"
            )
    return 0
