"""The README is short, shows what CI runs, and leads to every page."""

import re

from tests.test_docs import DOCS, PAGES, ROOT, blocks, commands

README = ROOT / "README.md"
CI = (ROOT / ".ci" / "run").read_text()


def test_ci_runs_the_two_commands_word_for_word() -> None:
    install, tests = blocks(README, "sh")[:2]
    assert install.strip() in CI
    assert tests.strip() in CI


def test_ci_builds_the_pages_word_for_word() -> None:
    build = next(command for command in commands() if "docs/pages.py" in command)
    assert build in CI


def test_it_is_read_in_three_minutes() -> None:
    assert len(README.read_text().split()) <= 700
    (code,) = blocks(README, "python")
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 10


def test_every_page_is_in_its_list() -> None:
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)\)", README.read_text()))
    linked |= {
        name
        for page in PAGES
        if page.parent == DOCS and page.name in linked
        for name in re.findall(r"\]\(([\w-]+\.md)\)", page.read_text())
    }
    assert linked >= {page.name for page in DOCS.glob("*.md")}
