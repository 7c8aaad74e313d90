"""Threads that share a piece of work which releases Python's lock, as NumPy and Numba do."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

__all__ = ["in_threads", "n_threads", "set_threads"]

Result = TypeVar("Result")

_asked: int | None = None
_pool: ThreadPoolExecutor | None = None


def n_threads() -> int:
    """Tell how many threads share a piece of work.

    Returns
    -------
    int
        What `set_threads` or the environment variable ``FPGPU_THREADS`` says; by default the cores
        that the process may use, as its affinity is now.
    """
    asked = _asked or int(os.environ.get("FPGPU_THREADS") or 0)
    if asked > 0:
        return asked
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(number: int | None) -> None:
    """Say how many threads share a piece of work, in this process.

    Parameters
    ----------
    number : int or None
        At least 1; None for as many as there are cores for the process.

    Raises
    ------
    ValueError
        When it is less than 1.
    """
    global _asked
    if number is not None and number < 1:
        raise ValueError(f"{number} threads; give at least 1, or None for one a core")
    _asked = number


def in_threads(part: Callable[[int], Result], n: int) -> list[Result]:
    """Call ``part(k)`` for every k below `n` at the same time, in this thread the first.

    All have ended when it returns or raises: what they work on is in nobody's hands then.
    """
    global _pool
    if n <= 1:
        return [part(k) for k in range(n)]
    if _pool is None:
        # It starts threads as they are needed; more than any work takes does no harm.
        _pool = ThreadPoolExecutor(256, thread_name_prefix="fpgpu")
    others = [_pool.submit(part, k) for k in range(1, n)]
    try:
        mine = part(0)
    finally:
        wait(others)
    return [mine, *(other.result() for other in others)]


def _forget_threads() -> None:
    """Threads do not live on in a forked process."""
    global _pool
    _pool = None


os.register_at_fork(after_in_child=_forget_threads)
