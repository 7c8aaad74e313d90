"""Ingests without space or permission, in processes of their own; prints what they met as JSON."""

import json
import os
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fpgpu.errors import FpgpuError
from fpgpu.ingest import coordinator, executors
from fpgpu.ingest.pipeline import ingest
from fpgpu.stores.upkeep.repair import repair
from tests.ingest.contents import contents
from tests.ingest.killing import NEW, OLD, STORE
from tests.ingest.smallfiles import make_small_files
from tests.stores.crashing import in_child

NOBODY = 65534


class Hardships:
    """Small files, what a store of them should be, and the check after an ingest has failed."""

    def __init__(self, folder: Path) -> None:
        (folder / "files").mkdir()
        self.files = make_small_files(folder / "files", 4)
        self.out, self.told, self.old_folder = folder / "out", folder / "told", folder / "old"
        for name, options in (("old", OLD), ("new", NEW)):
            ingest(self.files, folder / name, executor="serial", **options)
        self.old, self.new = contents(folder / "old"), contents(folder / "new")
        coordinator.PUBLISH_INTERVAL = coordinator.PUBLISH_SHARE = 0
        executors.START_METHOD = "fork"
        # Who has given up his rights may not read the interpreter's folders any more.
        ingest(self.files, folder / "all imported", executor="processes", workers=2)

    def attempt(
        self, executor: str, prepare: Callable[[], Any], on_first: Callable[[], Any] = lambda: None
    ) -> list[str]:
        """Ingest in a child; return name and text of the error it met, empty when it met none."""
        self.told.write_text("")
        self.told.chmod(0o666)

        def work() -> None:
            # Opened before the limits hold.
            met = os.open(self.told.with_name("met"), os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
            told = os.open(self.told, os.O_APPEND | os.O_WRONLY)
            prepare()
            error = ["", ""]

            def tell(row: Any) -> None:
                os.write(told, f"{row.band}/{row.expID}\n".encode())
                on_first()

            try:
                ingest(self.files, self.out, executor=executor, workers=2, on_progress=tell, **NEW)
            except FpgpuError as exc:
                error = [type(exc).__name__, str(exc)]
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            os.write(met, json.dumps(error).encode())

        status = in_child(work)
        if status:
            return ["died", str(status)]
        found: list[str] = json.loads(self.told.with_name("met").read_text())
        return found

    def problems(self, where: str, replace: bool) -> list[str]:
        """Check what a failed run has left, and that a resumed one completes it."""
        problems = []
        before = self.old if replace else {}
        durable = set(self.told.read_text().split())
        found = contents(self.out) if (self.out / "pixels.h5").exists() else {}
        for key in self.new:
            allowed = [self.new[key]] + ([] if key in durable else [before.get(key)])
            if found.get(key) not in allowed:
                problems.append(f"{where}: {key} is neither as before nor as after")
        ingest(self.files, self.out, executor="serial", resume=True, **NEW)
        if contents(self.out) != self.new:
            problems.append(f"{where}: the resumed run gave something else")
        repair(self.out)
        left = {path.name for path in self.out.iterdir()}
        if left != STORE:
            problems.append(f"{where}: leaves {left ^ STORE}")
        return problems

    def begin(self, replace: bool) -> None:
        """Start from nothing, or from a store of the same exposures."""
        shutil.rmtree(self.out, ignore_errors=True)
        if replace:
            shutil.copytree(self.old_folder, self.out)
        else:
            self.out.mkdir()


def limited(folder: Path, step: str) -> dict[str, Any]:
    """Ingest under every limit of the size of a file."""
    hardships = Hardships(folder)
    results, problems = [], []
    largest = max(path.stat().st_size for path in (folder / "new").rglob("*") if path.is_file())
    for replace in (False, True):
        for executor in ("serial", "processes"):
            for limit in [0, 1, 300, *range(1000, largest + int(step), int(step))]:
                hardships.begin(replace)
                soft = (limit, resource.RLIM_INFINITY)
                error = hardships.attempt(
                    executor, lambda soft=soft: resource.setrlimit(resource.RLIMIT_FSIZE, soft)
                )
                where = f"{executor}, limit {limit}, replace {replace}"
                results.append([where, *error])
                problems += hardships.problems(where, replace)
    return {"results": results, "problems": problems}


def read_only(folder: Path) -> dict[str, Any]:
    """Ingest into a folder that cannot be written, or cannot any more after the first report."""
    hardships = Hardships(folder)
    results, problems = [], []
    for replace in (False, True):
        for executor in ("serial", "processes"):
            for when in ("always", "after the first"):

                def folders() -> list[Path]:
                    return [hardships.out, *filter(Path.is_dir, hardships.out.rglob("*"))]

                def close() -> None:
                    for path in folders():
                        path.chmod(0o555)

                hardships.begin(replace)
                for path in [*folders(), *hardships.out.rglob("*")]:
                    os.chown(path, NOBODY, NOBODY)
                if when == "always":
                    close()
                error = hardships.attempt(
                    executor,
                    lambda: os.setuid(NOBODY),
                    close if when == "after the first" else lambda: None,
                )
                for path in folders():
                    path.chmod(0o755)
                where = f"{executor}, {when}, replace {replace}"
                results.append([where, *error])
                problems += hardships.problems(where, replace)
    return {"results": results, "problems": problems}


def filled(folder: Path, disk: str) -> dict[str, Any]:
    """Ingest on a small disk with less and less space left."""
    hardships = Hardships(folder)
    hardships.out = Path(disk) / "out"
    results, problems = [], []
    for replace in (False, True):
        for left in (0, 12, 80, 160):
            hardships.begin(replace)
            filler = Path(disk) / "filler"
            status = os.statvfs(disk)
            filler.write_bytes(bytes(max(0, status.f_bavail * status.f_frsize - (left << 10))))
            error = hardships.attempt("serial", lambda: None)
            filler.unlink()
            where = f"{left} KiB left, replace {replace}"
            results.append([where, *error])
            problems += hardships.problems(where, replace)
    return {"results": results, "problems": problems}


def main() -> None:
    """Run one of the scenarios in a folder."""
    scenario, folder, *rest = sys.argv[1:]
    run = {"limited": limited, "read_only": read_only, "filled": filled}[scenario]
    sys.stdout.write(json.dumps(run(Path(folder), *rest)))


if __name__ == "__main__":
    main()
