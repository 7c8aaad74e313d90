"""Build the site, these pages and those of the API: ``python docs/pages.py OUT``.

pdoc writes out what stands behind an alias of types: eight lines for ``ArrayLike``. Here signatures
keep the names.
"""

import inspect
import re
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pdoc
from pdoc.render_helpers import to_html

ROOT = Path(__file__).resolve().parents[1]
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


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em; }}
pre, code {{ background: #f4f4f4; }}
pre {{ overflow-x: auto; padding: .7em; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; }}
td, th {{ border: 1px solid #ccc; padding: .2em .6em; text-align: left; vertical-align: top; }}
img {{ max-width: 100%; }}
</style>
</head>
<body>
<p><a href="{home}">fpgpu</a></p>
{body}
</body>
</html>
"""


def write_markdown(out: Path, root: Path = ROOT) -> None:
    """Write each page of Markdown, and pictures, where it lies in the repository."""
    pages = [*root.glob("C*.md"), *root.glob("docs/*.md"), *root.glob("benchmarks/results/*.md")]
    for page in pages:
        place, text = page.relative_to(root), page.read_text()
        target = out / place.with_suffix(".html")
        target.parent.mkdir(parents=True, exist_ok=True)
        title = text.partition("\n")[0].lstrip("# ")
        home = "../" * (len(place.parts) - 1) + "fpgpu.html"
        html = _PAGE.format(title=title, home=home, body=to_html(text))
        target.write_text(between_pages(html))
        for picture in page.parent.glob("*.png"):
            shutil.copy(picture, target.parent)


def between_pages(html: str) -> str:
    """Let links to Markdown of the repository lead to what it has become."""
    return re.sub(r'href="(?!\w+:)([^"#]+)\.md(["#])', r'href="\1.html\2', html)


def main() -> None:
    """Write the site."""
    out = Path(sys.argv[1])
    inspect.formatannotation = pdoc.doc.formatannotation = readable
    warnings.filterwarnings("ignore", "Error parsing type annotation")  # of what is not imported
    pdoc.render.configure(docformat="numpy")
    pdoc.pdoc(*MODULES, output_directory=out)
    front = out / "fpgpu.html"  # with the README
    front.write_text(between_pages(front.read_text()))
    write_markdown(out)


if __name__ == "__main__":
    main()
