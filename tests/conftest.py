"""What every test shares: where the data are, and the long form of a test."""

import os
import signal
from itertools import compress
from operator import not_
from pathlib import Path

import pytest

try:  # those of a GPU need pytest and what fpgpu needs, no more
    import hypothesis
except ImportError:
    pass
else:
    # How long an example takes says how busy the machine is, not whether the code is right.
    hypothesis.settings.register_profile("fpgpu", deadline=None)
    hypothesis.settings.load_profile("fpgpu")

HERE = Path(__file__).parent

_MOST_WORKERS = 8
"""Processes that the whole suite is shared among: each may need a gigabyte."""


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    parser.addoption("--long", action="store_true", help="run the long form of tests")
    parser.addoption(
        "--only-long", action="store_true", help="run the long form of those that have one, alone"
    )
    # What pyproject.toml says to plugins must not stop a run without them.
    if not pluginmanager.hasplugin("benchmark"):
        parser.addoption("--benchmark-disable", action="store_true", help="for pytest-benchmark")
    if not pluginmanager.hasplugin("timeout"):
        parser.addini("timeout", "for pytest-timeout")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Share the whole suite among the cores; what is asked for by name runs in this process."""
    asked, cores = config.option, len(os.sched_getaffinity(0))
    is_whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    is_chosen = asked.markexpr or asked.keyword or asked.collectonly
    # One of those that it is shared among comes by here, too.
    is_free = "PYTEST_XDIST_WORKER" not in os.environ and hasattr(asked, "numprocesses")
    if is_whole and not is_chosen and is_free and asked.numprocesses is None and cores > 1:
        asked.numprocesses, asked.dist = min(cores, _MOST_WORKERS), "worksteal"


def pytest_configure() -> None:
    """Let tests send SIGINT: what a script starts in the background ignores it, children too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what has no long form, when only that is asked for."""
    if config.option.only_long:
        has_long_form = [("long_form" in getattr(item, "fixturenames", ())) for item in items]
        config.hook.pytest_deselected(items=[*compress(items, map(not_, has_long_form))])
        items[:] = compress(items, has_long_form)


def _is_gpu_run(config: pytest.Config) -> bool:
    """Whether tests on a GPU were asked for, so that running none is a failure."""
    return config.option.markexpr == "gpu" or os.environ.get("FPGPU_REQUIRE_GPU", "0") != "0"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and "gpu" in report.keywords and not report.skipped:
        _ran_on_gpu.add(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    is_worker = hasattr(session.config, "workerinput")
    if _is_gpu_run(session.config) and not _ran_on_gpu and not is_worker:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if _is_gpu_run(config) and not _ran_on_gpu:
        terminalreporter.write_line("FAILED: no test ran on a GPU, but a GPU run was asked for")


_ran_on_gpu: set[str] = set()


@pytest.fixture(scope="session")
def long_form(request: pytest.FixtureRequest) -> bool:
    """Whether counts (kills, corruptions, random fields) should be high."""
    return bool(request.config.option.long or request.config.option.only_long)


@pytest.fixture(scope="session")
def golden() -> Path:
    """forcepho's own answers, made for fpgpu and kept beside the tests."""
    return HERE / "data" / "golden"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real files that are read but not redistributed."""
    path = Path(os.environ.get("FPGPU_TEST_DATA", HERE.parent.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"real data not found at {path}; set FPGPU_TEST_DATA to their folder")
    return path


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``fpgpu demo --out`` leaves, of a smaller field: stores with PSFs, and sources.fits."""
    from fpgpu.demo.field import make_field
    from fpgpu.demo.run import CATALOG, DemoReport, store_psfs
    from fpgpu.ingest.pipeline import ingest
    from fpgpu.stores.folder import StoreFolder

    folder = tmp_path_factory.mktemp("demo")
    field = make_field(folder / "exposures", bands=("F200W", "F444W"), size=128, n_sources=12)
    ingest(field.files, folder / "stores")
    store_psfs(DemoReport(), StoreFolder(folder / "stores"), field)
    field.truth.write(folder / CATALOG)
    return folder
