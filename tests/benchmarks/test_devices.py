"""What benchmarks do with a device's clock, copies and memory, over a stand-in for CuPy."""

from typing import Any

import pytest

from benchmarks.devices import require_memory
from benchmarks.limits import copy_of
from benchmarks.test_transfer import TO_DEVICE, TO_HOST
from fpgpu.backends.choose import get_backend
from tests.backends.conftest import cuda_class as cuda_class


@pytest.mark.parametrize("copy", ["device to device", TO_DEVICE, TO_HOST])
def test_a_device_is_compared_with_its_own_copy(cuda_class: Any, copy: str) -> None:
    limit = copy_of(cuda_class(0), copy, 4096)
    assert limit.name == copy
    assert min(limit.times()) >= 0


def test_buffers_of_a_copy_are_made_once_and_only_those(
    cuda_class: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, made = cuda_class(0), []
    for name in ("_host_buffer", "_allocate"):
        make = getattr(backend, name)

        def counted(n_bytes: int, name: str = name, make: Any = make) -> Any:
            made.append(name)
            return make(n_bytes)

        monkeypatch.setattr(backend, name, counted)
    limit = copy_of(backend, "device to device", 4096)
    limit.median_with(limit.times())
    assert made == ["_allocate"] * 2


def test_the_host_has_one_copy() -> None:
    assert copy_of(get_backend("cpu"), TO_DEVICE, 4096).name == "memcpy"


def test_the_copy_of_much_is_worked_out_from_that_of_less(
    cuda_class: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.limits._MOST_COPIED", 1024)
    backend = cuda_class(0)
    asked = []
    monkeypatch.setattr(
        backend, "copies_to_time", lambda n_bytes: asked.append(n_bytes) or {"a copy": None}
    )
    monkeypatch.setattr(backend, "time", lambda call, repeat: [0.5] * repeat)
    assert copy_of(backend, "a copy", 4096).median_with([]) == 2.0
    assert asked == [1024]


def test_what_a_device_has_no_memory_for_is_skipped(cuda_class: Any) -> None:
    require_memory(cuda_class(0), 1 << 20)
    with pytest.raises(pytest.skip.Exception, match=r"are free on .* 1,099,511,627,776 are needed"):
        require_memory(cuda_class(0), 1 << 40)


def test_batches_that_only_fill_the_host_are_skipped() -> None:
    require_memory(get_backend("cpu"), 1 << 20)
    with pytest.raises(pytest.skip.Exception, match="are enough on the host"):
        require_memory(get_backend("cpu"), 1 << 40)
