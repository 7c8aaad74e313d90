"""Who does the work of a run, as the run sees them: how many tasks, what a loss looks like."""

from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from typing import TypeVar

from fpgpu.errors import ExecutorError

__all__ = ["InProcess", "Workers", "is_gone", "is_lost"]

Result = TypeVar("Result")


class Workers:
    """An executor, and what a run needs to know of it; as such, one that is the caller's to end.

    Parameters
    ----------
    executor : Executor
        Any.
    n : int
        Tasks that run at a time.
    """

    is_remote = True
    """Whether tasks leave this process and so must be pickled."""

    ends_when_told = False
    """Whether nothing of it is at work any more after `close` or `give_up`."""

    def __init__(self, executor: Executor, n: int) -> None:
        self._executor, self._n = executor, n

    @property
    def n(self) -> int:
        """Tasks that run at a time."""
        return self._n

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
        """Replace what a lost worker has broken; most executors go on by themselves."""
        if isinstance(error, BrokenExecutor):
            raise ExecutorError(
                f"the executor has broken ({error}); make a new one, and run again with resume=True"
            ) from error

    def give_up(self) -> None:
        """End at once, whatever is being done."""

    def close(self) -> None:
        """End; everything that was submitted is done."""


class InProcess(Workers):
    """This process, which does each task when it is handed over."""

    is_remote = False
    ends_when_told = True

    def __init__(self) -> None:
        self._n = 1

    def submit(self, work: Callable[..., Result], *args: object) -> "Future[Result]":
        """Do the task."""
        future: Future[Result] = Future()
        try:
            future.set_result(work(*args))
        # Kept for whoever asks, as by every executor.
        except Exception as error:  # noqa: BLE001
            future.set_exception(error)
        return future


def is_lost(error: BaseException | None) -> bool:
    """Tell whether an error says that a worker has died, not that its task has failed."""
    return isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"


def is_gone(error: BaseException | None) -> bool:
    """Tell whether an error says that the executor itself was lost, with all its tasks."""
    from_dask = type(error).__module__.startswith("distributed.") and not is_lost(error)
    return isinstance(error, CancelledError) or from_dask
