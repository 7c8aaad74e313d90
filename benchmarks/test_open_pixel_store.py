"""Opening a pixel store, until it can say what it holds."""

from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest

from benchmarks.sizes import Measure, Size
from fpgpu import PixelStore

BANDS = "F090W", "F200W", "F444W"


def operation(size: Size) -> str:
    return f"open PixelStore, {size.few} exposures of {size.side} x {size.side}"


@pytest.fixture
def store_file(tmp_path: Path, size: Size) -> Path:
    """A store whose pixels take no room on disk, as opening does not read them."""
    path = tmp_path / "pixels.h5"
    grid = size.side // 8
    with h5py.File(path, "w") as h5:
        h5.attrs["nside_full"], h5.attrs["super_pixel_size"] = np.int64(size.side), np.int64(8)
        for n in range(size.few):
            h5.create_dataset(f"{BANDS[n % 3]}/e{n}/data", (grid, grid, 128), "<f4")
    return path


def test_fpgpu(measure: Measure, size: Size, store_file: Path) -> None:
    def open_store() -> int:
        with PixelStore(store_file, mode="r") as store:
            return len(store.bands)

    assert measure(operation(size), "fpgpu", open_store) == len(BANDS)


@pytest.mark.filterwarnings("ignore")
def test_forcepho(measure: Measure, size: Size, store_file: Path, forcepho: ModuleType) -> None:
    def open_store() -> int:
        store = forcepho.PixelStore(str(store_file))
        n_bands = len(store.data)
        store.close()
        return n_bands

    assert measure(operation(size), "forcepho", open_store, rounds=3) == len(BANDS)
