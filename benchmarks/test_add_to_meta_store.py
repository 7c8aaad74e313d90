"""Adding exposures to a meta store that is durable afterwards, beside a durable copy of its files.

A store is replaced at once or not at all, so a copy of its files is what a change must cost; how
many exposures are in it already should count for nothing more.
"""

from collections.abc import Callable
from pathlib import Path

from benchmarks.inputs.archive import archive_entries
from benchmarks.limits import copy_durably, durable_copy
from benchmarks.sizes import Measure, Size
from fpgpu import MetaStore


def test_fpgpu(
    measure: Measure,
    size: Size,
    archive: Callable[[int], Path],
    n_exposures: int,
    tmp_path: Path,
) -> None:
    files = sorted(archive(n_exposures).parent.glob("meta.*"))
    target = tmp_path / "store"
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
        n_bytes=sum(file.stat().st_size for file in files),
        limit=durable_copy(files, tmp_path / "copy"),
        setup=lambda: copy_durably(files, target),
        rounds=5,
    )
    assert found == n_exposures + size.few
