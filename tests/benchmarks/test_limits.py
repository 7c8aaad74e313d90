"""What the machine itself can do, where that is worked out."""

import pytest

from benchmarks.limits import multiply_adds


@pytest.mark.parametrize("cores", [1, 3])
@pytest.mark.parametrize("number", [1.0, 1e5, 1e12])
def test_more_multiply_adds_than_are_done_are_worked_out(number: float, cores: int) -> None:
    pytest.importorskip("numba", reason="the loop is compiled by Numba")
    limit = multiply_adds(number, cores)
    done = number / limit.scale
    assert done % (16 * 12 * cores) == pytest.approx(0, abs=1)
    assert done <= 1.01 * cores * 2**28
    assert min(limit.times()) > 0
