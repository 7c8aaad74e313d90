"""The site: signatures of the API can be read, and links lead from page to page."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fpgpu.sky.angles import AngleLike, PositionLike

pytest.importorskip("pdoc", reason="pages are made by pdoc: pip install 'fpgpu[docs]'")


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    path = Path(__file__).parents[1] / "docs" / "pages.py"
    spec = importlib.util.spec_from_file_location("pages", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (npt.ArrayLike, "ArrayLike"),
        (npt.ArrayLike | None, "Union[ArrayLike, None]"),
        (list[npt.ArrayLike], "list[ArrayLike]"),
        (tuple[npt.NDArray[np.float64], int], "tuple[NDArray[float64], int]"),
        (npt.NDArray[Any], "NDArray"),
        (AngleLike, "Union[Quantity, ArrayLike]"),
        (PositionLike | None, "Union[SkyCoord, Quantity, ArrayLike, None]"),
        (str | None, "str | None"),
    ],
)
def test_aliases_keep_their_names(pages: ModuleType, annotation: Any, text: str) -> None:
    assert pages.readable(annotation) == text


def test_every_module_with_a_page_exists(pages: ModuleType) -> None:
    assert all(importlib.util.find_spec(name) for name in pages.MODULES)


def test_links_of_the_pages_lead_to_pages_of_the_site(pages: ModuleType, tmp_path: Path) -> None:
    pages.write_markdown(tmp_path)
    (tmp_path / "fpgpu.html").touch()  # of the API
    written = sorted(tmp_path.rglob("*.html"))
    assert len(written) > 10
    for page in written:
        for link in re.findall(r'(?:href|src)="(?!\w+:|#)([^"#]+)', page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} leads to {link}"


def test_links_of_the_readme_lead_to_pages_too(pages: ModuleType) -> None:
    html = '<a href="docs/psf.md">, <a href="docs/a.md#b">, <a href="https://x/y.md">'
    assert pages.between_pages(html) == (
        '<a href="docs/psf.html">, <a href="docs/a.html#b">, <a href="https://x/y.md">'
    )
