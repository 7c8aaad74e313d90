"""Arguments that several commands have, and what they are read as."""

import argparse
from pathlib import Path
from typing import Any

from fpgpu.errors import FpgpuError, RegionError
from fpgpu.paths import as_path

__all__ = [
    "add_backend",
    "add_folder",
    "add_json",
    "arcsec",
    "count_exposures",
    "declination",
    "path_name",
    "positive",
    "right_ascension",
]


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add the store folder that a command is about.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The parser of the command.
    """
    parser.add_argument("folder", metavar="DIR", type=path_name, help="the store folder")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option to print what a script can read.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The parser of the command.
    """
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_backend(parser: Any, what: str) -> None:
    """Add the choice of a backend.

    Parameters
    ----------
    parser : argparse.ArgumentParser or group
        Where to.
    what : str
        What the backend does.
    """
    parser.add_argument(
        "--backend",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help=f"where {what}; auto takes a GPU where one works (see fpgpu doctor)",
    )


def positive(text: str) -> int:
    """Read a number of at least 1.

    Parameters
    ----------
    text : str
        What was typed.

    Returns
    -------
    int
        The number.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is none.
    """
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return number


def path_name(text: str) -> Path:
    """Read the name of a file or folder; an empty one, as of an unset variable, is none.

    Parameters
    ----------
    text : str
        What was typed.

    Returns
    -------
    Path
        The path; ``~`` is the home folder.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is empty.
    """
    if not text:
        raise argparse.ArgumentTypeError("the name of the file or folder is empty")
    return as_path(text)


def right_ascension(text: str) -> float:
    """Read a right ascension: degrees, or as 10:00:24 in hours.

    Parameters
    ----------
    text : str
        What was typed.

    Returns
    -------
    float
        Degrees.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is no angle.
    """
    return _degrees(text, "the right ascension", sixty="hourangle")


def declination(text: str) -> float:
    """Read a declination: degrees, or as +2:12:00.

    Parameters
    ----------
    text : str
        What was typed.

    Returns
    -------
    float
        Degrees.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is no angle.
    """
    return _degrees(text, "the declination")


def arcsec(text: str) -> float:
    """Read a small angle: arcsec, or with a unit, as 0.5arcmin.

    Parameters
    ----------
    text : str
        What was typed.

    Returns
    -------
    float
        Degrees.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is no angle.
    """
    return _degrees(text, "the angle", plain="arcsec")


def _degrees(text: str, name: str, **units: str) -> float:
    """Read an angle."""
    from fpgpu.sky.angles import in_degrees

    try:
        return float(in_degrees(text, name, **units))
    except RegionError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def count_exposures(folder: Path) -> int:
    """Count the exposures of a store folder, for a line of progress.

    Parameters
    ----------
    folder : Path
        The store folder.

    Returns
    -------
    int
        0 where there is no store that can be read: what works on it will say why.
    """
    from fpgpu.stores.folder import StoreFolder
    from fpgpu.stores.pixel import PixelStore

    try:
        return len(PixelStore(StoreFolder(folder).pixels, mode="r"))
    except FpgpuError:
        return 0
