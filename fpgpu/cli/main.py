"""The command line, ``fpgpu COMMAND``: all commands, and how each of them may end."""

import logging
import os
import signal
import sys
import threading
import traceback
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import cast

from fpgpu import __version__
from fpgpu.cli.console import results_alone
from fpgpu.cli.parser import EXIT_CODES, Command, CommandParser, add_command
from fpgpu.errors import FpgpuError

__all__ = ["main"]

# In the order in which they are listed: exposures in, stores cared for, patches out.
NAMES = (
    "ingest", "info", "verify", "views", "consolidate", "remove", "merge", "psf", "patch", "plot",
    "ds9", "demo", "doctor", "completion",
)  # fmt: skip
COMMANDS = tuple(import_module(f"fpgpu.cli.{name}") for name in NAMES)
OK, REFUSED, INTERRUPTED = 0, 2, 130

EXAMPLES = """examples:
  fpgpu demo
  fpgpu ingest jw*_cal.fits --out stores
  fpgpu info stores
  fpgpu COMMAND --help     options and examples of a command
"""


def build_parser() -> CommandParser:
    """Build the parser of all commands."""
    parser = CommandParser(
        prog="fpgpu",
        description="Storage of survey exposures for forcepho, on the GPU.",
        epilog=f"{EXAMPLES}\n{EXIT_CODES}",
    )
    parser.add_argument("--version", action="version", version=f"fpgpu {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        add_command(commands, cast("Command", command))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command."""
    _require_streams()
    words = sys.argv[1:] if argv is None else argv
    parser = build_parser()
    if not words:
        parser.print_help()
        return OK
    args = parser.parse_args(words)
    level = logging.INFO if args.verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        with _ended_in_order(), results_alone() if getattr(args, "json", False) else nullcontext():
            code: int = args.run(args)
            sys.stdout.flush()  # a full disk or a closed pipe is told here, not at exit
    except BrokenPipeError:
        # `fpgpu info DIR | head` closes the pipe early; that is not a user's mistake.
        return OK
    except (FpgpuError, OSError, MemoryError) as error:
        _tell(args, str(error) or "there is not enough memory")
        return REFUSED
    except KeyboardInterrupt:
        _tell(args, "interrupted")
        return INTERRUPTED
    finally:
        _settle_output()
    return code


def _require_streams() -> None:
    """Send what would be printed nowhere, where the process was started without an output."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - to the end
            setattr(sys, name, nowhere)


def _settle_output() -> None:
    """Write what is left, or give it up: Python would fail over it again at exit, with code 120."""
    with suppress(OSError, ValueError):
        try:
            sys.stdout.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


def _tell(args: Namespace, message: str) -> None:
    """Print why a command ended."""
    if args.debug:
        traceback.print_exc()
    print(f"fpgpu {args.command}: {message}", file=sys.stderr)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Take TERM, which a batch system sends before it kills, for an interrupt as of Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
