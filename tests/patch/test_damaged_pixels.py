"""A patch of a damaged file is refused with the exposure's name, on every backend and way."""

import re
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from astropy.wcs import WCS

import fpgpu
from fpgpu import CircularRegion, PixelStore
from fpgpu.backends.base import Backend
from fpgpu.errors import IntegrityError, ReleasedMemoryError
from fpgpu.ingest.inputs import Input
from fpgpu.ingest.pipeline import ingest
from tests.sky.made_wcs import tan_header

REGION = CircularRegion(53.16, -27.79, 1.2 / 3600)
ELSEWHERE = CircularRegion(53.16, -27.7902, 0.2 / 3600)


@pytest.fixture
def folder(golden: Path, tmp_path: Path) -> Path:
    for name in ("pixels.h5", "meta.json"):
        shutil.copy(golden / "tiny" / name, tmp_path / name)
    return tmp_path


def spoil(folder: Path, value: float, values: slice, region: CircularRegion = REGION) -> str:
    """Put a value into a super-pixel that is taken of the fourth exposure; say which."""
    with fpgpu.open(folder, backend="cpu") as survey:
        exposure = survey.plan(region).exposures[3]
    x, y = exposure.superpixels[len(exposure.superpixels) // 2]
    with h5py.File(folder / "pixels.h5", "r+") as file:
        file[exposure.band][exposure.expID]["data"][x, y, values] = value
    at = rf"\[x, y\] = \[{8 * x}, {8 * y}\]"
    return f"{exposure.band}/{exposure.expID} holds values that are not finite, .* {at}"


@pytest.mark.parametrize("resident_bytes", [0, 1 << 30], ids=["read", "resident"])
@pytest.mark.parametrize(
    ("value", "values"),
    [(np.nan, slice(0, 1)), (-np.inf, slice(63, 64)), (np.inf, slice(127, 128))],
    ids=["flux nan", "flux -inf", "ierr inf"],
)
def test_it_is_refused_with_the_exposure(
    folder: Path, backend: Backend, resident_bytes: int, value: float, values: slice
) -> None:
    message = spoil(folder, value, values)
    with fpgpu.open(folder, backend=backend, resident_bytes=resident_bytes) as survey:
        with pytest.raises(IntegrityError, match=message):
            survey.patch(REGION, background_keyword="NONE").check()
        with pytest.raises(IntegrityError, match=message):
            survey.patch(REGION, max_snr=3.0).retrieve("data")
        with survey.patch(REGION, bands=["F444W"]) as patch:
            assert np.isfinite(patch.retrieve("data")).all()


def test_it_is_freed_and_says_so(folder: Path, backend: Backend) -> None:
    spoil(folder, np.nan, slice(0, 1))
    with fpgpu.open(folder, backend=backend) as survey:
        if backend.name == "cpu":
            with pytest.raises(IntegrityError):
                survey.patch(REGION)
            return
        patch = survey.patch(REGION)
        with pytest.raises(IntegrityError):
            _ = patch.pointer
        assert patch.freed
        with pytest.raises(ReleasedMemoryError):
            _ = patch.pointer


def test_a_stream_tells_of_that_region_and_goes_on(folder: Path, backend: Backend) -> None:
    message = spoil(folder, np.nan, slice(70, 71))
    with fpgpu.open(folder, backend=backend) as survey:
        plan = survey.plan(REGION, ["F444W"])
        with survey.stream([plan, REGION, plan]) as stream:
            errors = [str(item.error) if item.error else None for item in stream]
    assert errors[0] is errors[2] is None
    assert errors[1] is not None
    assert re.search(message, errors[1])


def test_large_values_are_no_damage(folder: Path, backend: Backend) -> None:
    spoil(folder, 3e38, slice(0, 128))
    with fpgpu.open(folder, backend=backend) as survey, survey.patch(REGION) as patch:
        assert patch.retrieve("data").max() == np.float32(3e38)


# --- checksums -------------------------------------------------------------------------------


@pytest.fixture
def with_checksums(tmp_path: Path) -> Path:
    data = np.random.default_rng(1).normal(size=(128, 128)).astype("f4")
    exposures = [
        fpgpu.exposure_from_arrays(
            data, np.ones_like(data), band="F200W", expID=name, unit="nJy",
            wcs=WCS(tan_header(53.16, -27.79, (128, 128), 0.06, 30.0, 0.0)),
        )
        for name in ("a", "b")
    ]  # fmt: skip
    ingest([Input(e.expID, exposure=e) for e in exposures], tmp_path / "s", executor="serial")
    return tmp_path / "s"


def flip_a_bit(folder: Path, expID: str) -> None:
    """Damage the pixels of an exposure where HDF5 and finiteness see nothing."""
    with h5py.File(folder / "pixels.h5") as file:
        dataset = file["F200W"][expID]["data"]
        path, offset = dataset.file.filename, dataset.id.get_offset()
    with open(path, "r+b") as raw:  # noqa: PTH123
        raw.seek(offset + 8)
        byte = raw.read(1)[0]
        raw.seek(offset + 8)
        raw.write(bytes([byte ^ 1]))


def test_a_flipped_bit_is_found_where_that_is_asked_for(with_checksums: Path) -> None:
    region = CircularRegion(53.16, -27.79, 1 / 3600)
    with fpgpu.open(with_checksums, backend="cpu", verify=True) as survey:
        survey.patch(region).free()
    flip_a_bit(with_checksums, "b")
    with fpgpu.open(with_checksums, backend="cpu") as survey:
        survey.patch(region).free()
    with fpgpu.open(with_checksums, backend="cpu", verify=True) as survey:
        with pytest.raises(IntegrityError, match="do not match their checksum: F200W/b"):
            survey.patch(region)
        with survey.stream([region]) as stream:
            assert isinstance(next(stream).error, IntegrityError)
        assert survey.backend.live_allocations == 0


def test_each_exposure_is_verified_once_until_its_file_changes(
    with_checksums: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    verify = PixelStore.verify

    def count(store: PixelStore, *key: str) -> Any:
        seen.append(key)
        return verify(store, *key)

    monkeypatch.setattr(PixelStore, "verify", count)
    region = CircularRegion(53.16, -27.79, 1 / 3600)
    with fpgpu.open(with_checksums, backend="cpu", verify=True) as survey:
        for _ in range(3):
            survey.patch(region).free()
        assert seen == [("F200W", "a"), ("F200W", "b")]
        flip_a_bit(with_checksums, "a")
        with pytest.raises(IntegrityError, match="F200W/a"):
            survey.patch(region)


def test_exposures_without_checksums_are_told(golden: Path, caplog: Any) -> None:
    with fpgpu.open(golden / "tiny", backend="cpu", verify=True) as survey:
        survey.patch(REGION).free()
    assert "F090W/exp_f090w_00 has no checksum: it cannot be verified" in caplog.text
