"""Dask and MPI started for real, on the loopback interface."""

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]


class Cluster(NamedTuple):
    """Dask processes that were started here."""

    executor: str
    scheduler: "subprocess.Popen[bytes]"
    nanny: "subprocess.Popen[bytes]"

    def workers(self) -> list[int]:
        """Number of each worker process that is alive."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                # Beside them the nanny has a process that keeps account of shared resources.
                helper = b"resource_tracker" in (entry / "cmdline").read_bytes()
                if int(fields[1]) == self.nanny.pid and fields[0] not in "ZX" and not helper:
                    found.append(int(entry.name))
        return found


@contextmanager
def dask_cluster(folder: Path, n_workers: int = 2, preload: str = "") -> Iterator[Cluster]:
    """Start a scheduler and worker processes."""
    if importlib.util.find_spec("distributed") is None:
        pytest.skip("dask.distributed is not installed")
    file = folder / "scheduler.json"
    common = ["--scheduler-file", str(file), "--no-dashboard"]
    local = ["--host", "127.0.0.1"]
    run = [sys.executable, "-m"]
    commands = [
        [*run, "distributed.cli.dask_scheduler", *common, *local, "--port", "0"],
        [*run, "distributed.cli.dask_worker", *common, *local, "--nthreads", "1",
         "--nworkers", str(n_workers), "--local-directory", str(folder),
         *(["--preload", preload] if preload else [])],
    ]  # fmt: skip
    environment = os.environ | {
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
        "PYTHONPATH": str(ROOT),
    }
    with (folder / "dask.log").open("w") as log:
        started = [
            subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=environment)
            for command in commands
        ]
    try:
        deadline = time.monotonic() + 60
        while not (file.exists() and file.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        address = json.loads(file.read_text())["address"]
        import distributed

        # On a busy machine a worker takes its time to start.
        with distributed.Client(address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
        yield Cluster("dask://" + address.removeprefix("tcp://"), *started)
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(timeout=60)


def mpi_command(n_ranks: int, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Give the line that runs fpgpu on MPI ranks of this machine, and its environment."""
    if importlib.util.find_spec("mpi4py") is None:
        pytest.skip("mpi4py is not installed")
    environment = dict(os.environ)
    try:
        files = importlib.metadata.files("mpich") or []
    except importlib.metadata.PackageNotFoundError:
        mpiexec = "mpiexec"
    else:
        # The wheel puts both where a whole environment finds them, but not one that borrows it.
        found = {path.name: Path(path.locate()).resolve() for path in files}
        mpiexec = str(found["mpiexec"])
        environment["LD_LIBRARY_PATH"] = str(found["libmpi.so.12"].parent)
    launch = [mpiexec, "-n", str(n_ranks), sys.executable, "-m", "mpi4py.futures", "-m", "fpgpu"]
    return [*launch, *arguments], environment


def fpgpu_command(*arguments: str) -> list[str]:
    """Give the line that runs fpgpu."""
    return [sys.executable, "-m", "fpgpu", *arguments]
