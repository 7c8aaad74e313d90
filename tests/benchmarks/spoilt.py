"""A plugin of pytest under which benchmarks fail: one when all is measured, others by not working.

What rearranges images does so before it is timed, and not while it is.
"""

from collections.abc import Generator
from typing import Any

import pytest

from fpgpu.backends.cpu import CpuBackend

_BEFORE = 2  # calls: one makes the output, one is the warm-up
_superpixelize = CpuBackend.superpixelize
_calls: list[None] = []


def _idle_when_timed(self: CpuBackend, *args: Any, out: Any = None, **options: Any) -> Any:
    _calls.append(None)
    return _superpixelize(self, *args, out=out, **options) if len(_calls) <= _BEFORE else out


CpuBackend.superpixelize = _idle_when_timed  # type: ignore[method-assign]


def pytest_runtest_setup() -> None:
    _calls.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    yield
    assert "memcpy" not in item.name, "a wrong result"
