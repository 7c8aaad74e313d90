"""What a demo did and found, told as it happens."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["Check", "DemoReport", "Narrator", "Step"]


@dataclass(frozen=True)
class Step:
    """Something that was done.

    Parameters
    ----------
    what : str
        What was done.
    detail : str
        With how much.
    seconds : float
        How long it took.
    """

    what: str
    detail: str
    seconds: float


@dataclass(frozen=True)
class Check:
    """Something that was verified.

    Parameters
    ----------
    what : str
        The claim.
    detail : str
        The figures behind it.
    passed : bool
        Whether it holds.
    """

    what: str
    detail: str
    passed: bool


@dataclass
class DemoReport:
    """All that a demo did and found.

    Parameters
    ----------
    steps : list of Step
        What was done, in order.
    checks : list of Check
        What was verified, in order.
    """

    steps: list[Step] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether there were checks and each holds."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def seconds(self) -> float:
        """Time of all steps."""
        return sum(step.seconds for step in self.steps)


class Narrator:
    """Collects steps and checks and shows each as soon as it is known."""

    def __init__(self, show: Callable[[Step | Check], None]) -> None:
        self.report = DemoReport()
        self._show = show

    @contextmanager
    def step(self, what: str) -> Iterator[list[str]]:
        """Time a step; the body appends its detail to the list."""
        detail: list[str] = []
        start = time.perf_counter()
        yield detail
        done = Step(what, " ".join(detail), time.perf_counter() - start)
        self.report.steps.append(done)
        self._show(done)

    def check(self, what: str, passed: bool, detail: str) -> None:
        """Record a verification."""
        check = Check(what, detail, bool(passed))
        self.report.checks.append(check)
        self._show(check)
