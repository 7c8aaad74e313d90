"""Adding exposures to a meta store that is durable afterwards, beside a durable copy of its files.

A store is replaced at once or not at all, so a copy of its files is what a change must cost; how
many exposures are in it already should count for nothing more.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.sizes import Measure, Size
from benchmarks.survey import survey_entries
from fpgpu import MetaStore

Store = tuple[str, Path, int]


@pytest.fixture(params=[0, 0.1, 1])
def store(request: pytest.FixtureRequest, size: Size, meta_file: Callable[[int], Path]) -> Store:
    """Name the operation; give the store that is added to, and the bytes of its files."""
    n_exposures = int(request.param * size.many)
    path = meta_file(n_exposures)
    n_bytes = sum(file.stat().st_size for file in path.parent.iterdir())
    return f"add {size.few} exposures to a meta store of {n_exposures}", path, n_bytes


def test_fpgpu(measure: Measure, size: Size, store: Store, tmp_path: Path) -> None:
    operation, path, n_bytes = store
    new = list(survey_entries(size.few, name="new"))
    target = tmp_path / "store"

    def fresh() -> None:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(path.parent, target)
        os.sync()

    def add() -> int:
        with MetaStore(target / "meta.json") as meta:
            meta.add_prepared(*new)
            meta.write_to_file(target / "meta.json")
            return meta.nexp

    with MetaStore(path) as meta:
        expected = meta.nexp + size.few
    found = measure(operation, "fpgpu", add, n_bytes=n_bytes, setup=fresh, rounds=5)
    assert found == expected


def test_copy(measure: Measure, store: Store, tmp_path: Path) -> None:
    operation, path, n_bytes = store
    target = tmp_path / "store"

    def fresh() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        os.sync()

    def copy() -> None:
        for file in path.parent.iterdir():
            with file.open("rb") as source, (target / file.name).open("wb") as copy:
                shutil.copyfileobj(source, copy)
                copy.flush()
                os.fsync(copy.fileno())

    measure(
        operation, "copy of its files, with fsync", copy, n_bytes=n_bytes, setup=fresh, rounds=5
    )
    assert sorted(p.name for p in target.iterdir()) == sorted(p.name for p in path.parent.iterdir())
