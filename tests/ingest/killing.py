"""Ingests that are killed, again and again, and the check of what each of them leaves.

Run as a script it prints what it found as JSON. It imports once and forks every run that is to be
killed, so that one interpreter start serves hundreds of deaths; runs under MPI are started anew.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from fpgpu.ingest import coordinator, executors
from fpgpu.ingest.pipeline import ingest
from fpgpu.stores.shard import find_orphans
from fpgpu.stores.upkeep.repair import repair
from tests.ingest.clusters import ROOT, dask_cluster, mpi_command
from tests.ingest.contents import contents
from tests.ingest.smallfiles import make_small_files

OLD, NEW = {"bitmask": 4}, {"bitmask": 1}
STORE = {"meta.json", "pixels.h5", "pixels.shards"}


def run_ingest(executor: str, told: Path, out: Path, files: list[str]) -> None:
    """Ingest, and tell each exposure that is durable; publish as often as possible."""
    coordinator.PUBLISH_INTERVAL = coordinator.PUBLISH_SHARE = 0
    descriptor = os.open(told, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def tell(row: Any) -> None:
        what = (
            row.reason.replace("\n", " ") if row.status == "refused" else f"{row.band}/{row.expID}"
        )
        os.write(descriptor, f"{row.status} {what}\n".encode())

    ingest(files, out, executor=executor, workers=2, resume=True, on_progress=tell, **NEW)


def start(kind: str, executor: str, told: Path, out: Path, files: list[str]) -> int:
    """Start a run in a session of its own and return the number of its first process."""
    if kind == "mpi":
        command, environment = mpi_command(3)
        command[-1:] = ["tests.ingest.killing", "run", "mpi", str(told), str(out), *files]
        with (told.parent / "mpi.log").open("a") as log:
            run = subprocess.Popen(
                command, env=environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )
        return run.pid
    pid = os.fork()
    if pid == 0:
        os.setsid()
        with suppress(BaseException):
            run_ingest(executor, told, out, files)
            os._exit(0)
        os._exit(1)
    return pid


def family_of(pid: int) -> dict[int, str]:
    """Living processes that a process has started, and theirs, with the times they began."""
    parents, began, sessions = {}, {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] not in "ZX":
                    number = int(entry.name)
                    parents[number], sessions[number] = int(fields[1]), int(fields[3])
                    began[number] = fields[19]

    def belongs(number: int) -> bool:
        while number in parents and number != pid and sessions[number] != pid:
            number = parents[number]
        return number == pid or sessions.get(number) == pid

    return {number: began[number] for number in parents if belongs(number)}


def alive(family: dict[int, str]) -> list[int]:
    """Those of a family that are still the same living processes."""
    found = []
    for number, began in family.items():
        with suppress(OSError):
            fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
            if fields[0] not in "ZX" and fields[19] == began:
                found.append(number)
    return found


def lines_of(told: Path) -> list[str]:
    return told.read_text().splitlines() if told.exists() else []


def wait_for(condition: Any, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def is_over(pid: int) -> bool:
    """Whether a process has ended; its status can still be asked for."""
    done = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return done is not None


class Killer:
    """Kills runs of one kind and keeps count of what it found."""

    def __init__(
        self, kind: str, folder: Path, seed: int, executor: str, find_dask: Callable[[], list[int]]
    ) -> None:
        self.kind, self.folder, self.executor, self.find_dask = kind, folder, executor, find_dask
        self.rng = random.Random(seed)
        (folder / "files").mkdir()
        self.files = [str(path) for path in make_small_files(folder / "files", 8)]
        for name, options in (("old", OLD), ("new", NEW)):
            ingest(self.files, folder / name, executor="serial", **options)
        self.old, self.new = contents(folder / "old"), contents(folder / "new")
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()

    def once(self, number: int) -> None:
        """Kill one run and look at what it leaves."""
        out, told = self.folder / "stores", self.folder / "told"
        shutil.rmtree(out, ignore_errors=True)
        told.unlink(missing_ok=True)
        replace = self.rng.random() < 0.5
        if replace:
            shutil.copytree(self.folder / "old", out)
        pid = start(self.kind, self.executor, told, out, self.files)
        victim, family = self._kill(pid, told)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        where = f"{self.kind} {number}: {victim} killed, replace {replace}, status {status}"
        if not wait_for(lambda: not alive(family), 60):
            self.problems.append(f"{where}: processes are left: {alive(family)}")
        self.counts[f"{victim} killed"] += 1
        self.counts["replaced" if replace else "new"] += 1
        self._look(where, out, lines_of(told), self.old if replace else {}, status)

    def _kill(self, pid: int, told: Path) -> tuple[str, dict[int, str]]:
        """Kill somebody at a random moment; tell whom, and who was there."""
        n_lines = self.rng.randrange(len(self.files))
        wait_for(lambda: len(lines_of(told)) >= n_lines or is_over(pid), 120)
        time.sleep(self.rng.uniform(0, 0.4 if n_lines == 0 else 0.03))
        choice = self.rng.choice(["coordinator", "coordinator", "all", "worker"])
        family = family_of(pid)
        if choice == "worker":
            others = self.find_dask() or [member for member in family if member != pid]
            if others:
                with suppress(ProcessLookupError):
                    os.kill(self.rng.choice(others), signal.SIGKILL)
                return choice, family
        if choice == "all" and self.kind != "dask":
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            return choice, family
        os.kill(pid, signal.SIGKILL)
        return "coordinator", family

    def _look(
        self, where: str, out: Path, told: list[str], before: dict[str, Any], status: int
    ) -> None:
        """Check a store after a death, and that a resumed run completes it."""
        refused = [line for line in told if line.startswith("refused")]
        self.problems += [f"{where}: {line}" for line in refused]
        durable = {line.split()[1] for line in told if line not in refused}
        found = contents(out) if (out / "pixels.h5").exists() else {}
        self.counts["in between"] += 0 < len(durable) < len(self.new)
        self.counts["strays"] += len(find_orphans(out)) if out.exists() else 0
        for key in self.new:
            allowed = [self.new[key]] + ([] if key in durable else [before.get(key)])
            if found.get(key) not in allowed:
                self.problems.append(f"{where}: {key} is neither as before nor as after")
        if status == 0 and found != self.new:
            self.problems.append(f"{where}: the run ended well, but the store is not complete")
        report = ingest(self.files, out, executor="serial", resume=True, **NEW)
        unchanged = {f"{row.band}/{row.expID}" for row in report.unchanged}
        if not durable <= unchanged:
            self.problems.append(f"{where}: made again: {durable - unchanged}")
        # A task that a cluster was working on when its client died may end after that.
        if not wait_for(lambda: not find_orphans(out) or self._cleaned(out), 60):
            self.problems.append(f"{where}: strays are left: {find_orphans(out)}")
        if contents(out) != self.new:
            self.problems.append(f"{where}: the resumed run gave something else")
        repair(out)
        left = {path.name for path in out.iterdir()}
        if left != STORE:
            self.problems.append(f"{where}: leaves {left ^ STORE}")

    def _cleaned(self, out: Path) -> bool:
        ingest(self.files, out, executor="serial", resume=True, **NEW)
        return not find_orphans(out)


def main() -> None:
    """Run a coordinator, or kill a number of them."""
    if sys.argv[1] == "run":
        _, _, executor, told, out, *files = sys.argv
        run_ingest(executor, Path(told), Path(out), files)
        return
    kind, folder, n_kills, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    executor: str = kind
    find_dask: Callable[[], list[int]] = list
    with ExitStack() as stack:
        if kind == "dask":
            import distributed  # noqa: F401 (once, not in each run)

            cluster = stack.enter_context(dask_cluster(folder))
            executor, find_dask = cluster.executor, cluster.workers
        if kind == "fork":
            executor, executors.START_METHOD = "processes", "fork"
        killer = Killer(kind, folder, seed, executor, find_dask)
        for number in range(n_kills):
            killer.once(number)
    sys.stdout.write(json.dumps({"problems": killer.problems, "counts": killer.counts}))


if __name__ == "__main__":
    main()
