"""Write forcepho's meta.json and meta.asdf as the store is now.

Write meta.json, and meta.asdf where there are gWCS, from the store. Headers that somebody has
changed in meta.json are taken over into the store first.

options:
  folder
  --no-asdf  do not write meta.asdf

examples:
  fpgpu views stores
  fpgpu views stores --no-asdf     leave out the gWCS, which take some 20 ms for each exposure
"""

from argparse import Namespace

from fpgpu.cli.console import Result
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.views import write_views


def run(args: Namespace) -> Result:
    """Write the files."""
    write_views(StoreFolder(args.folder).require().pixels, asdf=not args.no_asdf)
    return Result()
