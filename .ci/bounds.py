"""Print, as constraints for pip, the oldest versions that pyproject.toml allows."""

import re
import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads(Path("pyproject.toml").read_text())["project"]


def main() -> None:
    """Print a line ``name==version`` for each requirement with a lower bound."""
    extras = PROJECT["optional-dependencies"]
    wanted = PROJECT["dependencies"] + [line for name in sys.argv[1:] for line in extras[name]]
    for requirement in wanted:
        bound = re.match(r"([\w.-]+)(?:\[[\w,]*\])?\s*>=\s*([\w.]+)", requirement)
        if bound:
            print(f"{bound[1]}=={bound[2]}")


main()
