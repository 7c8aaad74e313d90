"""What runs on a push: well formed, and the steps of .ci/run on every Python that is promised."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
GITHUB = ROOT / ".github"


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def ci_steps() -> list[str]:
    (steps,) = re.findall(r"^steps=\(([^)]*)\)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    return steps.split()


@pytest.mark.parametrize(
    ("schema", "folder"),
    [
        ("vendor.github-workflows", "workflows"),
        ("custom.github-workflows-require-timeout", "workflows"),
        ("vendor.github-issue-forms", "ISSUE_TEMPLATE"),
    ],
)
def test_the_files_follow_their_schema(schema: str, folder: str) -> None:
    files = [str(path) for path in sorted((GITHUB / folder).glob("*.yml"))]
    assert files
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *files],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_step_of_ci_runs_on_every_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    matrix = load(GITHUB / "workflows" / "ci.yml")["jobs"]["step"]["strategy"]["matrix"]
    assert matrix["python"] == promised
    with_own_python = {job["step"]: job["python"] for job in matrix["include"]}
    assert {*matrix["step"], *with_own_python} == {*ci_steps()}
    for step, python in with_own_python.items():
        (asked,) = re.findall(rf"^{step}\(\) {{ (.*); }}", (ROOT / ".ci/run").read_text(), re.M)
        script = (ROOT / asked.split()[0]).read_text()
        assert python in asked or re.search(rf"^(version|oldest_python)={python}\b", script, re.M)


def test_a_step_that_is_not_there_is_refused_with_those_that_are() -> None:
    done = subprocess.run([ROOT / ".ci/run", "lnt"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == f"no step lnt; there are: {' '.join(ci_steps())}\n"


def test_each_step_is_a_function_of_the_script() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    functions = set(re.findall(r"^(\w+)\(\) {", script, re.MULTILINE))
    assert functions == {"environment", *ci_steps()}


def test_only_the_job_that_publishes_may_ask_for_trust_and_nothing_is_secret() -> None:
    for path in (GITHUB / "workflows").glob("*.yml"):
        assert load(path)["permissions"] == {"contents": "read"}
        assert "secrets." not in path.read_text()
        for name, job in load(path)["jobs"].items():
            trusted = {"id-token": "write"} if name == "publish" else None
            assert job.get("permissions") == trusted


def test_a_report_of_a_fault_brings_what_the_doctor_says() -> None:
    form = load(GITHUB / "ISSUE_TEMPLATE" / "bug.yml")
    labels = {field["attributes"]["label"]: field["validations"]["required"]
              for field in form["body"] if "validations" in field}  # fmt: skip
    assert labels["`fpgpu doctor --json`"]


def test_the_hooks_before_a_commit_are_the_lint_of_ci() -> None:
    (local,) = load(ROOT / ".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    script = (ROOT / ".ci" / "run").read_text()
    for hook in local["hooks"]:
        command = hook["entry"].replace(" --force-exclude", "")
        assert re.search(rf"^    {command}( \.)?$", script, re.MULTILINE)
