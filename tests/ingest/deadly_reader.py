"""A reader that kills its process, for files that say so; also a preload script of dask workers."""

import os
import signal
from pathlib import Path
from typing import NoReturn

from fpgpu.ingest.inputs import ReadOptions
from fpgpu.ingest.readers import InputFile, Reader, register_reader

HEAD = b"DEADLY"


def make_deadly_file(path: Path) -> Path:
    """Write a file that no worker survives."""
    path.write_bytes(HEAD * 10)
    return path


def die(file: InputFile, options: ReadOptions) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("not reached")


def install() -> None:
    """Let this process, and those that it forks, know the reader."""
    register_reader(Reader("deadly", lambda file: file.head.startswith(HEAD), die))


def dask_setup(worker: object) -> None:
    """Called by dask in each worker that preloads this file."""
    install()
