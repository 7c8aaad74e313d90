"""Adding exposures to a meta store that is durable afterwards, beside a durable copy of its files.

A store is replaced at once or not at all, so a copy of its files is what a change must cost; how
many exposures are in it already should count for nothing more.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from benchmarks.inputs.archive import archive_entries
from benchmarks.limits import Limit
from benchmarks.sizes import Measure, Size
from fpgpu import MetaStore

_COPIES = 3


def copy_durably(source: Path, target: Path) -> None:
    """Copy the files of a meta store and wait until they are on the disk."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for file in source.glob("meta.*"):
        with file.open("rb") as old, (target / file.name).open("wb") as new:
            shutil.copyfileobj(old, new)
            new.flush()
            os.fsync(new.fileno())


def durable_copy(source: Path, target: Path) -> Limit:
    """Copy the files of a meta store to new ones."""

    def times() -> list[float]:
        seconds = []
        for _ in range(_COPIES):
            start = perf_counter()
            copy_durably(source, target)
            seconds.append(perf_counter() - start)
        return seconds

    return Limit("copy and fsync of the files", times)


def test_fpgpu(
    measure: Measure,
    size: Size,
    archive: Callable[[int], Path],
    n_exposures: int,
    tmp_path: Path,
) -> None:
    source, target = archive(n_exposures).parent, tmp_path / "store"
    new = list(archive_entries(size.few, name="new"))

    def add() -> int:
        with MetaStore(target / "meta.json") as meta:
            meta.add_prepared(*new)
            meta.write_to_file(target / "meta.json")
            return meta.nexp

    found = measure(
        f"add {size.few} exposures to a MetaStore",
        "fpgpu cpu",
        add,
        at={"exposures": n_exposures},
        n_bytes=sum(file.stat().st_size for file in source.glob("meta.*")),
        limit=durable_copy(source, tmp_path / "copy"),
        setup=lambda: copy_durably(source, target),
        rounds=5,
    )
    assert found == n_exposures + size.few
