"""``fpgpu completion``: a script that completes fpgpu's commands in a shell."""

import argparse

from fpgpu.cli.arguments import add_options, path_name

__all__ = ["DESCRIPTION", "EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "a script that completes commands, options and files in a shell"
DESCRIPTION = (
    "Print a script for a shell, to be read by it when it starts: commands, options, choices, files"
    " and folders are then completed by the tab key."
)
EXAMPLES = """examples:
  fpgpu completion bash > ~/.local/share/bash-completion/completions/fpgpu
  fpgpu completion zsh > ~/.zfunc/_fpgpu     with fpath+=~/.zfunc before compinit in ~/.zshrc
  fpgpu completion fish > ~/.config/fish/completions/fpgpu.fish
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_options(parser, "shell {bash,zsh,fish}  the shell")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from fpgpu.cli.main import build_parser

    parser = build_parser()
    for command in parser.commands.values():
        for action in command.arguments:
            if action.type is path_name:
                kind = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE
                action.complete = kind  # type: ignore[attr-defined]
    print(shtab.complete(parser, args.shell))
    return 0
