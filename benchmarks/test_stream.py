"""Streaming neighbouring patches to a consumer that takes as long as building them does."""

import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.conftest import Keep
from benchmarks.inputs.field import POSITION, Field
from benchmarks.measurements import Measurement
from benchmarks.sizes import Size
from fpgpu import CircularRegion
from fpgpu.backends.base import Backend

_ROUNDS = 7

Consumer = Callable[[float], None]


def on_a_device(seconds: float) -> None:
    """Wait, as for kernels."""
    time.sleep(seconds)


def on_the_host(seconds: float) -> None:
    """Compute with arrays, on another core if there is one."""
    end = time.perf_counter() + seconds
    values = np.ones(1 << 16)
    while time.perf_counter() < end:
        np.sqrt(values, out=values)


def neighbours(size: Size) -> list[CircularRegion]:
    """Circles side by side, ten in a row; every exposure covers all of them."""
    n, radius = (100, size.radius) if size.side > 1000 else (10, size.radius / 2)
    step = 0.2 * radius / 3600
    return [
        CircularRegion(
            POSITION[0] + (k % 10 - 4.5) * step,
            POSITION[1] + (k // 10 - 4.5) * step,
            radius / 3600,
        )
        for k in range(n)
    ]


def seconds_of(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@pytest.mark.parametrize("consumer", [on_a_device, on_the_host])
def test_fpgpu_stream(
    consumer: Consumer,
    size: Size,
    field: Field,
    backend: Backend,
    keep: Keep,
    request: pytest.FixtureRequest,
) -> None:
    regions, sources, bands = neighbours(size), field.sources(), field.bands()
    busy = 0.0
    with field.open(backend) as survey:

        def build() -> None:
            for region in regions:
                survey.patch(region, sources, bands).free()

        def consume() -> None:
            for _ in regions:
                consumer(busy)

        def stream() -> int:
            with survey.stream(regions, sources, bands) as patches:
                for item in patches:
                    assert item.patch.plan.n_exp == size.few
                    consumer(busy)
            return item.index + 1

        build()  # finds where exposures are in the file, and makes their WCS
        if request.config.getoption("benchmark_enable"):
            times = []
            for _ in range(_ROUNDS):
                building = seconds_of(build)
                busy = building / len(regions)
                times.append((building, seconds_of(consume), seconds_of(stream)))
            keep(
                Measurement(
                    "building that a stream does not hide",
                    f"fpgpu {backend.name}",
                    statistics.median(streaming - consuming for _, consuming, streaming in times),
                    f"consumed {consumer.__name__.replace('_', ' ')}",
                    {"patches": len(regions)},
                    limit="building one by one",
                    limit_value=statistics.median(building for building, _, _ in times),
                )
            )
        assert stream() == len(regions)
    assert backend.live_allocations == 0
