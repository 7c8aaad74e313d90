"""Measure, try a GPU, compare, and write the table of docs/speed.md: ``python -m benchmarks``.

Examples:

  python -m benchmarks --size survey --out reports   measure, and write a report
  python -m benchmarks gpu --out first-hour           everything that needs a GPU, in ten minutes
  python -m benchmarks --backend cuda                 its report alone
  python -m benchmarks -k region                      only what has this in its name
  python -m benchmarks compare old.json new.json      exit code 1 when fpgpu became slower
  python -m benchmarks table --check                  exit code 1 when the page is out of date
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.command import run_steps
from benchmarks.gpu.steps import STEPS
from benchmarks.report.compare import TOLERANCE, compare, comparison_lines
from benchmarks.report.document import SUMMARY, Report, ReportError, report_files
from benchmarks.report.markdown import page
from benchmarks.report.speedpage import RESULTS, replaced, speed_section
from benchmarks.run import BACKENDS, MINUTES, run
from benchmarks.sizes import SIZES

__all__ = ["main"]

PAGE = Path(__file__).parents[1] / "docs" / "speed.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says: 0 done, 1 slower or out of date, 2 refused."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in ("run", "gpu", "compare", "table", "-h", "--help"):
        arguments.insert(0, "run")
    options = _parser().parse_args(arguments)
    try:
        return int(options.do(options))
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True)
    measure = commands.add_parser("run", help="measure and write a report (the default)")
    measure.set_defaults(do=_run)
    measure.add_argument("--size", choices=list(SIZES), default="survey", help="of the inputs")
    measure.add_argument("--out", type=Path, default=RESULTS, help="folder of the report")
    measure.add_argument(
        "--backend", choices=list(BACKENDS), default="all", help="what to measure; default all"
    )
    measure.add_argument("-k", metavar="EXPRESSION", help="only benchmarks named like this")
    measure.add_argument(
        "--minutes",
        type=float,
        default=MINUTES,
        help="begin no benchmark later than this; default %(default)g",
    )
    gpu = commands.add_parser("gpu", help="try and measure all that needs a GPU, step by step")
    gpu.set_defaults(do=_gpu)
    gpu.add_argument("--out", type=Path, required=True, help="folder of the summary and the report")
    gpu.add_argument(
        "--minutes", type=float, default=MINUTES, help="end after these; default %(default)g"
    )
    gpu.add_argument("--size", choices=list(SIZES), default="survey", help="of the inputs")
    gpu.add_argument(
        "--steps",
        nargs="+",
        default=[],
        choices=[step.name for step in STEPS],
        metavar="STEP",
        help=f"only these of {', '.join(step.name for step in STEPS)}",
    )
    check = commands.add_parser("compare", help="compare two reports as ratios to the limits")
    check.set_defaults(do=_compare)
    check.add_argument("old", type=Path)
    check.add_argument("new", type=Path)
    check.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help="how many times its old ratio a measurement may take; default %(default)g",
    )
    table = commands.add_parser(
        "table", help="write the table of docs/speed.md, and pages, from kept reports"
    )
    table.set_defaults(do=_table)
    table.add_argument("--check", action="store_true", help="change nothing; say whether it fits")
    return parser


def _run(options: argparse.Namespace) -> int:
    return run(options.size, options.out, options.backend, options.k, options.minutes)


def _gpu(options: argparse.Namespace) -> int:
    try:
        return run_steps(options.out, options.minutes, options.size, options.steps)
    except KeyboardInterrupt:
        print(f"interrupted; {options.out / SUMMARY} has what was known", file=sys.stderr)
        return 130


def _compare(options: argparse.Namespace) -> int:
    found = compare(Report.read(options.old), Report.read(options.new), options.tolerance)
    print("\n".join(comparison_lines(found)))
    return 0 if found.passed else 1


def _table(options: argparse.Namespace) -> int:
    old = PAGE.read_text()
    new = replaced(old, speed_section())
    if options.check:
        if new != old:
            print("docs/speed.md is out of date: run python -m benchmarks table", file=sys.stderr)
        return int(new != old)
    PAGE.write_text(new)
    for path in report_files(RESULTS):
        text, where = page(Report.read(path), f"{path.stem}.png"), path.with_suffix(".md")
        if where.read_text() != text:
            where.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
