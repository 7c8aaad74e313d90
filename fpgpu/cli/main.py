"""The command line, ``fpgpu COMMAND``.

Exit codes: 0 all done; 1 done in part (some exposures did not go in, or a verdict is negative);
2 refused (wrong usage or unusable input: nothing was changed); 130 interrupted.
"""

import argparse
import logging
import sys
import textwrap
from collections.abc import Sequence

from fpgpu import __version__
from fpgpu.cli import (
    consolidate,
    demo,
    doctor,
    ds9,
    info,
    ingest,
    merge,
    patch,
    plot,
    remove,
    verify,
)
from fpgpu.errors import FpgpuError

__all__ = ["main"]

# In the order in which they are listed: exposures in, stores cared for, patches out.
COMMANDS = (
    ingest,
    info,
    verify,
    consolidate,
    remove,
    merge,
    patch,
    plot,
    ds9,
    demo,
    doctor,
)
OK, PARTIAL, REFUSED, INTERRUPTED = 0, 1, 2, 130


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands.

    Returns
    -------
    argparse.ArgumentParser
        Its namespace holds ``run``, the function of the chosen command.
    """
    parser = argparse.ArgumentParser(
        prog="fpgpu", description="Storage of survey exposures for forcepho, on the GPU."
    )
    parser.add_argument("--version", action="version", version=f"fpgpu {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    noise = common.add_mutually_exclusive_group()
    noise.add_argument("-v", "--verbose", action="store_true", help="say what is being done")
    noise.add_argument("-q", "--quiet", action="store_true", help="print problems and results only")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        own = commands.add_parser(
            command.__name__.rpartition(".")[2],
            parents=[common],
            help=command.HELP,
            description=textwrap.fill(command.DESCRIPTION, 79),
            epilog=command.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(own)
        own.set_defaults(run=command.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the program's name; those of the process by default.

    Returns
    -------
    int
        The exit code: 0 done, 1 done in part, 2 refused, 130 interrupted.
    """
    args = build_parser().parse_args(argv)
    level = logging.INFO if args.verbose else logging.ERROR if args.quiet else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        code: int = args.run(args)
    except FpgpuError as error:
        if args.debug:
            raise
        print(f"fpgpu {args.command}: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        if args.debug:
            raise
        print(f"fpgpu {args.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # `fpgpu info DIR | head` closes the pipe early; that is not a user's mistake.
        sys.stderr.close()
        return OK
    return code
