"""Where the time of a patch goes, told by the very code that builds it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from fpgpu.backends.arguments import Clock, untimed
from fpgpu.backends.base import Backend

__all__ = ["Clock", "PhaseClock", "untimed"]


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
        """Time a phase."""
        start = time.perf_counter()
        yield
        self._backend.synchronize()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start
