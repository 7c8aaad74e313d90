"""Do the main job on a synthetic field, or on your files, and check every value.

Ingest exposures, open the stores, find the exposures of a region, read its super-pixels back and
compare every value with the input files; then build a patch there.

options:
  files FILE*  your exposures; none: synthetic ones
  --out DIR    keep the files here (default: a scratch folder)
  --page DIR   write a page with pictures, DIR/index.html (default: page in the folder of --out,
               where matplotlib is installed)
  --bitmask --wcs --pad --backend

examples:
  fpgpu demo
  fpgpu demo --out demo
  fpgpu demo --page look
  fpgpu demo my_exposure_cal.fits
  fpgpu demo cutout_cal.fits --wcs fits --pad --out stores
"""

import tempfile
from argparse import Namespace
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from fpgpu import plots
from fpgpu.cli.console import Result
from fpgpu.cli.page import write_page
from fpgpu.demo.field import CENTER
from fpgpu.demo.run import CATALOG, Check, Step, run_demo


def run(args: Namespace) -> Result:
    """Run the demo; the code is 1 when a check does not hold."""

    def show(line: Step | Check) -> None:
        if isinstance(line, Check):
            if not (args.quiet and line.passed):
                print(
                    f"  {'ok  ' if line.passed else 'FAIL'}  {line.what}: {line.detail}", flush=True
                )
        elif not args.quiet:
            print(f"  {line.what:<24}{line.detail:<58}{line.seconds:8.3f} s", flush=True)

    page = args.page
    if page is not None:
        plots.require_matplotlib()
    elif args.out is not None and find_spec("matplotlib"):
        page = args.out / "page"
    lines = []
    with ExitStack() as stack:
        out = args.out
        if out is None:
            out = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fpgpu-demo-")))
        asked = ("bitmask", "pad", "backend")
        options = {name: getattr(args, name) for name in asked}
        report = run_demo(args.files, out, wcs=args.wcs or "auto", show=show, **options)
        if args.out is not None and not args.quiet:
            lines.append(f"  the files are in {out}")
            if not args.files:
                place = "--ra {} --dec {} --radius 1".format(*CENTER)
                lines.append(f"  to go on: cd {out}")
                lines.append(f"            fpgpu plot stores residuals {place} --catalog {CATALOG}")
        if page is not None:
            with report.step("drew a page") as detail:
                lines.append(f"wrote {write_page(page, out, report, args.backend)}")
                detail.append(str(page / "index.html"))
    verdict = "every check holds" if report.passed else "SOME CHECKS FAILED"
    count = f"{len(report.checks)} checks, {report.seconds:.1f} s"
    return Result("\n".join([*lines, f"fpgpu demo: {verdict} ({count})"]), code=not report.passed)
