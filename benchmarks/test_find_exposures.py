"""Finding the exposures of a region in an open meta store."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.inputs.archive import BANDS, POSITION
from benchmarks.sizes import Measure
from benchmarks.test_open_meta_store import MOST_FOR_FORCEPHO
from fpgpu import CircularRegion, MetaStore

OPERATION = "find exposures"
REGION = CircularRegion(*POSITION, 3 / 3600)


def test_fpgpu_region(measure: Measure, archive: Callable[[int], Path], n_exposures: int) -> None:
    with MetaStore(archive(n_exposures)) as store:
        found = measure(
            OPERATION,
            "fpgpu cpu",
            lambda: store.exposures_touching(REGION),
            detail="a circle of 3 arcsec",
            at={"exposures": n_exposures},
        )
        covering, bands = store.find_exposures(POSITION, BANDS)
    assert set(zip(bands, covering, strict=True)) <= set(found)
    assert 0 < len(found) < n_exposures


def test_fpgpu_position(measure: Measure, archive: Callable[[int], Path], n_exposures: int) -> None:
    with MetaStore(archive(n_exposures)) as store:
        expIDs, _ = measure(
            OPERATION,
            "fpgpu cpu",
            lambda: store.find_exposures(POSITION, BANDS),
            detail="a position",
            at={"exposures": n_exposures},
        )
    assert 0 < len(expIDs) < n_exposures


@pytest.mark.filterwarnings("ignore")
def test_forcepho_position(
    measure: Measure, archive: Callable[[int], Path], forcepho: ModuleType, n_exposures: int
) -> None:
    if n_exposures > MOST_FOR_FORCEPHO:
        pytest.skip(f"forcepho takes a minute to open {n_exposures:,} exposures")
    path = archive(n_exposures)
    theirs = forcepho.MetaStore(str(path), load_all=True)
    found = measure(
        OPERATION,
        "forcepho",
        lambda: theirs.find_exposures(POSITION, BANDS),
        detail="a position",
        at={"exposures": n_exposures},
        rounds=2,
        warm_up=False,
    )
    with MetaStore(path) as ours:
        assert found == ours.find_exposures(POSITION, BANDS)
