"""An executor, and what a run needs to know of it: how many tasks, what a loss looks like."""

from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from typing import Any, TypeVar

from fpgpu.errors import ExecutorError
from fpgpu.ingest.machine import available_cores

__all__ = ["ForeignWorkers", "InProcess", "Workers", "is_gone", "is_lost"]

Result = TypeVar("Result")


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
        """Hand over a task."""
        try:
            return self._executor.submit(work, *args)
        except BrokenExecutor as error:
            lost: Future[Result] = Future()
            lost.set_exception(error)
            return lost
        except RuntimeError as error:
            raise ExecutorError(f"the executor takes no more work: {error}") from error

    def renew(self, error: BaseException) -> None:
        """Replace an executor that a lost worker has broken."""
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
        """Do the task."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        # Kept for whoever asks, as by every executor.
        except Exception as error:  # noqa: BLE001
            future.set_exception(error)
        return future


class ForeignWorkers(Workers):
    """An executor that the caller has made and will shut down.

    Parameters
    ----------
    executor : Executor
        Any.
    n : int
        Tasks that run at a time, if it does not say so itself.
    """

    def __init__(self, executor: Executor, n: int) -> None:
        known = getattr(executor, "_max_workers", None)
        super().__init__(lambda: executor, None if known else n, lambda pool: None)

    def renew(self, error: BaseException) -> None:
        """Ask for a new one, unless it goes on after a loss."""
        if isinstance(error, BrokenExecutor):
            raise ExecutorError(
                f"the executor that was given has broken ({error}); make a new one, and run again "
                "with resume=True"
            ) from error

    def close(self) -> None:
        """Leave it as it is."""


def is_lost(error: BaseException | None) -> bool:
    """Tell whether an error says that a worker has died, not that its task has failed."""
    return isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"


def is_gone(error: BaseException | None) -> bool:
    """Tell whether an error says that the executor itself was lost, with all its tasks."""
    from_dask = type(error).__module__.startswith("distributed.") and not is_lost(error)
    return isinstance(error, CancelledError) or from_dask
