"""The parser of the command line: as argparse's, but it names what may have been meant."""

import argparse
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn, Protocol

__all__ = ["EXIT_CODES", "Command", "CommandParser", "add_command"]

_NEGATIVE_NUMBER = re.compile(r"-\.?\d")

EXIT_CODES = """exit codes:
  0    all done
  1    done in part, or a verdict is negative: some exposures did not go in, a store is damaged
  2    refused: wrong usage or unusable input
  130  interrupted (Ctrl-C, or the signal TERM); stores are as before the change or as after it
"""


class Command(Protocol):
    """A module that is a command."""

    __name__: str
    HELP: str
    DESCRIPTION: str
    EXAMPLES: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose errors name the nearest command, option or choice.

    Options cannot be abbreviated: a script would break when one is added.

    Parameters
    ----------
    **settings
        Of `argparse.ArgumentParser`.
    """

    def __init__(self, **settings: object) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **settings)  # type: ignore[arg-type]
        # A declination of -2e-5 (before Python 3.14) or of -27:47:24 is taken for an option.
        self._negative_number_matcher = _NEGATIVE_NUMBER

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str], namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse the words of a command line."""
        parser = self
        for word in args:
            # A wrong option is told before what is missing because of it.
            if word == "--":
                break
            if word in parser.commands:
                parser = parser.commands[word]
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
        for action in self.arguments:
            if action.dest == "command" and isinstance(action.choices, dict):
                return action.choices
        return {}

    def error(self, message: str) -> NoReturn:
        """Print a usage error, and what may have been meant, and exit with 2."""
        wrong = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)$", message)
        if wrong:
            choices = [choice.strip("' ") for choice in wrong[2].split(",")]
            message += _meant(wrong[1], choices)
        self.exit(2, f"{self.prog}: {message}\nTo see what it takes: {self.prog} --help\n")


def add_command(commands: Any, command: Command) -> None:
    """Add a command, with the options that all have, to what `add_subparsers` has given."""
    name = command.__name__.rpartition(".")[2]
    parser = commands.add_parser(
        name,
        help=command.HELP,
        description=textwrap.fill(command.DESCRIPTION, 79),
        epilog=command.EXAMPLES,
    )
    command.add_arguments(parser)
    group = parser.add_argument_group("what is told")
    noise = group.add_mutually_exclusive_group()
    noise.add_argument("-v", "--verbose", action="store_true", help="say what is being done")
    noise.add_argument("-q", "--quiet", action="store_true", help="print problems and results only")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(run=command.run)


def _meant(word: str, known: Iterable[str]) -> str:
    """Name what is near a word."""
    near = get_close_matches(word, list(known), n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""
