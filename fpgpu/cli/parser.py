"""The parser of the command line, which is made of the docstrings of its commands.

A docstring has a line that is listed, a description, groups of options under their titles, and
examples. An option is written as in a help text, two spaces before what it is: ``files FILE*`` and
``--radius ARCSEC+`` take several values, ``--arch SM...`` may be repeated, ``--[no-]integrated``
says either; ``(required)`` and ``[default: 4]`` mean what they say. How a value is read, its name
tells: see `READ`. A row of names alone are options of `SHARED`.
"""

import argparse
import ast
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from functools import partial
from importlib.resources import files
from typing import Any, NoReturn

from fpgpu import __version__
from fpgpu.paths import as_path

__all__ = ["CommandParser", "build_parser", "path_name"]

COMMANDS = (
    "ingest", "info", "verify", "views", "consolidate", "remove", "merge", "psf", "patch", "plot",
    "ds9", "demo", "doctor", "completion",
)  # fmt: skip
"""In the order in which they are listed: exposures in, stores cared for, patches out."""

EPILOG = """examples:
  fpgpu demo
  fpgpu ingest jw*_cal.fits --out stores
  fpgpu info stores
  fpgpu COMMAND --help     options and examples of a command

exit codes:
  0    all done
  1    done in part, or a verdict is negative: some exposures did not go in, a store is damaged
  2    refused: wrong usage or unusable input
  130  interrupted (Ctrl-C, or the signal TERM); stores are as before the change or as after it
"""

SHARED = """
  folder DIR  the store folder
  --json      print JSON
  --bitmask BITS
              bad bits of the DQ image, by name or number: DO_NOT_USE,SATURATED or 3 (default:
              DO_NOT_USE for JWST, any bit for other files)
  --wcs {auto,gwcs,fits}
              which WCS to believe; auto, the default, takes the gWCS when there is one and refuses
              an exposure whose two disagree
  --pad       add pixels of zero weight where a size is no multiple of the super-pixel
  --backend {auto,cpu,cuda}
              where pixels are calibrated and patches built; auto takes a GPU where one works (see
              fpgpu doctor) [default: auto]
  --ra DEG    right ascension of the centre: degrees, or hours as 10:00:24
  --dec DEG   declination of the centre: degrees, or as +2:12:00
  --radius ARCSEC
              radius of the circle; other units as 0.5arcmin
  --bands BAND+
              bands, in this order, with spaces or commas between them (default: all)
  --margin ARCSEC
              take sources this far outside the circle, too: their light reaches in [default: 0.5]
  --profiles H5
              table of Sersic profiles that psf.h5 was made for, in forcepho's format (default:
              fpgpu's own)
  --select {corners,overlap}
              which super-pixels: those with a corner pixel inside, as forcepho's, or all that
              overlap the circle [default: corners]
  --units UNIT
              take the exposures that are in this unit, as nJy; any takes all (default: all, and a
              band that mixes units is refused)
"""


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose errors name the nearest command, option or choice.

    Options cannot be abbreviated: a script would break when one is added.
    """

    def __init__(self, **settings: Any) -> None:
        style = argparse.RawDescriptionHelpFormatter
        super().__init__(allow_abbrev=False, formatter_class=style, **settings)
        # A declination of -2e-5 (before Python 3.14) or of -27:47:24 is taken for an option.
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str], namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse the words of a command line."""
        parser = self
        for word in args:
            # A wrong option is told before what is missing because of it.
            if word == "--":
                break
            parser = parser.commands.get(word, parser)
            name = word.partition("=")[0]
            if name.startswith("--") and name not in parser.options:
                parser.error(f"unrecognized option: {name}{_meant(name, parser.options)}")
        return super().parse_args(args, namespace)

    @property
    def arguments(self) -> list[argparse.Action]:
        """What it takes; argparse tells that by no public name."""
        return self._actions

    @property
    def options(self) -> list[str]:
        """Long options that it takes."""
        words = [word for action in self.arguments for word in action.option_strings]
        return [word for word in words if word.startswith("--")]

    @property
    def commands(self) -> "dict[str, CommandParser]":
        """Parsers of its commands, by name."""
        choices = (action.choices for action in self.arguments if action.dest == "command")
        return dict(next(choices, None) or {})  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Print a usage error, and what may have been meant, and exit with 2."""
        wrong = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)$", message)
        if wrong:
            message += _meant(wrong[1], re.findall(r"[^\s,']+", wrong[2]))
        self.exit(2, f"{self.prog}: {message}\nTo see what it takes: {self.prog} --help\n")


def _meant(word: str, known: Iterable[str]) -> str:
    """Name what is near a word."""
    near = get_close_matches(word, known, n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def build_parser() -> CommandParser:
    """Build the parser of all commands; no module of a command is imported for that."""
    what = "Storage of survey exposures for forcepho, on the GPU."
    parser = CommandParser(prog="fpgpu", description=what, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"fpgpu {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        source = files("fpgpu.cli").joinpath(f"{name}.py").read_text("utf-8")
        listed, what, *groups, examples = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")
        command = commands.add_parser(
            name,
            help=listed[0].lower() + listed[1:].rstrip("."),
            description=textwrap.fill(what, 79),
            epilog=examples,
        )
        for group in groups:
            _add_group(command, group)
        told = command.add_argument_group("what is told")
        noise = told.add_mutually_exclusive_group()
        noise.add_argument("-v", "--verbose", action="store_true", help="say what is being done")
        quiet = "print problems and results only"
        noise.add_argument("-q", "--quiet", action="store_true", help=quiet)
        told.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _add_group(command: argparse.ArgumentParser, text: str) -> None:
    """Add the options under a title, behind which there may be a remark."""
    head, *rows = _rows(text)
    title, _, remark = head.partition(":")
    place = (
        command if title == "options" else command.add_argument_group(title, remark.strip() or None)
    )
    for row in rows:
        _add_option(place, row)


def _rows(text: str) -> list[str]:
    return re.split(r"\n  (?=\S)", text.rstrip())


def _add_option(parser: Any, row: str) -> None:
    """Add what a row of a help text describes."""
    head, *told = re.split(r"\s{2,}", row, maxsplit=1)
    if not told:
        shared = {shared.split()[0].strip("-"): shared for shared in _rows(SHARED)[1:]}
        for name in head.split():
            _add_option(parser, shared[name.strip("-")])
        return
    text = " ".join(told[0].split())
    option: dict[str, Any] = {"help": text.replace("%", "%%")}
    name, *values = head.split()
    if name.startswith("--[no-]"):
        name = f"--{name[7:]}"
        option["action"] = argparse.BooleanOptionalAction
    elif not values:
        option["action"] = "store_true"
    else:
        value, count = re.fullmatch(r"(.*?)([+*]|\.\.\.)?", values[0]).groups()  # type: ignore[union-attr]
        option["type"] = READ.get(value)
        if value.startswith("{"):
            option["choices"] = value.strip("{}").split(",")
        else:
            option["metavar"] = value if len(values) == 1 else tuple(values)
        if count == "...":
            option["action"] = "append"
        elif count or len(values) > 1:
            option["nargs"] = count or len(values)
        if name == "--bands":
            option["action"] = _Names
    if default := re.search(r"\[default: (\S+)\]", text):
        option["default"] = default[1]
    if text.endswith("(required)"):
        option["required"] = True
    parser.add_argument(name, **option)


class _Names(argparse.Action):
    """Takes names with spaces or commas between them."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        names = " ".join(values).replace(",", " ").split()
        if not names:
            parser.error(f"argument {option}: no band was named; leave it out for all bands")
        setattr(namespace, self.dest, names)


def path_name(text: str) -> Any:
    """Read the name of a file or folder; ``~`` is the home folder."""
    return as_path(_not_empty(text, "the name of the file or folder"))


def _not_empty(text: str, name: str) -> str:
    """Refuse what a variable that is not set leaves."""
    if not text:
        raise argparse.ArgumentTypeError(f"{name} is empty")
    return text


def _number(text: str, kind: Callable[[str], float], least: float, what: str) -> float:
    """Read a number that has a lower limit."""
    try:
        number = kind(text)
    except ValueError:
        number = -math.inf
    if not least <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no {what}")
    return number


READ: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("DIR", "FILE", "FITS", "H5"), path_name),
    "PREFIX": partial(_not_empty, name="what the names of the pictures begin with"),
    "EXT": lambda text: int(text) if text.isdecimal() else text,
    "N": partial(_number, kind=int, least=1, what="number of 1 or more"),
    **dict.fromkeys(("DEVICE", "SM", "PIXELS"), int),
    **dict.fromkeys(("MAG", "SAMPLES", "SCALE", "X"), float),
    "SHARE": partial(_number, kind=float, least=0, what="share of the light, 0 or more"),
}
"""How values are read, by the words that stand for them; others are text."""
