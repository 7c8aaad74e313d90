"""Finding the exposures of a region in an open meta store."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.sizes import Measure, Size
from benchmarks.survey import BANDS, POSITION, REGION
from fpgpu import MetaStore


def operation(n_exposures: int) -> str:
    return f"find exposures among {n_exposures}"


@pytest.mark.parametrize("number", ["few", "many"])
def test_fpgpu_region(
    measure: Measure, size: Size, meta_file: Callable[[int], Path], number: str
) -> None:
    n_exposures = getattr(size, number)
    with MetaStore(meta_file(n_exposures)) as store:
        found = measure(
            operation(n_exposures),
            "fpgpu, a circle of 3 arcsec",
            lambda: store.exposures_touching(REGION),
        )
        covering, bands = store.find_exposures(POSITION, BANDS)
    assert set(zip(bands, covering, strict=True)) <= set(found)
    assert 0 < len(found) < n_exposures


@pytest.mark.parametrize("number", ["few", "many"])
def test_fpgpu_position(
    measure: Measure, size: Size, meta_file: Callable[[int], Path], number: str
) -> None:
    n_exposures = getattr(size, number)
    with MetaStore(meta_file(n_exposures)) as store:
        expIDs, _ = measure(
            operation(n_exposures),
            "fpgpu, a position",
            lambda: store.find_exposures(POSITION, BANDS),
        )
    assert 0 < len(expIDs) < n_exposures


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", ["few", "many"])
def test_forcepho_position(
    measure: Measure,
    size: Size,
    meta_file: Callable[[int], Path],
    forcepho: ModuleType,
    number: str,
) -> None:
    n_exposures = getattr(size, number)
    path = meta_file(n_exposures)
    theirs = forcepho.MetaStore(str(path), load_all=True)
    found = measure(
        operation(n_exposures),
        "forcepho, a position",
        lambda: theirs.find_exposures(POSITION, BANDS),
        rounds=1 if n_exposures > 1000 else 5,  # seconds each
    )
    with MetaStore(path) as ours:
        assert found == ours.find_exposures(POSITION, BANDS)
