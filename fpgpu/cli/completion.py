"""A script that completes commands, options and files in a shell.

Print a script for a shell, to be read by it when it starts: commands, options, choices, files and
folders are then completed by the tab key.

options:
  shell {bash,zsh,fish}  the shell

examples:
  fpgpu completion bash > ~/.local/share/bash-completion/completions/fpgpu
  fpgpu completion zsh > ~/.zfunc/_fpgpu     with fpath+=~/.zfunc before compinit in ~/.zshrc
  fpgpu completion fish > ~/.config/fish/completions/fpgpu.fish
"""

from argparse import Namespace

import shtab

from fpgpu.cli.console import Result
from fpgpu.cli.parser import build_parser, path_name


def run(args: Namespace) -> Result:
    """Make the script."""
    parser = build_parser()
    for command in parser.commands.values():
        for action in command.arguments:
            if action.type is path_name:
                kind = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE
                action.complete = kind  # type: ignore[attr-defined]
    return Result(shtab.complete(parser, args.shell))
