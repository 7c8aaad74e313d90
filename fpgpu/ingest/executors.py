"""Where the work of an ingest runs: in this process, in others, on a dask cluster, under MPI.

All of them are executors as `concurrent.futures` defines them, so there is no scheduler here: only
how each kind is started, how many tasks it should hold, and how it is given up.
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

from fpgpu.errors import ExecutorError
from fpgpu.ingest.clusters import DaskWorkers, MPIWorkers
from fpgpu.ingest.machine import available_cores, suggested_workers
from fpgpu.ingest.workers import InProcess, Workers
from fpgpu.threads import set_threads

__all__ = ["Processes", "open_workers"]

Result = TypeVar("Result")

START_METHOD = "forkserver"
"""How worker processes begin: never as a copy of this one, whose threads and locks they'd share."""

PRELOADED = ["fpgpu.ingest.work", "fpgpu.ingest.preloaded"]

KINDS = "serial, processes, dask://HOST:PORT, mpi"


def open_workers(
    executor: "str | Executor | None", n: int | None, files: Iterable[Path] = ()
) -> Workers:
    """Start whatever does the work; with as many workers as suit the files, if `n` is None."""
    if n is not None and n < 1:
        raise ExecutorError(f"workers is {n}; expected at least 1")
    if isinstance(executor, Executor):
        return Workers(executor, n or available_cores())
    if executor in (None, "serial", "processes"):
        n = n or suggested_workers(files)
        return InProcess() if executor == "serial" or n == 1 else Processes(n)
    if executor == "mpi":
        return MPIWorkers()
    if isinstance(executor, str) and executor.startswith("dask://"):
        return DaskWorkers(executor.removeprefix("dask://"))
    raise ExecutorError(f"there is no executor {executor!r}; expected one of {KINDS}")


# --- processes of this machine ---------------------------------------------------------------


class Processes(Workers):
    """Worker processes of this machine; when one is lost, all of them are replaced.

    Parameters
    ----------
    n : int
        How many.
    """

    ends_when_told = True

    def __init__(self, n: int) -> None:
        super().__init__(self._begin(n), n)

    def _begin(self, n: int) -> Executor:
        """Make a pool; its processes begin with the tasks."""
        self._context = _Context()
        return ProcessPoolExecutor(
            n,
            cast("Any", self._context),
            initializer=_begin_worker,
            initargs=(max(1, available_cores() // n),),
        )

    def submit(self, work: Callable[..., Result], *args: object) -> "Future[Result]":
        """Hand over a task; it is here that processes are started.

        They would import the main module of this one, for functions that are defined there. Nothing
        of it is needed, and a script without a guard would ingest again.
        """
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            return super().submit(work, *args)
        finally:
            sys.modules["__main__"] = main

    def renew(self, error: BaseException) -> None:
        """Begin anew."""
        self.give_up()
        self._executor = self._begin(self.n)

    def give_up(self) -> None:
        """Kill the workers and wait until they are gone; what they had to do is lost."""
        alive = [process for process in self._context.processes if process.is_alive()]
        for process in alive:
            process.kill()
        self._executor.shutdown()
        for process in alive:
            process.join()

    def close(self) -> None:
        """End by killing the idle workers.

        One that was killed while it reached for a task has left their queue locked: the others
        would wait for that lock, and this process for them, for ever.
        """
        self.give_up()


class _Context:
    """A context of `multiprocessing` that knows the processes it made.

    The pool that is given it tells nobody, and cannot kill them before Python 3.14.
    """

    def __init__(self) -> None:
        self._context: Any = multiprocessing.get_context(START_METHOD)
        self._context.set_forkserver_preload(PRELOADED)
        self.processes: list[BaseProcess] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def Process(self, *args: Any, **settings: Any) -> BaseProcess:
        """Make a process."""
        process: BaseProcess = self._context.Process(*args, **settings)
        self.processes.append(process)
        return process


def _begin_worker(threads: int) -> None:
    """Set up a worker process: it shares the cores, and ends when and only when it should."""
    # A Ctrl-C reaches every process of a terminal; what it means is for the first one to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    set_threads(threads)
    # What concerns an exposure is in its notes; a worker's own words would come once from each.
    logging.getLogger("fpgpu.sky").setLevel(logging.ERROR)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that started it has died: nobody will ask for its results."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
