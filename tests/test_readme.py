"""The README's commands and examples are those that run, and its tables are those of the code."""

import builtins
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from fpgpu import MetaStore, errors, layout
from fpgpu.cli.main import build_parser, main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()

# Commands that are not fpgpu's alone, and what runs them.
ELSEWHERE = {
    "pip install": ".ci/run",
    "python -m benchmarks": "tests/benchmarks",
    "mpiexec": "tests/ingest/test_executors.py",
    "mkdir -p": "below",
}
NEED_A_CLUSTER = ("dask://",)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> Iterator[str]:
    for block in blocks("sh"):
        for line in block.splitlines():
            if command := line.partition(" #")[0].strip():
                yield command


def test_ci_runs_the_two_commands_word_for_word() -> None:
    install, tests = blocks("sh")[:2]
    ci = (ROOT / ".ci" / "run").read_text()
    assert install.strip() in ci
    assert tests.strip() in ci


def test_ci_builds_the_pages_word_for_word() -> None:
    build = next(command for command in commands() if "docs/pages.py" in command)
    assert build in (ROOT / ".ci" / "run").read_text()


def test_every_command_is_run_here_or_elsewhere() -> None:
    assert not [c for c in commands() if not c.startswith(("fpgpu ", *ELSEWHERE))]


@pytest.fixture
def home(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the README's reader has it: exposures of the tiny field, in a store too."""
    from fpgpu.ingest.pipeline import ingest

    for path in sorted((golden / "tiny").glob("*.fits.gz")):
        shutil.copy(path, tmp_path)
    ingest(sorted(tmp_path.glob("*.fits.gz")), tmp_path / "stores", executor="serial")
    shutil.copy(golden / "tiny" / "psf.h5", tmp_path / "stores")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.splitlines()[0])
@pytest.mark.usefixtures("home")
def test_the_python_examples_run(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("fpgpu ")])
def test_the_commands_run(command: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        name
        for word in shlex.split(command.partition(" > ")[0])[1:]
        for name in as_a_shell_does(word, home)
    ]
    if any(server in command for server in NEED_A_CLUSTER):
        assert build_parser().parse_args(words).command == words[0]
        return
    if words[0] == "merge":
        split_store(home)
    assert main(words) == 0, capsys.readouterr()


def as_a_shell_does(word: str, home: Path) -> list[str]:
    """Expand a pattern; the tiny field stands for the reader's exposures."""
    if word.endswith(".fits"):
        return [str(path) for path in sorted(home.glob("exp_*.fits.gz"))]
    return [word.replace("visit7_", "exp_")]


def split_store(home: Path) -> None:
    """Put the exposures into two stores instead of one."""
    from fpgpu.ingest.pipeline import ingest

    shutil.rmtree(home / "stores")
    files = sorted(home.glob("exp_*.fits.gz"))
    ingest(files[::2], home / "north", executor="serial")
    ingest(files[1::2], home / "south", executor="serial")


def test_the_configuration_shown_runs_on_the_exposures_of_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fpgpu.demo.field import make_field

    make_field(tmp_path / "demo" / "exposures", n_per_band=1, size=64, n_sources=2)
    (shown,) = blocks("yaml")
    (tmp_path / "survey.yaml").write_text(shown)
    monkeypatch.chdir(tmp_path)
    assert main(["ingest", "--config", "survey.yaml"]) == 0
    with MetaStore("stores/meta.json") as meta:
        assert set(meta.bands) == {"F090W", "F200W", "NIRCAM_F444W"}
    with_comments = re.sub(r"(?m)^#   ", "    ", shown)
    assert set(yaml.safe_load(with_comments)["exposures"][1]) > {"background", "max_snr"}


def test_the_lines_for_completion_run_in_a_new_home(tmp_path: Path) -> None:
    (block,) = [block for block in blocks("sh") if "completion" in block]
    script = f'fpgpu() {{ "{sys.executable}" -m fpgpu "$@"; }}\n{block}'
    home = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run(["bash", "-euc", script], check=True, env=home)
    (file,) = tmp_path.rglob("completions/fpgpu")
    assert "complete " in file.read_text()


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("fpgpu remove")])
def test_patterns_of_names_in_a_store_are_kept_from_the_shell(command: str) -> None:
    done = subprocess.run(["bash", "-O", "failglob", "-euc", f": {command}"], check=False)
    assert done.returncode == 0


def test_the_table_of_the_struct_is_that_of_the_dtype() -> None:
    shown = re.findall(r"(?m)^\| (\d+) \| `(\w+)` \| ([\w()]+)", README)
    fields = layout.PATCH_DTYPE.fields
    assert fields is not None
    assert [(int(offset), name) for offset, name, _ in shown] == [
        (offset, name) for name, (_, offset, *_) in fields.items()
    ]
    for _, name, kind in shown:
        if dtype := layout.PATCH_ARRAYS.get(name):
            assert kind == ("PSFSourceGaussian" if dtype.names else dtype.name)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("Patch", layout.PATCH_DTYPE),
        ("PSFSourceGaussian", layout.PSF_DTYPE),
        ("Source", layout.SOURCE_DTYPE),
        ("Response", layout.RESPONSE_DTYPE),
    ],
)
def test_the_sizes_of_the_structs_are_those_of_the_dtypes(name: str, dtype: np.dtype) -> None:
    assert re.search(rf"`{name}`( has)? {dtype.itemsize}\b", README)


def test_every_error_is_explained() -> None:
    table = README.partition("\n## Errors")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(?:fpgpu\.)?(\w+Error)`", table))
    assert named >= set(errors.__all__) - {"StoreError"}
    assert named <= {*errors.__all__, *vars(builtins)}


def test_every_section_is_in_the_contents() -> None:
    titles = re.findall(r"(?m)^## (.+)$", README)
    contents = next(line for line in README.splitlines() if line.startswith("Contents: "))
    assert re.findall(r"\[([^]]+)\]\(#", contents) == titles
