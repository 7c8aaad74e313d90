"""Opening a meta store, until it has told which exposures cover a position."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.sizes import Measure, Size
from benchmarks.survey import BANDS, POSITION
from fpgpu import MetaStore


def operation(n_exposures: int) -> str:
    return f"open MetaStore and ask, {n_exposures} exposures"


def first_answer(path: Path) -> list[str]:
    with MetaStore(path) as store:
        return store.find_exposures(POSITION, BANDS)[0]


@pytest.mark.parametrize("number", ["few", "many"])
def test_fpgpu(measure: Measure, size: Size, meta_file: Callable[[int], Path], number: str) -> None:
    n_exposures = getattr(size, number)
    path = meta_file(n_exposures)
    assert measure(operation(n_exposures), "fpgpu", lambda: first_answer(path), rounds=15)


def test_fpgpu_without_its_sidecar(
    measure: Measure, size: Size, meta_file: Callable[[int], Path], tmp_path: Path
) -> None:
    path = tmp_path / "meta.json"
    path.write_bytes(meta_file(size.few).read_bytes())
    assert measure(
        operation(size.few), "fpgpu, forcepho's files", lambda: first_answer(path), rounds=7
    )
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.filterwarnings("ignore")
def test_forcepho(
    measure: Measure, size: Size, meta_file: Callable[[int], Path], forcepho: ModuleType
) -> None:
    path = meta_file(size.few)
    found = measure(
        operation(size.few),
        "forcepho",
        lambda: forcepho.MetaStore(str(path)).find_exposures(POSITION, BANDS)[0],
        rounds=5,
    )
    assert found == first_answer(path)
