"""Where the work of an ingest runs: in this process, in others, on a dask cluster, under MPI.

All of them are executors as `concurrent.futures` defines them, so there is no scheduler here: only
how each kind is started, how many tasks it should hold, and how it is given up.
"""

import importlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import suppress
from types import ModuleType
from typing import Any, TypeVar

from fpgpu.errors import ExecutorError, MissingExtraError
from fpgpu.ingest.machine import available_cores
from fpgpu.tiling import limit_threads

__all__ = ["InProcess", "Workers", "is_lost", "open_workers"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

START_METHOD = "forkserver"
"""How worker processes begin: never as a copy of this one, whose threads and locks they'd share."""

PRELOADED = ["fpgpu.ingest.work"]

DASK_TIMEOUT = 30.0
"""Seconds to wait for a dask scheduler and its first worker."""

KINDS = "serial, processes, dask://HOST:PORT, mpi"


class Workers:
    """An executor, and what this project needs to know of it.

    Parameters
    ----------
    make : callable
        Gives the executor; called again when a lost worker has broken it.
    n : int or None
        Tasks that run at a time; None asks the executor.
    give_up : callable
        Ends an executor at once, whatever it is doing.
    is_remote : bool
        Whether tasks leave this process and so must be pickled.
    ends_when_told : bool
        Whether nothing of it is at work any more after `close` or `give_up`.
    """

    def __init__(
        self,
        make: Callable[[], Executor],
        n: int | None,
        give_up: Callable[[Executor], None],
        is_remote: bool = True,
        ends_when_told: bool = False,
    ) -> None:
        self._make = make
        self._n = n
        self._give_up = give_up
        self.is_remote = is_remote
        self.ends_when_told = ends_when_told
        self._executor = make()

    @property
    def n(self) -> int:
        """Tasks that run at a time."""
        if self._n is not None:
            return self._n
        known = getattr(self._executor, "_max_workers", None)
        return known if isinstance(known, int) and known > 0 else available_cores()

    def submit(self, work: Callable[..., Result], *args: object) -> "Future[Result]":
        """Hand over a task.

        Parameters
        ----------
        work : callable
            A function of a module.
        *args
            Small, and picklable.

        Returns
        -------
        Future
            Of the result; one that has failed already where the executor was just lost.

        Raises
        ------
        ExecutorError
            When the executor takes nothing any more.
        """
        try:
            return self._executor.submit(work, *args)
        except BrokenExecutor as error:
            lost: Future[Result] = Future()
            lost.set_exception(error)
            return lost
        except RuntimeError as error:
            raise ExecutorError(f"the executor takes no more work: {error}") from error

    def renew(self, error: BaseException) -> None:
        """Replace an executor that a lost worker has broken.

        Parameters
        ----------
        error : BaseException
            What a task that was lost has raised.

        Raises
        ------
        ExecutorError
            When it is not ours to replace.
        """
        if isinstance(error, BrokenExecutor):
            self._give_up(self._executor)
            self._executor = self._make()

    def give_up(self) -> None:
        """End at once, whatever is being done."""
        self._give_up(self._executor)

    def close(self) -> None:
        """End after everything that was submitted is done."""
        self._executor.shutdown(wait=True)


class InProcess(Executor):
    """Does each task in this process when it is handed over."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Do the task.

        Parameters
        ----------
        fn : callable
            The task.
        *args, **kwargs
            Its arguments.

        Returns
        -------
        Future
            Already done.
        """
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        # Kept for whoever asks, as by every executor.
        except Exception as error:  # noqa: BLE001
            future.set_exception(error)
        return future


def open_workers(executor: "str | Executor | None", n: int) -> Workers:
    """Start whatever does the work.

    Parameters
    ----------
    executor : str, Executor or None
        ``"serial"``: this process. ``"processes"`` or None: processes of this machine.
        ``"dask://HOST:PORT"``: the workers of a dask scheduler. ``"mpi"``: the other ranks of an
        MPI run. An executor of the caller's own is used and not shut down.
    n : int
        Processes to start; for the caller's own executor, tasks that run at a time if it does not
        say so itself.

    Returns
    -------
    Workers
        To be closed or given up in the end.

    Raises
    ------
    ExecutorError
        When there is no such kind, or it cannot be started.
    MissingExtraError
        When the package that it needs is not installed.
    """
    if isinstance(executor, Executor):
        own = executor
        known = getattr(executor, "_max_workers", None)
        return _Foreign(lambda: own, None if known else n, lambda pool: None)
    if executor == "serial" or (executor in {None, "processes"} and n == 1):
        return Workers(InProcess, 1, lambda pool: None, is_remote=False, ends_when_told=True)
    if executor in {None, "processes"}:
        return Workers(lambda: _processes(n), n, _kill, ends_when_told=True)
    if executor == "mpi":
        return Workers(_mpi, None, _cancel)
    if isinstance(executor, str) and executor.startswith("dask://"):
        return _Dask(executor.removeprefix("dask://"))
    raise ExecutorError(f"there is no executor {executor!r}; expected one of {KINDS}")


def is_lost(error: BaseException | None) -> bool:
    """Tell whether an error says that a worker has died, not that its task has failed.

    Parameters
    ----------
    error : BaseException or None
        The error of a future.

    Returns
    -------
    bool
    """
    return isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"


# --- processes of this machine ---------------------------------------------------------------


class _Processes(ProcessPoolExecutor):
    """Worker processes that do not run the caller's script again.

    A process that is started afresh imports the main module of its parent, for functions that are
    defined there. Nothing of it is needed here, and a script without a guard would ingest again.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Hand over a task; it is here that processes are started."""
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            sys.modules["__main__"] = main


def _processes(n: int) -> ProcessPoolExecutor:
    """Start worker processes."""
    context = multiprocessing.get_context(START_METHOD)
    context.set_forkserver_preload(PRELOADED)
    threads = max(1, available_cores() // n)
    return _Processes(n, context, initializer=_begin_worker, initargs=(threads,))


def _begin_worker(threads: int) -> None:
    """Set up a worker process: it shares the cores, and ends when and only when it should."""
    # A Ctrl-C reaches every process of a terminal; what it means is for the first one to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    limit_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that started it has died: nobody will ask for its results."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _kill(pool: Executor) -> None:
    """Kill the workers of a pool and wait until they are gone."""
    for process in list((getattr(pool, "_processes", None) or {}).values()):
        process.kill()
    pool.shutdown(wait=True, cancel_futures=True)


# --- clusters --------------------------------------------------------------------------------


class _Foreign(Workers):
    """An executor that the caller has made and will shut down."""

    def renew(self, error: BaseException) -> None:
        """Ask for a new one, unless it goes on after a loss."""
        if isinstance(error, BrokenExecutor):
            raise ExecutorError(
                f"the executor that was given has broken ({error}); make a new one, and run again "
                "with resume=True"
            ) from error

    def close(self) -> None:
        """Leave it as it is."""


class _Dask(Workers):
    """The workers of a dask scheduler.

    Parameters
    ----------
    address : str
        ``HOST:PORT`` of the scheduler.
    """

    def __init__(self, address: str) -> None:
        distributed = _import("distributed", "dask")
        try:
            self._client = distributed.Client(
                f"tcp://{address}", timeout=DASK_TIMEOUT, set_as_default=False
            )
        except (OSError, ValueError) as error:
            raise ExecutorError(
                f"no dask scheduler answers at {address} ({error}); start one with "
                "'dask scheduler' and workers with 'dask worker', or check the address"
            ) from error
        try:
            self._client.wait_for_workers(1, timeout=DASK_TIMEOUT)
        except TimeoutError as error:
            self._client.close()
            raise ExecutorError(
                f"the dask scheduler at {address} has no workers; start some with "
                f"'dask worker {address} --nthreads 1'"
            ) from error
        super().__init__(lambda: self._client.get_executor(pure=False), None, _cancel)

    @property
    def n(self) -> int:
        """Worker processes of the cluster now: each works on one exposure at a time."""
        return max(len(self._client.nthreads()), 1)

    def give_up(self) -> None:
        """Cancel what was submitted and leave the cluster."""
        with suppress(Exception):  # whatever the cluster says, we are leaving it
            super().give_up()
        self._client.close()

    def close(self) -> None:
        """Leave the cluster."""
        super().close()
        self._client.close()


def _mpi() -> Executor:
    """Use the other ranks of this MPI run."""
    futures = _import("mpi4py.futures", "mpi")
    world = _import("mpi4py.MPI", "mpi").COMM_WORLD
    core = importlib.import_module("mpi4py.futures._core")
    if world.Get_size() < 2 or getattr(core, "SharedPool", None) is None:
        raise ExecutorError(
            f"this run has {world.Get_size()} MPI rank(s) and no pool of workers; start it as "
            "'mpiexec -n N python -m mpi4py.futures -m fpgpu ingest ... --executor mpi' with N of "
            "2 or more: one rank publishes, the others read"
        )
    executor: Executor = futures.MPIPoolExecutor(main=False)
    return executor


def _cancel(pool: Executor) -> None:
    """Cancel what has not begun."""
    pool.shutdown(wait=False)


def _import(module: str, extra: str) -> Any:
    """Import an optional package."""
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError) as error:  # mpi4py finds no MPI library: RuntimeError
        raise MissingExtraError(
            f"{module} cannot be imported ({str(error).splitlines()[0]}); "
            f'install it with pip install "fpgpu[{extra}]"'
        ) from error
