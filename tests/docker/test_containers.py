"""The containers: rules their files keep, pins that fit, and what they run, run without them."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
STAGES = {
    name: body
    for _, name, body in re.findall(
        r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM|\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL
    )
}
Submit = Callable[..., subprocess.CompletedProcess[str]]
EXTRAS = {"cpu": {"plot", "dask"}, "cuda": {"plot", "dask", "cuda12"}}
PINNED_TOO = {"compress"}  # for who asks for it


def pins(kind: str) -> dict[str, Version]:
    lines = (DOCKER / f"constraints-{kind}.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {name: Version(version) for name, version in pairs}


@pytest.fixture
def fpgpu_here(tmp_path: Path, long_form: bool) -> dict[str, str]:
    """An environment in which ``fpgpu`` and ``dask`` are those of this Python.

    In the default form ``fpgpu doctor`` compiles for one architecture, as on a machine with a GPU.
    """
    programs = tmp_path / "programs"
    programs.mkdir()
    one = "" if long_form else 'if [ "$1" = doctor ]; then set -- "$@" --arch 90; fi\n'
    for name in ("fpgpu", "dask"):
        program = programs / name
        program.write_text(f'#!/bin/sh\n{one}exec {sys.executable} -m {name} "$@"\n')
        program.chmod(0o755)
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "FPGPU": "fpgpu"}


class TestImages:
    def test_bases_are_exact_versions(self) -> None:
        bases = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))
        for base in bases - set(STAGES):
            assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)

    @pytest.mark.parametrize("kind", ["cpu", "cuda"])
    def test_they_run_as_nobody_special_and_tell_their_health(self, kind: str) -> None:
        assert STAGES[kind].split().index("USER") > STAGES[kind].split().index("COPY")
        assert re.findall(r"^USER (.*)$", STAGES[kind], re.MULTILINE) == ["1000"]
        (check,) = re.findall(r"HEALTHCHECK .* CMD (\[.*\])", STAGES[kind])
        assert json.loads(check) == ["fpgpu", "doctor", "--json", "--require", kind]

    def test_the_health_check_runs(self, fpgpu_here: dict[str, str]) -> None:
        (check,) = re.findall(r"HEALTHCHECK .* CMD (\[.*\])", STAGES["cpu"])
        env = fpgpu_here | {"CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(json.loads(check), env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["choice"] == "cpu"

    def test_nothing_is_left_of_the_build(self) -> None:
        assert "pip" not in STAGES["runtime"] + STAGES["cpu"] + STAGES["cuda"]
        for kind in ("cpu", "cuda"):
            copied = re.findall(r"^COPY (.*)$", STAGES[kind], re.MULTILINE)
            assert copied == [f"--from=build-{kind} /opt/fpgpu /opt/fpgpu"]

    def test_what_is_copied_is_there(self) -> None:
        for line in re.findall(r"^COPY (.*)$", STAGES["build"], re.MULTILINE):
            *sources, _ = line.split()
            assert all((ROOT / source).exists() for source in sources)

    @pytest.mark.parametrize("kind", ["cpu", "cuda"])
    def test_what_is_installed_is_pinned_and_allowed(self, kind: str) -> None:
        (usual,) = re.findall(r"^ARG EXTRAS=(.*)$", STAGES["build"], re.MULTILINE)
        (extras,) = re.findall(r"\[(\$EXTRAS[\w,]*)\]", STAGES[f"build-{kind}"])
        assert set(extras.replace("$EXTRAS", usual).split(",")) == EXTRAS[kind]
        assert f"--constraint docker/constraints-{kind}.txt" in STAGES[f"build-{kind}"]
        pinned = pins(kind)
        for text in distribution("fpgpu").requires or ():
            wanted = Requirement(text)
            if any(
                not wanted.marker or wanted.marker.evaluate({"extra": extra})
                for extra in EXTRAS[kind] | PINNED_TOO
            ):
                name = wanted.name.lower().replace("_", "-")
                assert wanted.specifier.contains(pinned[name]), f"{text}, pinned {pinned[name]}"

    def test_linters_find_nothing(self) -> None:
        scripts = [DOCKER / "ingest.slurm", *(p for p in (ROOT / ".ci").glob("*") if not p.suffix)]
        linters = {"hadolint": [DOCKER / "Dockerfile"], "shellcheck": scripts}
        for linter, files in linters.items():
            beside = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            program = shutil.which(linter, path=beside)
            assert program, f"{linter} is not installed; it comes with the extra test"
            done = subprocess.run([program, *files], capture_output=True, text=True)
            assert done.stdout == ""
            assert done.returncode == 0


@pytest.fixture
def exposures(golden: Path, tmp_path: Path) -> list[Path]:
    folder = tmp_path / "data"
    folder.mkdir()
    found = sorted((golden / "tiny").glob("exp_f*_00.fits.gz"))
    return [Path(shutil.copy(path, folder / path.name)) for path in found]


class TestSlurm:
    SCRIPT = DOCKER / "ingest.slurm"

    @pytest.fixture
    def submit(self, tmp_path: Path, fpgpu_here: dict[str, str]) -> Submit:
        env = fpgpu_here | {"SLURM_CPUS_PER_TASK": "2"}

        def run(*args: object) -> subprocess.CompletedProcess[str]:
            command = ["bash", str(self.SCRIPT), *map(str, args)]
            return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)

        return run

    def test_a_job_fills_a_folder_and_another_one_finds_it_full(
        self, tmp_path: Path, exposures: list[Path], submit: Submit
    ) -> None:
        first = submit("stores", *exposures)
        assert first.returncode == 0, first.stderr
        assert "3 exposures of 128x128 pixels" in first.stdout
        assert json.loads((tmp_path / "stores.doctor.json").read_text())["choice"]
        before = (tmp_path / "stores" / "pixels.h5").stat().st_mtime_ns
        again = submit("stores", *exposures)
        assert again.returncode == 0, again.stderr
        assert (tmp_path / "stores" / "pixels.h5").stat().st_mtime_ns == before

    def test_a_job_without_files_says_how_it_is_submitted(self, submit: Submit) -> None:
        done = submit("stores")
        assert done.returncode == 2
        assert done.stderr.startswith("usage: sbatch")


class TestCompose:
    def test_all_services_are_the_same_image_with_the_same_folders(self) -> None:
        services = COMPOSE["services"].values()
        assert {service["image"] for service in services} == {"fpgpu:cpu"}
        assert len({str(service["volumes"]) for service in services}) == 1

    def test_its_commands_ingest_on_a_dask_cluster(
        self, tmp_path: Path, exposures: list[Path], fpgpu_here: dict[str, str]
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        renamed = {
            "scheduler:8786": f"127.0.0.1:{port}",
            "/stores": str(tmp_path / "stores"),
            "/data/*.fits": f"{exposures[0].parent}/*.fits.gz",
        }
        env = fpgpu_here | {"DASK_DISTRIBUTED__WORKER__DAEMON": "False"}

        def command(service: str) -> list[str]:
            words = [str(word) for word in COMPOSE["services"][service]["entrypoint"]]
            for name, here in renamed.items():
                words = [word.replace(name, here) for word in words]
            return [port if word == "8786" else word for word in words]

        (tmp_path / "stores").mkdir()
        log = (tmp_path / "cluster.log").open("w")
        others = [
            subprocess.Popen(command(service), env=env, stdout=log, stderr=log, cwd=tmp_path)
            for service in ("scheduler", "worker")
        ]
        try:
            done = subprocess.run(
                command("ingest"), env=env, capture_output=True, text=True, timeout=240
            )
        finally:
            for process in others:
                process.terminate()
            for process in others:
                process.wait(30)
            log.close()
        assert done.returncode == 0, done.stderr + (tmp_path / "cluster.log").read_text()
        told = subprocess.run(
            shlex.split(f"fpgpu info {tmp_path}/stores/survey --json"),
            env=env, check=True, capture_output=True, text=True,
        )  # fmt: skip
        assert json.loads(told.stdout)["n_exposures"] == 3
