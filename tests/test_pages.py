"""Signatures on the pages of the API can be read."""

import importlib.util
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
