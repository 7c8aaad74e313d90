"""README and pages are true: their commands and Python run, their tables are those of the code."""

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
from astropy.io import fits
from astropy.table import Table

from fpgpu import MetaStore, errors, ingest, layout
from fpgpu.cli.main import main
from fpgpu.cli.parser import build_parser

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
FIRST_HOUR = DOCS / "first-hour.md"  # runs as a whole
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]

# Commands that are not fpgpu's alone, and what runs them.
ELSEWHERE = {
    "pip install": ".ci/run",
    "python -m benchmarks": "tests/benchmarks",
    "mpiexec": "tests/ingest/test_executors.py",
}
NEED_A_CLUSTER = ("dask://",)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def commands() -> Iterator[str]:
    for page in PAGES:
        for block in blocks(page, "sh") if page != FIRST_HOUR else ():
            for line in block.splitlines():
                if command := line.partition(" #")[0].strip():
                    yield command


FPGPU = [command for command in commands() if command.startswith("fpgpu ")]
PYTHON = [(page, code) for page in PAGES for code in blocks(page, "python") if page != FIRST_HOUR]


def test_every_command_is_run_here_or_elsewhere() -> None:
    assert not [c for c in commands() if not c.startswith(("fpgpu ", *ELSEWHERE))]


@pytest.fixture
def home(demo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as ``fpgpu demo --out`` leaves it, with the exposures at hand, too."""
    shutil.copytree(demo_folder, tmp_path, dirs_exist_ok=True)
    for path in (tmp_path / "exposures").iterdir():
        (tmp_path / path.name).symlink_to(path)
    r2 = np.add.outer(np.arange(-15, 16) ** 2, np.arange(-15, 16) ** 2)
    fits.writeto(tmp_path / "star.fits", np.exp(-r2 / (2 * 1.5**2)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("page", "code"), PYTHON, ids=[f"{page.stem}-{code.splitlines()[0]}" for page, code in PYTHON]
)
@pytest.mark.usefixtures("home")
def test_the_python_examples_run(page: Path, code: str) -> None:
    exec(compile(code, page.name, "exec"), {})


@pytest.mark.parametrize("command", FPGPU)
def test_the_commands_run(command: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        name
        for word in shlex.split(command.partition(" > ")[0])[1:]
        for name in ([word] if f"'{word}'" in command else as_a_shell_does(word))
    ]
    if any(server in command for server in NEED_A_CLUSTER):
        assert build_parser().parse_args(words).command == words[0]
        return
    if words[0] == "merge":
        split_store(home)
    assert main(words) == 0, capsys.readouterr()


def as_a_shell_does(word: str) -> list[str]:
    return sorted(map(str, Path().glob(word))) or [word]


def split_store(home: Path) -> None:
    """Put the exposures into two stores instead of one."""
    shutil.rmtree(home / "stores")
    files = sorted(home.glob("*_cal.fits"))
    ingest(files[::2], home / "north", executor="serial")
    ingest(files[1::2], home / "south", executor="serial")


def test_the_configuration_shown_runs_on_the_exposures_of_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fpgpu.demo.field import make_field

    make_field(tmp_path / "demo" / "exposures", n_per_band=1, size=64, n_sources=2)
    (shown,) = blocks(DOCS / "inputs.md", "yaml")
    (tmp_path / "survey.yaml").write_text(shown)
    monkeypatch.chdir(tmp_path)
    assert main(["ingest", "--config", "survey.yaml"]) == 0
    with MetaStore("stores/meta.json") as meta:
        assert set(meta.bands) == {"F090W", "F200W", "NIRCAM_F444W"}
    with_comments = re.sub(r"(?m)^#   ", "    ", shown)
    assert set(yaml.safe_load(with_comments)["exposures"][1]) > {"background", "max_snr"}


def test_the_first_hour_runs_as_written(demo_folder: Path, tmp_path: Path, long_form: bool) -> None:
    """In the default form the demo leaves a smaller field."""
    small = "" if long_form else f"if [ $1 = demo ]; then cp -r {demo_folder} demo; return; fi;"
    python = f'"{sys.executable}"'
    script = f'fpgpu() {{ {small} {python} -m fpgpu "$@"; }}\n'
    found = re.findall(r"```(sh|python)\n(.*?)```", FIRST_HOUR.read_text(), re.DOTALL)
    for language, code in found:
        script += code if language == "sh" else f"{python} - <<'END'\n{code}END\n"
    home = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run(["bash", "-euc", script], check=True, env=home, cwd=tmp_path)
    names = [path.name for path in (tmp_path / "demo").glob("*.png")]
    assert sorted(names) == ["fitted_residuals.png", "given_residuals.png"]
    true, fitted = (Table.read(tmp_path / "demo" / f"{n}.fits") for n in ("sources", "fitted"))
    nearest = [np.argmin(np.abs(true["ra"] - ra)) for ra in fitted["ra"]]
    brightest = np.argmax(fitted["F200W"])
    assert fitted["F200W"][brightest] == pytest.approx(true["F200W"][nearest[brightest]], rel=0.1)
    (file,) = tmp_path.rglob("completions/fpgpu")
    assert "complete " in file.read_text()


@pytest.mark.parametrize("command", [c for c in FPGPU if c.startswith("fpgpu remove")])
def test_patterns_of_names_in_a_store_are_kept_from_the_shell(command: str) -> None:
    done = subprocess.run(["bash", "-O", "failglob", "-euc", f": {command}"], check=False)
    assert done.returncode == 0


def test_the_table_of_the_struct_is_that_of_the_dtype() -> None:
    page = (DOCS / "abi.md").read_text()
    shown = re.findall(r"(?m)^\| (\d+) \| `(\w+)` \| ([\w()]+)", page)
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
    page = (DOCS / "abi.md").read_text()
    assert re.search(rf"`{name}`( has)? {dtype.itemsize}\b", page)


def test_every_error_is_explained() -> None:
    table = (DOCS / "errors.md").read_text()
    named = set(re.findall(r"`(?:fpgpu\.)?(\w+Error)`", table))
    assert named >= set(errors.__all__) - {"StoreError"}
    assert named <= {*errors.__all__, *vars(builtins)}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^):]+)\)", page.read_text()):
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        titles = re.findall(r"(?m)^#+ (.+)$", target.read_text()) if heading else []
        anchors = [re.sub(r"[^\w-]", "", title.lower().replace(" ", "-")) for title in titles]
        assert not heading or heading in anchors, link
