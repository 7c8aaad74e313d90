"""The page of a demo shows its pictures and what was found, and nothing from elsewhere."""

import re
from pathlib import Path

import pytest

from fpgpu.cli.main import main

KINDS = ["survey", "exposure", "footprints", "coverage", "superpixels", "pixels"]


def shown(page: Path) -> list[str]:
    """Kinds of the pictures in order, each of which must be there."""
    text = page.read_text()
    pictures = re.findall(r'<img src="demo_([^"]*)\.png"', text)
    for kind in pictures:
        assert (page.parent / f"demo_{kind}.png").read_bytes().startswith(b"\x89PNG")
    assert "://" not in text
    assert "<script" not in text
    return pictures


def test_the_synthetic_field_is_shown_with_its_model(tmp_path: Path) -> None:
    assert main(["demo", "--out", str(tmp_path), "--backend", "cpu"]) == 0
    page = tmp_path / "page" / "index.html"
    assert shown(page) == [*KINDS, "residuals", "times"]
    text = page.read_text()
    assert "every check holds" in text
    assert text.count("<td") > 30
    assert "the true sources leave nothing but noise" in text
    assert {path.name for path in (tmp_path / "psfs").iterdir()} == {
        "psf_f090w.fits", "psf_f200w.fits", "psf_f444w.fits"
    }  # fmt: skip
    assert (tmp_path / "stores" / "psf.h5").is_file()
    assert (tmp_path / "sources.fits").is_file()
    assert (page.parent / "survey.reg").read_text().count("polygon(") == 6


def test_own_files_are_shown_where_they_are_kept(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted((golden / "tiny").glob("exp_f*_00.fits.gz"))
    assert main(["demo", *map(str, files), "--out", str(tmp_path / "kept")]) == 0
    page = tmp_path / "kept" / "page" / "index.html"
    assert capsys.readouterr().out.splitlines()[-2] == f"wrote {page}"
    assert shown(page) == [*KINDS, "times"]


def test_a_page_that_cannot_be_written_is_reported(
    tmp_path: Path, golden: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("a file")
    file = golden / "tiny" / "exp_f090w_00.fits.gz"
    assert main(["demo", str(file), "--page", str(tmp_path / "taken")]) == 2
    assert "taken/index.html: the page cannot be written" in capsys.readouterr().err
