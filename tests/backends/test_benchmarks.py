"""What the benchmarks of a GPU do with its clock and its results, shown without one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.devices import require_memory, time_beside_copy
from benchmarks.ratios import Measurement, Ratios
from benchmarks.record import write_results
from benchmarks.test_transfer import TO_DEVICE, TO_HOST
from fpgpu.backends.choose import get_backend
from fpgpu.doctor import BackendReport, CopySpeed, Diagnosis

ROOT = Path(__file__).parents[2]
COMMAND = "python -m benchmarks.record --size survey"


@pytest.mark.parametrize("copy", ["device to device", TO_DEVICE, TO_HOST])
def test_a_device_is_compared_with_its_own_copy(cuda_class: Any, copy: str) -> None:
    found = time_beside_copy(cuda_class(0), "a way", lambda: None, 4096, copy)
    assert found.way == "fpgpu, cuda, a way"
    assert (found.n_bytes, found.copy) == (4096, copy)


def test_the_host_has_one_copy() -> None:
    found = time_beside_copy(get_backend("cpu"), "a way", lambda: None, 4096, TO_DEVICE)
    assert found.copy == "memcpy in the host"


def test_the_copy_of_much_is_worked_out_from_that_of_less(
    cuda_class: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.devices._MOST_COPIED", 1024)
    backend = cuda_class(0)
    seconds = {"a copy": 0.5, "a call": 3.0}
    monkeypatch.setattr(backend, "copies_to_time", lambda n_bytes: {"a copy": "a copy"})
    monkeypatch.setattr(backend, "time", lambda call, repeat: [seconds[call]] * repeat)
    found = time_beside_copy(backend, "a way", "a call", 4096, "a copy")  # type: ignore[arg-type]
    assert (found.seconds, found.copy_seconds) == (3.0, 2.0)


def test_what_a_device_has_no_memory_for_is_skipped(cuda_class: Any) -> None:
    require_memory(cuda_class(0), 1 << 20)
    with pytest.raises(pytest.skip.Exception, match="bytes free, 1,099,511,627,776 are needed"):
        require_memory(cuda_class(0), 1 << 40)


@pytest.fixture
def diagnosis() -> Diagnosis:
    """What the doctor says of a machine with a GPU."""
    copies = (CopySpeed("device to device", 64 << 20, 2.1e12),)
    device = BackendReport("cuda", "CUDA device 0 (NVIDIA X1)", 8 << 30, 7 << 30, {}, None, copies)
    host = BackendReport("cpu", "the host", 8 << 30, 7 << 30, {}, None, ())
    versions = {"CuPy": "13.3.0", "CUDA of the driver": "12.4", "NVRTC": None}
    return Diagnosis("cuda", "it works", versions, None, (host, device), (), ())


def test_results_say_where_when_and_how_they_were_measured(
    diagnosis: Diagnosis, tmp_path: Path
) -> None:
    ratios = Ratios()
    ratios.add("unpack", Measurement("fpgpu, cuda", 2e-3, 10**9, 1e-3, "device to device"))
    data, page = write_results(tmp_path / "results", ratios, diagnosis, COMMAND)
    assert data.stem == page.stem
    assert data.stem.endswith("-cuda-device-0-nvidia-x1")

    found = json.loads(data.read_text())
    assert found["device"] == "CUDA device 0 (NVIDIA X1)"
    assert found["command"] == COMMAND
    assert found["diagnosis"]["versions"]["CUDA of the driver"] == "12.4"
    assert {"date", "commit", "driver", "machine"} <= set(found)
    assert found["medians"]["unpack"] == [
        {
            "way": "fpgpu, cuda",
            "seconds": 2e-3,
            "n_bytes": 10**9,
            "copy_seconds": 1e-3,
            "copy": "device to device",
        }
    ]
    lines = page.read_text().splitlines()
    assert f"- command: {COMMAND}" in lines
    assert "- CuPy: 13.3.0" in lines
    assert "| device to device, 64 MiB | 2100.0 |" in lines
    assert "| unpack | fpgpu, cuda | 2 ms | 500.0 | 50% | device to device |" in lines


def test_without_a_gpu_nothing_is_written(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.record", "--out", str(tmp_path / "results")],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 1
    assert "nothing was measured, there is no GPU to measure on: " in result.stderr
    assert not list(tmp_path.iterdir())
