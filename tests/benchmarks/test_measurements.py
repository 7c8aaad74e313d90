"""What a measurement is, and how it is written."""

import pytest

from benchmarks.measurements import Measured, readable
from benchmarks.report.tables import measurement_table
from tests.benchmarks.reports import measurement


def test_a_column_that_no_table_has_is_refused() -> None:
    with pytest.raises(ValueError, match=r"column 'ours' .* must be one of: fpgpu cpu"):
        measurement(column="ours")


def test_a_size_that_no_title_can_say_is_refused() -> None:
    with pytest.raises(ValueError, match=r"grows with \['weight'\]"):
        measurement(at={"weight": 3})


def test_titles_say_how_large_the_input_is() -> None:
    found = measurement("find", at={"exposures": 10_000, "radius": 3.0, "sources": 1})
    assert found.title == "find, 10,000 exposures, r = 3 arcsec, 1 source"
    found = measurement("evaluate", at={"pixels": 1_158_656, "Gaussians": 36, "cores": 1})
    assert found.title == "evaluate, 1,158,656 pixels, 36 Gaussians a source, 1 core"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (2.5, "s", "2.50 s"),
        (0.0123, "s", "12.3 ms"),
        (4e-9, "s", "4.00 ns"),
        (-3e-6, "s", "-3.00 us"),
        (0.0, "s", "0.00 ns"),
        (563e6, "B", "563 MB"),
    ],
)
def test_values_are_written_in_the_unit_that_suits_them(value: float, unit: str, text: str) -> None:
    assert readable(value, unit) == text


def test_the_table_has_ratios_first_and_forcepho_beside_fpgpu() -> None:
    measured = Measured(
        [measurement(best=1.9e-3), measurement(column="forcepho", value=0.2, limit=None)]
    )
    ours, theirs = measurement_table(measured)[2:]
    assert ours.startswith("| unpack, 15 sources | fpgpu cpu | 2.00 x | memcpy | 100 x | 2.00 ms |")
    assert ours.endswith("| 1.90 ms | 5 |")  # best, GB/s
    assert theirs.startswith("| unpack, 15 sources | forcepho |")


def test_numbers_in_titles_are_sorted_by_value() -> None:
    measured = Measured([measurement(at={"sources": n}) for n in (15, 5, 100)])
    titles = [title for title, _ in measured.by_title()]
    assert titles == ["unpack, 5 sources", "unpack, 15 sources", "unpack, 100 sources"]
