"""Options as the commands have them: one table says what the values of each kind are read as."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fpgpu.errors import RegionError
from fpgpu.paths import as_path

__all__ = ["add_backend", "add_folder", "add_json", "add_option", "path_name", "read_angle"]


def add_option(
    parser: Any, name: str, value: str | tuple[str, ...] | None, what: str, **settings: Any
) -> None:
    """Add an argument or an option.

    Parameters
    ----------
    parser : argparse.ArgumentParser or group
        Where to.
    name : str
        With dashes that of an option.
    value : str, tuple of str or None
        The word for its value, by which it is read; its choices; None for an option without value.
    what : str
        The help.
    **settings
        Others of `argparse.ArgumentParser.add_argument`.
    """
    if value is None:
        settings["action"] = "store_true"
    elif isinstance(value, tuple):
        settings["choices"] = value
    else:
        settings = {"type": READ.get(value), **settings, "metavar": value}
    parser.add_argument(name, help=what, **settings)


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add the store folder that a command is about."""
    add_option(parser, "folder", "DIR", "the store folder")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option to print what a script can read."""
    add_option(parser, "--json", None, "print JSON")


def add_backend(parser: Any, what: str) -> None:
    """Add the choice of a backend, of which `what` says what it does."""
    told = f"where {what}; auto takes a GPU where one works (see fpgpu doctor)"
    add_option(parser, "--backend", ("auto", "cpu", "cuda"), told, default="auto")


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
    "N": _positive,
    "ARCSEC": partial(read_angle, name="the angle", plain="arcsec"),
}
"""How values are read, by the words that stand for them; others are text."""
