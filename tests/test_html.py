"""What notebooks show of a survey, a plan, a patch and a report."""

from html.parser import HTMLParser
from pathlib import Path

import fpgpu
from fpgpu.html import MOST_ROWS, html_table
from fpgpu.ingest.report import IngestReport, IngestRow

REGION = fpgpu.CircularRegion(53.16, -27.79, 1 / 3600)


class Cells(HTMLParser):
    """Checks that tags are closed, and takes the text of cells, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)


def read(html: str) -> Cells:
    cells = Cells()
    cells.feed(html)
    assert not cells.open
    return cells


def test_text_is_escaped_and_long_tables_are_cut() -> None:
    cells = read(html_table("<a>", ["x & y"], [["<b>"], [12345]] + [[0]] * MOST_ROWS))
    assert cells.rows[:3] == [["x & y"], ["<b>"], ["12,345"]]
    assert "<a>" in cells.text
    assert cells.text.endswith("and 2 more")


def test_a_survey_a_plan_and_a_patch_are_tables(demo_folder: Path) -> None:
    with fpgpu.open(demo_folder / "stores", backend="cpu") as survey:
        shown = read(survey._repr_html_())
        assert shown.rows[1:] == [["F200W", "2", "yes"], ["F444W", "2", "yes"]]
        plan = survey.plan(REGION)
        shown = read(plan._repr_html_())
        assert shown.rows[0][:3] == ["band", "exposure", "super-pixels"]
        assert len(shown.rows) == 1 + plan.n_exp
        assert f"{plan.n_pixels:,} pixels" in shown.text
        with survey.patch(plan) as patch:
            assert read(patch._repr_html_()).rows == shown.rows
            assert "bytes on" in read(patch._repr_html_()).text
        assert "freed" in read(patch._repr_html_()).text
    assert "closed" in read(survey._repr_html_()).text


def test_a_report_tells_of_every_file() -> None:
    rows = [
        IngestRow(Path("a/x_cal.fits"), "stored", "", "F200W", "x", n_pixels=4096, unit="nJy"),
        IngestRow(Path("y.fits"), "refused", "y.fits: no <WCS>"),
    ]
    report = IngestReport(Path("stores"), rows)
    assert repr(report) == "<IngestReport of stores: 1 stored, 1 refused>"
    shown = read(report._repr_html_())
    assert shown.rows[1][:4] == ["x_cal.fits", "F200W", "x", "stored"]
    assert shown.rows[2][-1] == "y.fits: no <WCS>"
