"""Adding an exposure to a pixel store: mask, calibrate, put in order, write durably."""

from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks.inputs.images import image_set
from benchmarks.limits import durable_write
from benchmarks.sizes import Measure, Size
from fpgpu import PixelStore
from fpgpu.calibration import calibrated_superpixels
from fpgpu.fluxes import flux_calibration

OPERATION = "add_exposure"


def test_calibration_alone(measure: Measure, size: Size) -> None:
    exposure = image_set(size.side, "e")
    factor, _ = flux_calibration(exposure.hdr)
    superpixels, counts = measure(
        OPERATION,
        "fpgpu cpu",
        lambda: calibrated_superpixels(*exposure[:4], bitmask=1, factor=factor),
        detail="without the write",
        at={"side": size.side},
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
            OPERATION,
            "fpgpu cpu",
            lambda: store.add_exposure(
                exposure._replace(expID=f"e{next(numbers)}"), bitmask=1, do_fluxcal=True
            ),
            at={"side": size.side},
            n_bytes=8 * size.side**2,
            limit=durable_write(8 * size.side**2, tmp_path),
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
        OPERATION,
        "forcepho",
        store.add_exposure,
        at={"side": size.side},
        n_bytes=8 * size.side**2,
        limit=durable_write(8 * size.side**2, tmp_path),
        setup=fresh,
        rounds=2,
        warm_up=False,
    )
    assert "e0" in store.data["F200W"]
    store.close()
