"""``fpgpu demo``: the main job, done and checked."""

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path

from fpgpu.cli.arguments import READING, add_backend, add_options

__all__ = ["DESCRIPTION", "EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "do the main job on a synthetic field, or on your files, and check every value"
DESCRIPTION = (
    "Ingest exposures, open the stores, find the exposures of a region, read its "
    "super-pixels back and compare every value with the input files; then build a patch there."
)
EXAMPLES = """examples:
  fpgpu demo
  fpgpu demo --out demo
  fpgpu demo --page look
  fpgpu demo my_exposure_cal.fits
  fpgpu demo cutout_cal.fits --wcs fits --pad --out stores
"""
OPTIONS = """
files FILE  your exposures; none: synthetic ones
--out DIR   keep the files here (default: a scratch folder)
--page DIR  write a page with pictures, DIR/index.html (default: page in the folder of --out, where
            matplotlib is installed)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_options(parser, OPTIONS, READING, files={"nargs": "*"}, wcs={"default": "auto"})
    add_backend(parser, "pixels are calibrated")


def run(args: argparse.Namespace) -> int:
    """Run the demo.

    Gives 0 when every check holds, 1 when one does not.
    """
    from importlib.util import find_spec

    from fpgpu.demo.field import CENTER
    from fpgpu.demo.run import CATALOG, Check, Step, run_demo

    def show(line: Step | Check) -> None:
        if isinstance(line, Step):
            if not args.quiet:
                print(f"  {line.what:<24}{line.detail:<58}{line.seconds:8.3f} s", flush=True)
        elif not (args.quiet and line.passed):
            print(f"  {'ok  ' if line.passed else 'FAIL'}  {line.what}: {line.detail}", flush=True)

    page = args.page
    if page is not None:
        from fpgpu.plots import require_matplotlib

        require_matplotlib()
    elif args.out is not None and find_spec("matplotlib"):
        page = args.out / "page"
    with ExitStack() as stack:
        out = args.out
        if out is None:
            out = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fpgpu-demo-")))
        report = run_demo(
            args.files,
            out,
            bitmask=args.bitmask,
            wcs=args.wcs,
            pad=args.pad,
            backend=args.backend,
            page=page,
            show=show,
        )
        if args.out is not None and not args.quiet:
            print(f"  the files are in {out}")
            if not args.files:
                place = "--ra {} --dec {} --radius 1".format(*CENTER)
                print(f"  to go on: cd {out}")
                print(f"            fpgpu plot stores residuals {place} --catalog {CATALOG}")
        if page is not None:
            print(f"wrote {page / 'index.html'}")
    verdict = "every check holds" if report.passed else "SOME CHECKS FAILED"
    print(f"fpgpu demo: {verdict} ({len(report.checks)} checks, {report.seconds:.1f} s)")
    return 0 if report.passed else 1
