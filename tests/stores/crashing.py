"""Writers that die, each in a process of its own, and the check of what they leave.

Run as a script it forks a writer for every step of a change, or kills writers at random moments,
and prints what it found as JSON; one interpreter start serves hundreds of deaths.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from operator import sub
from pathlib import Path
from statistics import median
from typing import Any, NoReturn

from fpgpu.stores.pixel import PixelStore
from tests.stores.imagesets import uniform_set

CALLS = [
    *("pwrite", "fsync", "ftruncate", "rename", "replace", "unlink", "open", "link", "mkdir"),
    *("rmdir", "close", "copy_file_range", "write"),
]
KILLED = -signal.SIGKILL


def die_at(step: int, *, half: bool = False) -> None:
    """Replace system calls so that the process dies at the n-th, before it or half-way in it."""
    left = step

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                if half and name == "pwrite":
                    descriptor, data, offset = args
                    real(descriptor, bytes(data)[: max(1, len(data) // 2)], offset)
                elif half:
                    with suppress(OSError):  # of a file that need not be there
                        real(*args, **kwargs)
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    for name in CALLS:
        setattr(os, name, counted(name, getattr(os, name)))


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked process; return 0, or the negative number of the signal."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 (a child must not return into the parent)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def values_in(path: Path) -> dict[str, float]:
    """Return the value that each exposure is filled with; raises if one is a mixture."""
    store = PixelStore(path, mode="r")
    values = {}
    for band, expID in store:
        im, ierr = store.read_exposure(band, expID)
        if (im != im[0, 0]).any() or (ierr != 1 + im[0, 0]).any():
            raise AssertionError(f"{expID} is a mixture")
        values[expID] = float(im[0, 0])
    verified, unchecked = store.verify()
    assert len(verified) == len(values)
    assert unchecked == []
    return values


def die_at_steps(folder: Path, action: str, first: int, stride: int, half: bool) -> dict[str, Any]:
    """Kill a writer at some system calls of a change, and look at the store after each death."""
    template, home = folder / "template", folder / "stores"
    template.mkdir()
    if action != "create":
        for name in ("first", "second"):
            PixelStore(template / "pixels.h5", 64).add_exposure(uniform_set(name, 1.0))
    imset = uniform_set("second" if action == "replace" else "third", 2.0)
    path = home / "pixels.h5"
    outcomes = []
    for step in range(first, 100_000, stride):
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(template, home)

        def change(step: int = step) -> None:
            die_at(step, half=half)
            PixelStore(path, 64).add_exposure(imset)

        status = in_child(change)
        state = values_in(path) if path.exists() else None
        # Life goes on: the next writer needs no repair by hand.
        PixelStore(path, 64).add_exposure(uniform_set("after", 3.0))
        again = values_in(path)
        outcomes.append([status, state, again, drafts(home)])
        if status == 0:
            break
    return {"outcomes": outcomes}


def drafts(folder: Path) -> list[str]:
    """List what a commit should have removed: drafts of a main file, and claims but the last."""
    claims = sorted(str(path) for path in folder.rglob("claim-*"))
    return [*(str(path) for path in folder.rglob("draft-*")), *claims[:-1]]


def keep_changing(path: Path, kill: int, writer: int) -> NoReturn:
    """Add and replace exposures until killed, telling what is about to change and what has."""
    try:
        store = PixelStore(path, 64)
        for number in range(10_000):
            told = f"e{(kill + number) % 7} {1000 * kill + number + 1}"
            name, value = told.split()
            imset = uniform_set(name, float(value))
            os.write(writer, f"begin {told}\n".encode())
            store.add_exposure(imset)
            os.write(writer, f"durable {told}\n".encode())
    finally:
        os._exit(1)


def kill_at_random(folder: Path, n_kills: int, seed: int) -> dict[str, Any]:
    """Kill a writer that adds and replaces all the time, again and again; count what is lost."""
    path = folder / "pixels.h5"
    rng = random.Random(seed)
    durable: dict[str, float] = {}
    problems: list[str] = []
    n_changes = n_begun = 0
    took = [0.005]  # seconds, of changes so far: kills come at any moment of one
    # On a busy machine many kills come before a change begins; some must come in the middle.
    for kill in range(10 * n_kills):
        if kill >= n_kills and n_begun:
            break
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            keep_changing(path, kill, writer)
        os.close(writer)
        with os.fdopen(reader) as told:
            # However slow the machine is today, the writer gets to change something.
            lines, moments = [], [time.monotonic()]
            for _ in range(rng.randint(1, 6)):
                lines.append(told.readline())
                moments.append(time.monotonic())
            took += map(sub, moments[2::2], moments[1::2])
            time.sleep(rng.uniform(0.0, 1.5 * median(took)))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            lines += told.readlines()
        pending: dict[str, float] = {}
        for line in lines:
            word, name, value = line.split()
            if word == "begin":
                pending = {name: float(value)}
            else:
                durable[name] = float(value)
                pending = {}
                n_changes += 1
        found = values_in(path) if path.exists() else {}
        if found not in (durable, {**durable, **pending}):
            problems.append(f"kill {kill}: found {found}, durable {durable}, pending {pending}")
        n_begun += bool(pending)
        durable = found
    return {"problems": problems, "n_changes": n_changes, "n_begun": n_begun}


def main() -> None:
    """Run one of the scenarios in a folder."""
    scenario, folder, *rest = sys.argv[1:]
    if scenario == "steps":
        action, first, stride, half = rest
        result = die_at_steps(Path(folder), action, int(first), int(stride), half == "half")
    else:
        result = kill_at_random(Path(folder), int(rest[0]), int(rest[1]))
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
