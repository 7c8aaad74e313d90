"""Adding metadata to a store: a commit, and then forcepho's files, which are written anew."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.inputs.archive import archive_entries
from benchmarks.limits import durable_copy
from benchmarks.sizes import Measure, Size
from fpgpu import MetaStore
from fpgpu.stores.views import write_views


@pytest.fixture
def store(archive: Callable[[int], Path], n_exposures: int, tmp_path: Path) -> Path:
    """A folder that may be changed."""
    return Path(shutil.copytree(archive(n_exposures).parent, tmp_path / "store"))


def test_fpgpu(measure: Measure, size: Size, store: Path, n_exposures: int) -> None:
    names = iter(range(1000))

    def more() -> tuple[tuple[MetaStore], dict[str, object]]:
        meta = MetaStore(store / "meta.json")
        meta.add_prepared(*archive_entries(size.few, name=f"new{next(names)}-"))
        return (meta,), {}

    def write(meta: MetaStore) -> int:
        meta.write_to_file(store / "meta.json")
        return meta.nexp

    found = measure(
        f"add {size.few} exposures to a MetaStore",
        "fpgpu cpu",
        write,
        at={"exposures": n_exposures},
        limit=durable_copy(sorted(store.glob("*.*")), store / "copy"),
        setup=more,
        rounds=3,
        warm_up=False,
    )
    assert (found - n_exposures) % size.few == 0
    assert found > n_exposures


def test_fpgpu_views(measure: Measure, store: Path, n_exposures: int) -> None:
    views = sorted(store.glob("meta.*"))
    measure(
        "write meta.json and meta.asdf for forcepho",
        "fpgpu cpu",
        lambda: write_views(store / "pixels.h5"),
        at={"exposures": n_exposures},
        n_bytes=sum(view.stat().st_size for view in views),
        limit=durable_copy(views, store / "copy"),
        rounds=3,
    )
