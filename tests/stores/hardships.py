"""Writers without space or permission, in processes of their own; prints what they met as JSON."""

import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fpgpu.errors import FpgpuError
from fpgpu.stores.pixel import PixelStore
from tests.stores.crashing import in_child
from tests.stores.imagesets import files_in, uniform_set

NOBODY = 65534


def kept(folder: Path) -> dict[str, bytes]:
    """Return the files of a store and what they hold; numbers of commits that were tried apart."""
    return {
        name: content
        for name, content in files_in(folder).items()
        if not name.startswith("pixels.shards/.commit/claim-")
        and name != "pixels.shards/.commit/id"
    }


def met_in_child(work: Callable[[], Any]) -> list[str]:
    """Run `work` in a forked process and return name and text of the error that it met."""
    reader, writer = os.pipe()

    def tell() -> None:
        try:
            work()
            met = ["", ""]
        except FpgpuError as exc:
            met = [type(exc).__name__, str(exc)]
        os.write(writer, json.dumps(met).encode())

    status = in_child(tell)
    os.close(writer)
    with os.fdopen(reader) as told:
        return json.load(told) if status == 0 else ["died", str(status)]


def limited(folder: Path, action: str) -> dict[str, Any]:
    """Add or replace under every limit of file size; tell the error and whether bytes changed."""
    path = folder / "pixels.h5"
    store = PixelStore(path, 64)
    if action != "create":
        store.add_exposure(uniform_set("first", 1.0))
        store.add_exposure(uniform_set("second", 1.0))
    before = kept(folder)
    limits = [0, 1, 500, *range(1000, 180_000, 8_000)]
    results = []
    for limit in limits:

        def add(limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            PixelStore(path, 64).add_exposure(uniform_set("second", 2.0))

        error, message = met_in_child(add)
        results.append([limit, error, message, kept(folder) == before])
        if not error:
            break
    return {"results": results}


def filled(folder: Path) -> dict[str, Any]:
    """Add exposures to a store on a small disk until it is full."""
    path = folder / "pixels.h5"
    store = PixelStore(path, 256)
    n_added = 0
    while True:
        before = kept(folder)
        try:
            store.add_exposure(uniform_set(f"e{n_added}", float(n_added), 256))
        except FpgpuError as exc:
            unchanged = kept(folder) == before
            return {
                "error": type(exc).__name__,
                "message": str(exc),
                "unchanged": unchanged,
                "n_added": n_added,
                "n_verified": len(PixelStore(path).verify().verified),
            }
        n_added += 1


def unprivileged(folder: Path) -> dict[str, Any]:
    """Read and write without the permissions for it."""
    path = folder / "pixels.h5"
    PixelStore(path, 64).add_exposure(uniform_set("first", 1.0))
    imset = uniform_set("second", 2.0)
    PixelStore(path).read_exposure("F200W", "first")

    def attempt(work: Callable[[], Any], folder_mode: int, file_mode: int) -> list[Any]:
        def drop_and_work() -> None:
            # The superuser is not bound by permissions.
            if os.getuid() == 0:
                os.setuid(NOBODY)
            work()

        before = kept(folder)
        path.chmod(file_mode)
        folder.chmod(folder_mode)
        met = met_in_child(drop_and_work)
        folder.chmod(0o755)
        path.chmod(0o644)
        return [*met, kept(folder) == before]

    def read() -> None:
        PixelStore(path, mode="r").read_exposure("F200W", "first")

    def add() -> None:
        PixelStore(path).add_exposure(imset)

    def create() -> None:
        PixelStore(folder / "new.h5", 64).add_exposure(imset)

    results = {
        "add, folder read-only": attempt(add, 0o555, 0o666),
        "add, file read-only": attempt(add, 0o777, 0o444),
        "create, folder read-only": attempt(create, 0o555, 0o666),
        "read, both read-only": attempt(read, 0o555, 0o444),
        "read, file unreadable": attempt(read, 0o755, 0o000),
    }
    return {"results": results}


def main() -> None:
    """Run one of the scenarios in a folder."""
    scenario, folder, *rest = sys.argv[1:]
    run = {"limited": limited, "filled": filled, "unprivileged": unprivileged}[scenario]
    sys.stdout.write(json.dumps(run(Path(folder), *rest)))


if __name__ == "__main__":
    main()
