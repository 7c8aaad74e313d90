"""Opening a meta store, until it has told which exposures cover a position."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.inputs.archive import BANDS, POSITION
from benchmarks.limits import cached_read
from benchmarks.sizes import Measure, Size
from fpgpu import MetaStore

OPERATION = "open MetaStore and ask"
MOST_FOR_FORCEPHO = 1000  # exposures; more take a minute


def first_answer(path: Path) -> list[str]:
    with MetaStore(path) as store:
        return store.find_exposures(POSITION, BANDS)[0]


def test_fpgpu(measure: Measure, archive: Callable[[int], Path], n_exposures: int) -> None:
    path = archive(n_exposures)
    assert measure(
        OPERATION,
        "fpgpu cpu",
        lambda: first_answer(path),
        at={"exposures": n_exposures},
        limit=cached_read([path.with_name("pixels.h5")]),
        rounds=15,
    )


def test_fpgpu_without_an_index(
    measure: Measure, size: Size, archive: Callable[[int], Path], tmp_path: Path
) -> None:
    path = tmp_path / "meta.json"
    path.write_bytes(archive(size.archive[0]).read_bytes())
    assert measure(
        OPERATION,
        "fpgpu cpu",
        lambda: first_answer(path),
        detail="forcepho's files",
        at={"exposures": size.archive[0]},
        limit=cached_read([path]),
        rounds=7,
    )
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.filterwarnings("ignore")
def test_forcepho(
    measure: Measure, archive: Callable[[int], Path], forcepho: ModuleType, n_exposures: int
) -> None:
    if n_exposures > MOST_FOR_FORCEPHO:
        pytest.skip(f"forcepho takes a minute to open {n_exposures:,} exposures")
    path = archive(n_exposures)

    found = measure(
        OPERATION,
        "forcepho",
        lambda: forcepho.MetaStore(str(path)).find_exposures(POSITION, BANDS)[0],
        at={"exposures": n_exposures},
        limit=cached_read([path]),
        rounds=1 if n_exposures > 100 else 2,
        warm_up=False,
    )
    assert found == first_answer(path)
