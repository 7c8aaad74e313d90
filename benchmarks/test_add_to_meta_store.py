"""Adding exposures to a meta store of files, which no pixel store belongs to.

Its gWCS are made and written anew, one by one: what that takes grows with all that are there. The
metadata of a survey are written with its pixels, by a commit.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.inputs.archive import archive_entries
from benchmarks.limits import copy_durably, durable_copy
from benchmarks.sizes import Measure, Size
from fpgpu import MetaStore


@pytest.mark.parametrize("times", [1, 2, 4])
def test_fpgpu(
    measure: Measure,
    size: Size,
    archive: Callable[[int], Path],
    times: int,
    tmp_path: Path,
) -> None:
    n_exposures = times * size.few
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
        rounds=2,
    )
    assert found == n_exposures + size.few
