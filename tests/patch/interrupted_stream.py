"""Processes that are interrupted, or end, while they use a stream; run as a script.

What is left of memory is printed as JSON after the interrupt.
"""

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import fpgpu
from fpgpu import CircularRegion, Survey
from fpgpu.backends.cpu import CpuBackend
from fpgpu.patch.build import build_patch
from fpgpu.patch.device import Patch
from fpgpu.patch.stream import PatchStream
from tests.patch.streams import regions

_FOREVER = 600.0


def endless() -> Iterator[CircularRegion]:
    """The same few regions again and again."""
    while True:
        yield from regions(7)


def ready() -> None:
    """Tell that the interrupt may come."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def in_use(survey: Survey) -> None:
    """The consumer works when the interrupt comes."""
    with survey.stream(endless()) as stream:
        for item in stream:
            if item.index == 3:
                ready()
                time.sleep(_FOREVER)


def in_a_wait(survey: Survey) -> None:
    """The consumer waits for a patch when the interrupt comes."""
    go_on = threading.Event()

    def slow(plan: Any, catalog: Any) -> Patch:
        ready()
        go_on.wait(0.5)
        return build_patch(survey, plan, catalog, backend=survey.backend)

    with PatchStream(endless(), survey.plan, slow, survey.backend) as stream:
        for _ in stream:
            pass


def at_any_time(survey: Survey) -> None:
    """The consumer goes through patches as fast as they come."""
    with survey.stream(endless()) as stream:
        for item in stream:
            if item.index == 3:
                ready()
            item.patch.retrieve("data")


def not_closed(survey: Survey) -> None:
    """The process ends with a stream that nobody closes."""
    _kept.append(survey.stream(endless(), depth=4))
    next(_kept[0])
    ready()
    sys.exit()


_kept: list[PatchStream] = []

WAYS = {way.__name__: way for way in (in_use, in_a_wait, at_any_time, not_closed)}


def main(folder: str, way: str) -> None:
    """Use a stream in some way until an interrupt comes."""
    backend = CpuBackend()
    with fpgpu.open(folder, backend=backend) as survey, backend.staging(depth=2) as ring:
        # With the traceback go the views that the interrupted calls had.
        with suppress(KeyboardInterrupt):
            WAYS[way](survey)
        threads = [t.name for t in threading.enumerate() if t.name.startswith("fpgpu")]
        left = {"live": backend.live_allocations, "free": ring.n_free, "threads": threads}
        sys.stdout.write(json.dumps(left) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
