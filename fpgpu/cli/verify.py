"""Check all that a store folder holds, and mend it.

Read every exposure of a store folder and check checksums, values, shapes, links, headers, refits of
the WCS and PSFs; list orphaned shards, exposures that only one of the stores holds, and what killed
writers left. With --repair, mend what can be mended without guessing.

options:
  folder
  --quick   read no pixels and evaluate no gWCS
  --repair  commit or delete orphaned shards, write forcepho's files again, remove leftovers;
            exposures are never removed or replaced
  --record  compute and keep the checksums of exposures and PSFs that have none, as forcepho's
  --delete-orphans
            with --repair: delete also shards of which it is not clear whether they are wanted
  --break-lock
            with --repair: go on although another process seems to be changing the stores
  --json

examples:
  fpgpu verify stores
  fpgpu verify stores --quick --json     without reading pixels and evaluating gWCS
  fpgpu verify stores --repair
"""

import itertools
import textwrap
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from fpgpu.cli.console import Result, counted, format_table
from fpgpu.errors import UsageError
from fpgpu.stores.upkeep.problems import Verdict
from fpgpu.stores.upkeep.repair import repair
from fpgpu.stores.upkeep.verify import record_checksums, verify


def run(args: Namespace) -> Result:
    """Check the store, and mend it if asked; the code is 1 when something is, or stays, wrong."""
    if not args.repair and (args.delete_orphans or args.break_lock):
        raise UsageError("--delete-orphans and --break-lock need --repair")
    if args.record:
        record_checksums(args.folder)
    verdict = _check(args, "verify")
    text, told = _verdict(verdict), verdict.as_dict()
    if not args.repair:
        return Result(text, told, code=not verdict.ok)
    repaired = repair(args.folder, delete_orphans=args.delete_orphans, break_lock=args.break_lock)
    after = _check(args, "verify again")
    if repaired.steps:
        rows = [["done" if s.done else "left", s.where, s.what] for s in repaired.steps]
        table = _table({"": 4, "where": 40, "what": 80}, rows, repaired.folder)
        text += f"\n\nrepair:\n{table}"
    heading = "after the repair" if verdict.problems else "nothing was to be repaired"
    text += f"\n\n{heading}:\n{_verdict(after)}"
    told = {**after.as_dict(), "before": told, "repair": repaired.as_dict()["steps"]}
    return Result(text, told, code=not after.ok)


def _check(args: Namespace, label: str) -> Verdict:
    """Check the store."""
    thorough = not args.quick
    with counted(args, label, args.folder) as step:
        return verify(args.folder, pixels=thorough, wcs=thorough, on_progress=step)


def _verdict(verdict: Verdict) -> str:
    """Lay out the problems, and a line that sums up."""
    lines = []
    if verdict.problems:
        rows = [
            [p.kind, p.where, p.what, p.remedy if p.repairable else f"by hand: {p.remedy}"]
            for p in verdict.problems
        ]
        widths = {"problem": 14, "where": 32, "found": 50, "repair": 32}
        lines.append(_table(widths, rows, verdict.folder))
    unchecked = f", {verdict.n_unchecked} have no checksum" if verdict.n_unchecked else ""
    refits = f", {verdict.n_wcs} refits agree with their gWCS" if verdict.n_wcs else ""
    count = ", ".join(f"{n} {kind}" for kind, n in verdict.counts().items())
    lines.append(
        f"{verdict.folder}: {verdict.n_exposures} exposures, {verdict.n_verified} match their "
        f"checksum{unchecked}{refits}; {f'problems: {count}' if count else 'no problems'}"
    )
    return "\n".join(lines)


def _table(widths: dict[str, int], rows: Sequence[Sequence[str]], folder: str) -> str:
    """Lay out text in columns of limited widths; paths are shown from the folder on."""
    home = f"{Path(folder).resolve()}/"
    lines: list[Sequence[str]] = []
    for row in rows:
        cells = [
            # A word that is too long, as a path, is better too wide than in pieces.
            textwrap.wrap(text.replace(home, ""), width, break_long_words=False) or [""]
            for text, width in zip(row, widths.values(), strict=True)
        ]
        lines += itertools.zip_longest(*cells, fillvalue="")
    return format_table([*widths], lines)
