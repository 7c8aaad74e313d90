"""What the commands tell with: results, progress, and tables of plain text."""

import itertools
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from fpgpu.errors import FpgpuError
from fpgpu.progress import progress_bar
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.pixel import PixelStore

__all__ = ["Result", "counted", "format_bytes", "format_table", "progress"]


class Result(NamedTuple):
    """How a command ended: what it tells people, what it tells scripts, and its exit code."""

    text: str = ""
    json: Any = None
    code: int = 0


@contextmanager
def progress(args: Namespace, total: int, label: str) -> Iterator[Callable[[str], None]]:
    """Show on standard error how far a run has come: a bar on a terminal, in a log a line a step.

    What it gives is called with the name of what was done.
    """
    shown, is_terminal = not (args.quiet or args.json), sys.stderr.isatty()
    numbers = itertools.count(1)

    def step(what: str) -> None:
        if shown and not is_terminal:
            print(f"{label} {next(numbers)}/{total} {what}", file=sys.stderr)
        bar.set_postfix_str(what, refresh=False)
        bar.update()

    with progress_bar(total, label, shown and is_terminal) as bar:
        yield step


@contextmanager
def counted(
    args: Namespace, label: str, *folders: Path
) -> Iterator[Callable[[tuple[str, str]], None]]:
    """Show the progress of a command over all exposures of store folders."""
    total = 0
    for folder in folders:
        with suppress(FpgpuError):  # what works on the store will say what is wrong with it
            total += len(PixelStore(StoreFolder(folder).pixels, mode="r"))
    with progress(args, total, label) as step:
        yield lambda key: step("/".join(key))


def format_bytes(n_bytes: float) -> str:
    """Write a number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def format_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Lay out rows of values as columns of text, numbers on the right."""
    cells = [[f"{v:.6g}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    columns = []
    for k, name in enumerate(header):
        values, texts = [row[k] for row in rows], [line[k] for line in cells]
        side = ">" if all(isinstance(value, int | float) for value in values) else "<"
        width = max(map(len, (name, *texts)))
        columns.append([f"{text:{side}{width}}" for text in (name, "-" * width, *texts)])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))
