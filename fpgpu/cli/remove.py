"""Take exposures out of a store folder.

Take exposures out of the pixel store and the meta store in one instant. A pattern that matches
nothing is refused, and then nothing is removed.

options:
  folder
  patterns BAND/EXPID+
             exposures, or patterns of them with *, ? and [...]; * matches slashes, too
  --dry-run  only tell what would be removed
  --json

examples:
  fpgpu remove stores F200W/jw01180_nrca1_cal
  fpgpu remove stores 'F200W/*_nrca1_*' --dry-run
"""

from argparse import Namespace

from fpgpu.cli.console import Result
from fpgpu.stores.upkeep.remove import remove


def run(args: Namespace) -> Result:
    """Remove the exposures."""
    names = ["/".join(key) for key in remove(args.folder, args.patterns, dry_run=args.dry_run)]
    done = "would be removed" if args.dry_run else "removed"
    count = "1 exposure" if len(names) == 1 else f"{len(names)} exposures"
    lines = names if args.quiet else [*names, f"{done}: {count}"]
    return Result("\n".join(lines), {"removed": names, "dry_run": args.dry_run})
