"""Put a store into one file, or give each exposure its own.

Put all exposures of a store folder into one file, or, with --shard, give each a file of its own.
Values stay the same, bit for bit, and are compared with their checksums. The old files, and those
of exposures that were replaced, stay for a week for those who have the store open.

options:
  folder
  --shard  give each exposure a file of its own
  --now    remove the old files at once; who has the store open must open it again
  --json

examples:
  fpgpu consolidate stores
  fpgpu consolidate stores --shard
  fpgpu consolidate stores --now       without keeping the old files for a week
"""

from argparse import Namespace
from functools import partial

from fpgpu.cli.console import Result, counted, format_bytes
from fpgpu.errors import UsageError
from fpgpu.stores.upkeep.forms import consolidate, split


def run(args: Namespace) -> Result:
    """Change the form of the store."""
    if args.now and args.shard:
        raise UsageError("--now is for one file; leave --shard or --now out")
    change = split if args.shard else partial(consolidate, now=args.now)
    with counted(args, "copy", args.folder) as step:
        done = change(args.folder, on_progress=step)
    form = "one file" if done.form == "single" else "a file per exposure"
    text = (
        f"{done.folder}: {done.n_exposures} exposures in {form}, {done.n_copied} of them copied,"
        f" {format_bytes(done.bytes_before)} before, {format_bytes(done.bytes_after)} now"
    )
    if done.n_copied and not args.now:
        text += (
            "\nwhat they replaced stays for a week, for those who have it open; consolidate with"
            " --now gives its space back at once"
        )
    return Result(text, done.as_dict())
