"""The README's commands and examples are those that run."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_ci_runs_the_two_commands_word_for_word() -> None:
    install, tests = blocks("sh")[:2]
    ci = (ROOT / ".ci" / "run").read_text()
    assert install.strip() in ci
    assert tests.strip() in ci


def test_the_commands_shown_exist() -> None:
    from fpgpu.cli.main import build_parser

    parser = build_parser()
    shown = [
        line for block in blocks("sh") for line in block.splitlines() if line.startswith("fpgpu")
    ]
    assert shown
    for line in shown:
        assert (
            parser.parse_args(shlex.split(line.partition(" > ")[0], comments=True)[1:]).command
            == line.split()[1]
        )


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.splitlines()[0])
def test_the_python_examples_run(
    code: str, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fpgpu.ingest.pipeline import ingest

    ingest(sorted((golden / "tiny").glob("*.fits.gz")), tmp_path / "stores")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
