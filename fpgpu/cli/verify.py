"""``fpgpu verify``: is all of a store folder as it was written?"""

import argparse
import itertools
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fpgpu.cli.arguments import FOLDER, JSON, add_options
from fpgpu.cli.console import counted, format_table, print_json
from fpgpu.errors import UsageError

if TYPE_CHECKING:
    from fpgpu.stores.upkeep.problems import Verdict
    from fpgpu.stores.upkeep.repair import Repaired

__all__ = ["DESCRIPTION", "EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "check all that a store folder holds, and mend it"
DESCRIPTION = (
    "Read every exposure of a store folder and check checksums, values, shapes, links, headers, "
    "refits of the WCS and PSFs; list orphaned shards, exposures that only one of the stores "
    "holds, and what killed writers left. With --repair, mend what can be mended without guessing."
)
EXAMPLES = """examples:
  fpgpu verify stores
  fpgpu verify stores --quick --json     without reading pixels and evaluating gWCS
  fpgpu verify stores --repair
"""
OPTIONS = """
--quick   read no pixels and evaluate no gWCS
--repair  commit or delete orphaned shards, write forcepho's files again, remove leftovers;
          exposures are never removed or replaced
--record  compute and keep the checksums of exposures and PSFs that have none, as forcepho's
--delete-orphans
          with --repair: delete also shards of which it is not clear whether they are wanted
--break-lock
          with --repair: go on although another process seems to be changing the stores
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_options(parser, FOLDER, OPTIONS, JSON)


def run(args: argparse.Namespace) -> int:
    """Check the store, and mend it if asked.

    Gives 0 when nothing is wrong, after the repair if there was one; 1 otherwise.
    """
    from fpgpu.stores.upkeep.repair import repair
    from fpgpu.stores.upkeep.verify import record_checksums, verify

    if not args.repair and (args.delete_orphans or args.break_lock):
        raise UsageError("--delete-orphans and --break-lock need --repair")

    def check(label: str) -> "Verdict":
        thorough = not args.quick
        with counted(args, label, args.folder) as step:
            return verify(args.folder, pixels=thorough, wcs=thorough, on_progress=step)

    if args.record:
        record_checksums(args.folder)
    before = check("verify")
    if not args.repair:
        _print([before], None, args.json)
        return 0 if before.ok else 1
    repaired = repair(args.folder, delete_orphans=args.delete_orphans, break_lock=args.break_lock)
    after = check("verify again")
    _print([before, after], repaired, args.json)
    return 0 if after.ok else 1


def _print(verdicts: "list[Verdict]", repaired: "Repaired | None", as_json: bool) -> None:
    """Print what was found and done."""
    if as_json:
        result = verdicts[-1].as_dict()
        if repaired is not None:
            result |= {"before": verdicts[0].as_dict(), "repair": repaired.as_dict()["steps"]}
        print_json(result)
        return
    _print_verdict(verdicts[0])
    if repaired is None:
        return
    if repaired.steps:
        print("\nrepair:")
        print(
            _wrapped_table(
                ["", "where", "what"],
                [["done" if s.done else "left", s.where, s.what] for s in repaired.steps],
                [4, 40, 80],
                repaired.folder,
            )
        )
    print("\nafter the repair:" if verdicts[0].problems else "\nnothing was to be repaired:")
    _print_verdict(verdicts[1])


def _print_verdict(verdict: "Verdict") -> None:
    """Print a table of problems and a line that sums up."""
    if verdict.problems:
        print(
            _wrapped_table(
                ["problem", "where", "found", "repair"],
                [
                    [p.kind, p.where, p.what, p.remedy if p.repairable else f"by hand: {p.remedy}"]
                    for p in verdict.problems
                ],
                [14, 32, 50, 32],
                verdict.folder,
            )
        )
    unchecked = f", {verdict.n_unchecked} have no checksum" if verdict.n_unchecked else ""
    refits = f", {verdict.n_wcs} refits agree with their gWCS" if verdict.n_wcs else ""
    count = ", ".join(f"{n} {kind}" for kind, n in verdict.counts().items())
    print(
        f"{verdict.folder}: {verdict.n_exposures} exposures, {verdict.n_verified} match their "
        f"checksum{unchecked}{refits}; {f'problems: {count}' if count else 'no problems'}"
    )


def _wrapped_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int], folder: str
) -> str:
    """Lay out rows of text in columns of limited widths; paths are shown from the folder on."""
    home = f"{Path(folder).resolve()}/"
    lines: list[Sequence[str]] = []
    for row in rows:
        cells = [
            # A word that is too long, as a path, is better too wide than in pieces.
            textwrap.wrap(text.replace(home, ""), width, break_long_words=False) or [""]
            for text, width in zip(row, widths, strict=True)
        ]
        lines += itertools.zip_longest(*cells, fillvalue="")
    return format_table(header, lines)
