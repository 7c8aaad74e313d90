"""Options as the commands have them: one table says what the values of each kind are read as."""

import argparse
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fpgpu.errors import RegionError
from fpgpu.paths import as_path

__all__ = ["FOLDER", "JSON", "READING", "add_backend", "add_options", "path_name", "read_angle"]


FOLDER = "folder DIR  the store folder"
JSON = "--json  print JSON"
READING = """
--bitmask BITS  bad bits of the DQ image, by name or number: DO_NOT_USE,SATURATED or 3 (default:
                DO_NOT_USE for JWST, any bit for other files)
--wcs {auto,gwcs,fits}
                which WCS to believe; auto takes the gWCS when there is one and refuses an exposure
                whose two disagree
--pad           add pixels of zero weight where a size is no multiple of the super-pixel
"""
"""How exposures are read."""


def add_options(parser: Any, *tables: str, **settings: dict[str, Any]) -> None:
    """Add the arguments and options that tables name as a help text does."""
    for row in (row for table in tables for row in re.split(r"\n(?=\S)", table.strip())):
        head, what = re.split(r"\s{2,}", row, maxsplit=1)
        name, _, value = head.partition(" ")
        option: dict[str, Any] = {"help": " ".join(what.split())}
        if not value:
            option["action"] = "store_true"
        elif value.startswith("{"):
            option["choices"] = tuple(value.strip("{}").split(","))
        else:
            option |= {"metavar": value, "type": READ.get(value)}
        parser.add_argument(name, **option | settings.get(name.strip("-").replace("-", "_"), {}))


def add_backend(parser: Any, what: str) -> None:
    """Add the choice of a backend, of which `what` says what it does."""
    told = f"where {what}; auto takes a GPU where one works (see fpgpu doctor)"
    add_options(parser, f"--backend {{auto,cpu,cuda}}  {told}", backend={"default": "auto"})


def path_name(text: str) -> Path:
    """Read the name of a file or folder; ``~`` is the home folder."""
    return as_path(_not_empty(text, "the name of the file or folder"))


def read_angle(text: str, name: str, **units: str) -> float:
    """Read an angle, in degrees or in the units that `fpgpu.sky.angles.in_degrees` is told of."""
    from fpgpu.sky.angles import in_degrees

    try:
        return float(in_degrees(text, name, **units))
    except RegionError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _not_empty(text: str, name: str) -> str:
    """Refuse what a variable that is not set leaves."""
    if not text:
        raise argparse.ArgumentTypeError(f"{name} is empty")
    return text


def _positive(text: str) -> int:
    """Read a number of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return number


READ: dict[str, Callable[[str], Any]] = {
    "DIR": path_name,
    "FILE": path_name,
    "FITS": path_name,
    "H5": path_name,
    "PREFIX": partial(_not_empty, name="what the names of the pictures begin with"),
    "MAG": float,
    "EXT": lambda text: int(text) if text.isdecimal() else text,
    "N": _positive,
    "ARCSEC": partial(read_angle, name="the angle", plain="arcsec"),
}
"""How values are read, by the words that stand for them; others are text."""
