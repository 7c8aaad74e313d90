"""What every benchmark shares: sizes, the yardstick, forcepho, and the table of ratios.

``pytest benchmarks`` runs every benchmark once, as a test, on small inputs.
``pytest benchmarks --benchmark-enable --size survey`` measures with inputs of a survey's size.
"""

import importlib
import statistics
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks.devices import time_beside_copy
from benchmarks.fields import Field, write_field
from benchmarks.ratios import RATIOS, Measurement, Ratios, memcpy_times
from benchmarks.sizes import SIZES, Measure, Size
from benchmarks.survey import write_meta_store
from fpgpu.backends.availability import cuda_status
from fpgpu.backends.base import Backend
from fpgpu.backends.choose import get_backend


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--size", choices=list(SIZES), default="small", help="size of the benchmarks' inputs"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RATIOS] = Ratios()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if config.stash[RATIOS].measurements or config.stash[RATIOS].notes:
        terminalreporter.section("medians")
        for line in config.stash[RATIOS].lines():
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def size(request: pytest.FixtureRequest) -> Size:
    """The size of inputs that was asked for."""
    return SIZES[request.config.getoption("--size")]


@pytest.fixture(scope="session")
def forcepho() -> ModuleType:
    """forcepho's storage module, to compare with."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of is not ours to mend
            return importlib.import_module("forcepho.patches.storage")
    except ImportError as error:
        pytest.skip(f"forcepho, to compare with, cannot be imported: {error}")


@pytest.fixture
def forcepho_patch(forcepho: ModuleType, field: Field) -> Callable[..., Any]:
    """forcepho's patch over the pixels and PSFs of the field, with the FITS WCS of a meta store."""

    def make(meta_file: Path) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(forcepho.__name__.replace("storage", "pixel_patch"))
            patch = module.StorePatch(
                pixelstore=str(field.folder / "pixels.h5"),
                metastore=str(meta_file),
                psfstore=str(field.folder / "psf.h5"),
            )
            patch.metastore.populate_wcs()
        return patch

    return make


@pytest.fixture
def measure(benchmark: Any, request: pytest.FixtureRequest) -> Measure:
    """Time a way to do an operation, and return what its last call returned."""

    def run(
        operation: str,
        way: str,
        function: Callable[..., Any],
        *,
        n_bytes: int | None = None,
        setup: Callable[[], Any] | None = None,
        rounds: int | None = None,
    ) -> Any:
        benchmark.group = operation
        copies = memcpy_times(n_bytes) if benchmark.enabled and n_bytes else []
        if setup is None and rounds is None:
            result = benchmark(function)
        else:
            warmup = 0 if rounds == 1 else 1
            result = benchmark.pedantic(
                function, setup=setup, rounds=rounds or 7, warmup_rounds=warmup
            )
        if benchmark.stats is not None:
            seconds, memcpy_seconds = benchmark.stats.stats.median, None
            if n_bytes is not None:
                memcpy_seconds = statistics.median(copies + memcpy_times(n_bytes))
                benchmark.extra_info.update(bytes=n_bytes, memcpy_seconds=memcpy_seconds)
            request.config.stash[RATIOS].add(
                operation, Measurement(way, seconds, n_bytes, memcpy_seconds)
            )
        return result

    return run


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> Backend:
    """A new backend of each kind."""
    problem = cuda_status().problem if request.param == "cuda" else None
    if problem is not None:
        pytest.skip(f"needs a GPU: {problem}")
    return get_backend(request.param)


@pytest.fixture
def measure_on(backend: Backend, request: pytest.FixtureRequest) -> Measure:
    """Time a call on a backend's own clock, beside one of its copies; or just call it."""

    def run(
        operation: str,
        way: str,
        call: Callable[[], Any],
        *,
        n_bytes: int,
        copy: str = "device to device",
    ) -> Any:
        if request.config.getoption("benchmark_enable"):
            measurement = time_beside_copy(backend, way, call, n_bytes, copy)
            request.config.stash[RATIOS].add(operation, measurement)
        return call()

    return run


@pytest.fixture(scope="session")
def field(tmp_path_factory: pytest.TempPathFactory, size: Size) -> Iterator[Field]:
    """The stores of exposures that all cover one position, written once."""
    yield from write_field(tmp_path_factory.mktemp("field"), size)


@pytest.fixture(scope="session")
def meta_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Write the meta store of a number of exposures, once."""

    @cache
    def write(n_exposures: int) -> Path:
        return write_meta_store(tmp_path_factory.mktemp("meta"), n_exposures)

    return write
