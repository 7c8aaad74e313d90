"""What every benchmark shares: inputs, the yardsticks, forcepho, and the record of the run.

``pytest benchmarks`` runs every benchmark once, as a test, on small inputs and without timing.
``python -m benchmarks`` measures and writes a report.
"""

import importlib
import statistics
import time
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks.inputs.archive import archive_bytes, archive_recipe, write_archive
from benchmarks.inputs.cache import cache_folder, made_once
from benchmarks.inputs.field import Field, field_bytes, field_recipe, write_field
from benchmarks.limits import Limit, copy_of, memcpy, small_calls
from benchmarks.measurements import MEASURED, Measured, Measurement, check_labels
from benchmarks.report.tables import measurement_table
from benchmarks.sizes import SIZES, Measure, Size
from fpgpu.backends.availability import cuda_status
from fpgpu.backends.base import Backend
from fpgpu.backends.choose import get_backend
from fpgpu.backends.memory import Array

_REPEAT = 7

POISON = 113
"""What outputs are filled with before they are written: no image is that everywhere."""

Keep = Callable[[Measurement], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--size", choices=list(SIZES), default="small", help="size of the benchmarks' inputs"
    )
    parser.addoption(
        "--stop-after",
        type=float,
        metavar="SECONDS",
        help="skip the benchmarks that would begin later than this",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[MEASURED] = Measured()
    config.pluginmanager.register(_Watch(config), "benchmarks-watch")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give benchmarks the inputs of the size that was asked for."""
    size = SIZES[metafunc.config.getoption("--size")]
    if "n_exposures" in metafunc.fixturenames:
        metafunc.parametrize("n_exposures", size.archive)
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", metafunc.module.cases(size), ids=str)


class _Watch:
    """Notes what was left out, and leaves out what would begin too late."""

    def __init__(self, config: pytest.Config) -> None:
        self.measured = config.stash[MEASURED]
        self.seconds: float | None = config.getoption("--stop-after")
        self.started = time.monotonic()

    def pytest_runtest_setup(self) -> None:
        if self.seconds is not None and time.monotonic() - self.started > self.seconds:
            pytest.skip(f"the run's {self.seconds:g} s were over")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and isinstance(report.longrepr, tuple):
            self.measured.skip(report.longrepr[2].removeprefix("Skipped: "))
        elif report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = crash.message if crash else str(report.longrepr)
            name = report.nodeid.rpartition("/")[2]
            self.measured.fail(name, reason.partition("\n")[0][:300])
        elif report.when == "call":
            self.measured.passed()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if config.stash[MEASURED].measurements:
        terminalreporter.section("medians")
        for line in measurement_table(config.stash[MEASURED]):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def size(request: pytest.FixtureRequest) -> Size:
    """The size of inputs that was asked for."""
    return SIZES[request.config.getoption("--size")]


@pytest.fixture(scope="session")
def inputs(
    request: pytest.FixtureRequest, size: Size, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Give the folder of inputs that are made once: small ones for this run, others for good."""
    root = tmp_path_factory.mktemp("inputs") if size.name == "small" else cache_folder()
    terminal = request.config.pluginmanager.get_plugin("terminalreporter")

    def say(text: str) -> None:
        if terminal is not None and size.name != "small":
            terminal.ensure_newline()
            terminal.write_line(text)

    def find(kind: str, recipe: Any, n_bytes: int, make: Callable[[Path], None]) -> Path:
        return made_once(root, kind, recipe, n_bytes, make, say)

    return find


@pytest.fixture(scope="session")
def field(inputs: Callable[..., Path], size: Size) -> Field:
    """The stores of a field."""
    made = inputs(
        "field", field_recipe(size), field_bytes(size), lambda folder: write_field(folder, size)
    )
    return Field(made, size)


@pytest.fixture(scope="session")
def archive(inputs: Callable[..., Path]) -> Callable[[int], Path]:
    """Give the meta store of a number of exposures."""

    @cache
    def of(n_exposures: int) -> Path:
        made = inputs(
            f"archive-{n_exposures}",
            archive_recipe(n_exposures),
            archive_bytes(n_exposures),
            lambda folder: write_archive(folder, n_exposures),
        )
        return made / "meta.json"

    return of


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
def keep(request: pytest.FixtureRequest) -> Keep:
    """Keep a measurement; without timing there is nothing to keep."""
    measured = request.config.stash[MEASURED]
    return measured.add if request.config.getoption("benchmark_enable") else lambda _: None


@pytest.fixture
def measure(benchmark: Any, keep: Keep) -> Measure:
    """Time a way to do an operation on the host's clock, and return what its last call returned.

    `limit` is by default a memcpy of `n_bytes`, or where few bytes move a thousand small calls.
    """

    def run(
        operation: str,
        column: str,
        function: Callable[..., Any],
        *,
        detail: str = "",
        at: dict[str, float] | None = None,
        n_bytes: int | None = None,
        limit: Limit | None = None,
        setup: Callable[[], Any] | None = None,
        rounds: int | None = None,
        warm_up: bool = True,
    ) -> Any:
        check_labels(operation, column, at or {})
        benchmark.group = operation
        limit = limit or (memcpy(n_bytes) if n_bytes else small_calls())
        before = limit.times() if benchmark.enabled else []
        if setup is None and rounds is None:
            result = benchmark(function)
        else:
            result = benchmark.pedantic(
                function, setup=setup, rounds=rounds or _REPEAT, warmup_rounds=int(warm_up)
            )
        if benchmark.stats is not None:
            stats = benchmark.stats.stats
            keep(
                Measurement(
                    operation,
                    column,
                    stats.median,
                    detail,
                    at or {},
                    spread=stats.iqr / stats.median,
                    best=stats.min,
                    n_bytes=n_bytes,
                    limit=limit.name,
                    limit_value=limit.median_with(before),
                )
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
def measure_on(backend: Backend, request: pytest.FixtureRequest, keep: Keep) -> Measure:
    """Time a call on a backend's own clock, beside one of its copies; or just call it.

    `outputs` are poisoned after the warm-up, and left as the last timed call wrote them.
    """

    def run(
        operation: str,
        call: Callable[[], Any],
        *,
        n_bytes: int,
        detail: str = "",
        at: dict[str, float] | None = None,
        copy: str = "device to device",
        outputs: Iterable[Array] = (),
    ) -> Any:
        check_labels(operation, f"fpgpu {backend.name}", at or {})
        result = None

        def kept() -> None:
            nonlocal result
            result = call()

        def spoil() -> None:
            for array in outputs:
                array.fill(POISON)

        if not request.config.getoption("benchmark_enable"):
            spoil()
            kept()
        else:
            limit = copy_of(backend, copy, n_bytes)
            before = limit.times()
            seconds = backend.time(kept, _REPEAT, spoil)
            keep(
                Measurement(
                    operation,
                    f"fpgpu {backend.name}",
                    statistics.median(seconds),
                    detail,
                    at or {},
                    best=min(seconds),
                    n_bytes=n_bytes,
                    limit=limit.name,
                    limit_value=limit.median_with(before),
                )
            )
        return result

    return run
