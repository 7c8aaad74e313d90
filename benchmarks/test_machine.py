"""What the machine itself does, without fpgpu: memory, disk, and the copies of a device."""

import statistics
from pathlib import Path

import pytest

from benchmarks.conftest import Keep
from benchmarks.limits import Limit, cached_read, copy_of, disk_read, durable_write, memcpy
from benchmarks.measurements import Measurement
from benchmarks.sizes import Size
from fpgpu.backends.base import Backend


@pytest.fixture
def file(tmp_path: Path, size: Size) -> Path:
    """A file as large as the super-pixels of an exposure."""
    path = tmp_path / "exposure"
    path.write_bytes(bytes(8 * size.side**2))
    return path


def record(limit: Limit, n_bytes: int, keep: Keep, detail: str) -> None:
    """Time a limit as often as one that others are compared with."""
    seconds = limit.times()
    assert min(seconds) > 0
    median = limit.scale * statistics.median(seconds)
    keep(Measurement(limit.name, "machine", median, detail, {"bytes": n_bytes}, n_bytes=n_bytes))


@pytest.mark.parametrize("limit", ["memcpy", "disk read", "reading the files", "write and fsync"])
def test_memory_and_disk(limit: str, size: Size, file: Path, tmp_path: Path, keep: Keep) -> None:
    n_bytes = 8 * size.side**2
    limits = {
        "memcpy": memcpy(n_bytes),
        "disk read": disk_read(file),
        "reading the files": cached_read([file]),
        "write and fsync": durable_write(n_bytes, tmp_path),
    }
    record(limits[limit], n_bytes, keep, "of one exposure")


def test_copies_of_a_device(backend: Backend, size: Size, keep: Keep) -> None:
    n_bytes = 16 * 8 * size.side**2
    if backend.device is None:
        record(copy_of(backend, "", n_bytes), n_bytes, keep, "of 16 exposures")
    else:
        for copy in backend.copies_to_time(4096):
            record(copy_of(backend, copy, n_bytes), n_bytes, keep, "of 16 exposures")
