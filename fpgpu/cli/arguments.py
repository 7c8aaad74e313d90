"""Arguments that several commands have, and what they are read as."""

import argparse
from pathlib import Path
from typing import Any

from fpgpu.errors import FpgpuError

__all__ = ["add_backend", "add_folder", "add_json", "count_exposures", "folder_name", "positive"]


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add the store folder that a command is about.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The parser of the command.
    """
    parser.add_argument("folder", metavar="DIR", type=Path, help="the store folder")


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


def folder_name(text: str) -> Path:
    """Read the name of a folder; an empty one, as of an unset variable, is none.

    Parameters
    ----------
    text : str
        What was typed.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is empty.
    """
    if not text:
        raise argparse.ArgumentTypeError("the name of the folder is empty")
    return Path(text)


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
