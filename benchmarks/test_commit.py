"""A commit of further exposures beside all that are there, and then forcepho's files anew."""

import os
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from benchmarks.inputs.archive import BLANK_SIDE, blank_exposure
from benchmarks.limits import durable_copy
from benchmarks.sizes import Measure, Size
from fpgpu import PixelStore
from fpgpu.stores.views import write_views

MOST_WITH_VIEWS = 1000  # exposures; each gWCS takes some 20 ms


@pytest.fixture
def store(archive: Callable[[int], Path], n_exposures: int, tmp_path: Path) -> Path:
    """A folder that may be changed."""
    shutil.copytree(archive(n_exposures).parent, tmp_path / "store")
    os.sync()  # or a commit waits for the copy's bytes, too
    return tmp_path / "store" / "pixels.h5"


def test_fpgpu(measure: Measure, size: Size, store: Path, n_exposures: int, tmp_path: Path) -> None:
    names = count()

    def add() -> None:
        with PixelStore(store, BLANK_SIDE) as pixels, pixels.batch():
            for _ in range(size.few):
                pixels.add_exposure(blank_exposure("more", f"e{next(names)}"))

    measure(
        f"commit {size.few} exposures without pixels",
        "fpgpu cpu",
        add,
        at={"exposures": n_exposures},
        limit=durable_copy([store], tmp_path / "copy"),
        rounds=3,
    )
    with PixelStore(store, mode="r") as pixels:
        assert len(pixels) == next(names) + 1


def test_fpgpu_views(measure: Measure, store: Path, n_exposures: int, tmp_path: Path) -> None:
    if n_exposures > MOST_WITH_VIEWS:
        pytest.skip(f"forcepho's files of {n_exposures:,} exposures take minutes")
    views = sorted(store.parent.glob("meta.*"))
    measure(
        "write meta.json and meta.asdf for forcepho",
        "fpgpu cpu",
        lambda: write_views(store),
        at={"exposures": n_exposures},
        n_bytes=sum(view.stat().st_size for view in views),
        limit=durable_copy(views, tmp_path / "copy"),
        rounds=2,
        warm_up=False,
    )
