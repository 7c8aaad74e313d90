"""``fpgpu consolidate``: one file, or a file per exposure."""

import argparse

from fpgpu.cli.arguments import add_folder, add_json, count_exposures
from fpgpu.cli.console import Progress, format_bytes, print_json
from fpgpu.errors import UsageError

__all__ = ["DESCRIPTION", "EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "put a store into one file, or give each exposure its own"
DESCRIPTION = (
    "Put all exposures of a store folder into one file, or, with --shard, give each a file of its "
    "own. Values and attributes stay the same, bit for bit, and are compared before the old files "
    "go; the space of exposures that were replaced is given back."
)
EXAMPLES = """examples:
  fpgpu consolidate stores
  fpgpu consolidate stores --shard
  fpgpu consolidate stores --compress zstd     for an archive; forcepho needs hdf5plugin to read it
  fpgpu consolidate stores --compress none     back to the form that is read fastest
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The parser of the command.
    """
    add_folder(parser)
    parser.add_argument("--shard", action="store_true", help="give each exposure a file of its own")
    parser.add_argument(
        "--compress",
        metavar="NAME",
        help="none, gzip, lzf, or, with the package hdf5plugin, zstd, lz4, blosc, bitshuffle; "
        "values stay stored as they are when not given",
    )
    parser.add_argument("--level", metavar="N", type=int, help="how hard to compress, 1 to 9")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Change the form of the store.

    Parameters
    ----------
    args : argparse.Namespace
        The parsed arguments.

    Returns
    -------
    int
        0.

    Raises
    ------
    UsageError
        If a level is given without a compression.
    """
    from fpgpu.stores.hdf5.filters import Compression
    from fpgpu.stores.upkeep.forms import consolidate, split

    if args.level is not None and args.compress is None:
        raise UsageError("--level needs --compress NAME")
    compression = None if args.compress is None else Compression(args.compress, args.level)
    change = split if args.shard else consolidate
    total = count_exposures(args.folder)
    with Progress(total, "copy", enabled=not (args.quiet or args.json)) as progress:
        done = change(args.folder, compression, lambda key: progress.step("/".join(key)))
    if args.json:
        print_json(done.as_dict())
    else:
        form = "one file" if done.form == "single" else "a file per exposure"
        print(
            f"{done.folder}: {done.n_exposures} exposures in {form}, {done.n_copied} of them "
            f"copied, {format_bytes(done.bytes_before)} before, "
            f"{format_bytes(done.bytes_after)} now"
        )
    return 0
