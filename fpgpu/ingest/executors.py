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
from collections.abc import Callable
from concurrent.futures import (
    Executor,
    Future,
    ProcessPoolExecutor,
)
from types import ModuleType
from typing import Any

from fpgpu.errors import ExecutorError
from fpgpu.ingest.clusters import DaskWorkers, mpi_workers
from fpgpu.ingest.machine import available_cores
from fpgpu.ingest.workers import ForeignWorkers, InProcess, Workers
from fpgpu.tiling import limit_threads

__all__ = ["open_workers"]

logger = logging.getLogger(__name__)

START_METHOD = "forkserver"
"""How worker processes begin: never as a copy of this one, whose threads and locks they'd share."""

PRELOADED = ["fpgpu.ingest.work", "fpgpu.ingest.preloaded"]

KINDS = "serial, processes, dask://HOST:PORT, mpi"


def open_workers(executor: "str | Executor | None", n: int) -> Workers:
    """Start whatever does the work."""
    if isinstance(executor, Executor):
        return ForeignWorkers(executor, n)
    if executor == "serial" or (executor in {None, "processes"} and n == 1):
        return Workers(InProcess, 1, lambda pool: None, is_remote=False, ends_when_told=True)
    if executor in {None, "processes"}:
        return Workers(lambda: _processes(n), n, _kill, ends_when_told=True)
    if executor == "mpi":
        return mpi_workers()
    if isinstance(executor, str) and executor.startswith("dask://"):
        return DaskWorkers(executor.removeprefix("dask://"))
    raise ExecutorError(f"there is no executor {executor!r}; expected one of {KINDS}")


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

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End; where nothing is left to do, by killing the idle workers.

        One that was killed while it reached for a task has left their queue locked: the others
        would wait for that lock, and this process for them, for ever.
        """
        if not self._pending_work_items:
            _kill_workers(self)
        super().shutdown(wait=wait, cancel_futures=cancel_futures)


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
    # What concerns an exposure is in its notes; a worker's own words would come once from each.
    logging.getLogger("fpgpu.sky").setLevel(logging.ERROR)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that started it has died: nobody will ask for its results."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _kill(pool: Executor) -> None:
    """Kill the workers of a pool and wait until they are gone."""
    _kill_workers(pool)
    pool.shutdown(wait=True, cancel_futures=True)


def _kill_workers(pool: Executor) -> None:
    """Kill the workers of a pool."""
    for process in list((getattr(pool, "_processes", None) or {}).values()):
        process.kill()
