"""A small survey to draw."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import fpgpu


@pytest.fixture(scope="module")
def survey(golden: Path) -> Iterator[fpgpu.Survey]:
    """Six exposures of 128 x 128 pixels of 31 mas, in three bands, with PSFs."""
    with fpgpu.open(golden / "tiny", backend="cpu") as survey:
        yield survey
