"""A bar is drawn where somebody may look; on a terminal it is seen in tests/cli."""

import sys

import pytest

from fpgpu.progress import is_watched, progress_bar


def test_in_a_log_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert not is_watched()
    with progress_bar(2, "fit") as bar:
        bar.update()
    assert capsys.readouterr().err == ""


def test_what_is_asked_for_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(2, "fit", shown=True) as bar:
        bar.update()
        bar.update()
    assert " 2/2 [" in capsys.readouterr().err


def test_a_notebook_is_watched_and_so_is_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("tqdm.auto.notebook_tqdm", object())
        assert is_watched()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert is_watched()
