"""What the commands print with: progress and tables of plain text."""

import json
import math
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from fpgpu.errors import FpgpuError
from fpgpu.progress import progress_bar

__all__ = ["Progress", "counted", "format_bytes", "format_table", "print_json", "results_alone"]

_results: list[TextIO] = []


@contextmanager
def results_alone() -> Iterator[None]:
    """Keep standard output for `print_json`.

    What anything else prints there goes to standard error: libraries, readers of other packages,
    and what is compiled, also in the processes that are started meanwhile.
    """
    sys.stdout.flush()
    with ExitStack() as stack:
        results = sys.stdout
        # Somebody who has put another object in its place sees what that gets.
        if _descriptor(results) == 1:
            own = os.dup(1)
            stack.callback(os.close, own)
            results = stack.enter_context(open(own, "w", encoding="utf-8", closefd=False))
            os.dup2(2, 1)
            stack.callback(os.dup2, own, 1)
        stack.enter_context(redirect_stdout(sys.stderr))
        _results.append(results)
        stack.callback(_results.pop)
        yield


def _descriptor(stream: TextIO) -> int | None:
    """Give what a stream writes to; None when that is no file."""
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


def print_json(value: Any) -> None:
    """Print the result of a command for a script."""
    text = json.dumps(_finite(value), indent=2, allow_nan=False)
    print(text, file=_results[-1] if _results else None, flush=True)


def _finite(value: Any) -> Any:
    """Replace what JSON cannot hold."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Progress:
    """Show how far a run over many files has come: a bar on a terminal, in a log a line a step.

    Both go to standard error, so that standard output holds results only.

    Parameters
    ----------
    total : int
        Number of steps.
    label : str
        What is being done.
    enabled : bool, optional
        False draws nothing but problems.
    """

    def __init__(self, total: int, label: str, enabled: bool = True) -> None:
        is_terminal = sys.stderr.isatty()
        self._heading = f"{label} {{}}/{total} {{}}" if enabled and not is_terminal else ""
        self._bar = progress_bar(total, label, enabled and is_terminal)
        self._done = 0

    def step(self, what: str) -> None:
        """Count one step as done."""
        self._done += 1
        if self._heading:
            print(self._heading.format(self._done, what), file=sys.stderr)
        self._bar.set_postfix_str(what, refresh=False)
        self._bar.update()

    def problem(self, message: str) -> None:
        """Print a problem on a line of its own, whether or not progress is drawn."""
        self._bar.write(message, file=sys.stderr)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()


@contextmanager
def counted(
    args: Namespace, label: str, *folders: Path
) -> Iterator[Callable[[tuple[str, str]], None]]:
    """Show the progress of a command over all exposures of store folders."""
    from fpgpu.stores.folder import StoreFolder
    from fpgpu.stores.pixel import PixelStore

    total = 0
    for folder in folders:
        with suppress(FpgpuError):  # what works on the store will say what is wrong with it
            total += len(PixelStore(StoreFolder(folder).pixels, mode="r"))
    with Progress(total, label, enabled=not (args.quiet or args.json)) as progress:
        yield lambda key: progress.step("/".join(key))


def format_bytes(n_bytes: float) -> str:
    """Write a number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def format_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay out rows of values as columns of text."""
    cells = [list(header)] + [[_cell(value) for value in row] for row in rows]
    widths = [max(len(line[k]) for line in cells) for k in range(len(header))]
    right = [
        bool(rows) and all(isinstance(row[k], int | float) for row in rows)
        for k in range(len(header))
    ]
    lines = [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _cell(value: object) -> str:
    """Text of one value of a table."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)
