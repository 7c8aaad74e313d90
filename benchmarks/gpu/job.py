"""What a step is given, and where it says what it found."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.sizes import Size

if TYPE_CHECKING:
    from benchmarks.inputs.field import Field

__all__ = ["Job", "NotHereError", "launch", "write_json"]

_LAUNCHER = [sys.executable, "-m"]
"""What a module and its arguments are put behind to run in a process of its own."""


class NotHereError(Exception):
    """What a step needs is not on this machine: no failure, and said."""


def launch(module: str, *arguments: str) -> list[str]:
    """Give the command that runs a module as this process was run."""
    return [*_LAUNCHER, module, *arguments]


def launch_by(launcher: Sequence[str]) -> None:
    """Let modules be run by another command."""
    _LAUNCHER[:] = launcher


def write_json(path: Path, content: Any) -> None:
    """Replace a file as a whole, so that whenever this process ends there is one to read."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(json.dumps(content, indent=1, default=str) + "\n")
    os.replace(draft, path)  # noqa: PTH105 - as everywhere, by its name


@dataclass
class Job:
    """One run of one step.

    `found` is written each time that something is added, so that a step that is ended leaves what
    it had found until then.
    """

    result: Path
    out: Path
    """Folder of the whole command."""
    size: Size
    seconds: float
    """The most that the step may take."""
    found: dict[str, Any] = field(default_factory=dict)

    def note(self, **found: Any) -> None:
        """Add to what was found."""
        self.found |= found
        self.write()

    def write(self, **outcome: Any) -> None:
        """Write what is known."""
        write_json(self.result, {"found": self.found, **outcome})

    def field(self) -> "Field":
        """The stores of a field, made by whichever step needs them first."""
        # Not for every step, and they take a second to import.
        from benchmarks.inputs.cache import cache_folder, made_once
        from benchmarks.inputs.field import Field, field_bytes, field_recipe, write_field

        folder = made_once(
            cache_folder(),
            "field",
            field_recipe(self.size),
            field_bytes(self.size),
            lambda folder: write_field(folder, self.size),
            print,
        )
        return Field(folder, self.size)
