"""Adding an exposure to a pixel store: mask, calibrate, put in order, write durably."""

import os
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from benchmarks.images import image_set
from benchmarks.sizes import Measure, Size
from fpgpu import PixelStore
from fpgpu.calibration import calibrated_superpixels, flux_calibration


def operation(side: int) -> str:
    return f"add_exposure {side} x {side}"


def test_the_write_itself(measure: Measure, size: Size, tmp_path: Path) -> None:
    pixels = np.ones(2 * size.side**2, np.float32)
    numbers = count()

    def write() -> None:
        with (tmp_path / str(next(numbers))).open("wb") as file:
            file.write(pixels.data)
            file.flush()
            os.fsync(file.fileno())

    measure(
        operation(size.side), "write and fsync a plain file", write, n_bytes=pixels.nbytes, rounds=7
    )
    assert (tmp_path / "0").stat().st_size == pixels.nbytes


def test_calibration_alone(measure: Measure, size: Size) -> None:
    exposure = image_set(size.side, "e")
    factor, _ = flux_calibration(exposure.hdr)
    superpixels, counts = measure(
        operation(size.side),
        "fpgpu, without the write",
        lambda: calibrated_superpixels(*exposure[:4], bitmask=1, factor=factor),
        n_bytes=8 * size.side**2,
    )
    assert superpixels.nbytes == 8 * size.side**2
    assert 0 < counts.n_masked < size.side**2


def test_fpgpu(measure: Measure, size: Size, tmp_path: Path) -> None:
    exposure = image_set(size.side, "e")
    numbers = count()
    with PixelStore(tmp_path / "pixels.h5", size.side) as store:
        store.add_exposure(exposure)
        measure(
            operation(size.side),
            "fpgpu",
            lambda: store.add_exposure(
                exposure._replace(expID=f"e{next(numbers)}"), bitmask=1, do_fluxcal=True
            ),
            n_bytes=8 * size.side**2,
            rounds=7,
        )
        assert len(store) > 1


@pytest.mark.filterwarnings("ignore")
def test_forcepho(measure: Measure, size: Size, forcepho: ModuleType, tmp_path: Path) -> None:
    numbers = count()
    store = forcepho.PixelStore(str(tmp_path / "pixels.h5"), nside_full=size.side)

    def fresh() -> tuple[tuple[Any], dict[str, Any]]:
        # It works in the caller's arrays, so each call needs new ones.
        exposure = image_set(size.side, f"e{next(numbers)}")
        return (exposure,), {"bitmask": 1, "do_fluxcal": True}

    measure(
        operation(size.side),
        "forcepho",
        store.add_exposure,
        n_bytes=8 * size.side**2,
        setup=fresh,
        rounds=3,
    )
    assert "e0" in store.data["F200W"]
    store.close()
