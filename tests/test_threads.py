"""Threads share a piece of work: each part once, all ended at the end."""

import threading
import time

import pytest

from fpgpu.threads import in_threads


def test_every_part_is_called_once_and_answers_come_in_their_order() -> None:
    together = threading.Barrier(4, timeout=30)

    def part(k: int) -> int:
        together.wait()
        return k * k

    assert in_threads(part, 4) == [0, 1, 4, 9]
    assert in_threads(lambda k: k, 1) == [0]
    assert in_threads(lambda k: k, 0) == []


def test_this_thread_does_the_first_part() -> None:
    assert in_threads(lambda _: threading.current_thread(), 3)[0] is threading.current_thread()


@pytest.mark.parametrize("failing", [0, 2])
def test_an_error_comes_when_all_parts_have_ended(failing: int) -> None:
    ended = []

    def part(k: int) -> None:
        if k == failing:
            raise ValueError(f"part {k}")
        time.sleep(0.1)
        ended.append(k)

    with pytest.raises(ValueError, match=f"part {failing}"):
        in_threads(part, 3)
    assert sorted(ended) == sorted({0, 1, 2} - {failing})


def test_parts_may_have_parts() -> None:
    assert in_threads(lambda k: in_threads(lambda i: 10 * k + i, 3), 3) == [
        [10 * k + i for i in range(3)] for k in range(3)
    ]
