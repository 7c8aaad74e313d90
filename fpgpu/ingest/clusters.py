"""Executors of clusters: the workers of a dask scheduler, and the ranks of an MPI run."""

import importlib
import math
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import Any, TypeVar

from fpgpu.errors import ExecutorError, MissingExtraError
from fpgpu.ingest.workers import Workers

__all__ = ["DaskWorkers", "mpi_workers"]

Result = TypeVar("Result")

COUNT_INTERVAL = 5.0
"""Seconds for which a count of the workers of a cluster is believed."""

DASK_TIMEOUT = 30.0
"""Seconds to wait for a dask scheduler and its first worker."""


class DaskWorkers(Workers):
    """The workers of a dask scheduler.

    Parameters
    ----------
    address : str
        ``HOST:PORT`` of the scheduler.
    """

    def __init__(self, address: str) -> None:
        distributed = _import("distributed", "dask")
        self._address = address
        self._n_now, self._counted_at = 1, -math.inf
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
        # Clusters grow and shrink, but not at every task.
        if time.monotonic() > self._counted_at + COUNT_INTERVAL:
            try:
                self._n_now = max(len(self._client.nthreads()), 1)
            except Exception as error:  # of many kinds, by how the connection ended
                raise self._gone(error) from error
            self._counted_at = time.monotonic()
        return self._n_now

    def submit(self, work: Callable[..., Result], *args: object) -> "Future[Result]":
        """Hand over a task."""
        try:
            return super().submit(work, *args)
        except ExecutorError:
            raise
        except Exception as error:  # of many kinds, by how the connection ended
            raise self._gone(error) from error

    def _gone(self, error: Exception) -> ExecutorError:
        return ExecutorError(
            f"the dask scheduler at {self._address} is gone ({error}); what was reported is "
            "durable: start it again, and run again with --resume"
        )

    def give_up(self) -> None:
        """Cancel what was submitted and leave the cluster."""
        with suppress(Exception):  # whatever the cluster says, we are leaving it
            super().give_up()
        self._client.close()

    def close(self) -> None:
        """Leave the cluster."""
        super().close()
        self._client.close()


def mpi_workers() -> Workers:
    """Use the other ranks of an MPI run."""
    return Workers(_mpi, None, _cancel)


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


_BESIDE = {"mpi": " and an MPI library: your cluster's (module load openmpi), or pip install mpich"}


def _import(module: str, extra: str) -> Any:
    """Import an optional package."""
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError) as error:  # mpi4py finds no MPI library: RuntimeError
        raise MissingExtraError(
            f"{module} cannot be imported ({str(error).splitlines()[0]}); "
            f'install it with pip install "fpgpu[{extra}]"{_BESIDE.get(extra, "")}'
        ) from error
