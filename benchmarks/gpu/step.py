"""Do one step: ``python -m benchmarks.gpu.step HOME NAME RESULT OUT SIZE SECONDS``."""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.gpu.job import Job, NotHereError
from benchmarks.sizes import SIZES

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Write what became of it; 0 unless it failed."""
    home, name, result, out, size, seconds = arguments
    job = Job(Path(result), Path(out), SIZES[size], float(seconds))
    job.write()
    try:
        getattr(import_module(home), name)(job)
    except NotHereError as reason:
        job.write(outcome="skipped", error=str(reason))
    except Exception as error:  # noqa: BLE001 - whatever it is, the other steps go on
        traceback.print_exc()
        job.write(outcome="failed", error=f"{type(error).__name__}: {error}"[:2000])
        return 1
    else:
        job.write(outcome="passed")
    return 0


def _end_with(parent: int) -> None:
    """End this process and all that it started when the command is gone, killed perhaps."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    sys.exit(main(sys.argv[1:]))
