"""Tables for notebooks."""

from collections.abc import Sequence
from html import escape
from typing import Any

__all__ = ["html_table"]

MOST_ROWS = 30
"""More than these are counted only."""

_CELL = "padding:.1em .6em;text-align:"


def html_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Write a table as HTML.

    Parameters
    ----------
    title : str
        What it is.
    columns : sequence of str
        Names of the columns.
    rows : sequence of sequence
        Values; numbers are written with separators, on the right.

    Returns
    -------
    str
        A fragment of a page.

    Examples
    --------
    >>> html_table("Bands", ["band", "pixels"], [["F200W", 1024]]).count("<td")
    2
    """
    head = "".join(f'<th style="{_CELL}left">{escape(name)}</th>' for name in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows[:MOST_ROWS])
    more = f"<p>and {len(rows) - MOST_ROWS} more</p>" if len(rows) > MOST_ROWS else ""
    return f"<div><p>{escape(title)}</p><table><tr>{head}</tr>{body}</table>{more}</div>"


def _cell(value: Any) -> str:
    is_number = isinstance(value, int | float)
    text = f"{value:,}" if is_number else escape(str(value))
    return f'<td style="{_CELL}{"right" if is_number else "left"}">{text}</td>'
