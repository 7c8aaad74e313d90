"""Executors of clusters: the workers of a dask scheduler, and the ranks of an MPI run."""

import importlib
import math
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from fpgpu.errors import ExecutorError, MissingExtraError
from fpgpu.ingest.workers import Workers

__all__ = ["DaskWorkers", "MPIWorkers"]

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
        self._counted_at = -math.inf
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
        super().__init__(self._client.get_executor(pure=False), 1)

    @property
    def n(self) -> int:
        """Worker processes of the cluster now: each works on one exposure at a time."""
        # Clusters grow and shrink, but not at every task.
        if time.monotonic() > self._counted_at + COUNT_INTERVAL:
            try:
                self._n = max(len(self._client.nthreads()), 1)
            except Exception as error:  # of many kinds, by how the connection ended
                raise self._gone(error) from error
            self._counted_at = time.monotonic()
        return self._n

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
            self._executor.shutdown(wait=False)
        self._client.close()

    def close(self) -> None:
        """Leave the cluster."""
        self._executor.shutdown(wait=True)
        self._client.close()


class MPIWorkers(Workers):
    """The other ranks of an MPI run."""

    def __init__(self) -> None:
        _import("mpi4py", "mpi")
        # Without that module every rank is a run of its own, whose pool would start more of them.
        # It is looked for before MPI begins, which waits for all ranks, also those that were
        # refused already.
        is_shared = "mpi4py.futures" in (word.removeprefix("-m") for word in sys.orig_argv)
        n = _import("mpi4py.MPI", "mpi").COMM_WORLD.Get_size() - 1 if is_shared else 0
        if n < 1:
            raise ExecutorError(
                "this run has no pool of MPI workers; start it as 'mpiexec -n N python -m "
                "mpi4py.futures -m fpgpu ingest ... --executor mpi' with N of 2 or more: one rank "
                "publishes, the others read. Beside mpi4py that needs an MPI library: your "
                "cluster's (module load openmpi), or pip install mpich"
            )
        super().__init__(_import("mpi4py.futures", "mpi").MPIPoolExecutor(main=False), n)

    def give_up(self) -> None:
        """Leave what has begun to itself."""
        self._executor.shutdown(wait=False)

    def close(self) -> None:
        """Wait for the ranks."""
        self._executor.shutdown(wait=True)


def _import(module: str, extra: str) -> Any:
    """Import an optional package."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{module} cannot be imported ({str(error).splitlines()[0]}); "
            f'install it with pip install "fpgpu[{extra}]"'
        ) from error
