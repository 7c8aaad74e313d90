"""Where the time of a patch goes, told by the very code that builds it."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from fpgpu.backends.base import Backend

__all__ = ["Clock", "PhaseClock", "untimed"]

Clock = Callable[[str], AbstractContextManager[None]]
"""``with clock(phase):`` around the work of a phase."""


def untimed(phase: str) -> AbstractContextManager[None]:
    """Take no time: what everything is built with unless a clock is asked for.

    Parameters
    ----------
    phase : str
        Not looked at.

    Returns
    -------
    context manager
        That does nothing.
    """
    return nullcontext()


class PhaseClock:
    """Add up the time of phases, each to the end of what the backend was given in it.

    To wait for a GPU after each phase keeps phases from overlapping: with a clock a patch takes
    longer than without.

    Parameters
    ----------
    backend : Backend
        That does the work.

    Attributes
    ----------
    seconds : dict of str to float
        Time of each phase so far, in the order in which they first came.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time a phase.

        Parameters
        ----------
        phase : str
            Its name.

        Yields
        ------
        None
            While it lasts.
        """
        start = time.perf_counter()
        yield
        self._backend.synchronize()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start
