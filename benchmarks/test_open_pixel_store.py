"""Opening a pixel store, until it can say which bands it holds."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest

from benchmarks.sizes import Measure, Size
from fpgpu import PixelStore

BANDS = "F090W", "F200W", "F444W"
OPERATION = "open PixelStore"


@pytest.fixture
def store_file(tmp_path: Path, size: Size) -> Callable[[int], Path]:
    """A store whose pixels take no room on disk, as opening does not read them."""
    path, grid = tmp_path / "pixels.h5", size.side // 8

    def write(n_exposures: int) -> Path:
        with h5py.File(path, "w") as h5:
            h5.attrs["nside_full"], h5.attrs["super_pixel_size"] = np.int64(size.side), np.int64(8)
            for n in range(n_exposures):
                h5.create_dataset(f"{BANDS[n % 3]}/e{n}/data", (grid, grid, 128), "<f4")
        return path

    return write


@pytest.mark.parametrize("times", [1, 2, 10])
def test_fpgpu(measure: Measure, size: Size, store_file: Callable[[int], Path], times: int) -> None:
    n_exposures = times * size.few
    path = store_file(n_exposures)

    def open_store() -> int:
        with PixelStore(path, mode="r") as store:
            return len(store.bands)

    found = measure(OPERATION, "fpgpu cpu", open_store, at={"exposures": n_exposures})
    assert found == len(BANDS)


@pytest.mark.filterwarnings("ignore")
def test_forcepho(
    measure: Measure, size: Size, store_file: Callable[[int], Path], forcepho: ModuleType
) -> None:
    path = store_file(size.few)

    def open_store() -> int:
        store = forcepho.PixelStore(str(path))
        n_bands = len(store.data)
        store.close()
        return n_bands

    found = measure(
        OPERATION, "forcepho", open_store, at={"exposures": size.few}, rounds=2, warm_up=False
    )
    assert found == len(BANDS)
