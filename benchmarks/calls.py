"""Count calls of fpgpu's own functions, and the modules they are in: what a reader has to follow.

    fpgpu demo --out demo && python benchmarks/calls.py demo

A file that needs no other benchmark, so that PYTHONPATH can name any version of fpgpu.
"""

import sys
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import CodeType, FrameType, SimpleNamespace

import numpy as np

import fpgpu
from fpgpu.ingest.pipeline import ingest


def traced(call: Callable[[], object]) -> Counter[CodeType]:
    """Count the calls of each function, the second time, as what is imported is not counted."""
    call()
    found: Counter[CodeType] = Counter()

    def note(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and "/fpgpu/" in code.co_filename and code.co_name[0] != "<":
            found[code] += 1

    for trace in (threading.setprofile, sys.setprofile):
        trace(note)
    call()
    sys.setprofile(None)
    threading.setprofile(None)
    return found


demo, numbers = Path(sys.argv[1]), count()
files = sorted((demo / "exposures").glob("*nrcb1*.fits"))
planes = {"im": np.ones((64, 64)), "ierr": np.ones((64, 64)), "mask": None, "bkg": None}
told = {"hdr": {"ABMAG": 28.0}, "names": "e.fits", "band": "F200W"}
warnings.simplefilter("ignore")
with tempfile.TemporaryDirectory() as folder, fpgpu.open(demo / "stores", backend="cpu") as survey:
    store = fpgpu.PixelStore(f"{folder}/x.h5", 64)
    for name, call in {
        "add_exposure": lambda: store.add_exposure(
            SimpleNamespace(**planes, **told, expID=f"e{next(numbers)}"), do_fluxcal=True
        ),
        "ingest": lambda: ingest([files.pop()], f"{folder}/stores", executor="serial"),
        "patch": lambda: survey.patch(fpgpu.CircularRegion(53.16, -27.79, 1 / 3600)),
    }.items():
        calls = traced(call)
        n_modules = len({code.co_filename for code in calls})
        print(
            f"{name:12} {calls.total():5} calls of {len(calls):3} functions in {n_modules} modules"
        )
