"""The command line, ``fpgpu COMMAND``: how each command is run, and how it may end."""

import json
import logging
import math
import os
import signal
import sys
import traceback
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from importlib import import_module
from typing import Any

from fpgpu.cli.console import Result
from fpgpu.cli.parser import build_parser
from fpgpu.errors import FpgpuError

__all__ = ["main"]

OK, REFUSED, INTERRUPTED = 0, 2, 130


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
    as_json = getattr(args, "json", False)
    try:
        with _ended_in_order(), _output_to_errors() if as_json else nullcontext():
            result: Result = import_module(f"fpgpu.cli.{args.command}").run(args)
        text = json.dumps(_finite(result.json), indent=2) if as_json else result.text
        if text:
            print(text)
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
    return result.code


def _require_streams() -> None:
    """Send what would be printed nowhere, where the process was started without an output."""
    for name in ("stdin", "stdout", "stderr"):  # each opens as the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+", encoding="utf-8"))  # noqa: PTH123, SIM115


@contextmanager
def _output_to_errors() -> Iterator[None]:
    """Send what is printed meanwhile to standard error: only the result is for standard output.

    Libraries print, readers of other packages, and what is compiled, also in other processes.
    """
    sys.stdout.flush()
    own = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(own, 1)
        os.close(own)


def _finite(value: Any) -> Any:
    """Replace what JSON cannot hold."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
