"""Build the pages of the API: ``python docs/pages.py OUT``.

pdoc writes out what stands behind an alias of types: eight lines for ``ArrayLike``. Here signatures
keep the names.
"""

import inspect
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pdoc

MODULES = [
    "fpgpu",
    "fpgpu.errors",
    "fpgpu.layout",
    "fpgpu.superpixels",
    "fpgpu.plots",
    "fpgpu.sky",
    "fpgpu.patch",
]

_expanded = inspect.formatannotation
_LONG = inspect.formatannotation(npt.ArrayLike).replace("typing.", "")
_ARRAY = str(npt.NDArray[np.float64]).replace("typing.", "").partition("numpy.float64")


def readable(annotation: Any, base_module: str | None = None) -> str:
    """Write an annotation with the names of aliases, and without the modules of classes."""
    text = _expanded(annotation, base_module).replace("typing.", "")
    text = text.replace(_LONG, "ArrayLike").replace(_LONG[len("Union[") : -1], "ArrayLike")
    for scalar in ("float64", "float32", "int64", "int32", "bool", "void"):
        text = text.replace(f"{_ARRAY[0]}numpy.{scalar}{_ARRAY[2]}", f"NDArray[{scalar}]")
    text = text.replace(f"{_ARRAY[0]}Any{_ARRAY[2]}", "NDArray").replace("NoneType", "None")
    return re.sub(r"ForwardRef\('(\w+)'\)", r"\1", text)


def main() -> None:
    """Write the pages."""
    inspect.formatannotation = pdoc.doc.formatannotation = readable
    warnings.filterwarnings("ignore", "Error parsing type annotation")  # of what is not imported
    pdoc.render.configure(docformat="numpy")
    pdoc.pdoc(*MODULES, output_directory=Path(sys.argv[1]))


if __name__ == "__main__":
    main()
